"""Steps to a level, ratios and differences paired by seed, against computations of their own."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bnlib.experiments.paired import difference, longest_band, ratio, sign_test, smooth, steps_to

RNG = np.random.default_rng(0)


def done(*steps):
    return [(step, True) for step in steps]


def percentile_interval(values, statistic):
    """A bootstrap of its own: 95 % of the statistic over resampled values."""
    rng = np.random.default_rng(1)
    resampled = np.asarray(values)[rng.integers(0, len(values), (50_000, len(values)))]
    return np.percentile(statistic(resampled, axis=1), [2.5, 97.5])


# --- steps to a level


def test_smooth_is_the_mean_of_each_three_evaluations():
    values = RNG.uniform(size=9)
    assert_allclose(smooth(values), [values[i : i + 3].mean() for i in range(7)])
    assert_allclose(smooth([0.25, 0.75]), [0.5])
    assert_allclose(smooth([0.25]), [0.25])


def test_a_level_is_reached_when_the_mean_of_three_is_there():
    steps = [1, 2, 3, 5, 8, 13, 21]
    values = [0.1, 0.9, 0.2, 0.6, 0.7, 0.8, 0.1]
    assert steps_to(0.5, steps, values) == (5.0, True)  # at step 2 by luck alone, at step 5 on average
    assert steps_to(0.3, steps, values) == (3.0, True)
    assert steps_to(0.6, steps, values) == (13.0, True)
    assert steps_to(0.71, steps, values) == (21.0, False)


def test_a_level_exactly_met_is_reached():
    assert steps_to(0.5, [1, 2, 3], [0.5, 0.5, 0.5]) == (3.0, True)
    assert steps_to(np.nextafter(0.5, 1), [1, 2, 3], [0.5, 0.5, 0.5]) == (3.0, False)


@pytest.mark.parametrize("length", [1, 2])
def test_fewer_than_three_evaluations_count_together(length):
    steps, values = [10, 20][:length], [0.9, 0.7][:length]
    assert steps_to(0.8, steps, values) == (10.0 * length, True)
    assert steps_to(0.95, steps, values) == (10.0 * length, False)


def test_steps_to_takes_lists_and_arrays_and_gives_plain_numbers():
    for kind in (list, tuple, np.array):
        step, reached = steps_to(0.5, kind([1, 2, 3]), kind([0.5, 0.6, 0.7]))
        assert (type(step), type(reached)) == (float, bool)


# --- ratios


def test_a_ratio_is_the_geometric_mean_of_the_ratios_by_seed():
    measured = ratio(done(100, 400, 900), done(50, 100, 90))
    assert measured.value == pytest.approx((2 * 4 * 10) ** (1 / 3))
    assert measured.bound == ""
    swapped = ratio(done(50, 100, 90), done(100, 400, 900))
    assert swapped.value == pytest.approx(1 / measured.value)


def test_a_ratio_is_paired():
    measured = ratio(done(10, 1_000, 100_000), done(1, 100, 10_000))  # every pair 10, whatever the seeds do
    assert measured.value == pytest.approx(10)
    assert_allclose(measured.spread, (10, 10))


def test_slow_runs_that_ended_early_make_the_median_a_lower_bound():
    measured = ratio([(100, True), (3_000, False), (3_000, False)], done(50, 100, 1_000))
    assert measured.value == pytest.approx(3)  # the median of 2, 30, 3
    assert measured.bound == "≥"


def test_fast_runs_that_ended_early_make_it_an_upper_bound():
    measured = ratio(done(100, 300, 3_000), [(50, True), (3_000, False), (100, True)])
    assert measured.value == pytest.approx(2)  # the median of 2, 0.1, 30
    assert measured.bound == "≤"


def test_there_is_no_ratio_where_both_ended_early():
    measured = ratio([(3_000, False), (10, True)], [(10, True), (3_000, False)])
    assert all(math.isnan(v) for v in (measured.value, *measured.spread))
    assert measured.bound == ""


@pytest.mark.parametrize("bound", ["", "≥"])
def test_the_interval_of_a_ratio_is_that_of_a_bootstrap_of_the_logs(bound):
    slow, fast = RNG.uniform(500, 3_000, 9), RNG.uniform(50, 400, 9)
    runs = done(*slow)
    if bound:
        runs[0] = (runs[0][0], False)
    measured = ratio(runs, done(*fast))
    statistic = np.median if bound else np.mean
    assert measured.bound == bound
    assert_allclose(measured.spread, np.exp(percentile_interval(np.log(slow / fast), statistic)), rtol=0.03)
    assert measured.spread[0] < measured.value < measured.spread[1]


# --- differences


def test_a_difference_is_the_mean_of_the_differences_by_seed():
    high, low = RNG.uniform(80, 90, 8), RNG.uniform(70, 80, 8)
    measured = difference(high, low)
    assert measured.value == pytest.approx((high - low).mean())
    assert_allclose(measured.spread, percentile_interval(high - low, np.mean), rtol=0.03)
    assert measured.bound == ""
    assert difference(low, high).value == pytest.approx(-measured.value)
    assert_allclose(difference(low, high).spread, -np.array(measured.spread[::-1]), rtol=0.03)


def test_the_same_runs_give_the_same_interval_every_time():
    high, low = RNG.uniform(80, 90, 5), RNG.uniform(70, 80, 5)
    assert difference(high, low) == difference(high, low)
    assert ratio(done(*high), done(*low)) == ratio(done(*high), done(*low))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("high", "low"), [([5.0], [3.0]), ([5.0, 6.0, 7.0], [3.0, 4.0, 5.0])])
def test_one_seed_or_equal_values_give_an_interval_of_one_point(high, low):
    assert difference(high, low) == (2.0, (2.0, 2.0), "")
    same = ratio(done(*high), done(*high))
    assert same == (1.0, (1.0, 1.0), "")
    one = ratio([(300, False)], done(100))
    assert one.value == pytest.approx(3)
    assert one.spread == pytest.approx((3, 3))
    assert one.bound == "≥"


def test_a_comparison_takes_as_many_runs_of_both_arms():
    with pytest.raises(ValueError, match="shapes"):
        ratio(done(1, 2, 3), done(1, 2))
    with pytest.raises(ValueError, match="shapes"):
        difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_numbers_are_plain_floats_ready_for_json():
    for measured in (ratio(done(3, 5), done(1, 2)), difference(np.float32([3, 5]), np.float32([1, 2]))):
        assert {type(v) for v in (measured.value, *measured.spread)} == {float}


# --- the width of a band

HALVES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]


@pytest.mark.parametrize(
    ("usable", "rates", "inside"),
    [
        ("0000000", 0, True),
        ("0001000", 1, True),
        ("0111000", 3, True),
        ("0110100", 2, True),  # a gap ends a band
        ("0101110", 3, True),  # the longest run, wherever it is
        ("0110110", 2, True),
        ("1110000", 3, False),  # may go on below
        ("0000111", 3, False),
        ("1011100", 3, True),  # the end of the grid belongs to another run
        ("1111111", 7, False),
    ],
)
def test_a_band_is_half_a_decade_wide_for_each_rate_of_the_longest_run(usable, rates, inside):
    band = longest_band([mark == "1" for mark in usable], HALVES)
    assert band.decades == pytest.approx(0.5 * rates)
    assert (type(band.decades), band.inside) == (float, inside)
    first = usable.find("1" * rates)
    ends = (HALVES[first], HALVES[first + rates - 1]) if rates else (math.nan, math.nan)
    np.testing.assert_equal((band.low, band.high), ends)


def test_the_width_depends_on_the_spacing_of_the_rates():
    usable = [False, True, True, False]
    assert longest_band(usable, [0.1, 1.0, 10.0, 100.0]).decades == pytest.approx(2)
    assert longest_band(usable, [1.0, 2.0, 4.0, 8.0]).decades == pytest.approx(2 * math.log10(2))


# --- the sign test


@pytest.mark.parametrize("wins", range(7))
def test_the_sign_test_counts_coin_tosses(wins):
    at_least_as_odd = [k for k in range(7) if math.comb(6, k) <= math.comb(6, wins)]
    assert sign_test(wins, 6) == pytest.approx(sum(math.comb(6, k) for k in at_least_as_odd) / 2**6)


def test_five_of_six_wins_are_no_proof():
    assert sign_test(5, 6) == 0.21875
