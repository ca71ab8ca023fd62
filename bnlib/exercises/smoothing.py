"""The exercise ``input-gradient``: the squared length of the gradient by BN's input, from that by its output."""

import numpy as np

from ..theory.smoothness import input_square
from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(15)

    def case(m, gamma, std):
        x = rng.normal(size=m)
        x_hat = (x - x.mean()) / x.std()
        return Case((rng.normal(0.5, 1, m) + 0.7 * x_hat, x_hat, gamma, std))

    return [case(6, 1.5, 0.7), case(32, 0.4, 2.0), case(11, 2.0, 1.3)]


EXERCISE = Exercise(
    name="input-gradient",
    usage="square = my_square(dy, x_hat, gamma, std)",
    inputs=("dy", "x_hat", "gamma", "std"),
    outputs=("square",),
    reference=input_square,
    cases=_cases(),
    run=lambda answer, *args: [as_float(answer(*args))],
)


def _with(dy, x_hat, gamma, std, mean=1.0, along=1.0):
    m = len(dy)
    return (gamma / std) ** 2 * (dy @ dy - mean * dy.sum() ** 2 / m - along * (dy @ x_hat) ** 2 / m)


@EXERCISE.mistake(
    "nothing-taken-out", "You only scale the gradient. BN's backward pass also takes two directions out of it."
)
def scaled(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std, 0, 0)


@EXERCISE.mistake(
    "mean-kept",
    "The constant direction is still in your gradient. A constant added to all inputs changes no output, so the "
    "gradient has no part along it.",
)
def mean_kept(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std, mean=0)


@EXERCISE.mistake(
    "x-hat-kept",
    "The direction of `x_hat` is still in your gradient. Inputs that move away from their mean, all by the same "
    "factor, change no output.",
)
def x_hat_kept(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std, along=0)


@EXERCISE.mistake(
    "root-of-m",
    "You divide the last term by the root of m. The part of `dy` along `x_hat` has the length "
    "`(dy @ x_hat) / |x_hat|`, and `|x_hat|` squared is m.",
)
def root(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std, along=np.sqrt(len(dy)))


@EXERCISE.mistake(
    "not-divided", "You leave out 1 / m. The two directions have the squared length m, not 1: divide each term by it."
)
def not_divided(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std, len(dy), len(dy))


@EXERCISE.mistake(
    "products-not-squared", "You subtract the scalar products themselves. Pythagoras takes their squares."
)
def not_squared(dy, x_hat, gamma, std):
    m = len(dy)
    return (gamma / std) ** 2 * (dy @ dy - dy.sum() / m - dy @ x_hat / m)


@EXERCISE.mistake("factor-not-squared", "Your factor is `gamma / std`. The square of the length asks for its square.")
def factor(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std) * std / gamma


@EXERCISE.mistake("factor-upside-down", "Your factor is upside down: BN multiplies by `gamma` and divides by `std`.")
def upside_down(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std) * (std / gamma) ** 4


@EXERCISE.mistake("length-not-squared", "You return the length. Its square is asked for.")
def length(dy, x_hat, gamma, std):
    return np.sqrt(_with(dy, x_hat, gamma, std))


@EXERCISE.mistake("part-added", "You add what must be taken away. A projection never makes a vector longer.")
def added(dy, x_hat, gamma, std):
    return _with(dy, x_hat, gamma, std, -1, -1)
