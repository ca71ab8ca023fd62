"""Learning halfspaces: exact expectations against samples, GDNP against least squares, each method on its own."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bnlib.scratch.gradcheck import numerical_gradient
from bnlib.theory.halfspaces import (
    LOSSES,
    METHODS,
    Gaussian,
    Sample,
    bisection,
    expectations,
    gaussian_gradient,
    gdnp_step,
)
from bnlib.theory.length_direction import direction_step, effective_weights, norm

from .test_length_direction import problem

PHI = LOSSES["logistic"]


def test_expectations_are_those_of_a_large_sample():
    S, u, w = problem(11, share=0.5)
    z = np.random.default_rng(12).multivariate_normal(u, S - np.outer(u, u), 400_000)
    found = expectations(PHI, w, S, u)
    assert_allclose(found, [f(z @ w).mean() for f in PHI], atol=4e-3)
    mean, square = expectations((lambda s: s, np.square), w, S, u)
    assert (mean, square) == pytest.approx((u @ w, norm(w, S) ** 2))


def test_the_gradient_by_stein_is_the_gradient():
    S, u, w = problem(13, share=0.5)
    _, first, second = expectations(PHI, w, S, u)
    by_hand = numerical_gradient(lambda v: float(expectations(PHI[:1], v, S, u)[0]), w)
    assert_allclose(gaussian_gradient(w, S, u, first, second), by_hand, atol=1e-8)
    best = -2 * np.linalg.solve(S - np.outer(u, u), u)  # of logistic regression between two normal clouds
    _, first, second = expectations(PHI, best, S, u)
    assert_allclose(gaussian_gradient(best, S, u, first, second), 0, atol=1e-9)


def test_a_step_of_gdnp_is_the_step_of_least_squares_at_any_length():
    S, u, w = problem(14, share=0.5)
    for g in (-2.0, 0.3, 1.7):
        weights = effective_weights(w, g, S)
        _, first, second = expectations(PHI, weights, S, u)
        grad = gaussian_gradient(weights, S, u, first, second)
        assert_allclose(gdnp_step(w, g, S, u, grad, first, second), direction_step(w, S, u), rtol=1e-9)
    wrong = first - second * (w @ u)  # w in the place of the effective weights
    assert abs(wrong / (first - second * (weights @ u)) - 1) > 0.01


def test_bisection_finds_the_root_outside_its_interval_too():
    for root in (-40.0, 0.3, 1e4):
        assert bisection(lambda g, root=root: g - root, 0.0, 1.0, 80) == pytest.approx(root, abs=1e-9)
    assert bisection(lambda g: g - 0.3, 0.0, 1.0, 3) == pytest.approx(0.3, abs=1 / 16)


def sampled(n=4_000, loss="logistic"):
    S, u, w = problem(15, share=0.5)
    return Sample(np.random.default_rng(16).multivariate_normal(u, S - np.outer(u, u), n), loss), w


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_has_its_derivatives(name):
    phi, first, second = LOSSES[name]
    s, e = np.array([-2.5, -0.3, 0.4, 1.7]), 1e-6
    assert_allclose((phi(s + e) - phi(s - e)) / (2 * e), first(s), rtol=1e-8)
    assert_allclose((first(s + e) - first(s - e)) / (2 * e), second(s), rtol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_a_sample_knows_its_gradient_and_its_minimum(name):
    half, w = sampled(loss=name)
    w = 0.3 * w
    assert_allclose(half.gradient(w), numerical_gradient(lambda v: float(half.means(v)[0]), w), rtol=1e-6, atol=1e-8)
    assert half.slope(w)(1.3) == pytest.approx(half.gradient(1.3 * w) @ w)
    best, losses = half.minimum(30)
    assert_allclose(half.gradient(best), 0, atol=1e-7)
    assert losses == sorted(losses, reverse=True)


def test_a_gaussian_agrees_with_a_large_sample():
    S, u, w = problem(15, share=0.5)
    exact, (half, _) = Gaussian(S, u), sampled(200_000)
    assert_allclose(exact.means(w), half.means(w), atol=5e-3)
    assert_allclose(exact.gradient(w), half.gradient(w), atol=1e-2)
    assert exact.slope(w)(0.7) == pytest.approx(exact.gradient(0.7 * w) @ w)
    assert_allclose(exact.gradient(exact.best), 0, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_goes_down_at_a_sensible_rate(name):
    S, u, start = problem(17, share=0.5)
    half, start = Gaussian(S, u), start / norm(start, S)
    move, weights = METHODS[name](half, start, {"ngd": 0.3, "adagrad": 2.0}.get(name, 1.0)), start
    for t in range(1, 40):
        weights = move(weights, half, t)
    low, now, before = (half.means(w)[0] for w in (half.best, weights, start))
    assert low <= now < before
    whole = name not in ("gdnp-direction", "gdnp-length")
    assert ((now - low) / (before - low) < 0.02) == whole


def test_gdnp_is_gradient_descent_at_the_rate_of_the_mean_curvature_with_bisection():
    S, u, start = problem(18, share=0.5)
    half, rate = Gaussian(S, u), None
    start = effective_weights(start, bisection(half.slope(effective_weights(start, 1.0, S)), -1, 1), S)
    move, plain, weights = METHODS["gdnp"](half, start, 1.0), METHODS["gd-curvature"](half, start, 1.0), start
    mine = start
    if mine @ u > 0:
        pytest.fail("the start has its best length, so it is on the side of the optimum")
    for t in range(1, 10):
        weights, rate = move(weights, half, t), half.means(mine)[2]
        mine = plain(mine, half, t)
        unit = effective_weights(mine, 1.0, S)
        mine = unit * bisection(half.slope(unit), 0.0, 2.0)
        assert_allclose(mine, weights, rtol=1e-6, atol=1e-9)
    assert rate < 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expectations(PHI, np.ones(2), np.eye(2), 3 * np.ones(2)), "negative eigenvalue"),
        (lambda: gdnp_step(np.ones(2), 0.0, np.eye(2), np.ones(2), np.ones(2), 0.5, 0.2), "got g = 0 and h = "),
        (lambda: bisection(lambda g: g, 1.0, 1.0), "low must be below high"),
        (lambda: bisection(lambda g: 1.0, 0.0, 1.0), "one sign"),
    ],
)
def test_bad_input_gets_a_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
