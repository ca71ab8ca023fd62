"""Scale-invariant weights: each formula against what it is about, computed directly."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bnlib.scratch.batchnorm import batchnorm_backward, batchnorm_forward
from bnlib.scratch.gradcheck import numerical_gradient
from bnlib.theory.scale_invariance import (
    effective_rate,
    eps_factor,
    equilibrium_length,
    growing_rates,
    next_length,
    radial_part,
    rescaled,
    turn,
)

MATRIX = np.random.default_rng(0).normal(size=(5, 5))


def loss(w):
    """Of the direction alone, and not symmetric in it."""
    u = w / np.linalg.norm(w)
    return float(u @ MATRIX @ u + np.sin(3 * u).sum())


def gradient(w):
    """By hand: the derivative at the unit vector, less its part along it, over the length."""
    length = np.linalg.norm(w)
    u = w / length
    full = (MATRIX + MATRIX.T) @ u + 3 * np.cos(3 * u)
    return (full - (full @ u) * u) / length


def start(seed=1):
    return np.random.default_rng(seed).normal(size=5)


def descend(w, rates, wd=0.0):
    path = [w]
    for lr in rates:
        path.append((1 - lr * wd) * path[-1] - lr * gradient(path[-1]))
    return np.array(path)


def test_the_gradient_of_the_tests_is_one():
    w = start()
    assert_allclose(gradient(w), numerical_gradient(loss, w), atol=1e-8)
    assert_allclose(gradient(4 * w), gradient(w) / 4, rtol=1e-12)


@pytest.mark.parametrize("a", [0.01, 0.5, 1.0, 30.0])
@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-2])
def test_eps_factor_is_what_bn_does_to_scaled_weights(a, eps):
    x = np.random.default_rng(2).normal(3, [0.1, 1, 10], (64, 3))
    one, many = (batchnorm_forward(s * x, np.ones(3), np.zeros(3), eps)[0] for s in (1, a))
    assert_allclose(many, eps_factor(a, x.var(0), eps) * one, rtol=1e-9, atol=1e-12)


def test_eps_does_nothing_where_it_is_zero_and_shrinks_small_weights():
    assert eps_factor(0.01, 1.0, 0.0) == 1
    assert eps_factor(0.01, 1.0, 1e-5) < 0.96 < 1 < eps_factor(2.0, 1.0, 1e-5)


def test_the_gradient_of_bn_has_no_radial_part_and_a_plain_one_has():
    rng = np.random.default_rng(3)
    inputs, weight, dy = rng.normal(1, 2, (20, 4)), rng.normal(size=(3, 4)), rng.normal(size=(20, 3))
    _, cache = batchnorm_forward(inputs @ weight.T, np.ones(3), np.zeros(3), 0.0)
    grad = batchnorm_backward(dy, cache)[0].T @ inputs
    assert abs(radial_part(weight, grad)) < 1e-13
    assert max(abs(radial_part(w, g)) for w, g in zip(weight, grad, strict=True)) < 1e-12
    assert abs(radial_part(weight, dy.T @ inputs)) > 1e-3
    assert radial_part(weight, -2 * weight) == pytest.approx(-1)


@pytest.mark.parametrize("wd", [0.0, 0.3])
def test_next_length_is_the_length_after_the_step(wd):
    w = start()
    path = descend(w, [0.2] * 5, wd)
    for before, after in zip(path[:-1], path[1:], strict=True):
        grad = np.linalg.norm(gradient(before))
        assert np.linalg.norm(after) == pytest.approx(next_length(np.linalg.norm(before), grad, 0.2, wd), rel=1e-12)
    assert next_length(3.0, 4.0, 1.0) == 5


def test_the_effective_rate_moves_the_direction_as_a_unit_vector_would_be():
    w = 7 * start()
    length = np.linalg.norm(w)
    lr = 3.0
    long = descend(w, [lr])[-1]
    short = descend(w / length, [effective_rate(lr, length)])[-1]
    assert_allclose(long / np.linalg.norm(long), short / np.linalg.norm(short), rtol=1e-12)


@pytest.mark.parametrize("a", [0.1, 8.0])
@pytest.mark.parametrize("wd", [0.0, 0.2])
def test_rescaled_settings_give_the_same_run(a, wd):
    w, (lr, decay) = start(), rescaled(a, 0.3, wd)
    assert_allclose(descend(a * w, [lr] * 30, decay), a * descend(w, [0.3] * 30, wd), rtol=1e-9)
    assert lr * decay == pytest.approx(0.3 * wd)


def test_the_exact_equilibrium_is_kept_by_a_step_and_the_short_form_is_near():
    lr, wd, square = 0.5, 0.1, 7.0
    length = equilibrium_length(lr, wd, square, exact=True)
    assert next_length(length, np.sqrt(square) / length, lr, wd) == pytest.approx(length, rel=1e-14)
    short = equilibrium_length(lr, wd, square)
    assert short**4 == pytest.approx(lr * square / (2 * wd))
    assert (length / short) ** 4 == pytest.approx(1 / (1 - lr * wd / 2))


def test_lengths_come_to_the_equilibrium_from_both_sides():
    lr, wd, square = 0.2, 0.05, 3.0
    for length in (0.1, 30.0):
        for _ in range(3_000):
            length = next_length(length, np.sqrt(square) / length, lr, wd)
        assert length == pytest.approx(equilibrium_length(lr, wd, square, exact=True), rel=1e-9)


def test_a_step_at_equilibrium_turns_the_weights_by_a_fixed_angle():
    lr, wd, square = 0.5, 0.1, 7.0
    length = equilibrium_length(lr, wd, square, exact=True)
    w, grad = np.array([length, 0.0]), np.array([0.0, np.sqrt(square) / length])
    after = (1 - lr * wd) * w - lr * grad
    assert np.arccos(-radial_part(w, -after)) == pytest.approx(turn(lr, wd), rel=1e-12)
    assert turn(1e-4, 1.0) == pytest.approx(np.sqrt(2e-4), rel=1e-4)


@pytest.mark.parametrize(("lr", "wd"), [(0.1, 0.05), (0.05, 1.0), (0.1, 0.0)])
def test_growing_rates_do_what_decay_does(lr, wd):
    w = start()
    decayed, grown = descend(w, [lr] * 60, wd), descend(w, growing_rates(lr, wd, 60))
    shrunk = grown * (1 - lr * wd) ** np.arange(61)[:, None]
    assert_allclose(shrunk, decayed, rtol=1e-8)
    assert_allclose([loss(w) for w in grown], [loss(w) for w in decayed], atol=1e-9)


def test_growing_rates_grow_by_one_factor():
    rates = growing_rates(0.3, 0.05, 10)
    assert rates.shape == (10,)
    assert rates[0] == pytest.approx(0.3 / (1 - 0.015))
    assert_allclose(rates[1:] / rates[:-1], (1 - 0.015) ** -2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: eps_factor(-1.0, 1.0, 0.0), ValueError, "a must be positive, got -1.0"),
        (lambda: effective_rate(0.1, 0.0), ValueError, "length must be positive, got 0.0"),
        (lambda: rescaled(0, 0.1), ValueError, "a must be positive"),
        (lambda: equilibrium_length(0.1, 0.0, 1.0), ValueError, "wd must be positive, got 0.0"),
        (lambda: turn(3.0, 1.0), ValueError, "between 0 and 2, got 3.0"),
        (lambda: growing_rates(2.0, 0.5, 3), ValueError, "below 1, got 1.0"),
        (lambda: growing_rates(0.5, 1.0, 1_000), OverflowError, "after 512 steps"),
        (lambda: radial_part(np.ones(2), np.ones(3)), ValueError, r"got \(2,\) and \(3,\)"),
        (lambda: radial_part(np.ones(2), np.zeros(2)), ValueError, "length 0 has no angle"),
    ],
)
def test_bad_input_gets_a_clear_error(call, error, message):
    with pytest.raises(error, match=message):
        call()
