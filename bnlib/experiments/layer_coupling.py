"""How much the gradient of a layer depends on the weights of the others: blocks of the Hessian with and without BN.

The measurement of Kohler et al. (2019) on a small net: 49-16-16-16-10 with ReLU on digits averaged to 7 x 7 pixels,
float64, He's weights, plain SGD on batches of 64. The Hessian is that of the training loss on the first images, in
training mode, with respect to the four weight matrices.
"""

import copy

import numpy as np
import torch

from bnlib.data import load
from bnlib.nets import inits, models, probes
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded
from bnlib.page.figures import bands, look

from .core import Config, Plan, Statement, grid, known, measure
from .paired import ratio
from .scale_invariance import shrink

NORMS = {"none": None, "bn": BatchNorm}
LOOKED = (0, 50)  # steps before which the Hessian is taken, and after the last one
ARMS = {"none": "without BN", "bn": "BN after the three hidden linear layers"}


def plans(steps):
    """Both arms, each with the same six learning rates."""
    rates = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    return {name: Plan("mnist5k", steps, grid(norm=name, lr=rates), probed=True) for name in NORMS}


REST = {"seeds": (11, 12, 13, 14, 15), "tuning_seeds": (1, 2), "arrays": {"per_layer": 4}}
PRESETS = {
    "lite": Config(plans(60), options={"hessian": 100}, **REST),
    "full": Config(plans(200), options={"hessian": 500}, **REST),
}


def run(config, arm, seed, *, norm="bn", lr=0.1):
    """Train one net; in a confirming cell also the blocks of its Hessian, before steps 0 and 50 and at the end.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights and of the order of the images.
    norm : {"none", "bn"} or callable
        A callable makes a normalizer for a number of units.
    lr : float

    Returns
    -------
    list of dict
        A row per evaluation: ``step, loss``; where the Hessian was taken ``coupling, relative, per_layer``, with
        ``taken``, the number of steps done before; ``val_loss`` in the last row.
    """
    if isinstance(norm, str):
        known(norm, NORMS, "norm")
    digits, plan = load(config.arms[arm].dataset), config.arms[arm]
    x, labels = torch.from_numpy(shrink(digits.x_train)), torch.tensor(digits.y_train).long()
    with seeded(seed):
        net = models.MLP([49, 16, 16, 16, 10], NORMS[norm] if isinstance(norm, str) else norm).double()
        inits.he(net)
    parameters, rng, rows, seen = list(net.parameters()), np.random.default_rng([seed, 6]), [], {}
    probed, count = plan.probed and seed not in config.tuning_seeds, config.options["hessian"]
    for step in range(1, plan.steps + 1):
        if probed and step - 1 in LOOKED:
            seen = {"taken": step - 1, **blocks(net, x[:count], labels[:count])}
        chosen = torch.from_numpy(rng.choice(len(x), 64, replace=False))
        loss = torch.nn.functional.cross_entropy(net(x[chosen]), labels[chosen])
        for p, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.data -= lr * grad
        if probed and step == plan.steps:
            seen = {"taken": step, **blocks(net, x[:count], labels[:count])}
        if step <= 20 or step % 10 == 0 or step == plan.steps or seen:
            rows.append({"step": step, "loss": float(loss.detach()), **seen})
            seen = {}
    with torch.no_grad():
        answers = net.eval()(torch.from_numpy(shrink(digits.x_val)))
    loss = torch.nn.functional.cross_entropy(answers, torch.tensor(digits.y_val).long())
    rows[-1]["val_loss"] = float(loss.nan_to_num(nan=1e9, posinf=1e9))
    return rows


def blocks(net, x, labels):
    """Coupling of the layers of a net: as it is, for relative changes of the weights, and row by row.

    ``coupling`` implements {eq}`eq-ld-coupling`. ``relative`` multiplies each block by the lengths of both weight
    matrices first: the Hessian with respect to relative changes. ``per_layer`` takes the rows of one layer alone.
    """
    net = copy.deepcopy(net).train()  # so that nothing is left in the running statistics
    weights = [layer.weight for layer in inits.layers(net)]
    found = probes.hessian_blocks(torch.nn.functional.cross_entropy(net(x), labels), weights).square()
    lengths = torch.stack([w.detach().square().sum() for w in weights])
    relative = found * lengths * lengths[:, None]
    return {
        "coupling": float(_off(found.sum(), found.trace())),
        "relative": float(_off(relative.sum(), relative.trace())),
        "per_layer": _off(found.sum(1), found.diagonal()).tolist(),
    }


def _off(everything, own):
    """Norm of the blocks off the diagonal over that of the diagonal ones, from sums of squares."""
    return ((everything - own) / own).sqrt()


def summarize(rows):
    """The score, the negative validation loss, and what was measured at the start, early and at the end."""
    found = {"score": -rows[-1]["val_loss"]}
    for when, row in zip(("start", "early", "late"), (row for row in rows if "taken" in row), strict=False):
        found |= {f"{key}_{when}": row[key] for key in ("coupling", "relative")}
        found |= {f"layer{i}_{when}": value for i, value in enumerate(row["per_layer"], 1)}
    return found


def draw(rows, ax):
    """Coupling against steps, the mean over the seeds and their range."""
    rows = rows[~rows["tuning"]].dropna(subset="coupling")
    bands(ax, rows, "coupling", LOOKS, x="taken")
    ax.set(xlabel="step", ylabel="coupling of the layers", ylim=(0, None))


def over(column):
    """BN's number over that of the plain net, paired by seed."""
    return lambda bn, plain: ratio([(v, True) for v in bn[column]], [(v, True) for v in plain[column]])


def claims(cells):
    """Coupling with BN over coupling without."""
    words = "Hessian: norm of the blocks between layers over that of the blocks within"
    told = {"place": "a neural network: dependence between layers", "paper_value": "smaller with BN"}
    ends = {"start": "before training", "early": "after 50 steps", "late": "after {steps} steps"}
    table = [
        *(
            Statement(
                *(f"coupling-{when}", ("bn", "none"), over(f"coupling_{when}"), f"{words}, {time}: BN over plain"),
                **told | {"threshold": (None, 0.8) if when == "late" else None},
            )
            for when, time in ends.items()
        ),
        *(
            Statement(
                *(f"relative-{when}", ("bn", "none"), over(f"relative_{when}")),
                f"The same for relative changes of the weights, {time}: BN over plain",
            )
            for when, time in ends.items()
        ),
        *(
            Statement(
                *(f"layer-{i}", ("bn", "none"), over(f"layer{i}_late")),
                f"The same in the rows of layer {i} alone, after {{steps}} steps: BN over plain",
            )
            for i in range(1, 5)
        ),
    ]
    return measure(table, cells, "layer-coupling", "kohler2019")


LOOKS = {"none": {"label": "without BN", **look("none")}, "bn": {"label": "with BN", **look("batchnorm")}}
