"""One training loop for all torch nets: seeds, schedule, warm-up, clipping, history, progress."""

import contextlib
import math
import os
from numbers import Integral

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm


@contextlib.contextmanager
def seeded(seed):
    """All that torch draws inside comes from this seed; outside its generator goes on as if nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def sgd(model, lr, momentum=0.9, weight_decay=0.0):
    """`torch.optim.SGD` for `fit`; its default is what the 2015 nets used, momentum 0.9."""
    return torch.optim.SGD(model.parameters(), lr, momentum, weight_decay=weight_decay, fused=True)


def adam(model, lr, weight_decay=0.0):
    """`torch.optim.Adam` for `fit`."""
    return torch.optim.Adam(model.parameters(), lr, weight_decay=weight_decay, fused=True)


class Schedule:
    """The factor on the learning rate at each step: a linear warm-up, then halvings at even distances.

    Parameters
    ----------
    steps : int
        Length of the run that the halvings divide into even parts.
    halvings, warmup : int
        How often the rate is halved; over how many first steps it grows to its full value.
    """

    def __init__(self, steps, halvings=0, warmup=0):
        self.steps, self.halvings, self.warmup = steps, halvings, warmup

    def __call__(self, step):
        part = min((self.halvings + 1) * (step - 1) // self.steps, self.halvings)
        return min(1.0, step / max(self.warmup, 1)) * 0.5**part


def fit(
    model,
    x,
    labels,
    *,
    lr,
    steps,
    validation,
    batch=32,
    every=50,
    seed=0,
    optimizer=sgd,
    schedule=None,
    clip=None,
    shuffle=True,
    change=None,
    probe=None,
    until=None,
    progress=None,
):
    """Train on mini-batches and measure on the way.

    Parameters
    ----------
    model : Module
        Changed in place.
    x : tensor (N, ...)
    labels : int tensor (N,)
    lr : float
    steps : int
    validation : (tensor, int tensor)
        Inputs and labels on which the accuracy is taken.
    batch : int
    every : int, collection of int or callable
        Steps between two evaluations, or the steps after which to evaluate, or ``every(step, history) -> bool``,
        asked after each step. The last step is always one.
    seed : int
        Of the order of the samples and of all that torch draws, such as dropout.
    optimizer : callable
        ``optimizer(model, lr) -> torch.optim.Optimizer``, such as `sgd`.
    schedule : callable, optional
        ``schedule(step) -> float``, a factor on ``lr``, such as `Schedule`; steps count from 1.
    clip : float, optional
        Gradients whose norm, over all parameters, is larger are scaled down to this norm.
    shuffle : bool
        Draw new mini-batches in every epoch; otherwise the same samples always share a batch.
    change : callable, optional
        ``change(inputs) -> tensor`` changes the inputs of each mini-batch, such as random distortions.
    probe : callable, optional
        ``probe(model, step) -> dict`` of further entries for the row, called at each evaluation.
    until : callable, optional
        ``until(history) -> bool``, asked after each evaluation: training ends where it is True.
    progress : bool, optional
        Show a progress bar. By default yes, but not on the pages of the built book.

    Returns
    -------
    list of dict
        One row per evaluation: ``step``, ``loss`` (of the last mini-batch), ``accuracy``. Training stops at a loss
        that is not finite: the last row then has ``loss`` NaN and the accuracy of chance, 1 / classes.

    Raises
    ------
    ValueError
        If the number of labels differs from the number of samples, or fewer samples than one batch are given.
    """
    if len(x) != len(labels) or len(x) < batch:
        shapes = f"x {tuple(x.shape)} and labels {tuple(labels.shape)}"
        raise ValueError(f"{shapes} must have one length, at least batch = {batch}")
    if isinstance(every, Integral):
        every = range(every, steps + 1, every)
    if not callable(every):
        chosen_steps = frozenset(every)

        def every(step, history):
            return step in chosen_steps

    quiet = bool(os.environ.get("BNLIB_BUILD")) if progress is None else not progress
    update, parameters = optimizer(model, lr), list(model.parameters())
    batches, history = _batches(len(x), batch, shuffle, np.random.default_rng(seed)), []
    model.train()
    with seeded(seed):
        for step in tqdm(range(1, steps + 1), disable=quiet, desc=f"lr {lr:g}", leave=False):
            chosen = next(batches)
            inputs = x[chosen]
            if schedule is not None:
                for group in update.param_groups:
                    group["lr"] = lr * schedule(step)
            update.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs if change is None else change(inputs)), labels[chosen])
            loss.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            value = loss.item()
            if not math.isfinite(value):  # diverged: a result, not an error
                classes = int(labels.max()) + 1
                history.append({"step": step, "loss": float("nan"), "accuracy": 1 / classes})
                break
            update.step()
            if step == steps or every(step, history):
                row = {"step": step, "loss": value, "accuracy": accuracy(model, *validation)}
                history.append(row if probe is None else row | probe(model, step))
                model.train()
                if until is not None and until(history):
                    break
    return history


def _batches(count, batch, shuffle, rng):
    """Positions of the samples of one mini-batch after the other; a ragged last batch of an epoch is left out."""
    order = rng.permutation(count)
    while True:
        for start in range(0, count - batch + 1, batch):
            yield torch.from_numpy(order[start : start + batch])
        if shuffle:
            order = rng.permutation(count)


@torch.inference_mode()
def accuracy(model, x, labels):
    """Share of samples classified right in evaluation mode, from 0 to 1. Leaves the model in evaluation mode."""
    model.eval()
    pieces = zip(x.split(500), labels.split(500), strict=True)
    return sum(int((model(part).argmax(1) == right).sum()) for part, right in pieces) / len(x)
