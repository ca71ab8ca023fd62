"""Constant statistics, the shape of distributions, saturation, Jacobians: against other ways to the same number."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from bnlib.theory.further_claims import (
    correlation,
    ignored,
    layer_jacobian,
    linear_map,
    near_one,
    quarter_circle,
    saturated,
    shape_of,
)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


# --- constant statistics


def standardized(rng, rho, offset):
    """Inputs with mean 0 and variance 1, and targets with this mean and this mean product."""
    u, noise = rng.normal(size=(2, 80))
    u = (u - u.mean()) / u.std()
    noise -= noise.mean() + u * (noise @ u) / (u @ u)
    return u, offset + rho * u + noise


def test_the_bias_grows_linearly_and_nothing_else_happens(rng):
    u, t = standardized(rng, 0.5, 0.3)
    loss, a, b = ignored(u + 7, t, 0.1, 50).T
    assert_allclose(loss, loss[0], rtol=1e-12)
    assert_allclose(a, 1)
    assert_allclose(b, 2 * 0.1 * 0.3 * np.arange(51), atol=1e-12)


@pytest.mark.parametrize("rho", [0.5, 1.5])
def test_dividing_follows_its_own_recursion(rng, rho):
    u, t = standardized(rng, rho, 0.3)
    a, b = 1.0, 0.0
    for found in ignored(u, t, 0.01, 20, divide=True):
        assert_allclose(found[1:], [a, b], rtol=1e-9, atol=1e-12)
        a, b = a - 2 * 0.01 * (1 - rho) / a, b + 2 * 0.01 * 0.3 / a
    assert (a < 1) == (rho < 1)


def test_unequal_inputs_and_targets_are_refused():
    with pytest.raises(ValueError, match="one length"):
        ignored(np.zeros(3), np.zeros(4), 0.1, 2)


# --- shape


def test_moments_are_those_of_scipy(rng):
    values = np.stack([rng.exponential(size=500), rng.normal(size=500), rng.uniform(size=500)], 1)
    skewness, kurtosis, _ = shape_of(values)
    assert_allclose(skewness, stats.skew(values))
    assert_allclose(kurtosis, stats.kurtosis(values))


def test_zeros_are_counted_in_units_of_the_root_mean_square():
    values = np.zeros((10, 2))
    values[:4, 0], values[:, 1] = 5.0, np.arange(10)
    zeros = shape_of(values)[2]
    rms = np.sqrt((values[:, 1] ** 2).mean())
    assert_allclose(zeros, [0.6, np.mean(values[:, 1] < 0.1 * rms)])


def test_a_constant_unit_has_no_shape():
    values = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 7.0]])
    for numbers in shape_of(values):
        assert np.isnan(numbers[0])
        assert np.isfinite(numbers[1])


def test_relu_makes_normal_values_skewed_and_sparse(rng):
    values = rng.normal(size=(20_000, 1))
    before, after = shape_of(values), shape_of(np.maximum(values, 0))
    assert all(abs(a[0]) > abs(b[0]) for a, b in zip(after, before, strict=True))
    assert after[2][0] > 0.5


# --- saturation


def test_saturated_is_where_the_slope_is_small():
    x = np.linspace(-10, 10, 2001)
    s = 1 / (1 + np.exp(-x))
    for share in (0.05, 0.3):
        assert np.array_equal(saturated(x, share), s * (1 - s) < share / 4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        saturated(x, 1.0)


# --- Jacobians


def test_the_jacobian_is_the_derivative_between_normalized_values(rng):
    weight, y = rng.normal(size=(4, 6)), rng.normal(size=6)
    std_in, std_out = rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2, 4)

    def onward(x_hat):
        return weight @ np.tanh(std_in * x_hat) / std_out

    x_hat, h = y / std_in, 1e-6
    slopes = 1 - np.tanh(y) ** 2
    numerical = np.stack([(onward(x_hat + h * e) - onward(x_hat - h * e)) / (2 * h) for e in np.eye(6)], 1)
    assert_allclose(layer_jacobian(weight, slopes, std_in, std_out), numerical, atol=1e-8)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"weight \(4, 6\)"):
        layer_jacobian(np.zeros((4, 6)), np.zeros(4), np.zeros(6), np.zeros(4))
    with pytest.raises(ValueError, match="two axes"):
        layer_jacobian(np.zeros(4), np.zeros(4), np.zeros(6), np.zeros(4))


def test_near_one_counts_and_squares():
    share, rms = near_one([0.49, 0.5, 1.0, 2.0, 2.1])
    assert share == pytest.approx(3 / 5)
    assert rms == pytest.approx(np.sqrt(np.mean(np.square([0.49, 0.5, 1.0, 2.0, 2.1]))))


def test_quarter_circle_is_what_random_matrices_have(rng):
    singular = np.linalg.svd(rng.normal(0, 1 / 20, (400, 400)), compute_uv=False)
    for low, high in ((0.5, 2.0), (0.0, 0.3), (1.0, 1.5)):
        measured = ((singular >= low) & (singular <= high)).mean()
        assert quarter_circle(low, high) == pytest.approx(measured, abs=0.01)
    assert quarter_circle(-1, 5) == pytest.approx(1)
    with pytest.raises(ValueError, match="at most high"):
        quarter_circle(1, 0)


def test_white_values_on_both_sides_make_the_linear_map_orthogonal(rng):
    def white(x):
        left, _, right = np.linalg.svd(x - x.mean(0), full_matrices=False)
        return np.sqrt(len(x)) * left @ right

    x = white(rng.normal(size=(300, 8)))
    z = x @ rng.normal(size=(8, 8)).T
    jacobian, explained = linear_map(x, white(z))
    assert_allclose(jacobian @ jacobian.T, np.eye(8), atol=1e-12)
    assert explained == pytest.approx(1)
    rows, _ = linear_map(x, z / z.std(0))
    assert_allclose((rows**2).sum(1), 1)
    assert np.abs(rows @ rows.T - np.eye(8)).max() > 0.1


def test_the_linear_map_explains_what_is_linear(rng):
    x = rng.normal(size=(5_000, 3))
    x -= x.mean(0)
    noise = rng.normal(size=(5_000, 2))
    z = x @ np.ones((3, 2)) + np.sqrt(3) * (noise - noise.mean(0))
    assert linear_map(x, z)[1] == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="above in"):
        linear_map(x[:3], z[:3])


def test_correlation_leaves_the_diagonal_out(rng):
    x = rng.normal(size=(4_000, 1))
    other = rng.normal(size=(4_000, 1))
    assert correlation(np.hstack([x, x])) == pytest.approx(1)
    assert correlation(np.hstack([x, other])) < 0.05
