"""The exercise ``rank-measures``: stable rank, counted singular values and orthogonality gap of a representation."""

import numpy as np

from ..theory.rank import rank
from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(14)

    def case(samples, units, directions, centre=0.0):
        """Singular values from 1 down to a thousandth, and a mean."""
        left, right = (np.linalg.qr(rng.normal(size=(size, directions)))[0] for size in (samples, units))
        return Case((3 * (left * np.geomspace(1, 1e-3, directions)) @ right.T + centre * rng.normal(size=units),))

    return [case(8, 20, 7), case(12, 9, 9, 0.3), case(6, 30, 5, 1.0)]


EXERCISE = Exercise(
    name="rank-measures",
    usage="stable, count, gap = my_rank(h)",
    inputs=("h",),
    outputs=("stable", "count", "gap"),
    reference=lambda h: tuple(map(float, rank(h))),
    cases=_cases(),
    run=lambda answer, h: [as_float(value) for value in answer(h)],
)


def _from(values, h, count=None, samples=None):
    """All three measures from singular values, largest first."""
    shares = np.zeros(samples or len(h))
    squares = values**2 / (values**2).sum()
    shares[: len(squares)] = squares[: len(shares)]
    stable = 1 / squares[0]
    return (
        stable,
        (values > 0.01 * values[0]).sum() if count is None else count,
        np.linalg.norm(shares - 1 / len(shares)),
    )


def _values(h):
    return np.linalg.svd(h, compute_uv=False)


@EXERCISE.mistake(
    "eigenvalues-counted",
    "You count eigenvalues of the Gram matrix. They are squares of the singular values: 1 % of the largest singular "
    "value is 0.01 % of the largest eigenvalue.",
)
def eigenvalues_counted(h):
    values = _values(h)
    return _from(values, h, (values**2 > 0.01 * values[0] ** 2).sum())


@EXERCISE.mistake(
    "every-direction-counted",
    "Your count takes every singular value above rounding, as `matrix_rank` does. Count those above 1 % of the "
    "largest.",
)
def every_direction(h):
    return _from(_values(h), h, np.linalg.matrix_rank(h))


@EXERCISE.mistake(
    "absolute-threshold",
    "You compare the singular values with 0.01. Compare them with 1 % of the largest: the measures must not change "
    "when `h` is multiplied by a number.",
)
def absolute(h):
    values = _values(h)
    return _from(values, h, (values > 0.01).sum())


@EXERCISE.mistake(
    "root-forgotten",
    "Your stable rank divides lengths, not squared lengths: square both norms, of all entries and of the largest "
    "singular value.",
)
def not_squared(h):
    stable, count, gap = _from(_values(h), h)
    return stable**0.5, count, gap


@EXERCISE.mistake(
    "values-summed",
    "Your stable rank sums singular values. It sums their squares, so that it is the trace of the Gram matrix over "
    "its largest eigenvalue.",
)
def values_summed(h):
    values = _values(h)
    _, count, gap = _from(values, h)
    return values.sum() / values[0], count, gap


@EXERCISE.mistake(
    "centred-first",
    "You subtract the mean of each unit first. The measures are of the representation as it is: that all samples "
    "share a mean is part of what they are to show.",
)
def centred(h):
    return tuple(map(float, rank(h - h.mean(0))))


@EXERCISE.mistake(
    "gram-of-units",
    "Your gap is that of the Gram matrix of the units, with 1 / units on its diagonal. Take the one of the samples, "
    "`h @ h.T`.",
)
def gram_of_units(h):
    return _from(_values(h), h, samples=h.shape[1])


@EXERCISE.mistake(
    "gap-without-trace",
    "Your gap leaves out the division by the trace: it grows with the lengths of the samples.",
)
def without_trace(h):
    stable, count, _ = _from(_values(h), h)
    return stable, count, np.linalg.norm(h @ h.T - np.eye(len(h)) / len(h))


@EXERCISE.mistake(
    "gap-of-cosines",
    "Your gap is made of cosines: each sample was divided by its own length. The Gram matrix is divided by its trace "
    "as a whole, so samples of different lengths count too.",
)
def of_cosines(h):
    stable, count, _ = _from(_values(h), h)
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    return stable, count, np.linalg.norm(unit @ unit.T / len(h) - np.eye(len(h)) / len(h))
