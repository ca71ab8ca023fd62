"""The exercise ``drift``: how far the median of each unit's input moves, measured by its own spread."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(6)

    def case(evaluations, units):
        # Neither the first nor the last evaluation is the highest or lowest, and the spread grows: steps differ.
        path = np.sin(np.linspace(0.5, 6, evaluations))[:, None] * rng.uniform(1, 4, units)
        p50 = path + rng.normal(0, 0.2, (evaluations, units)) + rng.normal(0, 2, units)
        spread = np.linspace(0.6, 2.5, evaluations)[:, None] * rng.uniform(0.5, 2, units)
        below, above = rng.uniform(0.2, 0.8, (2, evaluations, units)) * spread
        return Case((p50 - below, p50, p50 + above), tolerance=1e-4)  # float32 is precise enough

    return [case(9, 1), case(8, 3), case(6, 6)]  # square: a wrong axis leaves the shape as it is


def _run(answer, p15, p50, p85):
    drift = as_float(answer(p15, p50, p85))
    if drift.ndim == 0:  # one number for all units: its value tells which
        return 0, np.full(p50.shape[1], drift)
    return 1, drift


def _spread(p15, p85):
    return (p85 - p15).mean(0)


def _reference(p15, p50, p85):
    return (p50.max(0) - p50.min(0)) / (p85 - p15).mean(0)


EXERCISE = Exercise(
    name="drift",
    usage="drift = my_drift(p15, p50, p85)",
    inputs=("p15", "p50", "p85"),
    outputs=("drift.ndim", "drift"),
    reference=_reference,
    cases=_cases(),
    run=_run,
)


@EXERCISE.mistake(
    "wrong-axis",
    "You go along the units, from one unit to the next. A drift is over the evaluations, axis 0: your result should "
    "have one entry per unit.",
)
def wrong_axis(p15, p50, p85):
    return np.ptp(p50, 1) / (p85 - p15).mean(1)


@EXERCISE.mistake("wrong-axis")
def range_along_units(p15, p50, p85):
    return np.ptp(p50, 1) / (p85 - p15).mean(0)


@EXERCISE.mistake("wrong-axis")
def spread_along_units(p15, p50, p85):
    return np.ptp(p50, 0) / (p85 - p15).mean(1)


@EXERCISE.mistake(
    "one-number",
    "You return one number for all units. Asked for is one drift per unit, as an array (units,): a summary over the "
    "units comes later.",
)
def median_over_units(p15, p50, p85):
    return np.median(_reference(p15, p50, p85))


@EXERCISE.mistake("one-number")
def mean_over_units(p15, p50, p85):
    return np.mean(_reference(p15, p50, p85))


@EXERCISE.mistake("one-number")
def largest_unit(p15, p50, p85):
    return np.max(_reference(p15, p50, p85))


@EXERCISE.mistake("one-number")
def over_both_axes(p15, p50, p85):
    return np.ptp(p50) / np.mean(p85 - p15)


@EXERCISE.mistake(
    "units-averaged-first",
    "You average over the units before you look at the evaluations. Units that drift up and units that drift down "
    "cancel in that mean: keep each unit on its own, to the end.",
)
def units_averaged_first(p15, p50, p85):
    return np.ptp(p50.mean(1)) / np.mean(p85 - p15)


@EXERCISE.mistake("units-averaged-first")
def medians_averaged_first(p15, p50, p85):
    return np.ptp(p50.mean(1)) / _spread(p15, p85)


@EXERCISE.mistake("units-averaged-first")
def spreads_averaged_too(p15, p50, p85):
    return np.ptp(p50, 0) / np.mean(p85 - p15)


@EXERCISE.mistake(
    "standard-deviation",
    "You measure how far the median moves by its standard deviation. Asked for is the whole way from its lowest to "
    "its highest value.",
)
def standard_deviation(p15, p50, p85):
    return p50.std(0) / _spread(p15, p85)


@EXERCISE.mistake("standard-deviation")
def unbiased_standard_deviation(p15, p50, p85):
    return p50.std(0, ddof=1) / _spread(p15, p85)


@EXERCISE.mistake(
    "last-minus-first",
    "You subtract the first median from the last. A unit that wanders off and comes back has drifted too: look at "
    "the evaluations in between.",
)
def last_minus_first(p15, p50, p85):
    return (p50[-1] - p50[0]) / _spread(p15, p85)


@EXERCISE.mistake("last-minus-first")
def distance_of_last_and_first(p15, p50, p85):
    return abs(p50[-1] - p50[0]) / _spread(p15, p85)


@EXERCISE.mistake(
    "highest-only",
    "You divide the highest median, not the way it moved. A unit that stays at 5 has not drifted at all, and "
    "yours says it has.",
)
def highest_only(p15, p50, p85):
    return p50.max(0) / _spread(p15, p85)


@EXERCISE.mistake(
    "range-of-the-fan",
    "You measure from the lowest 15th to the highest 85th percentile. That is not 0 even where nothing moves: the "
    "width of the fan is in it. How far does the middle line move?",
)
def range_of_the_fan(p15, p50, p85):
    return (p85.max(0) - p15.min(0)) / _spread(p15, p85)


@EXERCISE.mistake(
    "spread-of-one-evaluation",
    "You divide by the spread at one evaluation. The spread changes in training: each evaluation is to count, by the "
    "mean over them.",
)
def last_spread(p15, p50, p85):
    return np.ptp(p50, 0) / (p85 - p15)[-1]


@EXERCISE.mistake("spread-of-one-evaluation")
def first_spread(p15, p50, p85):
    return np.ptp(p50, 0) / (p85 - p15)[0]


@EXERCISE.mistake("spread-of-one-evaluation")
def widest_spread(p15, p50, p85):
    return np.ptp(p50, 0) / (p85 - p15).max(0)


@EXERCISE.mistake(
    "divided-too-early",
    "You divide at each evaluation and then summarize. Here the order is the other way round: one distance and one "
    "mean spread per unit, and then one division.",
)
def ratios_averaged(p15, p50, p85):
    return (np.ptp(p50, 0) / (p85 - p15)).mean(0)


@EXERCISE.mistake("divided-too-early")
def range_of_ratios(p15, p50, p85):
    return np.ptp(p50 / (p85 - p15), 0)


@EXERCISE.mistake(
    "p85-alone",
    "You divide by one percentile. A percentile says where the values are, not how wide they spread: add 10 to all "
    "three arrays, and your drift changes. It must not.",
)
def p85_alone(p15, p50, p85):
    return np.ptp(p50, 0) / p85.mean(0)


@EXERCISE.mistake("p85-alone")
def p15_alone(p15, p50, p85):
    return np.ptp(p50, 0) / p15.mean(0)


@EXERCISE.mistake(
    "half-spread",
    "You divide by one half of the spread. The whole fan, from the 15th to the 85th percentile, is asked for.",
)
def upper_half(p15, p50, p85):
    return np.ptp(p50, 0) / (p85 - p50).mean(0)


@EXERCISE.mistake("half-spread")
def lower_half(p15, p50, p85):
    return np.ptp(p50, 0) / (p50 - p15).mean(0)


@EXERCISE.mistake("half-spread")
def halved(p15, p50, p85):
    return np.ptp(p50, 0) / (p85 - p15).mean(0) * 2


@EXERCISE.mistake(
    "not-divided",
    "You return how far the median moves, in the unit of the input. A unit with a wide spread moves far and little "
    "comes of it: the spread has to come in.",
)
def not_divided(p15, p50, p85):
    return np.ptp(p50, 0)


@EXERCISE.mistake(
    "negative",
    "Your drift has the wrong sign. Distance and spread are both positive: look at the order in your differences.",
)
def negative(p15, p50, p85):
    return -_reference(p15, p50, p85)


@EXERCISE.mistake("upside-down", "Your fraction is upside down: it gets smaller the further the median moves.")
def upside_down(p15, p50, p85):
    return 1 / _reference(p15, p50, p85)
