"""The fast pair: the teaching pair's bounds times 8, blocks of every shape, and the cases it leaves to the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.scratch import batchnorm, fast
from bnlib.scratch.batchnorm import RunningStatistics
from bnlib.scratch.checks import NotFinite
from bnlib.scratch.fast import batchnorm_backward, batchnorm_forward
from bnlib.scratch.layers import BatchNorm

from .oracle import bounds, count, lay_out, make_case, ratio, spread, truth, worst

ROOM = 8  # times the bounds of the teaching pair
RNG = np.random.default_rng(0)


def shares(x, dy, gamma, beta, eps):
    """Error of every quantity as a share of the teaching pair's bound."""
    right = truth(x, dy, gamma, beta, eps)
    allowed = bounds(x, dy, gamma, beta, eps, right)
    y, kept = batchnorm_forward(x, gamma, beta, eps)
    dx, dgamma, dbeta = batchnorm_backward(dy, kept)
    got = dict(y=y, mean=kept.mu, var=kept.var, dx=dx, dgamma=dgamma, dbeta=dbeta)
    assert {a.dtype for a in (y, dx, dgamma, dbeta)} == {x.dtype}
    assert y.shape == dx.shape == x.shape
    assert (kept.var >= 0).all()
    return {name: ratio(a, getattr(right, name), getattr(allowed, name)) for name, a in got.items()}


def affine(channels, dtype):
    return RNG.standard_normal((2, channels)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["y", "mean", "var", "dx", "dgamma", "dbeta"])
def test_every_quantity_is_within_its_bound_on_500_cases(name, dtype):
    share, index = worst(shares)[dtype, name]
    print(f"\n{dtype} {name}: worst share of the teaching pair's bound {share:.2g}, case {index}")
    assert share <= ROOM, make_case(index).tags


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.data())
def test_every_quantity_is_within_its_bound_over_a_search(data):
    draw = data.draw
    dtype, layout = (
        draw(st.sampled_from([np.float32, np.float64])),
        draw(st.sampled_from(["C", "strided", "channels last"])),
    )
    positions = draw(st.lists(st.integers(1, 6), max_size=3))
    shape = (draw(st.integers(2, 300)), draw(st.integers(1, 5)), *positions)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offset = np.resize(
        draw(st.lists(st.sampled_from([0, 1, 7, -9, 30, -100, 1e4]), min_size=1, max_size=3)), shape[1]
    )
    x = (rng.standard_normal(shape) + spread(offset, np.empty(shape))) * 10.0 ** draw(st.integers(-6, 4))
    dy = rng.standard_normal(shape) + draw(st.sampled_from([0, -3, 100]))
    x, dy = (lay_out(a.astype(dtype), layout) for a in (x, dy))
    gamma, beta = rng.standard_normal((2, shape[1])).astype(dtype)
    found = shares(x, dy, gamma, beta, draw(st.sampled_from([1e-12, 1e-5, 1e-1])))
    assert max(found.values()) <= ROOM, found


@pytest.mark.parametrize(
    "shape", [(200_704, 3), (256, 2, 28, 28), (3, 2, 260, 257), (50_000, 1), (4097, 5), (7, 40, 100)]
)
@pytest.mark.parametrize("offset", [0, 7, 100, 1e4])
def test_large_batches_stay_within_the_bounds(shape, offset):
    x = (RNG.standard_normal(shape) + offset).astype(np.float32)
    dy = (RNG.standard_normal(shape) + 1).astype(np.float32)
    assert max(shares(x, dy, *affine(shape[1], np.float32), 1e-5).values()) <= ROOM


@pytest.mark.parametrize("shape", [(200_704, 3), (256, 2, 28, 28), (1, 2, 1200, 1000)])
@pytest.mark.parametrize("value", [1.6610760184394302, 0.7764, 0.2259])
def test_sums_of_systematic_values_stay_within_the_bounds(shape, value):
    """Equal numbers round in the same direction at each addition."""
    x = np.tile(np.float32([value, -value, 3 * value, value]), count(np.empty(shape)) * shape[1] // 4 + 1)
    x = x[: np.prod(shape)].reshape(shape)
    dy = np.full(shape, value, np.float32)
    assert max(shares(x, dy, *affine(shape[1], np.float32), 1e-5).values()) <= ROOM


@pytest.mark.parametrize("shape", [(4096, 8), (64, 8, 14, 14)])
def test_a_mean_of_ten_thousand_standard_deviations_costs_less_than_a_thousandth(shape):
    x = (RNG.standard_normal(shape) + 1e4).astype(np.float32)
    gamma, beta = np.ones(8, np.float32), np.zeros(8, np.float32)
    right = truth(x, x, gamma, beta, 1e-5)
    y, kept = batchnorm_forward(x, gamma, beta)
    assert np.abs(y - right.y).max() <= 1e-3 * np.abs(right.y).max()
    assert kept.shift.all()
    assert not batchnorm_forward(x - np.float32(1e4), gamma, beta)[1].shift.any()  # nothing is shifted without need


@pytest.mark.parametrize("block", [1, 2**8, 2**12, 2**19])
@pytest.mark.parametrize("terms", [1, 3, 256])
@pytest.mark.parametrize("layout", ["C", "channels last", "fortran"])
@pytest.mark.parametrize("shape", [(37, 3), (16, 700), (10, 3, 7), (6, 5, 4, 9), (1, 4, 3, 2, 2)])
def test_blocks_of_any_size_give_the_same(monkeypatch, block, terms, layout, shape):
    monkeypatch.setattr(fast, "BLOCK", block)
    monkeypatch.setattr(fast, "TERMS", terms)
    monkeypatch.setattr(fast, "LONG", 5)
    x = lay_out(RNG.standard_normal(shape) + 20 * (RNG.random() < 0.5), layout)
    dy, (gamma, beta) = RNG.standard_normal(shape), affine(shape[1], np.float64)
    y, kept = batchnorm_forward(x, gamma, beta)
    right, right_kept = batchnorm.batchnorm_forward(x, gamma, beta)
    assert_allclose(y, right, atol=1e-11)
    assert_allclose(kept.var, right_kept.var, rtol=1e-11)
    for got, wanted in zip(batchnorm_backward(dy, kept), batchnorm.batchnorm_backward(dy, right_kept), strict=True):
        assert_allclose(got, wanted, atol=1e-10)


@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (40, 3, 2)])
def test_channels_last_stays_channels_last(shape):
    x = lay_out(RNG.standard_normal(shape), "channels last")
    y, kept = batchnorm_forward(x, *affine(3, np.float64))
    dx = batchnorm_backward(RNG.standard_normal(shape), kept)[0]
    assert y.strides == dx.strides == x.strides


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1234.567, 3e-4, 1e7])
@pytest.mark.parametrize("shape", [(1000, 3), (9, 3, 11, 13)])
def test_a_constant_channel_has_variance_zero_and_a_finite_output(shape, value, dtype):
    x = RNG.standard_normal(shape).astype(dtype)
    x[:, 1] = value
    gamma, beta = affine(3, dtype)
    y, kept = batchnorm_forward(x, gamma, beta)
    assert kept.var[1] == 0
    assert (kept.var[[0, 2]] > 0.5).all()
    bound = bounds(x, x, gamma, beta, 1e-5, truth(x, x, gamma, beta, 1e-5)).y[1]
    assert np.abs(y[:, 1] - beta[1]).max() <= ROOM * bound
    assert all(np.isfinite(a).all() for a in batchnorm_backward(x, kept))
    with pytest.raises(ValueError, match=r"eps = 0 needs a positive variance: channels \[1\] are constant"):
        batchnorm_forward(x, gamma, beta, 0.0)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 6, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_from_the_sums(shape, value):
    x, (gamma, beta) = RNG.standard_normal(shape), affine(3, np.float64)
    bad = x.copy()
    bad[2, 1] = value
    with pytest.raises(NotFinite, match="x of shape"):
        batchnorm_forward(bad, gamma, beta)
    with pytest.raises(NotFinite, match="dy of shape"):
        batchnorm_backward(bad, batchnorm_forward(x, gamma, beta)[1])
    bad[3, 1] = -value
    with pytest.raises(NotFinite, match="holds"):
        batchnorm_forward(bad, gamma, beta)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e-13, 1e18, 1e30])
def test_squares_outside_the_range_of_float32_are_left_to_the_teaching_pair(scale):
    x = (RNG.standard_normal((50, 3)) * scale).astype(np.float32)
    eps = 0.0 if scale < 1 else 1e-5
    dy, (gamma, beta) = RNG.standard_normal((50, 3)).astype(np.float32), affine(3, np.float32)
    y, kept = batchnorm_forward(x, gamma, beta, eps)
    right, right_kept = batchnorm.batchnorm_forward(x, gamma, beta, eps)
    assert_allclose(y, right, rtol=1e-5, atol=1e-5)
    with np.errstate(over="ignore"):  # dx itself can be out of range
        for got, wanted in zip(
            batchnorm_backward(dy, kept), batchnorm.batchnorm_backward(dy, right_kept), strict=True
        ):
            assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_a_large_upstream_gradient_is_left_to_the_teaching_pair():
    x, (gamma, beta) = RNG.standard_normal((50, 3)).astype(np.float32), affine(3, np.float32)
    dy = np.full((50, 3), 3e38, np.float32)
    dy[::2] *= -1  # their product with x has a sum above the range
    with np.errstate(over="ignore"):  # dgamma itself is out of range
        got = batchnorm_backward(dy, batchnorm_forward(x, gamma, beta)[1])
        right = batchnorm.batchnorm_backward(dy, batchnorm.batchnorm_forward(x, gamma, beta)[1])
    for a, b in zip(got, right, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 6, 2)])
@pytest.mark.parametrize("layout", ["C", "channels last", "strided"])
def test_no_input_is_changed_and_no_output_shares_its_memory(shape, layout):
    x, dy = (lay_out(RNG.standard_normal(shape) + 50, layout) for _ in range(2))
    gamma, beta = affine(3, np.float64)
    arrays = (x, dy, gamma, beta)
    before = [a.copy() for a in arrays]
    y, kept = batchnorm_forward(x, gamma, beta)
    again = batchnorm_backward(dy, kept)
    for one, two in zip(again, batchnorm_backward(dy, kept), strict=True):
        assert_array_equal(one, two)  # the cache serves twice
    for a, old in zip(arrays, before, strict=True):
        assert_array_equal(a, old)
    for out in (y, *again):
        assert not any(np.shares_memory(out, a) for a in arrays)


@pytest.mark.parametrize(("x_dtype", "other"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_the_dtype_of_x_decides(x_dtype, other):
    x, dy = RNG.standard_normal((6, 3)).astype(x_dtype), RNG.standard_normal((6, 3)).astype(other)
    y, kept = batchnorm_forward(x, *affine(3, other))
    assert {a.dtype for a in (y, *batchnorm_backward(dy, kept))} == {np.dtype(x_dtype)}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: batchnorm_forward(x.astype(int), x[0], x[0]), TypeError, "x must be float32 or float64, got int"),
        (lambda x: batchnorm_forward(x[:1], x[0], x[0]), ValueError, "more than one value per channel"),
        (lambda x: batchnorm_forward(x[:, 0], x[0], x[0]), ValueError, "at least two axes"),
        (lambda x: batchnorm_forward(x, x[0, :2], x[0]), ValueError, "gamma must have shape"),
        (lambda x: batchnorm_forward(x, x[0], x[0], -1), ValueError, "eps must be a number from 0 up"),
        (
            lambda x: batchnorm_backward(x[1:], batchnorm_forward(x, x[0], x[0])[1]),
            ValueError,
            "dy must have the shape",
        ),
    ],
)
def test_bad_input_gets_the_teaching_pair_s_error(call, error, message):
    with pytest.raises(error, match=message):
        call(np.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize("shape", [(60, 4), (6, 4, 5, 3)])
def test_the_layer_takes_the_fast_pair_and_its_moments(monkeypatch, shape):
    x, dy = RNG.standard_normal((2, *shape))
    plain, quick = BatchNorm(4), BatchNorm(4, forward=batchnorm_forward, backward=batchnorm_backward)
    monkeypatch.setattr(RunningStatistics, "update", None)  # the moments are in the cache: nothing is summed twice
    for layer in (plain, quick):
        layer.y, layer.dx = layer.forward(x), layer.backward(dy)
    assert_allclose(quick.y, plain.y, atol=1e-12)
    assert_allclose(quick.dx, plain.dx, atol=1e-12)
    assert_allclose(quick.running.var, plain.running.var, rtol=1e-12)
    assert_allclose(quick.running.mean, plain.running.mean, atol=1e-12)
