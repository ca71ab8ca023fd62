"""The exercise ``growing-rate``: learning rates that do without weight decay what one rate does with it."""

import numpy as np

from ..theory.scale_invariance import growing_rates
from .comparing import as_float
from .exercise import Case, Exercise

EXERCISE = Exercise(
    name="growing-rate",
    usage="rates = my_rates(lr, wd, steps)",
    inputs=("lr", "wd", "steps"),
    outputs=("rates",),
    reference=growing_rates,
    cases=[
        Case((0.3, 0.5, 6), tolerance=1e-6),
        Case((2.0, 0.1, 5), tolerance=1e-6),
        Case((0.1, 1.5, 40), tolerance=1e-6),
        Case((0.2, 0.0, 3), tolerance=1e-6),  # no decay: the rate stays
    ],
    run=lambda answer, lr, wd, steps: [as_float(answer(lr, wd, steps))],
)


def _powers(steps, per_step, first):
    return per_step * np.arange(steps) + first


@EXERCISE.mistake(
    "half-the-growth",
    "Your rate grows by `1 / (1 - lr * wd)` a step. Two things ask for growth: the step must be longer because the "
    "weights are, and the gradient of longer weights is smaller. So the factor is squared.",
)
def half_the_growth(lr, wd, steps):
    return lr * (1 - lr * wd) ** -_powers(steps, 1.0, 1.0)


@EXERCISE.mistake("half-the-growth")
def half_from_lr(lr, wd, steps):
    return lr * (1 - lr * wd) ** -_powers(steps, 1.0, 0.0)


@EXERCISE.mistake(
    "starts-at-lr",
    "Your first rate is `lr` itself. The first step too shrinks the weights by `1 - lr * wd`, and without decay they "
    "must come out longer by that factor: the first rate is `lr / (1 - lr * wd)`.",
)
def starts_at_lr(lr, wd, steps):
    return lr * (1 - lr * wd) ** -_powers(steps, 2.0, 0.0)


@EXERCISE.mistake(
    "starts-late",
    "Your powers run ahead of the steps. Count the steps from 0: the power is 1, 3, 5 and so on.",
)
def starts_with_two(lr, wd, steps):
    return lr * (1 - lr * wd) ** -_powers(steps, 2.0, 2.0)


@EXERCISE.mistake("starts-late")
def counts_from_one(lr, wd, steps):
    return lr * (1 - lr * wd) ** -_powers(steps, 2.0, 3.0)


@EXERCISE.mistake(
    "shrinks",
    "Your rate shrinks. Decay shortens the weights, and short weights turn faster. Without decay the weights stay "
    "long, so the rate has to grow.",
)
def shrinks(lr, wd, steps):
    return lr * (1 - lr * wd) ** _powers(steps, 2.0, 1.0)


@EXERCISE.mistake(
    "decay-without-rate",
    "You use `1 - wd`. In SGD with weight decay a step multiplies the weights by `1 - lr * wd`.",
)
def decay_without_rate(lr, wd, steps):
    return lr * (1 - wd) ** -_powers(steps, 2.0, 1.0)


@EXERCISE.mistake(
    "first-order",
    "You replace `1 / (1 - lr * wd)` by something nearly the same for a small `lr * wd`, such as `exp(lr * wd)` "
    "or `1 + lr * wd`. The equality is exact only with the true factor, and the error grows with each step.",
)
def exponential(lr, wd, steps):
    return lr * np.exp(lr * wd * _powers(steps, 2.0, 1.0))


@EXERCISE.mistake("first-order")
def binomial(lr, wd, steps):
    return lr * (1 + lr * wd) ** _powers(steps, 2.0, 1.0)


@EXERCISE.mistake(
    "lr-forgotten", "You return the growth alone. Each rate is `lr` times a power of `1 / (1 - lr * wd)`."
)
def lr_forgotten(lr, wd, steps):
    return (1 - lr * wd) ** -_powers(steps, 2.0, 1.0)


@EXERCISE.mistake(
    "constant",
    "Your rate does not change. That is SGD without decay: its weights get longer and its direction slower. Let the "
    "rate make up for the length that decay would have taken.",
)
def constant(lr, wd, steps):
    return np.full(steps, lr)
