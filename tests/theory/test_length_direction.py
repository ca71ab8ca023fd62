"""Length and direction: each formula against what it is about, and bounds over random problems."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bnlib.scratch.batchnorm import batchnorm_forward
from bnlib.scratch.gradcheck import numerical_gradient
from bnlib.theory.length_direction import (
    accelerated_momentum,
    best_length,
    bound,
    direction_gradient,
    direction_step,
    effective_weights,
    gap,
    joint_gradients,
    least_squares,
    norm,
    optimum,
    ray_spectrum,
    rayleigh,
    rayleigh_gradient,
    sharp_start,
)


def problem(seed=0, d=6, kappa=20.0, share=None):
    """S with this condition number, u, and a start; with ``share`` u S^-1 u is that, so S - u u^T is a covariance."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    S = turn @ np.diag(np.geomspace(1 / kappa, 1, d)) @ turn.T
    u = S @ rng.normal(size=d)
    if share:
        u *= np.sqrt(share / (u @ np.linalg.solve(S, u)))
    return S, u, rng.normal(size=d)


# --- the reparametrization


def test_the_norm_is_the_deviation_of_the_output_and_the_weights_are_those_of_bn():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
    x -= x.mean(0)
    S, w = x.T @ x / len(x), rng.normal(size=4)
    assert norm(w, S) == pytest.approx((x @ w).std(), rel=1e-12)
    y, _ = batchnorm_forward((x @ w)[:, None], np.array([1.7]), np.zeros(1), 0.0)
    assert_allclose(x @ effective_weights(w, 1.7, S), y[:, 0], atol=1e-12)
    assert_allclose(effective_weights(w, 1.7, np.eye(4)), 1.7 * w / np.linalg.norm(w))


@pytest.mark.parametrize("metric", ["S", "I"])
def test_gradients_of_length_and_direction(metric):
    S, u, w = problem(2)
    M, g = S if metric == "S" else np.eye(6), 1.3

    def loss(v, length):
        return float(least_squares(effective_weights(v, length, M), S, u)) / 2

    grad = u + effective_weights(w, g, M) @ S
    assert_allclose(direction_gradient(w, g, M, grad), numerical_gradient(lambda v: loss(v, g), w), atol=1e-8)
    dw, dg = joint_gradients(w, g, S, u, M)
    assert_allclose(dw, direction_gradient(w, g, M, grad))
    assert dg == pytest.approx(numerical_gradient(lambda v: loss(w, v[0]), np.array([g]))[0], abs=1e-8)
    assert abs(dw @ w) < 1e-13


def test_weights_side_by_side_are_taken_one_by_one():
    S, u, _ = problem(3)
    many, g = np.random.default_rng(4).normal(size=(3, 2, 6)), np.random.default_rng(5).normal(size=(3, 2))
    for function in (rayleigh, best_length, gap, rayleigh_gradient, direction_step):
        one_by_one = [[function(w, S, u) for w in row] for row in many]
        assert_allclose(function(many, S, u), one_by_one, rtol=1e-12)
    dw, dg = joint_gradients(many, g, S, u, S)
    assert_allclose(dw[2, 1], joint_gradients(many[2, 1], g[2, 1], S, u, S)[0])
    assert dg.shape == (3, 2)


# --- least squares


def test_least_squares_is_the_error_less_the_mean_of_the_squared_targets():
    rng = np.random.default_rng(6)
    x, y, w = rng.normal(size=(300, 3)), rng.normal(size=300), rng.normal(size=3)
    S, u = x.T @ x / 300, -(x.T @ y) / 300
    assert least_squares(w, S, u) == pytest.approx(((y - x @ w) ** 2).mean() - (y**2).mean(), rel=1e-12)
    fit = np.linalg.lstsq(x, y, rcond=None)[0]
    assert_allclose(optimum(S, u), fit, rtol=1e-10)


def test_the_best_length_is_best_and_rayleigh_is_its_error():
    S, u, w = problem(7)
    g = best_length(w, S, u)
    errors = [least_squares(effective_weights(w, g + e, S), S, u) for e in (-0.1, 0.0, 0.1)]
    assert errors[1] == pytest.approx(rayleigh(w, S, u), rel=1e-12)
    assert_allclose([errors[0], errors[2]], errors[1] + 0.01)
    assert rayleigh(-3 * w, S, u) == pytest.approx(rayleigh(w, S, u), rel=1e-12)
    assert_allclose(rayleigh_gradient(w, S, u), numerical_gradient(lambda v: float(rayleigh(v, S, u)), w), atol=1e-8)


def test_the_gap_is_the_difference_and_is_zero_at_the_optimum():
    S, u, w = problem(8)
    best = optimum(S, u)
    assert rayleigh(best, S, u) == pytest.approx(-u @ np.linalg.solve(S, u), rel=1e-12)
    assert gap(w, S, u) == pytest.approx(rayleigh(w, S, u) - rayleigh(best, S, u), rel=1e-9)
    assert gap(-2 * best, S, u) < 1e-28
    near = best + 1e-9 * w
    assert gap(near, S, u) == pytest.approx(1e-2 * gap(best + 1e-8 * w, S, u), rel=1e-5)


def test_a_direction_step_is_gradient_descent_and_best_length_again():
    S, u, w = problem(9)
    weights = effective_weights(w, best_length(w, S, u), S)
    plain = weights - (u + weights @ S) / np.linalg.eigvalsh(S)[-1]
    step = direction_step(w, S, u)
    factor = -(w @ u) / norm(w, S) ** 2
    assert_allclose(factor * step, plain, rtol=1e-10)
    assert rayleigh(step, S, u) < least_squares(plain, S, u)
    assert_allclose(direction_step(w, S, u, L=2.0), direction_step(w, S / 2, u / 2, L=1.0))


@pytest.mark.parametrize("kappa", [1.5, 10.0, 300.0])
def test_no_step_is_above_the_bound(kappa):
    rng = np.random.default_rng(10)
    for seed in range(15):
        S, u, _ = problem(seed, 8, kappa)
        w = rng.normal(size=(10, 8))
        for _ in range(5):
            after = direction_step(w, S, u)
            assert (gap(after, S, u) <= bound(S) * gap(w, S, u) * (1 + 1e-9)).all()
            assert (np.sign(after @ u) == np.sign(w @ u)).all()
            w = after
    assert bound(S) == pytest.approx((1 - 1 / kappa) ** 2)


@pytest.mark.parametrize("kappa", [2.0, 10.0, 300.0])
def test_from_the_sharp_start_a_step_is_as_slow_as_the_bound(kappa):
    for seed in range(10):
        S, u, _ = problem(seed, 8, kappa)
        w = sharp_start(S, u)
        error = effective_weights(w, best_length(w, S, u), S) - optimum(S, u)
        assert_allclose(S @ error, error / kappa, atol=1e-12)  # an eigenvector
        factor = gap(direction_step(w, S, u), S, u) / gap(w, S, u)
        left, gone = norm(w, S) ** 2, norm(error, S) ** 2 / kappa**2
        assert factor == pytest.approx(bound(S) * left / (left + gone), rel=1e-9)


def test_the_spectrum_of_the_rays_lies_between_the_eigenvalues():
    for seed in range(10):
        S, u, w = problem(seed)
        values, found = np.linalg.eigvalsh(S), ray_spectrum(S, w)
        assert found.shape == (5,)
        assert (values[:-1] <= found * (1 + 1e-12)).all()
        assert (found <= values[1:] * (1 + 1e-12)).all()
        assert_allclose(ray_spectrum(S, -5 * w), found)
    best = optimum(S, u)
    curvature = np.array([(gap(best + 1e-4 * e, S, u) - 0) / 1e-8 for e in np.eye(6)])
    projected = S - np.outer(S @ best, S @ best) / (best @ S @ best)
    assert_allclose(curvature, np.diag(projected), rtol=1e-2)


def test_momentum_of_nesterov():
    assert accelerated_momentum(np.diag([1.0, 5.0, 9.0])) == pytest.approx(0.5)
    assert accelerated_momentum(np.eye(3)) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: norm(np.ones(3), np.eye(2)), r"\(3,\) and \(2, 2\)"),
        (lambda: effective_weights(np.zeros(2), 1.0, np.eye(2)), "length 0"),
        (lambda: best_length(np.zeros(2), np.eye(2), np.ones(2)), "length 0"),
        (lambda: direction_step(np.array([1.0, 0.0]), np.eye(2), np.array([0.0, 1.0])), "right angles"),
    ],
)
def test_bad_input_gets_a_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
