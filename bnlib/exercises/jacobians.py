"""The exercise ``layer-jacobian``: what a small change of normalized values makes of the next layer's."""

import numpy as np

from ..theory.further_claims import layer_jacobian
from .comparing import as_float
from .exercise import Case, Exercise


def _case(seed, size):
    rng = np.random.default_rng(seed)
    return Case((rng.normal(size=(size, size)), rng.uniform(0.1, 1, size), *rng.uniform(0.5, 3, (2, size))))


EXERCISE = Exercise(
    name="layer-jacobian",
    usage="jacobian = my_jacobian(weight, slopes, std_in, std_out)",
    inputs=("weight", "slopes", "std_in", "std_out"),
    outputs=("jacobian",),
    reference=layer_jacobian,
    cases=[_case(1, 3), _case(2, 5), _case(3, 2)],
    run=lambda answer, *args: [as_float(answer(*args))],
)


@EXERCISE.mistake(
    "other-way-round",
    "You divide by `std_in` and multiply by `std_out`. A normalized value is the value over its standard deviation: "
    "going in it is multiplied by `std_in`, coming out divided by `std_out`.",
)
def other_way_round(weight, slopes, std_in, std_out):
    return weight * (slopes / std_in) * std_out[:, None]


@EXERCISE.mistake(
    "no-std-in",
    "`std_in` is missing. A change of the normalized value by 1 changes the nonlinearity's input by `std_in`.",
)
def no_std_in(weight, slopes, std_in, std_out):
    return weight * slopes / std_out[:, None]


@EXERCISE.mistake(
    "no-std-out", "`std_out` is missing. The next layer's pre-activation is normalized too: divide by it, row by row."
)
def no_std_out(weight, slopes, std_in, std_out):
    return weight * slopes * std_in


@EXERCISE.mistake(
    "no-slopes",
    "The nonlinearity is missing. It multiplies a small change by its slope, column by column.",
)
def no_slopes(weight, slopes, std_in, std_out):
    return weight * std_in / std_out[:, None]


@EXERCISE.mistake(
    "weights-alone",
    "That is the layer's weight matrix. Its inputs and outputs are not normalized, nor is it nonlinear.",
)
def weights_alone(weight, slopes, std_in, std_out):
    return weight.copy()


@EXERCISE.mistake(
    "wrong-axis",
    "You divide by `std_out` along the wrong axis. A row of the weights belongs to an output: `std_out[:, None]`.",
)
def wrong_axis(weight, slopes, std_in, std_out):
    return weight * slopes * std_in / std_out


@EXERCISE.mistake(
    "slopes-on-rows",
    "You multiply the rows by the slopes. The nonlinearity comes before the weights: its slopes belong to inputs.",
)
def slopes_on_rows(weight, slopes, std_in, std_out):
    return weight * slopes[:, None] * std_in / std_out[:, None]


@EXERCISE.mistake("transposed", "Your matrix is transposed. Row i, column j says how output i changes with input j.")
def transposed(weight, slopes, std_in, std_out):
    return layer_jacobian(weight, slopes, std_in, std_out).T


@EXERCISE.mistake(
    "variances", "You use variances. Normalizing divides by the standard deviation, the root of the variance."
)
def variances(weight, slopes, std_in, std_out):
    return weight * (slopes * std_in**2) / std_out[:, None] ** 2
