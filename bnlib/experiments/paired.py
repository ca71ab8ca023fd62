"""How arms are compared: steps to a level, ratios and differences paired by seed, usable learning rates."""

import itertools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from .core import Measured

WINDOW = 3  # evaluations


def smooth(values):
    """Means of each three consecutive evaluations (of all, where there are fewer): a single one may be luck."""
    window = min(WINDOW, len(values))
    return np.convolve(np.asarray(values, float), np.ones(window) / window, "valid")


def steps_to(level, steps, values):
    """The first step at which the mean of the last three evaluations is at least ``level``.

    Parameters
    ----------
    level : float
    steps, values : array (evaluations,)

    Returns
    -------
    step : float
        The last step where the level was not reached.
    reached : bool
    """
    steps, above = np.asarray(steps), np.flatnonzero(smooth(values) >= level)
    if len(above):
        return float(steps[min(above[0] + WINDOW, len(steps)) - 1]), True
    return float(steps[-1]), False


def ratio(slow, fast):
    """Ratio of two arms' steps: the geometric mean of the ratios paired by seed.

    A run is censored where it ended before the level was reached. With one of those the median takes the place of
    the mean, and the ratio is a bound: at least this if only slow runs are censored, at most if only fast ones are,
    and no number at all if both are.

    Parameters
    ----------
    slow, fast : list of (step, reached)
        As `steps_to` returns them, in the same order of seeds.

    Returns
    -------
    Measured
        The ratio with its 95 % bootstrap interval.
    """
    (slow_steps, slow_reached), (fast_steps, fast_reached) = (zip(*arm, strict=True) for arm in (slow, fast))
    logs = np.log(slow_steps) - np.log(fast_steps)
    censored = not all(slow_reached), not all(fast_reached)
    if all(censored):
        return Measured(float("nan"), (float("nan"), float("nan")))
    value, spread = _with_interval(logs, np.median if any(censored) else np.mean)
    bound = {(False, False): "", (True, False): "≥", (False, True): "≤"}[censored]
    return Measured(float(np.exp(value)), tuple(float(v) for v in np.exp(spread)), bound)


def difference(high, low):
    """Mean difference of two arms, paired by seed, with its 95 % bootstrap interval, as `Measured`."""
    value, spread = _with_interval(np.asarray(high, float) - np.asarray(low, float), np.mean)
    return Measured(float(value), tuple(float(v) for v in spread))


class Band(NamedTuple):
    """Neighbouring learning rates with which a net is usable."""

    decades: float
    low: float
    high: float
    inside: bool


def longest_band(usable, rates):
    """The longest run of usable learning rates, {eq}`eq-band-width`.

    Each rate stands for the part of the axis up to half way to its neighbours. So a run of n rates on a grid of half
    decades is n half decades wide, and its width has a resolution of half a decade.

    Parameters
    ----------
    usable : list of bool
    rates : list of float
        Ascending, evenly spaced on a logarithmic axis.

    Returns
    -------
    Band
        Its width in decades, its lowest and highest rate (NaN if no rate is usable), and whether neither end of the
        grid belongs to it: otherwise it may be wider.
    """
    runs = [list(part) for good, part in itertools.groupby(range(len(rates)), lambda i: usable[i]) if good]
    if not runs:
        return Band(0.0, math.nan, math.nan, True)
    run = max(runs, key=len)
    first, last = run[0], run[-1]
    step = math.log10(rates[-1] / rates[0]) / (len(rates) - 1)
    return Band(len(run) * step, rates[first], rates[last], first > 0 and last < len(rates) - 1)


def sign_test(wins, pairs):
    """Two-sided p-value of winning ``wins`` of ``pairs`` comparisons when both sides are equally good."""
    return float(stats.binomtest(wins, pairs).pvalue)


def _with_interval(values, statistic):
    value = statistic(values)
    if len(values) < 2 or np.ptp(values) == 0:  # nothing to resample
        return value, (value, value)
    sampled = stats.bootstrap((values,), statistic, n_resamples=9999, method="percentile", rng=0)
    return value, (sampled.confidence_interval.low, sampled.confidence_interval.high)
