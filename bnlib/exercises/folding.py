"""The exercise ``fold``: merge the inference transform into the layer before it."""

import numpy as np

from ..scratch.batchnorm import fold
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(4)

    def case(*shape, eps, bias=True, narrow=1.0):
        out = shape[0]
        gamma = rng.uniform(0.5, 2, out) * np.where(np.arange(out) % 2, -1, 1)  # one sign for each neighbour
        bias = rng.normal(0.5, 1, out) if bias else None
        mean, var = rng.normal(1, 2, out), rng.uniform(0.3, 4, out) * narrow
        return Case((rng.normal(0, 1, shape), bias, gamma, rng.normal(-1, 1, out), mean, var, eps))

    return [
        case(3, 3, eps=1e-5),  # square: a scale along the wrong axis still fits
        case(4, 2, eps=1e-3),
        case(4, 2, eps=1e-5, narrow=1e-6),  # variances below eps
        case(4, 2, eps=1e-5, bias=False),
        case(4, 2, 3, 3, eps=1e-5),
    ]


EXERCISE = Exercise(
    name="fold",
    usage="weight, bias = fold(weight, bias, gamma, beta, mean, var, eps)",
    inputs=("weight", "bias", "gamma", "beta", "mean", "var", "eps"),
    outputs=("weight", "bias"),
    reference=fold,
    cases=_cases(),
)


def _rows(scale, weight):
    """Scale the outputs of a layer, axis 0."""
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))


def _folded(weight, bias, scale, shift):
    return _rows(scale, weight), scale * (0 if bias is None else bias) + shift


def _scale(gamma, var, eps):
    return gamma / np.sqrt(var + eps)


@EXERCISE.mistake(
    "gamma-forgotten",
    "`gamma` has no effect on your layer. The transform multiplies by `gamma / sqrt(var + eps)`: so do the folded "
    "weight and bias.",
)
def gamma_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, bias, np.ones_like(gamma), beta, mean, var, eps)


@EXERCISE.mistake(
    "beta-forgotten", "`beta` has no effect on your layer. It is added last, so it enters the folded bias unscaled."
)
def beta_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, bias, gamma, np.zeros_like(beta), mean, var, eps)


@EXERCISE.mistake(
    "beta-scaled", "You scale `beta`. The transform adds it after the scaling: it enters the folded bias as it is."
)
def beta_scaled(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, bias, gamma, beta * _scale(gamma, var, eps), mean, var, eps)


@EXERCISE.mistake(
    "mean-forgotten",
    "The running mean has no effect on your layer. The transform subtracts it before it scales: the folded bias "
    "holds `(bias - mean) * scale + beta`.",
)
def mean_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, bias, gamma, beta, np.zeros_like(mean), var, eps)


@EXERCISE.mistake(
    "mean-added", "You add the running mean. The transform subtracts it: `(bias - mean) * scale + beta`."
)
def mean_added(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, bias, gamma, beta, -mean, var, eps)


@EXERCISE.mistake(
    "mean-not-scaled", "You subtract the running mean after the scaling. It is subtracted first, so it is scaled too."
)
def mean_not_scaled(weight, bias, gamma, beta, mean, var, eps):
    return _folded(weight, bias, _scale(gamma, var, eps), beta - mean)


@EXERCISE.mistake(
    "bias-not-scaled",
    "You add the old bias unscaled. It is part of what the transform gets as input, so it is scaled with the weight: "
    "`(bias - mean) * scale + beta`.",
)
def bias_not_scaled(weight, bias, gamma, beta, mean, var, eps):
    scale = _scale(gamma, var, eps)
    return _rows(scale, weight), (0 if bias is None else bias) - mean * scale + beta


@EXERCISE.mistake("bias-not-scaled")
def bias_and_mean_not_scaled(weight, bias, gamma, beta, mean, var, eps):
    return _rows(_scale(gamma, var, eps), weight), (0 if bias is None else bias) - mean + beta


@EXERCISE.mistake(
    "bias-forgotten", "The old bias has no effect on your layer. The folded bias is `(bias - mean) * scale + beta`."
)
def bias_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, None, gamma, beta, mean, var, eps)


@EXERCISE.mistake(
    "bias-none-unsupported",
    "Your function is right with a bias and not without one. `bias=None` stands for a bias of 0, and the folded "
    "layer still has a bias: `beta - mean * scale`.",
)
def bias_none_raises(weight, bias, gamma, beta, mean, var, eps):
    return _rows(_scale(gamma, var, eps), weight), (0 - mean + bias) * _scale(gamma, var, eps) + beta


@EXERCISE.mistake("bias-none-unsupported")
def bias_none_kept(weight, bias, gamma, beta, mean, var, eps):
    weight, folded = fold(weight, bias, gamma, beta, mean, var, eps)
    return weight, None if bias is None else folded


@EXERCISE.mistake("bias-none-unsupported")
def bias_none_gives_beta(weight, bias, gamma, beta, mean, var, eps):
    weight, folded = fold(weight, bias, gamma, beta, mean, var, eps)
    return weight, beta if bias is None else folded


@EXERCISE.mistake("bias-none-unsupported")
def bias_none_gives_zero(weight, bias, gamma, beta, mean, var, eps):
    weight, folded = fold(weight, bias, gamma, beta, mean, var, eps)
    return weight, np.zeros_like(beta) if bias is None else folded


@EXERCISE.mistake(
    "weight-not-scaled",
    "Your folded weight is the old one. The transform scales its input, so the weight is scaled too.",
)
def weight_not_scaled(weight, bias, gamma, beta, mean, var, eps):
    return weight, fold(weight, bias, gamma, beta, mean, var, eps)[1]


@EXERCISE.mistake(
    "eps-forgotten",
    "You divide by `sqrt(var)`. The transform divides by `sqrt(var + eps)`. The two differ most "
    "where the variance is small.",
)
def eps_forgotten(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, bias, gamma, beta, mean, var, 0.0)


@EXERCISE.mistake(
    "eps-hard-coded", "You always add 1e-5 to the variance. Add the argument `eps`: it can be another one."
)
def eps_hard_coded(weight, bias, gamma, beta, mean, var, eps):
    return fold(weight, bias, gamma, beta, mean, var, 1e-5)


@EXERCISE.mistake(
    "eps-outside-root", "You add `eps` to the standard deviation. It belongs inside the root: `sqrt(var + eps)`."
)
def eps_outside_root(weight, bias, gamma, beta, mean, var, eps):
    scale = gamma / (np.sqrt(var) + eps)
    return _folded(weight, bias, scale, beta - mean * scale)


@EXERCISE.mistake("variance-not-rooted", "You divide by the variance. Divide by its root: `gamma / sqrt(var + eps)`.")
def variance_not_rooted(weight, bias, gamma, beta, mean, var, eps):
    scale = gamma / (var + eps)
    return _folded(weight, bias, scale, beta - mean * scale)


@EXERCISE.mistake(
    "input-axis",
    "You scale the weight along the input axis. Channel k of the transform is output k of the layer: scale row k, "
    "`weight * scale[:, None]`. On a square weight the wrong axis raises no error.",
)
def input_axis(weight, bias, gamma, beta, mean, var, eps):
    return weight * _scale(gamma, var, eps), fold(weight, bias, gamma, beta, mean, var, eps)[1]


@EXERCISE.mistake(
    "conv-unsupported",
    "Your function is right for a linear layer and raises an error for a convolution. Its weight is "
    "(out, in, kH, kW): reshape the scale to (out, 1, 1, 1).",
)
def conv_unsupported(weight, bias, gamma, beta, mean, var, eps):
    return weight * _scale(gamma, var, eps)[:, None], fold(weight, bias, gamma, beta, mean, var, eps)[1]
