"""The rank of representations: measures against definitions, laws against random nets, bounds over problems."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate

from bnlib.theory.gradient_explosion import relu_kernel
from bnlib.theory.rank import (
    Rank,
    cosine_law,
    cosine_path,
    cosines,
    layer,
    log_volume,
    lyapunov,
    mirrored_weights,
    next_shares,
    normalize,
    random_weights,
    rank,
    relu_stable_rank,
    root_shares,
    shares_path,
    twin_weights,
)

BN = {"mean": True, "scale": True}


def gaussian(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


# --- measures


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5), (3, 1)])
def test_the_measures_are_their_definitions(shape):
    h = gaussian(0, *shape) + 0.7
    gram = h @ h.T
    found = rank(h)
    assert isinstance(found, Rank)
    assert found.stable == pytest.approx(np.trace(gram) / np.linalg.eigvalsh(gram)[-1])
    assert found.gap == pytest.approx(np.linalg.norm(gram / np.trace(gram) - np.eye(len(h)) / len(h)))
    assert found.count == min(shape)


def test_the_count_is_of_singular_values_and_their_ends():
    left, right = np.linalg.qr(gaussian(1, 8, 8))[0], np.linalg.qr(gaussian(2, 8, 8))[0]
    values = np.array([5.0, 1, 0.3, 0.051, 0.049, 1e-3, 1e-6, 0])
    assert rank(left * values @ right).count == 4
    assert rank(1e-9 * left * values @ right).count == 4
    assert rank(np.ones((4, 6))) == (pytest.approx(1), 1, pytest.approx(np.sqrt(3 / 4)))
    found = rank(3 * np.eye(5))
    assert (found.stable, found.count) == (pytest.approx(5), 5)
    assert found.gap == pytest.approx(0, abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 9))
def test_the_measures_stay_within_their_limits(seed, samples, units):
    found = rank(gaussian(seed, samples, units) + gaussian(seed + 1, units))
    smaller = min(samples, units)
    assert 1 <= found.stable <= smaller + 1e-9
    assert 1 <= found.count <= smaller
    assert -1e-12 <= found.gap <= 1


def test_cosines_are_of_rows():
    h = np.array([[1.0, 0], [3, 4], [0, 0]])
    assert_allclose(cosines(h), [[1, 0.6, 0], [0.6, 1, 0], [0, 0, 0]], atol=1e-12)


# --- layers


def test_normalize_is_bn_or_a_half_of_it():
    z = gaussian(3, 20, 4) * [1, 2, 3, 4] + 5
    both = normalize(z)
    assert_allclose(both.mean(0), 0, atol=1e-12)
    assert_allclose(both.var(0), 1)
    assert_allclose(normalize(z, scale=False), z - z.mean(0))
    alone = normalize(z, mean=False)
    assert_allclose(np.square(alone).mean(0), 1)
    assert_allclose(alone * np.sqrt(np.square(z).mean(0)), z)
    assert_allclose(layer(z, np.eye(4), relu=True, **BN), np.maximum(both, 0))
    assert_allclose(layer(z, np.eye(4)), z)


@pytest.mark.parametrize("relu", [False, True])
def test_random_weights_keep_the_mean_square(relu):
    rng = np.random.default_rng(4)
    wide = random_weights(rng, 400, 300, relu=relu)
    assert np.square(wide).mean() * 300 == pytest.approx(2 if relu else 1, rel=0.02)
    for shape in ((5, 5), (3, 7), (7, 3)):
        q = random_weights(rng, *shape, "orthogonal", relu) / (2**0.5 if relu else 1)
        product = q @ q.T if shape[0] <= shape[1] else q.T @ q
        assert_allclose(product, np.eye(min(shape)), atol=1e-12)


@pytest.mark.parametrize("shrink", [1.0, 0.1, 1e-3])
def test_a_mirrored_net_is_linear_with_the_singular_values_that_were_asked_for(shrink):
    sizes, rng = (30, 20, 20, 20, 20), np.random.default_rng(5)
    weights = mirrored_weights(rng, sizes, shrink)
    assert [w.shape for w in weights] == [(20, 30), (20, 20), (20, 20), (20, 20)]
    h = x = gaussian(6, 40, 30)
    for weight in weights:
        z = h @ weight.T
        assert_allclose(z[:, 10:], -z[:, :10], atol=1e-12)
        h = np.maximum(z, 0)
    matrix = np.linalg.lstsq(x, z[:, :10], rcond=None)[0]
    values = np.linalg.svd(matrix, compute_uv=False)
    assert_allclose(x @ matrix, z[:, :10], atol=1e-9)
    assert_allclose(values, [1, *[shrink] * 9], rtol=1e-9)
    if shrink == 1:
        assert_allclose(cosines(matrix.T), np.eye(10), atol=1e-9)


def test_twins_have_the_cosine_that_was_asked_for():
    rng = np.random.default_rng(7)
    for common in (0.0, 0.5, 0.9):
        weight = twin_weights(rng, (3000, 6, 6), common)[0]
        assert_allclose(np.abs(cosines(weight)[~np.eye(6, dtype=bool)]), common, atol=0.08)
        assert np.square(weight).mean() * 3000 == pytest.approx(2, rel=0.1)
    same = twin_weights(rng, (9, 5), 1.0)[0]
    assert_allclose(np.abs(same), np.broadcast_to(np.abs(same[0]), (5, 9)))
    assert len({*np.sign(same[:, 0])}) == 2


# --- without BN


@pytest.mark.parametrize(("width", "count"), [(3, 3), (8, 5), (40, 10)])
def test_volumes_grow_as_the_exponents_say(width, count):
    rng = np.random.default_rng(width)
    h = rng.normal(size=(count, width)) * np.arange(1, width + 1)  # whatever it was: the factor does not depend on it
    before = log_volume(h)
    grown = [log_volume(h @ rng.normal(size=(width, width)) / width**0.5) - before for _ in range(6_000)]
    error = np.std(grown) / np.sqrt(len(grown))
    assert np.mean(grown) == pytest.approx(lyapunov(width, count).sum(), abs=4 * error)


def test_log_volume_is_half_the_logarithm_of_the_determinant():
    h = gaussian(8, 4, 6)
    assert log_volume(h) == pytest.approx(np.linalg.slogdet(h @ h.T)[1] / 2)
    assert log_volume(gaussian(8, 6, 4)) == -np.inf


def test_singular_values_of_a_long_product_follow_the_exponents():
    rng, width, depth = np.random.default_rng(9), 6, 3_000
    q, total = np.eye(width), np.zeros(width)
    for _ in range(depth):
        q, r = np.linalg.qr(rng.normal(size=(width, width)) / width**0.5 @ q)
        total += np.log(np.abs(np.diag(r)))
    assert_allclose(total / depth, lyapunov(width, width), atol=0.06)
    gaps = lyapunov(128, 32)[0] - lyapunov(128, 32)
    assert_allclose(gaps[:9], np.arange(9) / 256, rtol=0.05, atol=1e-12)


@pytest.mark.parametrize("c", [-0.999, -0.5, 0.0, 0.3, 0.9, 0.999])
def test_the_cosine_behind_a_relu_is_an_expectation(c):
    def product(v, u):
        return u * (c * u + np.sqrt(1 - c**2) * v) * np.exp(-(u**2 + v**2) / 2) / (2 * np.pi)

    edge = -c / np.sqrt(1 - c**2)
    value, _ = integrate.dblquad(product, 0, 9, lambda u: max(min(edge * u, 9), -9), lambda u: 9)
    assert relu_kernel(c) == pytest.approx(2 * value, abs=1e-6)


@settings(deadline=None)
@given(st.floats(-1, 1))
def test_a_relu_never_lowers_a_cosine(c):
    assert relu_kernel(c) >= c - 1e-12
    assert relu_kernel(1.0) == 1


@pytest.mark.parametrize("c", [-0.9, 0.0, 0.9])
def test_the_collapse_follows_its_law_from_any_start(c):
    path = cosine_path(c, 20_000)
    assert len(path) == 20_001
    assert (np.diff(path) > 0).all()
    left = (1 - path[[5_000, 20_000]]) / cosine_law([5_000, 20_000])
    assert_allclose(left, 1, rtol=0.02)
    assert abs(left[1] - 1) < abs(left[0] - 1)


def test_random_relu_nets_follow_the_map():
    rng, pair = np.random.default_rng(10), np.linalg.qr(gaussian(11, 1_000, 2))[0].T
    h = np.array([pair[0], 0.2 * pair[0] + np.sqrt(0.96) * pair[1]])
    for expected in cosine_path(0.2, 4)[1:]:
        h = layer(h, random_weights(rng, 1_000, 1_000, relu=True), relu=True)
        assert cosines(h)[0, 1] == pytest.approx(expected, abs=0.06)


# --- with BN


@settings(deadline=None)
@given(st.floats(-12, 0))
def test_two_shares_go_as_their_roots(exponent):
    shares = np.array([1, 10**exponent])
    assert_allclose(next_shares(shares), root_shares(shares), rtol=1e-6)
    assert root_shares(shares)[0] / root_shares(shares)[1] == pytest.approx(10 ** (-exponent / 2))


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=6))
def test_bn_brings_shares_together_and_keeps_their_order(shares):
    shares = np.sort(shares)[::-1]
    after = next_shares(shares)
    assert after.sum() == pytest.approx(1)
    ratio, now = shares[:-1] / shares[1:], after[:-1] / after[1:]
    assert (now <= ratio * (1 + 1e-7)).all()
    assert (now >= 1 - 1e-7).all()


def test_shares_are_what_a_wide_layer_with_bn_makes():
    rng, h = np.random.default_rng(12), gaussian(13, 7, 5) * [4, 2, 1, 0.5, 0.1]
    centred = h - h.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    z = layer(h, random_weights(rng, 200_000, 5), **BN)
    gram = z @ z.T / np.square(z).sum()
    turned = u.T @ gram @ u
    assert_allclose(np.diag(turned), next_shares(s**2), atol=3e-3)
    assert_allclose(turned - np.diag(np.diag(turned)), 0, atol=3e-3)
    assert_allclose(gram.sum(0), 0, atol=1e-9)
    without = layer(centred, random_weights(rng, 200_000, 5))
    assert_allclose(rank(without).stable, rank(centred).stable, rtol=0.01)  # no division: shares stay


def test_all_directions_become_equal_in_the_end():
    path = shares_path([1, 1e-3, 1e-6, 1e-9], 60)
    assert path.shape == (61, 4)
    assert_allclose(path[0], np.array([1, 1e-3, 1e-6, 1e-9]) / 1.001001001)
    assert_allclose(path[-1], 0.25, atol=1e-6)
    assert (np.diff(path[:, 0]) <= 1e-12).all()


def test_a_direction_that_is_not_there_stays_away():
    assert_allclose(next_shares([0.7, 0.3, 0.0])[2], 0)
    assert_allclose(next_shares([0.7, 0.3, 0.0])[:2], root_shares([0.7, 0.3]), rtol=1e-6)


@pytest.mark.parametrize("samples", [2, 3, 8])
def test_equal_samples_behind_bn_and_relu_have_the_stable_rank_of_the_theory(samples):
    rng, h = np.random.default_rng(samples), 0.5 * np.eye(samples) + 0.5
    z = layer(np.linalg.cholesky(h), random_weights(rng, 400_000, samples, relu=True), relu=True, **BN)
    assert rank(z).stable == pytest.approx(relu_stable_rank(samples), rel=5e-3)


def test_the_value_for_32_samples_is_that_of_the_page():
    assert relu_stable_rank(32) == pytest.approx(3.085, abs=5e-4)
    assert relu_stable_rank(10**7) == pytest.approx(np.pi, rel=1e-5)
    assert relu_stable_rank(2) == pytest.approx(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank(np.zeros((3, 3))), "has no direction"),
        (lambda: rank(np.ones(3)), r"\(N, units\)"),
        (lambda: rank(np.array([[np.nan, 1]])), "finite"),
        (lambda: normalize(np.ones((4, 2))), "unit 0 is constant"),
        (lambda: random_weights(np.random.default_rng(0), 3, 3, "uniform"), "gaussian or orthogonal"),
        (lambda: mirrored_weights(np.random.default_rng(0), (9, 5, 5)), "one even width"),
        (lambda: mirrored_weights(np.random.default_rng(0), (2, 8, 8)), "up to twice the inputs"),
        (lambda: mirrored_weights(np.random.default_rng(0), (9, 4, 4), 0.0), "shrink > 0"),
        (lambda: twin_weights(np.random.default_rng(0), (4, 4), 1.5), "from 0 to 1"),
        (lambda: lyapunov(4, 5), "has 1 to 4 exponents"),
        (lambda: root_shares([1.0, 1, 1]), "takes two shares"),
        (lambda: next_shares([-1.0, 2]), "none negative"),
        (lambda: relu_stable_rank(1), "at least 2 samples"),
    ],
)
def test_bad_input_gets_a_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
