"""The exercise ``batchnorm-backward``: gradients with respect to x, gamma and beta."""

import numpy as np

from ..scratch.batchnorm import batchnorm_backward, batchnorm_forward
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(2)
    gamma = np.array([1.5, -0.7, 0.4])
    inputs = [
        (np.array([[3.0], [8], [9], [11], [14], [15]]), np.array([2.0]), 1e-5),
        (rng.normal([0, 5, -2], [1, 2, 0.5], (8, 3)), gamma, 1e-3),
        (rng.normal(0, [1e-3, 3e-3], (10, 2)), gamma[:2], 1e-5),  # variances below eps
        (rng.normal([[[1]], [[0]], [[-3]]], [[[2]], [[1]], [[0.3]]], (4, 3, 2, 5)), gamma, 1e-5),
    ]
    # dy with a mean: a gradient whose paths through mu and var are zero would let wrong answers pass
    return [
        Case((rng.normal(0.5, 1, x.shape), batchnorm_forward(x, g, np.ones_like(g), eps)[1])) for x, g, eps in inputs
    ]


EXERCISE = Exercise(
    name="batchnorm-backward",
    usage="dx, dgamma, dbeta = batchnorm_backward(dy, cache)",
    inputs=("dy", "cache"),
    outputs=("dx", "dgamma", "dbeta"),
    reference=batchnorm_backward,
    cases=_cases(),
)


def _axes(dy):
    return (0, *range(2, dy.ndim))


def _spread(v, dy):
    return v.reshape(1, -1, *[1] * (dy.ndim - 2))


def _m(dy):
    return dy.size // dy.shape[1]


def _closed(dy, cache, *, mean=1.0, var=1.0, scale=None):
    """The right gradients, with the paths through mu and var weighted, and another factor before the bracket."""
    _, dgamma, dbeta = batchnorm_backward(dy, cache)
    scale = cache.gamma / np.sqrt(cache.var + cache.eps) if scale is None else scale
    paths = mean * _spread(dbeta, dy) / _m(dy) + var * cache.x_hat * _spread(dgamma, dy) / _m(dy)
    return _spread(scale, dy) * (dy - paths), dgamma, dbeta


@EXERCISE.mistake(
    "variance-path-missing",
    "Your `dx` treats the variance as a constant. `x` also acts through `var`: the term with "
    "`x_hat * mean(dy * x_hat)` is missing.",
)
def variance_path_missing(dy, cache):
    return _closed(dy, cache, var=0)


@EXERCISE.mistake(
    "mean-path-missing",
    "Your `dx` treats the mean as a constant. `x` also acts through `mu`: the term with `mean(dy)` is missing. "
    "A quick test: over the batch the right `dx` of a channel adds up to 0.",
)
def mean_path_missing(dy, cache):
    return _closed(dy, cache, mean=0)


@EXERCISE.mistake(
    "statistics-as-constants",
    "Your `dx` is `gamma / std * dy`: mean and variance are treated as constants. They are functions of `x`. "
    "Add the path through `mu` and the path through `var`.",
)
def statistics_as_constants(dy, cache):
    return _closed(dy, cache, mean=0, var=0)


@EXERCISE.mistake(
    "variance-path-factor",
    "The path through the variance is off by a factor of 2. Two factors meet there: the root gives "
    "`dvar = dstd / (2 * std)`, the square gives `2 * xc`. One of them is missing.",
)
def variance_path_doubled(dy, cache):
    return _closed(dy, cache, var=2)


@EXERCISE.mistake("variance-path-factor")
def variance_path_halved(dy, cache):
    return _closed(dy, cache, var=0.5)


@EXERCISE.mistake(
    "sign-flipped",
    "A path in your `dx` has the wrong sign. Both terms are subtracted: a common shift or stretch of the channel is "
    "taken out again by the normalization. Look at the minus in `d(1/std)` and in `x - mu`.",
)
def both_signs_flipped(dy, cache):
    return _closed(dy, cache, mean=-1, var=-1)


@EXERCISE.mistake("sign-flipped")
def sign_of_variance_path_flipped(dy, cache):
    return _closed(dy, cache, var=-1)


@EXERCISE.mistake("sign-flipped")
def sign_of_mean_path_flipped(dy, cache):
    return _closed(dy, cache, mean=-1)


@EXERCISE.mistake(
    "sums-not-means",
    "In `dx` you subtract sums over the batch. One `x` moves the mean by 1/m of its change: divide both sums by m.",
)
def sums_not_means(dy, cache):
    return _closed(dy, cache, mean=_m(dy), var=_m(dy))


@EXERCISE.mistake(
    "batch-size-for-m",
    "On (N, C, H, W) input you divide by the batch size N. A channel holds m = N * H * W values, and the statistics "
    "are means over all of them.",
)
def batch_size_for_m(dy, cache):
    return _closed(dy, cache, mean=_m(dy) / len(dy), var=_m(dy) / len(dy))


@EXERCISE.mistake(
    "gamma-forgotten-in-dx",
    "`gamma` is missing in your `dx`. The gradient passes `y = gamma * x_hat + beta` first: `dx_hat = gamma * dy`.",
)
def gamma_forgotten_in_dx(dy, cache):
    return _closed(dy, cache, scale=1 / np.sqrt(cache.var + cache.eps))


@EXERCISE.mistake(
    "divided-by-variance",
    "You divide `dx` by the variance. The factor before the bracket is `gamma / sqrt(var + eps)`: take the root.",
)
def divided_by_variance(dy, cache):
    return _closed(dy, cache, scale=cache.gamma / (cache.var + cache.eps))


@EXERCISE.mistake(
    "eps-forgotten",
    "Your `dx` uses `sqrt(var)`. The forward pass divided by `sqrt(var + eps)`, and its gradient does too. "
    "The two differ where the variance is small: take `eps` from the cache.",
)
def eps_forgotten(dy, cache):
    return _closed(dy, cache, scale=cache.gamma / np.sqrt(cache.var))


@EXERCISE.mistake("eps-forgotten")
def eps_forgotten_staged(dy, cache):
    # xc / sqrt(var) stands in for x_hat twice, so the path through var grows by (var + eps) / var
    ratio = _spread((cache.var + cache.eps) / cache.var, dy)
    return _closed(dy, cache, var=ratio, scale=cache.gamma / np.sqrt(cache.var))


@EXERCISE.mistake(
    "dgamma-uses-x",
    "Your `dgamma` is not taken with `x_hat`. In `y = gamma * x_hat + beta` the factor of `gamma` is the normalized "
    "input, centred and divided by the standard deviation: `dgamma = sum(dy * x_hat)`.",
)
def dgamma_uses_xc(dy, cache):
    dx, _, dbeta = batchnorm_backward(dy, cache)
    return dx, (dy * cache.xc).sum(_axes(dy)), dbeta


@EXERCISE.mistake("dgamma-uses-x")
def dgamma_uses_x(dy, cache):
    dx, _, dbeta = batchnorm_backward(dy, cache)
    return dx, (dy * (cache.xc + _spread(cache.mu, dy))).sum(_axes(dy)), dbeta


@EXERCISE.mistake("dgamma-uses-x")
def dgamma_and_dx_use_xc(dy, cache):
    dx, dgamma, dbeta = dgamma_uses_xc(dy, cache)
    right = batchnorm_backward(dy, cache)[1]
    return _closed(dy, cache, var=_spread(dgamma / right, dy))[0], dgamma, dbeta


@EXERCISE.mistake(
    "dgamma-ignores-x",
    "Your `dgamma` is the sum of `dy`, as `dbeta` is. `gamma` multiplies `x_hat`, so `dgamma = sum(dy * x_hat)`.",
)
def dgamma_ignores_x(dy, cache):
    dx, _, dbeta = batchnorm_backward(dy, cache)
    return dx, dbeta, dbeta


@EXERCISE.mistake(
    "dbeta-averaged",
    "Your `dbeta` is a mean over the batch. `beta` is added to each of the m values, and the gradients of all its "
    "uses add up: a sum. The division by m of the loss is already in `dy`.",
)
def dbeta_averaged(dy, cache):
    dx, dgamma, dbeta = batchnorm_backward(dy, cache)
    return dx, dgamma, dbeta / _m(dy)


@EXERCISE.mistake("dbeta-averaged")
def dbeta_and_dgamma_averaged(dy, cache):
    dx, dgamma, dbeta = batchnorm_backward(dy, cache)
    return dx, dgamma / _m(dy), dbeta / _m(dy)


@EXERCISE.mistake(
    "dgamma-averaged",
    "Your `dgamma` is a mean over the batch. `gamma` multiplies each of the m values, and the gradients of all its "
    "uses add up: `dgamma = sum(dy * x_hat)`.",
)
def dgamma_averaged(dy, cache):
    dx, dgamma, dbeta = batchnorm_backward(dy, cache)
    return dx, dgamma / _m(dy), dbeta


@EXERCISE.mistake(
    "wrong-order",
    "You return the gradients in another order. The checker expects `dx, dgamma, dbeta`, in this order.",
)
def last_two_swapped(dy, cache):
    dx, dgamma, dbeta = batchnorm_backward(dy, cache)
    return dx, dbeta, dgamma


@EXERCISE.mistake("wrong-order")
def dx_last(dy, cache):
    dx, dgamma, dbeta = batchnorm_backward(dy, cache)
    return dgamma, dbeta, dx  # swapped or not: the shapes already tell


@EXERCISE.mistake("wrong-order")
def dx_in_the_middle(dy, cache):
    dx, dgamma, dbeta = batchnorm_backward(dy, cache)
    return dgamma, dx, dbeta


@EXERCISE.mistake(
    "conv-unsupported",
    "Your function is right for (N, C) and raises an error for (N, C, H, W). Sum over the axes 0, 2 and 3, and "
    "reshape each vector of shape (C,) to (1, C, 1, 1) before it meets an array of the shape of `dy`.",
)
def conv_unsupported(dy, cache):
    axes, m, scale = _axes(dy), _m(dy), cache.gamma / np.sqrt(cache.var + cache.eps)
    dbeta, dgamma = dy.sum(axes), (dy * cache.x_hat).sum(axes)
    return scale * (dy - dbeta / m - cache.x_hat * dgamma / m), dgamma, dbeta
