"""The exercise ``batchnorm-forward``: normalize each channel over the batch, then scale and shift."""

import numpy as np

from ..scratch.batchnorm import batchnorm_forward
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(1)
    six = np.array([[3.0], [8], [9], [11], [14], [15]])
    offset = rng.normal([0, 5, -2], [1, 2, 0.5], (8, 3))
    narrow = rng.normal(0, [1e-3, 3e-3], (10, 2))  # variances below eps
    conv = rng.normal(1, 2, (4, 3, 2, 5)) * np.array([1, 0.2, 3]).reshape(1, 3, 1, 1)
    far = rng.normal(1000, 0.1, (16, 3)).astype(np.float32)
    gamma, beta = np.array([1.5, -0.7, 0.4]), np.array([0.3, 2, -1])
    return [
        Case((six, np.ones(1), np.zeros(1), 1e-5)),
        Case((offset, gamma, beta, 1e-3)),
        Case((narrow, gamma[:2], beta[:2], 1e-5)),
        Case((conv, gamma, beta, 1e-5)),
        # Near 1000 float32 numbers are 6e-5 apart. A mean of 16 of them is off by a few such steps at most, that is
        # 1e-3 of the standard deviation 0.1. The squares are 0.06 apart: E[x^2] - E[x]^2 has no digit of 0.01.
        Case((far, gamma.astype(np.float32), beta.astype(np.float32), 1e-5), tolerance=1e-2, rough=True),
    ]


EXERCISE = Exercise(
    name="batchnorm-forward",
    usage="y, cache = batchnorm_forward(x, gamma, beta, eps)",
    inputs=("x", "gamma", "beta", "eps"),
    outputs=("y", "cache"),
    judged=1,
    reference=batchnorm_forward,
    cases=_cases(),
)


def _axes(x):
    return (0, *range(2, x.ndim))


def _moments(x, axes=None):
    """Mean and biased variance, with the axes kept."""
    axes = _axes(x) if axes is None else axes
    return x.mean(axes, keepdims=True), x.var(axes, keepdims=True)


def _affine(x_hat, gamma, beta):
    shape = (1, -1, *[1] * (x_hat.ndim - 2))
    return gamma.reshape(shape) * x_hat + beta.reshape(shape), None


@EXERCISE.mistake("no-cache", "You return `y` alone. Return the pair `y, cache`: the backward pass needs the cache.")
def no_cache(x, gamma, beta, eps):
    return batchnorm_forward(x, gamma, beta, eps)[0]


@EXERCISE.mistake(
    "unbiased-variance",
    "You divide the sum of squares by m - 1. The transform divides by m; m - 1 belongs to the running variance. "
    "Look at your variance of the six samples: it should be 16, not 19.2.",
)
def unbiased_variance(x, gamma, beta, eps):
    mu, var = _moments(x)
    m = x.size // x.shape[1]
    return _affine((x - mu) / np.sqrt(var * m / (m - 1) + eps), gamma, beta)


@EXERCISE.mistake(
    "eps-outside-root",
    "You add `eps` to the standard deviation. It belongs inside the root: `sqrt(var + eps)`. "
    "The two differ most where the variance is small.",
)
def eps_outside_root(x, gamma, beta, eps):
    mu, var = _moments(x)
    return _affine((x - mu) / (np.sqrt(var) + eps), gamma, beta)


@EXERCISE.mistake(
    "eps-forgotten",
    "Your output does not depend on `eps`. Add it to the variance before you take the root: without it a channel of "
    "variance 1e-6 is blown up, and a constant channel divides by zero.",
)
def eps_forgotten(x, gamma, beta, eps):
    mu, var = _moments(x)
    return _affine((x - mu) / np.sqrt(var), gamma, beta)


@EXERCISE.mistake(
    "eps-hard-coded", "You always add 1e-5 to the variance. Add the argument `eps`: it can be another one."
)
def eps_hard_coded(x, gamma, beta, eps):
    return batchnorm_forward(x, gamma, beta, 1e-5)


@EXERCISE.mistake(
    "divided-by-variance",
    "You divide by the variance. Divide by its root, the standard deviation: the variance has the unit of x squared, "
    "so your output is not free of units.",
)
def divided_by_variance(x, gamma, beta, eps):
    mu, var = _moments(x)
    return _affine((x - mu) / (var + eps), gamma, beta)


@EXERCISE.mistake(
    "not-scaled",
    "You subtract the mean and stop there: the channels still have their own spread. Divide by `sqrt(var + eps)`.",
)
def not_scaled(x, gamma, beta, eps):
    return _affine(x - _moments(x)[0], gamma, beta)


@EXERCISE.mistake(
    "mean-not-subtracted",
    "You divide by the standard deviation, but the mean is still in: your channels are not centred. "
    "Subtract `mu` first.",
)
def mean_not_subtracted(x, gamma, beta, eps):
    return _affine(x / np.sqrt(_moments(x)[1] + eps), gamma, beta)


@EXERCISE.mistake(
    "per-sample",
    "You take mean and variance over the channels of one sample: that is layer norm. "
    "Batch norm takes them over the samples, one pair for each channel.",
)
def per_sample(x, gamma, beta, eps):
    mu, var = _moments(x, tuple(range(1, x.ndim)))
    return _affine((x - mu) / np.sqrt(var + eps), gamma, beta)


@EXERCISE.mistake("per-sample")
def per_position_of_a_sample(x, gamma, beta, eps):
    mu, var = _moments(x, 1)
    return _affine((x - mu) / np.sqrt(var + eps), gamma, beta)


@EXERCISE.mistake(
    "one-mean-for-all",
    "You take one mean and one variance over the whole array. Each channel, along axis 1, has its own.",
)
def one_mean_for_all(x, gamma, beta, eps):
    mu, var = _moments(x, tuple(range(x.ndim)))
    return _affine((x - mu) / np.sqrt(var + eps), gamma, beta)


@EXERCISE.mistake(
    "batch-axis-only",
    "On (N, C, H, W) input you normalize each pixel on its own. The positions of a feature map share one mean and "
    "one variance per channel: average over the axes 0, 2 and 3.",
)
def batch_axis_only(x, gamma, beta, eps):
    mu, var = _moments(x, 0)
    return _affine((x - mu) / np.sqrt(var + eps), gamma, beta)


@EXERCISE.mistake(
    "conv-unsupported",
    "Your function is right on (N, C) input and raises an error on (N, C, H, W). Average over the axes 0, 2 and 3, "
    "and reshape each vector of shape (C,) to (1, C, 1, 1): plain broadcasting would put it on the last axis.",
)
def conv_unsupported(x, gamma, beta, eps):
    axes = _axes(x)
    return gamma * (x - x.mean(axes)) / np.sqrt(x.var(axes) + eps) + beta, None


@EXERCISE.mistake(
    "gamma-forgotten",
    "You normalize and shift, but `gamma` has no effect. The last step is `y = gamma * x_hat + beta`.",
)
def gamma_forgotten(x, gamma, beta, eps):
    return batchnorm_forward(x, np.ones_like(gamma), beta, eps)


@EXERCISE.mistake(
    "beta-forgotten",
    "You normalize and scale, but `beta` has no effect. The last step is `y = gamma * x_hat + beta`.",
)
def beta_forgotten(x, gamma, beta, eps):
    return batchnorm_forward(x, gamma, np.zeros_like(beta), eps)


@EXERCISE.mistake(
    "affine-forgotten",
    "You return `x_hat`. The layer's output is `y = gamma * x_hat + beta`, one pair for each channel.",
)
def affine_forgotten(x, gamma, beta, eps):
    return batchnorm_forward(x, np.ones_like(gamma), np.zeros_like(beta), eps)


@EXERCISE.mistake(
    "gamma-beta-swapped", "You scale by `beta` and shift by `gamma`. It is the other way round: `gamma` scales."
)
def gamma_beta_swapped(x, gamma, beta, eps):
    return batchnorm_forward(x, beta, gamma, eps)


@EXERCISE.mistake(
    "shifted-before-scaled",
    "You add `beta` before you multiply by `gamma`. Scale first, then shift: the order matters.",
)
def shifted_before_scaled(x, gamma, beta, eps):
    return batchnorm_forward(x, gamma, gamma * beta, eps)


@EXERCISE.mistake(
    "float32-cancellation",
    "Your formula is right in float64 and loses its digits in float32, here at mean 1000 and standard deviation 0.1. "
    "`E[x^2] - E[x]^2` subtracts two numbers near a million to get 0.01. Subtract the mean first, then square.",
)
def float32_cancellation(x, gamma, beta, eps):
    axes = _axes(x)
    mu = x.mean(axes, keepdims=True)
    var = (x * x).mean(axes, keepdims=True) - mu * mu
    return _affine((x - mu) / np.sqrt(np.maximum(var, 0) + eps), gamma, beta)
