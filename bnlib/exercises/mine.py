"""A learner's own module in the place of `bnlib.scratch.batchnorm`: checked name by name, then used to train."""

import importlib.util
import traceback
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..data import load
from ..scratch import batchnorm, layers
from ..scratch.network import accuracy, fit, pixels, sick_net
from .check import Feedback, check

CHECKS = {  # name in the module: its exercise
    "batchnorm_forward": "batchnorm-forward",
    "batchnorm_backward": "batchnorm-backward",
    "batchnorm_inference": "batchnorm-inference",
    "RunningStatistics": "running-statistics",
    "fold": "fold",
}
STEPS, RATE = 60, 1.0
NEAR = 1e-3  # of the losses: float32 rounds, and training repeats it


def read(path):
    """The module in a file.

    Raises
    ------
    ValueError
        If there is no such file, it does not run, or it defines none of the names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {path}: name the one that holds your functions, such as lab/mine.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)  # not in sys.modules: its functions then travel as values
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        line = next(
            (f.lineno for f in reversed(traceback.extract_tb(error.__traceback__)) if f.filename == str(path)), "?"
        )
        raise ValueError(f"{path.name}, line {line}: {type(error).__name__}: {error}") from None
    if not any(callable(getattr(module, name, None)) for name in CHECKS):
        raise ValueError(f"{path.name} defines none of the names {', '.join(CHECKS)}")
    return module


def results(module):
    """``name, Feedback`` for each name that the module defines; None for one that it does not."""
    for name, exercise in CHECKS.items():
        answer = getattr(module, name, None)
        if answer is None:
            yield name, None
        elif name == "batchnorm_inference":
            yield name, _inference(answer)
        elif name == "batchnorm_backward" and hasattr(module, "batchnorm_forward"):
            yield name, check(exercise, _paired(module.batchnorm_forward, answer))
        else:
            yield name, check(exercise, answer)


def _paired(forward, backward):
    """A backward pass that gets what its own forward pass keeps."""

    def answer(dy, cache):
        shape = (1, -1, *[1] * (dy.ndim - 2))
        x = cache.x_hat * np.sqrt(cache.var + cache.eps).reshape(shape) + cache.mu.reshape(shape)
        return backward(dy, forward(x, cache.gamma, np.zeros_like(cache.gamma), cache.eps)[1])

    return answer


def _inference(answer):
    """Whether the function agrees with ours on a flat batch and on images."""
    rng = np.random.default_rng(7)
    for shape in ((5, 3), (4, 3, 2, 5)):
        gamma, beta, mean = rng.normal(size=(3, 3))
        inputs = rng.normal(size=shape), gamma, beta, mean, rng.uniform(0.1, 2, 3), 1e-3
        expected = batchnorm.batchnorm_inference(*inputs)
        try:
            off = np.abs(np.asarray(answer(*map(np.copy, inputs[:5]), inputs[5])) - expected).max()
        except Exception as error:
            return Feedback(False, "raised", f"On x of shape {shape} it raised {type(error).__name__}: {error}")
        if not off < 1e-9:
            return Feedback(False, None, f"On x of shape {shape} an output is off by {off:.3g}.")
    return Feedback(True, None, "It agrees with ours on a flat batch and on images.")


def train(module=None):
    """Losses of the sick net over `STEPS` steps, and its accuracy, with the module's names in the place of ours."""
    mine = {name: getattr(module, name) for name in CHECKS if hasattr(module, name)}

    def layer(units):
        passes = {"forward": "batchnorm_forward", "backward": "batchnorm_backward"}
        made = layers.BatchNorm(units, **{key: mine[name] for key, name in passes.items() if name in mine})
        if "RunningStatistics" in mine and "batchnorm_forward" in mine:  # else ours hands over what it has measured
            made.running = mine["RunningStatistics"](0.1, units)
        return made

    data = load("mnist5k")
    with _in_layers(mine.get("batchnorm_inference", layers.batchnorm_inference)):
        net, validation = sick_net(layer), (pixels(data.x_val), data.y_val)
        history = fit(
            *(net, pixels(data.x_train), data.y_train),
            lr=RATE,
            steps=STEPS,
            validation=validation,
            every=1,
            progress=False,
        )
        return np.array([row["loss"] for row in history]), accuracy(net, *validation)


@contextmanager
def _in_layers(inference):
    """Let the layers use this function in evaluation mode."""
    ours, layers.batchnorm_inference = layers.batchnorm_inference, inference
    try:
        yield
    finally:
        layers.batchnorm_inference = ours


def report(path):
    """Check a module, train with it, print what came; returns whether all of it is right and complete."""
    module, right = read(path), True
    for name, feedback in results(module):
        print(f"{name}: {feedback or 'missing; ours is taken'}")
        right &= bool(feedback and feedback.passed)
    ours, share = train()
    try:
        losses, mine = train(module)
    except Exception as error:
        print(f"The sick net cannot be trained with it: {type(error).__name__}: {error}")
        return False
    off = np.abs(losses - ours).max() if len(losses) == len(ours) else np.inf
    print(
        f"The sick net, {STEPS} steps: loss {losses[-1]:.4f}, {mine:.1%} right; with ours {ours[-1]:.4f}, {share:.1%}"
    )
    print(f"The losses differ by at most {off:.1e}{'' if off < NEAR else ': too much for rounding'}.")
    return right and bool(off < NEAR)
