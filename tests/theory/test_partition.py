"""The partition of a ReLU net: each formula against what it is about, distances and regions against brute force."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bnlib.scratch.batchnorm import batchnorm_forward
from bnlib.theory.partition import (
    boundary_offset,
    fold_batch,
    golden_weights,
    jitter,
    least_squares,
    local_maps,
    nearest,
    partition,
    preactivations,
    signed_distances,
    unit_distances,
)

BOX = (-3.0, 3.0, -2.0, 2.0)


def random_net(seed, sizes=(2, 6, 5, 4), bias=0.7):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(units, inputs)), bias * rng.normal(size=units))
        for inputs, units in itertools.pairwise(sizes)
    ]


def points(seed, count=40, inputs=2):
    return np.random.default_rng(seed).normal(size=(count, inputs))


def patterns(x, layers, slope=0.0):
    return np.concatenate(preactivations(x, layers, slope), 1) > 0


def area(polygon):
    x, y = polygon.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def walked(x, layers, slope, reach, rays=360, steps=500):
    """Shortest way to another pattern, and to another sign of each unit, over many rays: never too short."""
    way, angles = np.linspace(0, reach, steps), np.linspace(0, 2 * np.pi, rays, endpoint=False)
    places = x + way[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    here = patterns(x[None], layers, slope)
    changed = (patterns(places.reshape(-1, 2), layers, slope) != here).reshape(steps, rays, -1).any(1)
    units = np.where(changed.any(0), way[changed.argmax(0)], np.inf)
    return units.min(), units


# --- one layer


@pytest.mark.parametrize(("gamma", "beta", "eps"), [(1.0, 0.0, 0.0), (0.5, 1.3, 1e-2), (-2.0, 0.4, 0.0)])
def test_bn_is_zero_on_the_boundary_that_its_statistics_say(gamma, beta, eps):
    x, weight = points(0) * [3, 1] + [5, -2], points(1, 4)
    z = x @ weight.T
    t = boundary_offset(z.mean(0), z.var(0), gamma, beta, eps)
    for unit in range(4):
        on = x[0] + (t[unit] - weight[unit] @ x[0]) * weight[unit] / (weight[unit] @ weight[unit])
        (value,) = gamma * (weight[unit] @ on - z[:, [unit]].mean(0)) / np.sqrt(z[:, [unit]].var(0) + eps) + beta
        assert value == pytest.approx(0, abs=1e-12)
    assert_allclose(boundary_offset(z.mean(0), z.var(0)), z.mean(0))
    assert not np.allclose(
        boundary_offset(z.mean(0), z.var(0), 1.0, 1.0), boundary_offset(z.mean(0), 4 * z.var(0), 1.0, 1.0)
    )


def test_a_signed_distance_is_that_of_the_foot():
    x, weight, offset = points(2, inputs=3), points(3, 5, 3), np.arange(5.0)
    found = signed_distances(x, weight, offset)
    unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    feet = x[:, None] - found[:, :, None] * unit
    assert_allclose((feet * weight).sum(2), np.broadcast_to(offset, (40, 5)), atol=1e-12)
    assert_allclose(np.linalg.norm(feet - x[:, None], axis=2), np.abs(found))


@pytest.mark.parametrize("seed", range(20))
def test_no_offset_has_a_smaller_sum_of_squares_than_the_mean(seed):
    x, weight = points(seed) * [1, 4] + [10, 0], points(seed + 100, 7)
    offset, least = least_squares(x, weight)
    at = (signed_distances(x, weight, offset) ** 2).sum(0)
    assert_allclose(at, least, rtol=1e-11)
    for step in (-3.0, -1e-3, 1e-3, 0.4):
        other = (signed_distances(x, weight, offset + step) ** 2).sum(0)
        assert_allclose(other - least, len(x) * step**2 / (weight**2).sum(1), rtol=1e-6)


def test_another_direction_may_lie_nearer_so_only_the_offset_is_least_squares():
    x = points(5, 200) * [5, 0.1]
    assert least_squares(x, np.array([[1.0, 0.0]]))[1] > 100 * least_squares(x, np.array([[0.0, 1.0]]))[1]


# --- layers from a batch


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("eps", [0.0, 1e-3])
def test_folded_layers_are_batch_norm(slope, eps):
    x, weights = points(6) + 3, [w for w, _ in random_net(7)]
    gamma, beta = [1.5, np.linspace(0.5, 1, 5), 2.0], [0.3, np.linspace(-1, 1, 5), 0.0]
    layers = fold_batch(x, weights, gamma=gamma, beta=beta, eps=eps, slope=slope)
    h = x
    for weight, g, b, z in zip(weights, gamma, beta, preactivations(x, layers, slope), strict=True):
        ones = np.ones(len(weight))
        y, _ = batchnorm_forward(h @ weight.T, g * ones, b * ones, eps)
        assert_allclose(z, y, atol=1e-10)
        h = np.where(y > 0, y, slope * y)


def test_without_scale_or_mean_the_other_half_is_done():
    x, weights = points(8) + 3, [w for w, _ in random_net(9)]
    centred = preactivations(x, fold_batch(x, weights, scale=False))
    assert max(np.abs(z.mean(0)).max() for z in centred) < 1e-13
    assert np.ptp(np.concatenate([z.std(0) for z in centred])) > 1
    plain = fold_batch(x, weights, mean=False, scale=False, beta=0.25)
    for (weight, bias), given in zip(plain, weights, strict=True):
        assert_allclose(weight, given)
        assert_allclose(bias, 0.25)


@pytest.mark.parametrize("seed", range(5))
def test_scale_alone_moves_no_boundary_of_the_first_layer_but_folds_the_second_elsewhere(seed):
    x, weights = points(seed) + 3, [w for w, _ in random_net(seed + 50)]
    both, mean = fold_batch(x, weights), fold_batch(x, weights, scale=False)
    assert_allclose(both[0][1] / mean[0][1], np.linalg.norm(both[0][0], axis=1) / np.linalg.norm(mean[0][0], axis=1))
    side = [patterns(3 * points(seed + 9, 4_000) + 3, layers) for layers in (both, mean)]
    differ = (side[0] != side[1]).mean(0)
    assert differ[:6].max() == 0
    assert differ[6:11].min() > 0


# --- regions and distances, against brute force


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_local_maps_are_the_net_and_its_derivative(seed, slope):
    layers, x, step = random_net(seed), points(seed + 10), 1e-7
    z, gradient = local_maps(x, layers, slope)
    assert_allclose(z, np.concatenate(preactivations(x, layers, slope), 1), atol=1e-12)
    for axis in range(2):
        moved = x + step * np.eye(2)[axis]
        same = (patterns(moved, layers, slope) == patterns(x, layers, slope)).all(1)
        slopes = (local_maps(moved, layers, slope)[0] - z) / step
        assert_allclose(slopes[same], gradient[same, :, axis], atol=1e-5)
        assert same.mean() > 0.9


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_nearest_and_unit_distances_are_what_a_walk_finds(seed, slope):
    layers, x = random_net(seed), points(seed + 20, 4)
    found, reach = partition(layers, (-9, 9, -9, 9), slope), 3.0
    exact, own = nearest(x, layers, slope), unit_distances(x, found, 15)
    for i in range(len(x)):
        first, units = walked(x[i], layers, slope, reach)
        for told, seen in [(exact[i], first), *zip(own[i], units, strict=True)]:
            if (
                told < reach - 0.02
            ):  # a ray between two of the 360 may be the shortest: 2 % longer at most, and a step
                assert told - 1e-9 <= seen <= 1.02 * told + 0.05
            else:
                assert seen > reach - 0.02
    assert_allclose(own.min(1), exact, rtol=1e-9)


def test_the_ball_of_the_nearest_distance_holds_no_boundary_in_more_dimensions():
    layers, x, rng = random_net(3, (5, 8, 8)), points(30, 30, 5), np.random.default_rng(31)
    radius = nearest(x, layers)
    ways = rng.normal(size=(3_000, 5))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    z, gradient = local_maps(x, layers)
    for i in range(len(x)):
        ball = x[i] + 0.999 * radius[i] * ways
        assert (patterns(ball, layers) == patterns(x[[i]], layers)).all()
        unit = (np.abs(z[i]) / np.linalg.norm(gradient[i], axis=1)).argmin()
        over = x[i] - 1.001 * z[i, unit] * gradient[i, unit] / (gradient[i, unit] @ gradient[i, unit])
        assert patterns(over[None], layers)[0, unit] != patterns(x[[i]], layers)[0, unit]


def test_the_local_quotient_of_one_unit_is_no_distance():
    layers = random_net(1)
    x = points(40, 200)
    z, gradient = local_maps(x, layers)
    length = np.linalg.norm(gradient, axis=2)
    told = np.divide(np.abs(z), length, out=np.full(z.shape, np.inf), where=length > 0)
    own = unit_distances(x, partition(layers, (-20, 20, -20, 20)), 15)
    assert_allclose(told[:, :6], own[:, :6], rtol=1e-9)  # the first layer has no folds
    bent = np.isfinite(own[:, 6:]) & np.isfinite(told[:, 6:])
    assert (told[:, 6:][bent] < 0.9 * own[:, 6:][bent]).any()
    assert (told[:, 6:][bent] > 1.1 * own[:, 6:][bent]).any()


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_regions_fill_the_box_and_hold_one_pattern_each(seed, slope):
    layers = random_net(seed)
    found = partition(layers, BOX, slope)
    assert sum(map(area, found.regions)) == pytest.approx(24)
    assert min(map(area, found.regions)) > 0
    assert len(np.unique(found.patterns, axis=0)) == len(found.regions) == len(found.patterns)
    inside = np.array([polygon.mean(0) for polygon in found.regions])
    assert (patterns(inside, layers, slope) == found.patterns).all()
    dense = np.stack(np.meshgrid(np.linspace(-3, 3, 301), np.linspace(-2, 2, 201)), -1).reshape(-1, 2)
    digits = 2 ** np.arange(15)
    assert {*(patterns(dense, layers, slope) @ digits)} <= {*(found.patterns @ digits)}
    middle = found.segments.mean(1)
    values = np.concatenate(preactivations(middle, layers, slope), 1)[np.arange(len(middle)), found.owners]
    assert np.abs(values).max() < 1e-12


@pytest.mark.parametrize("lines", [1, 2, 5, 9])
def test_one_layer_has_as_many_regions_as_lines_in_general_position(lines):
    rng = np.random.default_rng(lines)
    weight = rng.normal(size=(lines, 2))
    wide = (-1e4, 1e4, -1e4, 1e4)
    assert len(partition([(weight, rng.normal(size=lines))], wide).regions) == 1 + lines + lines * (lines - 1) // 2
    assert len(partition([(weight, np.zeros(lines))], wide).regions) == 2 * lines  # all through one point
    x = points(lines) + 4
    assert len(partition(fold_batch(x, [weight]), wide).regions) == 2 * lines  # the batch's centre


def test_a_unit_that_sees_only_dead_units_has_no_boundary():
    layers = [(np.eye(2), np.array([-10.0, -10.0])), (np.ones((1, 2)), np.zeros(1))]
    found = partition(layers, BOX)
    assert len(found.regions) == 1
    assert found.segments.shape == (0, 2, 2)
    assert np.isinf(unit_distances(np.zeros((3, 2)), found, 3)).all()
    assert_allclose(nearest(np.zeros((3, 2)), layers), 10)
    assert np.isinf(nearest(np.zeros((1, 2)), [(np.zeros((1, 2)), np.ones(1))])).all()


# --- jitter


@pytest.mark.parametrize(("batch", "samples"), [(1, 5), (2, 6), (3, 7), (6, 6)])
def test_jitter_is_exact_over_all_mini_batches(batch, samples):
    values = points(batch, samples, 1)[:, 0] ** 3
    means = [np.mean(chosen) for chosen in itertools.combinations(values, batch)]
    assert jitter(values.std(), batch, samples) == pytest.approx(np.std(means), abs=1e-12)


def test_jitter_with_replacement_would_be_another():
    assert jitter(1.0, 64, 64) == 0
    assert jitter(1.0, 1, 500) == pytest.approx(1)
    assert jitter(np.ones(2), 32, 10**9) == pytest.approx(1 / np.sqrt(32))


def test_golden_weights_are_the_same_everywhere():
    first, second = golden_weights((2, 4, 3))
    assert (first.shape, second.shape) == ((4, 2), (3, 4))
    assert first[2, 1] == pytest.approx(np.cos(2.4 * 3 * 2))
    assert second[2, 3] == pytest.approx(np.cos(2.4 * 3 * 4 + 1.7))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: boundary_offset(0.0, 1.0, gamma=0.0), "gamma must not be 0"),
        (lambda: signed_distances(points(0), np.zeros((1, 2)), 0.0), "unit 0 has weights of length 0"),
        (lambda: signed_distances(points(0), np.ones((1, 3)), 0.0), r"x must be \(N, 3\).*got \(40, 2\)"),
        (lambda: fold_batch(np.ones((4, 2)), [np.ones((3, 2))]), "unit 0 of layer 1 has variance 0"),
        (lambda: nearest(points(0)[0], random_net(0)), r"got \(2,\)"),
        (lambda: partition(random_net(0, (3, 4)), BOX), "partition takes two inputs"),
        (lambda: partition(random_net(0), (1, 0, 0, 1)), r"got \(1, 0, 0, 1\)"),
        (lambda: jitter(1.0, 9, 8), "got batch 9 of 8"),
        (lambda: jitter(1.0, 1, 1), "got batch 1 of 1"),
    ],
)
def test_bad_input_gets_a_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
