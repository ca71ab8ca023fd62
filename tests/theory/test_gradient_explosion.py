"""Growth of gradients: the closed forms against quadrature, brute force on the sphere and wide nets."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from bnlib.theory.gradient_explosion import (
    branch_share,
    linear_rate,
    rate,
    relu_kernel,
    relu_rate,
    relu_slope,
    residual_growth,
    skip_growth,
    with_eps,
)

RELU = (lambda y: np.maximum(y, 0), lambda y: (y > 0) * 1.0)
TANH = (np.tanh, lambda y: 1 - np.tanh(y) ** 2)
LINEAR = (lambda y: y, np.ones_like)
TABLE = {4: 3.084, 5: 2.274, 8: 1.788, 16: 1.590, 32: 1.522, 64: 1.493, 128: 1.480, 256: 1.473}  # Yang et al., eq. 25


def by_units(phi, slope, batch, units, seed):
    """The rate by brute force: the trace of one layer's backward map, averaged over random units."""
    rng = np.random.default_rng(seed)
    center = np.eye(batch) - 1 / batch

    def normalized(z):
        z = z - z.mean(1, keepdims=True)
        return z / z.std(1, keepdims=True)

    h = phi(normalized(rng.normal(size=(units, batch))))
    gram = h.T @ h / units
    kappa = np.trace(center @ gram) / (batch - 1)  # symmetric up to noise: the mean of its entries is exact
    z = rng.normal(size=(units, batch)) * np.sqrt(kappa)
    z -= z.mean(1, keepdims=True)
    var, y, total = z.var(1), normalized(z), 0.0
    for i in range(units):
        jacobian = (center - np.outer(y[i], y[i]) / batch) / np.sqrt(var[i]) * slope(y[i])
        total += np.trace(center @ jacobian.T @ jacobian)
    return total / units / (batch - 1)


@pytest.mark.parametrize("batch", TABLE)
def test_relu_rate_is_the_table_of_the_paper_and_linear_the_least(batch):
    assert relu_rate(batch) == pytest.approx(TABLE[batch], abs=6e-4)
    assert linear_rate(batch) == pytest.approx((batch - 2) / (batch - 3))
    assert 1 < linear_rate(batch) < relu_rate(batch)


def test_rates_fall_to_their_limits():
    assert relu_rate(math.inf) == pytest.approx(math.pi / (math.pi - 1))
    assert math.sqrt(relu_rate(math.inf)) == pytest.approx(1.2111, abs=1e-4)
    assert linear_rate(math.inf) == 1
    assert relu_rate(10**7) == pytest.approx(relu_rate(math.inf), rel=1e-6)
    rates = [relu_rate(batch) for batch in range(4, 300)]
    assert all(np.diff(rates) < 0)


@pytest.mark.parametrize("c", [-1.0, -0.6, -1 / 7, 0.0, 0.3, 0.99, 1.0])
def test_kernels_are_averages_over_two_correlated_numbers(c):
    angles = 2 * np.pi * (np.arange(200_000) + 0.5) / 200_000  # a rotation-invariant pair: radius 1, E r^2 = 2
    a, b = np.cos(angles), np.cos(angles - np.arccos(c))
    assert relu_kernel(c) == pytest.approx(2 * 2 * np.mean(np.maximum(a, 0) * np.maximum(b, 0)), abs=1e-8)
    assert relu_slope(c) == pytest.approx(2 * np.mean((a > 0) & (b > 0)), abs=2e-5)


@given(st.floats(-0.99, 0.99))
def test_the_slope_is_the_kernels_derivative(c):
    step = 1e-6
    assert (relu_kernel(c + step) - relu_kernel(c - step)) / (2 * step) == pytest.approx(relu_slope(c), abs=1e-5)


@pytest.mark.parametrize("batch", [4, 5, 8, 33, 128, 500])
def test_quadrature_gives_the_closed_forms(batch):
    assert rate(*LINEAR, batch) == pytest.approx(linear_rate(batch), rel=1e-10)
    assert rate(*RELU, batch) == pytest.approx(relu_rate(batch), rel=1e-3)
    assert rate(*RELU, batch, angles=8_192) == pytest.approx(relu_rate(batch), rel=5e-5)


@pytest.mark.parametrize(
    ("activation", "batch"), [(LINEAR, 8), (RELU, 8), (TANH, 8), (TANH, 24), ((np.sin, np.cos), 12)]
)
def test_rates_are_what_random_units_give(activation, batch):
    assert by_units(*activation, batch, 40_000, batch) == pytest.approx(rate(*activation, batch), rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.floats(-2, 3), st.floats(0.2, 3), st.integers(8, 200))
def test_no_activation_grows_less_than_the_linear_one(shift, scale, batch):
    """Theorem of Yang et al.; a leaky ReLU, a shifted tanh and softplus try it."""
    floor = linear_rate(batch) - 1e-9
    assert (
        rate(lambda y: np.tanh(scale * y + shift), lambda y: scale / np.cosh(scale * y + shift) ** 2, batch) > floor
    )
    assert rate(lambda y: np.logaddexp(0, y + shift), lambda y: 1 / (1 + np.exp(-y - shift)), batch) > floor


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (-0.5, 2.0)])
def test_the_rate_knows_nothing_of_the_activations_scale_and_offset(scale, offset):
    one = rate(lambda y: scale * np.tanh(y) + offset, lambda y: scale * (1 - np.tanh(y) ** 2), 16)
    assert one == pytest.approx(rate(*TANH, 16), rel=1e-9)


@pytest.mark.parametrize("eps", [0.0, 0.2, 0.5, 0.68, 0.69, 1.0, 3.0])
def test_eps_follows_the_variance_from_layer_to_layer(eps):
    threshold, v = (math.pi - 1) / math.pi, 0.9
    for _ in range(20_000):
        before, v = v, threshold * v / (v + eps)
    factor, signal = with_eps(eps)
    near = 0.01 if abs(eps - threshold) < 0.02 else 1e-9
    assert 1 / (before + eps) == pytest.approx(factor, rel=near)
    if v > 1e-200:
        assert v / before == pytest.approx(signal, rel=near)
    assert factor / signal == pytest.approx(relu_rate(math.inf))  # growth and the loss of signal go together


def test_eps_at_another_weight_variance():
    assert with_eps(1.0, s2=1.0)[0] == pytest.approx(0.5)
    assert with_eps(0.1, s2=0.5)[0] == pytest.approx(relu_rate(math.inf))


@pytest.mark.parametrize("start", [0.5, 1.0, 1.467])
@pytest.mark.parametrize("power", [1.05, 1.48, 1.79])
def test_residual_growth_is_the_product_over_the_blocks(start, power):
    blocks = np.arange(1, 120)
    product = np.cumprod(1 + power / (start + blocks - 1))
    assert_allclose(residual_growth(blocks, power, start), product, rtol=1e-10)
    assert residual_growth(0, power, start) == pytest.approx(1)
    far = residual_growth(np.array([10**5, 2 * 10**5]), power, start)
    assert np.log2(far[1] / far[0]) == pytest.approx(power, abs=1e-4)  # a power of the depth, no exponential


def test_shares_and_skips():
    assert_allclose(branch_share(np.arange(1, 5)), [1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert skip_growth(20) == 2**20
    assert skip_growth(1_000, 1_000**-0.5) == pytest.approx(math.e, rel=1e-3)
    assert skip_growth(50, 0.0) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relu_rate(3), "whole number from 4"),
        (lambda: linear_rate(8.5), "whole number from 4"),
        (lambda: linear_rate(float("nan")), "whole number from 4"),
        (lambda: rate(*RELU, math.inf), "finite batch"),
        (lambda: rate(np.ones_like, np.zeros_like, 8), "same output"),
        (lambda: relu_kernel(1.5), "from -1 to 1"),
        (lambda: relu_slope(-2), "from -1 to 1"),
        (lambda: with_eps(-0.1), "eps must not be negative"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
