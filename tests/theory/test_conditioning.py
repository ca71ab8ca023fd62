"""Conditioning: each formula against autograd, brute force or a walk; bounds over random problems."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from bnlib.theory.conditioning import (
    KINDS,
    best_rate,
    descent,
    detached_curl,
    detached_field,
    factors,
    leading_bounds,
    prepare,
    second_moments,
    split,
    steps_needed,
    unit_gradient,
    with_bias,
)

SEEDS = st.integers(0, 10_000)


def inputs(seed, n=30, d=5, shift=2.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + shift * rng.normal(size=d)


def problem(seed, d=4):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return rng.normal(size=d), root @ root.T / d + 0.1 * np.eye(d), rng.normal(size=d)


# --- the Hessian, its mean direction, its bounds


def test_second_moments_are_the_hessian_of_least_squares_and_the_bias_adds_a_row():
    x, y = inputs(0), np.random.default_rng(1).normal(size=30)

    def loss(w, b=0.0):
        return 0.5 * (torch.tensor(x) @ w + b - torch.tensor(y)).square().mean()

    w = torch.zeros(5, dtype=torch.float64)
    assert_allclose(torch.autograd.functional.hessian(loss, w), second_moments(x), atol=1e-12)
    whole = torch.autograd.functional.hessian(lambda v: loss(v[:5], v[5]), torch.zeros(6, dtype=torch.float64))
    assert_allclose(whole, with_bias(x), atol=1e-12)
    # Eliminating the bias leaves the covariance: the Schur complement of {eq}`eq-cond-bias`.
    S = with_bias(x)
    assert_allclose(S[:5, :5] - np.outer(S[:5, 5], S[5, :5]) / S[5, 5], split(x)[1], atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(seed=SEEDS, d=st.integers(1, 8), shift=st.floats(0.01, 100))
def test_mean_and_covariance_add_up_and_bound_the_eigenvalues(seed, d, shift):
    x = inputs(seed, d=d, shift=shift)
    mean, covariance = split(x)
    S = second_moments(x)
    assert_allclose(covariance + np.outer(mean, mean), S, atol=1e-11 * np.abs(S).max())
    values = np.linalg.eigvalsh(S)[::-1]
    low, high, second = leading_bounds(mean, covariance)
    slack = 1e-12 * values[0]
    assert low - slack <= values[0] <= high + slack
    if d > 1:
        assert values[1] <= second + slack
    assert high <= mean @ mean + np.trace(covariance) + slack


def test_the_lower_bound_is_reached_where_the_mean_is_an_eigenvector():
    x = np.array([[3.0, 1.0], [3.0, -1.0], [5.0, 1.0], [5.0, -1.0]])
    low, high, second = leading_bounds(*split(x))
    assert (low, high, second) == pytest.approx((17, 17, 1))
    assert np.linalg.eigvalsh(second_moments(x))[::-1] == pytest.approx([17, 1])
    with pytest.raises(ValueError, match="no direction"):
        leading_bounds([0.0, 0.0], np.eye(2))


# --- gradient descent


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, d=st.integers(1, 6), part=st.floats(0.05, 1.95))
def test_the_closed_form_is_the_walk(seed, d, part):
    w, S, _ = problem(seed, d)
    rate = part / np.linalg.eigvalsh(S)[-1]
    error, walked = np.stack([w, 2 * w[::-1]], 1), []
    for _ in range(8):
        walked.append(0.5 * np.sum(error * (S @ error)))
        error = error - rate * S @ error
    assert_allclose(descent(S, np.stack([w, 2 * w[::-1]], 1), rate, range(8)), walked, rtol=1e-9)


def test_beyond_two_over_the_largest_eigenvalue_it_grows():
    S = np.diag([4.0, 1.0])
    excess = [descent(S, [1.0, 1.0], rate, [0, 50])[1] for rate in (0.49, 0.51)]
    assert excess[0] < 1 < excess[1]
    assert_allclose(factors([4.0, 1.0], 0.5), [-1, 0.5])


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(0.01, 100), min_size=2, max_size=6), other=st.floats(0.01, 3))
def test_no_rate_beats_the_best_one(values, other):
    rate, factor = best_rate(values)
    assert np.abs(factors(values, rate)).max() == pytest.approx(factor, abs=1e-12)
    assert np.abs(factors(values, other * rate)).max() >= factor - 1e-12


def test_steps_are_counted_at_the_best_rate():
    values = np.array([1.0, 50.0])
    rate, factor = best_rate(values)
    steps = steps_needed(50.0, 0.01)
    assert factor**steps == pytest.approx(0.01)
    assert steps == pytest.approx(25 * np.log(100), rel=1e-3)  # condition / 2 times the logarithm
    worst = descent(np.diag(values), [1.0, 0.0], rate, [int(np.ceil(steps))])
    assert worst[0] <= 0.5 * 0.01**2
    for wrong in ((1.0, 0.5), (3.0, 0.0), (3.0, 1.0)):
        with pytest.raises(ValueError, match="condition"):
            steps_needed(*wrong)
    with pytest.raises(ValueError, match="positive"):
        best_rate([0.0, 1.0])


def test_prepared_inputs_are_what_their_name_says():
    x = inputs(3, 200)
    found = {kind: prepare(x, kind, eps=0.0) for kind in KINDS}
    assert (found["raw"] == x).all()
    assert_allclose(found["centred"], x - x.mean(0))
    assert_allclose(second_moments(found["scaled"]).diagonal(), 1)
    assert_allclose(second_moments(found["whitened"]), np.eye(5), atol=1e-9)
    for kind in KINDS[1:]:
        assert_allclose(found[kind].mean(0), 0, atol=1e-10)
    whole = second_moments(prepare(x, "whitened", eps=0.5))
    values = np.linalg.eigvalsh(split(x)[1])
    assert_allclose(np.linalg.eigvalsh(whole), values / (values + 0.5))
    with pytest.raises(ValueError, match="kind"):
        prepare(x, "bleached")
    with pytest.raises(ValueError, match="shape"):
        second_moments(np.ones(3))


# --- statistics that carry no gradient


def data_of(covariance, u, y_square=3.0):
    """Samples with mean zero, this covariance, and this covariance with their targets."""
    d = len(u)
    joint = np.block(
        [[covariance, u[:, None]], [u[None], np.array([[y_square + u @ np.linalg.inv(covariance) @ u]])]]
    )
    base = np.vstack([np.eye(d + 1), -np.eye(d + 1)]) * np.sqrt(d + 1)
    samples = base @ np.linalg.cholesky(joint).T
    return samples[:, :d] + 7.0, samples[:, d]


@pytest.mark.parametrize("seed", range(5))
def test_the_two_gradients_of_a_unit_are_those_of_autograd(seed):
    w, covariance, u = problem(seed)
    x, y = (torch.tensor(v) for v in data_of(covariance, u))
    assert_allclose(split(x.numpy())[1], covariance, atol=1e-10)
    for detach, expected in ((False, unit_gradient), (True, detached_field)):
        v = torch.tensor(w, requires_grad=True)
        z = x @ v
        mean, std = z.mean(), z.std(correction=0)
        if detach:
            mean, std = mean.detach(), std.detach()
        (0.5 * ((z - mean) / std - y).square().mean()).backward()
        # detached, the mean of the inputs stands at the mean error, which is zero here
        assert_allclose(v.grad, expected(w, covariance, u), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, d=st.integers(2, 6))
def test_the_field_without_statistics_pulls_at_the_length_and_has_a_curl(seed, d):
    w, covariance, u = problem(seed, d)
    std = np.sqrt(w @ covariance @ w)
    assert w @ unit_gradient(w, covariance, u) == pytest.approx(0, abs=1e-9)
    assert w @ detached_field(w, covariance, u) == pytest.approx(1 - w @ u / std)
    step = 1e-6
    jacobian = np.stack(
        [
            (detached_field(w + step * e, covariance, u) - detached_field(w - step * e, covariance, u)) / (2 * step)
            for e in np.eye(d)
        ],
        1,
    )
    curl = detached_curl(w, covariance, u)
    scale = np.abs(jacobian).max()
    assert_allclose((jacobian - jacobian.T) / 2, curl, atol=1e-5 * scale)
    assert np.abs(curl).max() > 0
    assert_allclose(detached_curl(w, covariance, covariance @ w), 0, atol=1e-10)  # u along C w: none


def test_the_gradient_of_the_unit_itself_has_no_curl():
    w, covariance, u = problem(7)
    step, eye = 1e-6, np.eye(4)
    jacobian = np.stack(
        [
            (unit_gradient(w + step * e, covariance, u) - unit_gradient(w - step * e, covariance, u)) / (2 * step)
            for e in eye
        ],
        1,
    )
    assert_allclose(jacobian, jacobian.T, atol=1e-6)
