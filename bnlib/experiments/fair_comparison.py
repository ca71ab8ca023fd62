"""A toy for the rules of comparison: the net of section 4.1 on 5,000 digits, with BN and with four baselines.

It has no full scale and no claims. Its page shows how one ratio depends on what the baseline was allowed.
"""

from . import sigmoid_mlp
from .core import Config, Plan, grid
from .sigmoid_mlp import draw, run, summarize

__all__ = ["ARMS", "PRESETS", "claims", "draw", "run", "summarize"]

ARMS = {
    "bn": "BN, learning rate tuned",
    "bn-again": "the same with other seeds",
    "untuned": "no normalization, learning rate 0.1, which nobody chose",
    "plain": "no normalization, learning rate tuned",
    "adam": "no normalization, Adam, learning rate tuned",
    "dd": "no normalization, weights and biases set from one batch before step 0, learning rate tuned",
}
RATES = [0.1, 0.3, 1.0, 3.0]


def _plan(optimizer="sgd", rates=RATES, **setting):
    return Plan("mnist5k", 500, grid(**setting, optimizer=optimizer, lr=rates), curves=True)


PRESETS = {
    "lite": Config(
        {
            "bn": _plan(norm="bn", init="gaussian"),
            "bn-again": Plan("mnist5k", 500, like="bn", seeds=(51, 52, 53, 54, 55, 56)),
            "untuned": _plan(norm="none", init="gaussian", rates=0.1),
            "plain": _plan(norm="none", init="gaussian", rates=[0.3, 1.0, 3.0, 10.0]),
            "adam": _plan("adam", norm="none", init="gaussian", rates=[1e-3, 3e-3, 1e-2, 3e-2]),
            "dd": _plan(norm="none", init="dd"),
        },
        seeds=(41, 42, 43, 44, 45, 46),
        tuning_seeds=(5, 6),
        options=sigmoid_mlp.OPTIONS,
    ),
}


def claims(cells):
    """None: the toy reruns no statement of a paper."""
    return []
