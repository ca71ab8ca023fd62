"""The exercise ``direction-gradient``: the gradient of weights whose length BN takes away."""

import numpy as np

from ..theory.length_direction import direction_gradient
from .comparing import as_float
from .exercise import Case, Exercise


def _case(seed, d, g):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return Case((rng.normal(size=d), g, root @ root.T / d + 0.1 * np.eye(d), rng.normal(size=d)))


EXERCISE = Exercise(
    name="direction-gradient",
    usage="dw = my_gradient(w, g, S, grad)",
    inputs=("w", "g", "S", "grad"),
    outputs=("dw",),
    reference=direction_gradient,
    cases=[_case(0, 4, 1.7), _case(1, 6, -0.6), _case(2, 2, 2.3)],
    run=lambda answer, w, g, S, grad: [as_float(answer(w, g, S, grad))],
)


def _length(w, S):
    return np.sqrt(w @ S @ w)


@EXERCISE.mistake(
    "no-projection",
    "You pass the gradient on and divide by the length, as if the length were a constant. It depends on `w`: without "
    "the second term `w @ dw` is not 0.",
)
def constant_length(w, g, S, grad):
    return g / _length(w, S) * grad


@EXERCISE.mistake(
    "euclidean-direction",
    "You subtract a multiple of `w`. The derivative of `sqrt(w @ S @ w)` is parallel to `S @ w`.",
)
def along_w(w, g, S, grad):
    return g / _length(w, S) * (grad - (w @ grad) / _length(w, S) ** 2 * w)


@EXERCISE.mistake("euclidean-direction")
def along_unit_w(w, g, S, grad):
    return g / _length(w, S) * (grad - (w @ grad) / (w @ w) * w)


@EXERCISE.mistake("euclidean-direction")
def along_w_undivided(w, g, S, grad):
    return g / _length(w, S) * (grad - (w @ grad) * w)


@EXERCISE.mistake(
    "weight-normalization",
    "This is the gradient of weight normalization: you measure the length of `w` without `S`. BN divides by "
    "`sqrt(w @ S @ w)`.",
)
def weight_normalization(w, g, S, grad):
    length = np.linalg.norm(w)
    return g / length * (grad - (w @ grad) / length**2 * w)


@EXERCISE.mistake(
    "length-not-squared",
    "The second term is divided by the length once too few: `w @ grad` and `S @ w` bring a length each, so divide by "
    "its square, `w @ S @ w`. The test is `w @ dw = 0`.",
)
def not_squared(w, g, S, grad):
    return g / _length(w, S) * (grad - (w @ grad) / _length(w, S) * (S @ w))


@EXERCISE.mistake("length-not-squared")
def undivided(w, g, S, grad):
    return g / _length(w, S) * (grad - (w @ grad) * (S @ w))


@EXERCISE.mistake("g-forgotten", "You leave out `g`. A change of the direction counts `g` times.")
def without_g(w, g, S, grad):
    return direction_gradient(w, 1.0, S, grad)


@EXERCISE.mistake(
    "not-divided",
    "You leave out the division by the length of `w`. Longer weights have smaller gradients: the factor in front is "
    "`g / sqrt(w @ S @ w)`.",
)
def undivided_front(w, g, S, grad):
    return direction_gradient(w, g, S, grad) * _length(w, S)


@EXERCISE.mistake("not-divided")
def divided_twice(w, g, S, grad):
    return direction_gradient(w, g, S, grad) / _length(w, S)


@EXERCISE.mistake("added", "You add the second term. It takes away what would only change the length: subtract it.")
def added(w, g, S, grad):
    return g / _length(w, S) * (grad + (w @ grad) / _length(w, S) ** 2 * (S @ w))


@EXERCISE.mistake(
    "moments-on-gradient",
    "You apply `S` to the gradient. It comes from the derivative of the length of `w`, and stands at `w`.",
)
def moments_on_gradient(w, g, S, grad):
    return g / _length(w, S) * (grad - (w @ S @ grad) / _length(w, S) ** 2 * w)
