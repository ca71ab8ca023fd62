"""Both theorems against autograd, the false printing, the three measures along a gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnlib.theory.smoothness import along, input_curvature, input_square


def problem(seed, m, gamma, scale):
    """A random quadratic of BN's output: what autograd says of its input, and what the functions are given."""
    rng = np.random.default_rng(seed)
    x = torch.tensor(scale * rng.normal(2, 1, m))
    quadratic, linear = torch.tensor(rng.normal(size=(m, m))), torch.tensor(rng.normal(size=m))

    def loss(x):
        y = gamma * (x - x.mean()) / x.std(correction=0) + 0.3
        return y @ quadratic @ y / 2 + linear @ y

    d = torch.func.grad(loss)(x)
    curvature = float(d @ torch.func.hessian(loss)(x) @ d)
    x_hat, std = ((x - x.mean()) / x.std(correction=0)).numpy(), float(x.std(correction=0))
    hessian = ((quadratic + quadratic.T) / 2).numpy()
    dy = hessian @ (gamma * x_hat + 0.3) + linear.numpy()
    return float(d @ d), curvature, (dy, x_hat, gamma, std), hessian


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), m=st.integers(3, 20), gamma=st.floats(0.1, 5), scale=st.floats(0.05, 20))
def test_both_theorems_are_equalities(seed, m, gamma, scale):
    square, curvature, given_, hessian = problem(seed, m, gamma, scale)
    assert input_square(*given_) == pytest.approx(square, rel=1e-8)
    scale_of = gamma**2 / given_[3] ** 2 * square * np.abs(hessian).sum()
    assert input_curvature(*given_, hessian) == pytest.approx(curvature, rel=1e-7, abs=1e-9 * scale_of)


def test_the_root_of_m_would_be_false():
    square, _, (dy, x_hat, gamma, std), _ = problem(1, 9, 1.5, 1.0)
    wrong = (gamma / std) ** 2 * (dy @ dy - dy.sum() ** 2 / 9 - (dy @ x_hat) ** 2 / 3)
    assert wrong < 0.98 * square


def test_bn_amplifies_where_gamma_is_above_the_standard_deviation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    x_hat, dy = (x - x.mean()) / x.std(), rng.normal(size=100)
    assert input_square(dy, x_hat, 1.0, 0.5) > dy @ dy
    assert input_square(dy, x_hat, 0.5, 1.0) < dy @ dy


def test_two_samples_have_no_gradient():
    assert input_square(np.array([1.0, 3.0]), np.array([1.0, -1.0]), 1.0, 1.0) == pytest.approx(0, abs=1e-12)


def test_measures_along_the_gradient_of_a_parabola():
    """L = s w^2 / 2: the gradient changes by s times the way, so beta is s."""
    s, w, steps = 3.0, 2.0, np.array([0.1, 0.2, 0.4])
    points = w - steps * s * w
    found = along(s * points**2 / 2, np.array([[s * w], *[[s * p] for p in points]]), steps)
    assert found[2] == pytest.approx(s)
    assert found[1] == pytest.approx(s * (0.4 - 0.1) * s * w)
    assert found[0] == pytest.approx(np.ptp(s * points**2 / 2))


def test_beta_of_any_quadratic_is_at_most_its_largest_eigenvalue():
    rng = np.random.default_rng(1)
    for _ in range(20):
        a = rng.normal(size=(5, 5))
        h, w, steps = a @ a.T, rng.normal(size=5), rng.uniform(0.01, 1, 4)
        points = [w - t * h @ w for t in steps]
        beta = along([p @ h @ p / 2 for p in points], np.array([h @ w, *(h @ p for p in points)]), steps)[2]
        assert beta <= np.linalg.eigvalsh(h)[-1] * (1 + 1e-10)


def test_bad_input_is_told():
    x_hat = np.array([1.0, -1.0])
    with pytest.raises(ValueError, match="of one shape"):
        input_square(np.zeros(3), x_hat, 1, 1)
    with pytest.raises(ValueError, match="std must be positive"):
        input_square(np.zeros(2), x_hat, 1, 0)
    with pytest.raises(ValueError, match="mean 0 and mean square 1"):
        input_curvature(np.zeros(2), 2 * x_hat, 1, 1, np.eye(2))
    with pytest.raises(ValueError, match="gradients one longer"):
        along([1.0], np.ones((1, 2)), [0.1])
    with pytest.raises(ValueError, match="gradient is 0"):
        along([1.0], np.zeros((2, 2)), [0.1])
