"""The exercise ``band-width``: the width in decades of the longest run of usable learning rates."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    def case(exponents, accuracies, level=0.85):
        return Case((10.0 ** np.array(exponents), np.array(accuracies), level), tolerance=1e-6)

    halves = np.arange(-4, 1.1, 0.5)
    return [
        # a run of two, a gap, a run of four whose first is exactly at the level
        case(halves, [0.1, 0.9, 0.86, 0.4, 0.85, 0.92, 0.95, 0.9, 0.3, 0.1, 0.1]),
        # thirds of a decade: the longest run comes first, a single rate after two gaps
        case(np.arange(7) / 3, [0.7, 0.91, 0.93, 0.6, 0.2, 0.9, 0.1], 0.9),
        case([-2.0, -1.0, 0.0, 1.0], [0.3, 0.95, 0.2, 0.1]),  # one usable rate
        case([-3.0, -2.5, -2.0], [0.9, 0.9, 0.9]),  # all of them
    ]


def _runs(accuracies, level):
    """First and last place of each run of usable rates."""
    usable = [False, *(value >= level for value in accuracies), False]
    starts = [i for i in range(len(accuracies)) if usable[i + 1] and not usable[i]]
    ends = [i for i in range(len(accuracies)) if usable[i + 1] and not usable[i + 2]]
    return list(zip(starts, ends, strict=True))


def _longest(accuracies, level):
    return max((end - start + 1 for start, end in _runs(accuracies, level)), default=0)


def _step(rates):
    return float(np.log10(rates[1] / rates[0]))


def _reference(rates, accuracies, level):
    return _longest(accuracies, level) * _step(rates)


EXERCISE = Exercise(
    name="band-width",
    usage="width = my_width(rates, accuracies, level)",
    inputs=("rates", "accuracies", "level"),
    outputs=("width",),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, rates, accuracies, level: [as_float(answer(rates, accuracies, level))],
)


@EXERCISE.mistake(
    "gaps-counted",
    "You add up all usable rates, wherever they are. A band has no gap: take the longest run of neighbours.",
)
def all_usable(rates, accuracies, level):
    return np.sum(accuracies >= level) * _step(rates)


@EXERCISE.mistake(
    "gaps-bridged",
    "You go from the lowest usable rate to the highest, across rates that fail. A band has no gap: take the longest "
    "run of neighbours.",
)
def lowest_to_highest(rates, accuracies, level):
    places = np.flatnonzero(accuracies >= level)
    return (np.ptp(places) + 1) * _step(rates) if len(places) else 0.0


@EXERCISE.mistake("gaps-bridged")
def lowest_to_highest_rate(rates, accuracies, level):
    usable = rates[accuracies >= level]
    return np.log10(usable[-1] / usable[0]) if len(usable) else 0.0


@EXERCISE.mistake(
    "ends-cut",
    "You take the distance from the first to the last rate of the run. Each rate stands for one step of the grid, so "
    "a run of `n` rates is `n` steps wide, not `n - 1`: a single usable rate has a width too.",
)
def between_the_ends(rates, accuracies, level):
    return max(_longest(accuracies, level) - 1, 0) * _step(rates)


@EXERCISE.mistake(
    "first-run",
    "You stop at the first run. There may be a longer one after a gap.",
)
def first_run(rates, accuracies, level):
    runs = _runs(accuracies, level)
    return (runs[0][1] - runs[0][0] + 1) * _step(rates) if runs else 0.0


@EXERCISE.mistake("last-run", "You take the last run. There may be a longer one before a gap.")
def last_run(rates, accuracies, level):
    runs = _runs(accuracies, level)
    return (runs[-1][1] - runs[-1][0] + 1) * _step(rates) if runs else 0.0


@EXERCISE.mistake(
    "above-the-level",
    "You leave out a rate that ends exactly at `level`. Usable means `level` or above, `>=`.",
)
def strictly_above(rates, accuracies, level):
    return _longest(accuracies, np.nextafter(level, 1)) * _step(rates)


@EXERCISE.mistake(
    "natural-logarithm",
    "You use the natural logarithm. A decade is a factor of 10: `np.log10`.",
)
def natural(rates, accuracies, level):
    return _longest(accuracies, level) * np.log(rates[1] / rates[0])


@EXERCISE.mistake(
    "count",
    "You return a number of rates. On a grid of half decades a run of `n` rates is `n / 2` decades wide: multiply by "
    "the step of the grid, `np.log10(rates[1] / rates[0])`.",
)
def count(rates, accuracies, level):
    return float(_longest(accuracies, level))


@EXERCISE.mistake(
    "step-too-short",
    "Your step of the grid is the whole range divided by the number of rates. There is one step fewer than rates.",
)
def step_by_rates(rates, accuracies, level):
    return _longest(accuracies, level) * np.log10(rates[-1] / rates[0]) / len(rates)


@EXERCISE.mistake(
    "not-a-logarithm",
    "You take a difference of the rates themselves. The width is measured on a logarithmic axis, in decades.",
)
def difference_of_rates(rates, accuracies, level):
    runs = _runs(accuracies, level)
    start, end = max(runs, key=lambda run: run[1] - run[0], default=(0, 0))
    return rates[end] - rates[start]
