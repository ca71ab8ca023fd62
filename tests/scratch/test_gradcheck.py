"""The gradient check itself: known functions, and what it misses when it is used the wrong way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.scratch.batchnorm import batchnorm_backward, batchnorm_forward
from bnlib.scratch.gradcheck import elementwise_error, numerical_gradient, scaled_error

RNG = np.random.default_rng(0)
FUNCTIONS = {
    "sum of squares": (lambda x: np.sum(x**2), lambda x: 2 * x),
    "sine": (lambda x: np.sin(x).sum(), np.cos),
    "exponential": (lambda x: np.exp(x).sum(), np.exp),
    "product": (np.prod, lambda x: np.prod(x) / x),
    "logarithm of a sum": (lambda x: np.log(np.exp(x).sum()), lambda x: np.exp(x) / np.exp(x).sum()),
    "constant": (lambda x: 3.0, np.zeros_like),
}


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_numerical_gradient_of_known_functions(name, shape):
    f, gradient = FUNCTIONS[name]
    x = RNG.uniform(0.5, 1.5, shape)
    found = numerical_gradient(f, x)
    assert found.shape == shape
    assert scaled_error(found, gradient(x)) < 1e-9


def test_numerical_gradient_has_an_error_of_second_order():
    x = RNG.uniform(0.5, 1.5, 4)
    error = [np.abs(numerical_gradient(lambda v: np.sin(v).sum(), x, h) - np.cos(x)).max() for h in (1e-1, 1e-2)]
    assert_allclose(error[0] / error[1], 100, rtol=0.01)


def test_numerical_gradient_leaves_x_alone_even_if_f_does_not():
    x = RNG.standard_normal((3, 2)).T

    def f(v):
        v *= 2
        return v.sum() / 2

    before = x.tobytes()
    assert_allclose(numerical_gradient(f, x), np.ones((2, 3)), rtol=1e-9)
    assert x.tobytes() == before


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64"])
def test_numerical_gradient_refuses_what_is_not_float64(dtype):
    with pytest.raises(TypeError, match=f"float64, got {dtype}"):
        numerical_gradient(np.sum, np.ones(3, dtype))


# --- batch normalization under a gradient check ----------------------------------------------------


@pytest.mark.parametrize("eps", [0, 1e-5, 0.1])
@pytest.mark.parametrize("shape", [(5, 2), (3, 2, 4)])
def test_all_gradients_of_the_transform_pass_with_a_random_upstream(shape, eps):
    x, dy = RNG.standard_normal((2, *shape))
    gamma, beta = RNG.standard_normal((2, 2))

    def loss(x, gamma, beta):
        return np.sum(dy * batchnorm_forward(x, gamma, beta, eps)[0])

    _, cache = batchnorm_forward(x, gamma, beta, eps)
    dx, dgamma, dbeta = batchnorm_backward(dy, cache)
    assert scaled_error(dx, numerical_gradient(lambda v: loss(v, gamma, beta), x)) < 1e-7
    assert scaled_error(dgamma, numerical_gradient(lambda v: loss(x, v, beta), gamma)) < 1e-7
    assert scaled_error(dbeta, numerical_gradient(lambda v: loss(x, gamma, v), beta)) < 1e-7


def without_variance_path(dy, cache):
    return cache.gamma / np.sqrt(cache.var + cache.eps) * (dy - dy.mean(0))


def without_mean_of_dy(dy, cache):
    """Only the projection on x_hat, scaled by a number that nothing justifies."""
    return 7 * cache.x_hat * np.mean(dy * cache.x_hat, 0)


@pytest.mark.parametrize("wrong", [without_variance_path, without_mean_of_dy])
def test_the_sum_of_bn_is_a_loss_that_lets_a_wrong_backward_pass(wrong):
    x = RNG.standard_normal((8, 3))
    gamma, beta = RNG.uniform(0.5, 2, (2, 3))
    y, cache = batchnorm_forward(x, gamma, beta)

    # sum(y) = m * sum(beta) whatever x is: its gradient is zero, and so is that of the wrong version.
    numerical = numerical_gradient(lambda v: batchnorm_forward(v, gamma, beta)[0].sum(), x)
    ones = np.ones_like(y)
    assert np.abs(numerical).max() < 1e-9
    assert np.abs(batchnorm_backward(ones, cache)[0]).max() < 1e-14
    assert np.abs(wrong(ones, cache) - numerical).max() < 1e-9

    # A random upstream gradient tells them apart.
    dy = RNG.standard_normal(y.shape)
    numerical = numerical_gradient(lambda v: np.sum(dy * batchnorm_forward(v, gamma, beta)[0]), x)
    assert scaled_error(batchnorm_backward(dy, cache)[0], numerical) < 1e-7
    assert scaled_error(wrong(dy, cache), numerical) > 0.1


# --- the two measures of error ---------------------------------------------------------------------

FINITE = st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6)
PAIRS = st.integers(1, 6).flatmap(lambda n: st.tuples(*[arrays(np.float64, n, elements=FINITE)] * 2))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(PAIRS, st.floats(1e-3, 1e3))
def test_scaled_error_is_symmetric_blind_to_scale_and_at_most_two(pair, factor):
    a, b = pair
    error = scaled_error(a, b)
    assert type(error) is float
    assert 0 <= error <= 2
    assert scaled_error(a, a) == 0
    assert scaled_error(b, a) == error
    assert_allclose(scaled_error(factor * a, factor * b), error, rtol=1e-9, atol=1e-12)
    assert (error == 0) == np.array_equal(a, b)


def test_scaled_error_of_known_pairs():
    assert scaled_error([1, 2, 4], [1, 2, 3]) == 0.25
    assert scaled_error(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    assert scaled_error([0.0, 0.0], [0.0, 1e-30]) == 1
    assert scaled_error(1.0, -1.0) == 2
    with pytest.raises(ValueError, match=r"\(3,\) and \(3, 1\)"):
        scaled_error(np.ones(3), np.ones((3, 1)))


@pytest.mark.parametrize(("a", "b"), [([np.nan, 1], [1, 1]), ([1, 1], [np.nan, 1]), ([np.nan], [np.nan])])
def test_an_error_with_nan_never_looks_small(a, b):
    assert not scaled_error(a, b) < 1e-3
    assert not elementwise_error(a, b) < 1e-3


def test_elementwise_error_explodes_where_the_gradient_is_near_zero():
    exact = np.array([3.0, -2.0, 1e-13])
    found = exact + np.array([1e-11, -1e-11, 1e-11])  # the rounding of a difference quotient
    assert scaled_error(found, exact) < 1e-11
    assert elementwise_error(found, exact) > 0.9
    # Away from zero the two say about the same.
    assert elementwise_error(found[:2], exact[:2]) < 1e-11
    assert_array_equal(elementwise_error(np.zeros(3), np.zeros(3)), 0)
