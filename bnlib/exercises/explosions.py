"""The exercise ``explosion-rate``: growth of the squared gradient per layer, for any activation."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    def case(batch, seed):
        rng = np.random.default_rng(seed)
        y = rng.normal(size=(200, batch))
        y -= y.mean(1, keepdims=True)
        y /= y.std(1, keepdims=True)
        return y

    relu, tanh = case(6, 0), case(9, 1)
    third = case(5, 2)
    return [
        Case((relu, np.maximum(relu, 0), (relu > 0) * 1.0)),
        Case((tanh, np.tanh(tanh), 1 - np.tanh(tanh) ** 2)),
        Case((third, third + 0.4 * third**2, 1 + 0.8 * third)),
    ]


def _kappa(h):
    batch = h.shape[1]
    return h.var(1).mean() * batch / (batch - 1)


def _passed(y, slope, mean=True, std=True):
    batch = y.shape[1]
    dy = slope[:, :, None] * (np.eye(batch) - 1 / batch)  # a batch of upstream gradients, the columns
    dz = dy - mean * dy.mean(1, keepdims=True) - std * y[:, :, None] * (dy * y[:, :, None]).mean(1, keepdims=True)
    return np.square(dz).sum((1, 2)).mean() / (batch - 1)


def _rate(y, h, slope, freedom=3):
    batch = y.shape[1]
    return batch / (batch - freedom) * _passed(y, slope) / _kappa(h)


EXERCISE = Exercise(
    name="explosion-rate",
    usage="rate = my_rate(y, h, slope)",
    inputs=("y", "h", "slope"),
    outputs=("rate",),
    reference=_rate,
    cases=_cases(),
    run=lambda answer, *args: [as_float(answer(*args))],
)


@EXERCISE.mistake(
    "norm-not-square",
    "You return the growth of the norm. The rate is that of the squared norm: 1.4669 and 1.2111 are the same net.",
)
def root(y, h, slope):
    return _rate(y, h, slope) ** 0.5


@EXERCISE.mistake(
    "degrees-of-freedom",
    "Your factor for 1 / variance is that of a large batch or has other degrees of freedom. After centring, d = "
    "B - 1 numbers are left. The mean of 1 / length squared is 1 / (d - 2): the factor is B / (B - 3).",
)
def large_batch(y, h, slope):
    return _passed(y, slope) / _kappa(h)


@EXERCISE.mistake("degrees-of-freedom")
def one_less(y, h, slope):
    return _rate(y, h, slope, 1)


@EXERCISE.mistake("degrees-of-freedom")
def two_less(y, h, slope):
    return _rate(y, h, slope, 2)


@EXERCISE.mistake(
    "mean-not-removed",
    "Your kappa is the mean of h squared. BN of the next layer subtracts the mean over the batch first: kappa is the "
    "mean of h_i squared less that of h_i h_j.",
)
def second_moment(y, h, slope):
    batch = y.shape[1]
    return batch / (batch - 3) * _passed(y, slope) / np.square(h).mean()


@EXERCISE.mistake(
    "biased-variance",
    "Your kappa is the variance over the batch with 1 / B. The mean of h_i squared less that of h_i h_j, i not j, is "
    "the variance with 1 / (B - 1).",
)
def biased(y, h, slope):
    batch = y.shape[1]
    return _rate(y, h, slope) * batch / (batch - 1)


@EXERCISE.mistake(
    "mean-not-projected",
    "Your backward pass does not subtract the mean of the gradient over the batch. BN's mean depends on all samples.",
)
def no_mean(y, h, slope):
    batch = y.shape[1]
    return batch / (batch - 3) * _passed(y, slope, mean=False) / _kappa(h)


@EXERCISE.mistake(
    "std-not-projected",
    "Your backward pass leaves out the part along y. BN's standard deviation depends on every sample.",
)
def no_std(y, h, slope):
    batch = y.shape[1]
    return batch / (batch - 3) * _passed(y, slope, std=False) / _kappa(h)


@EXERCISE.mistake(
    "nothing-projected",
    "You take mean and standard deviation for constants: your backward pass only multiplies by the slope. Both "
    "depend on every sample of the batch, so two parts of the gradient have to go.",
)
def fixed_statistics(y, h, slope):
    batch = y.shape[1]
    return batch / (batch - 3) * _passed(y, slope, mean=False, std=False) / _kappa(h)


@EXERCISE.mistake(
    "slope-forgotten",
    "You leave out the slope of the activation: your backward pass is that of a linear net.",
)
def linear_backward(y, h, slope):
    return _rate(y, h, np.ones_like(slope))


@EXERCISE.mistake("slope-forgotten")
def linear_closed_form(y, h, slope):
    batch = y.shape[1]
    return (batch - 2) / (batch - 1) * batch / (batch - 3) / _kappa(h)


@EXERCISE.mistake("upside-down", "Your number is one over the rate: going back, the gradient grows by the rate.")
def inverse(y, h, slope):
    return 1 / _rate(y, h, slope)
