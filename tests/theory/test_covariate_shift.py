"""Definition 2.1 against autograd, its first order, its dependence on the weights' length; noise behind BN."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnlib.theory.covariate_shift import (
    cosine,
    loss_and_gradients,
    noise_moments,
    normalize,
    relative_shift,
    shifted_gradient,
)


def problem(seed, depth=4, width=5, samples=20):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(width, width)) / np.sqrt(width) for _ in range(depth)]
    return weights, rng.normal(size=(samples, width)), rng.normal(size=(samples, width))


def by_torch(weights, x, target, norm, eps):
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]
    h = torch.tensor(x)
    for i, w in enumerate(tensors):
        h = h @ w.T
        if norm and i < len(tensors) - 1:
            h = torch.nn.functional.batch_norm(h, None, None, training=True, eps=eps)
    loss = torch.nn.functional.mse_loss(h, torch.tensor(target))
    return float(loss.detach()), [g.numpy() for g in torch.autograd.grad(loss, tensors)]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 6])
def test_loss_and_gradients_are_those_of_autograd(norm, depth):
    weights, x, target = problem(depth, depth)
    loss, gradients = loss_and_gradients(weights, x, target, norm, 1e-5)
    expected, by_autograd = by_torch(weights, x, target, norm, 1e-5)
    assert loss == pytest.approx(expected, rel=1e-12)
    for ours, theirs in zip(gradients, by_autograd, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12 * np.abs(theirs).max())


def test_only_the_layers_before_move():
    weights, x, target = problem(1)
    later = [w + 0.1 for w in weights]
    mixed = [*later[:2], *weights[2:]]
    expected = by_torch(mixed, x, target, False, 0)[1][2]
    np.testing.assert_allclose(shifted_gradient(weights, later, 2, x, target), expected, rtol=1e-10)
    same = shifted_gradient(weights, later, 0, x, target)  # nothing lies before the first layer
    np.testing.assert_array_equal(same, loss_and_gradients(weights, x, target)[1][0])


def test_the_first_order_is_the_hessian_times_the_earlier_gradients():
    weights, x, target = problem(2, depth=3, width=3)
    tensors = [torch.tensor(w, requires_grad=True) for w in weights]

    def loss(*ws):
        h = torch.tensor(x)
        for w in ws:
            h = h @ w.T
        return torch.nn.functional.mse_loss(h, torch.tensor(target))

    hessian = torch.autograd.functional.hessian(loss, tuple(tensors))
    gradients = loss_and_gradients(weights, x, target)[1]
    expected = -sum(np.tensordot(hessian[2][k].numpy(), gradients[k], 2) for k in (0, 1))
    for lr in (1e-4, 1e-6):
        later = [w - lr * g for w, g in zip(weights, gradients, strict=True)]
        change = (shifted_gradient(weights, later, 2, x, target) - gradients[2]) / lr
        np.testing.assert_allclose(change, expected, atol=300 * lr * np.abs(expected).max() + 1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.2, 5), lr=st.floats(1e-3, 1))
def test_with_bn_longer_weights_are_a_smaller_rate(seed, factor, lr):
    """All layers but the last times a, rate lr: the shift of layer i is that of rate lr / a^2."""
    weights, x, target = problem(seed)

    def shift(weights, rate):
        gradients = loss_and_gradients(weights, x, target, norm=True)[1]
        later = [w - rate * g for w, g in zip(weights, gradients, strict=True)]
        return relative_shift(gradients[2], shifted_gradient(weights, later, 2, x, target, norm=True))

    longer = [*(factor * w for w in weights[:-1]), weights[-1]]
    assert shift(longer, lr) == pytest.approx(shift(weights, lr / factor**2), rel=1e-6, abs=1e-9)


def test_without_bn_or_with_a_large_eps_it_is_not():
    weights, x, target = problem(3)
    for norm, eps in ((False, 0.0), (True, 1.0)):
        found = []
        for factor in (1.0, 2.0):
            longer = [*(factor * w for w in weights[:-1]), weights[-1]]
            gradients = loss_and_gradients(longer, x, target, norm, eps)[1]
            later = [w - 0.01 * factor**2 * g for w, g in zip(longer, gradients, strict=True)]
            found.append(relative_shift(gradients[2], shifted_gradient(longer, later, 2, x, target, norm, eps)))
        assert abs(found[1] / found[0] - 1) > 0.01


def test_relative_shift_and_cosine():
    one, other = np.array([[3.0, 0], [0, 4]]), np.array([[0.0, 0], [0, 4]])
    assert relative_shift(one, other) == pytest.approx(3 / 5)
    assert cosine(one, other) == pytest.approx(4 / 5)
    assert relative_shift(7 * one, 7 * other) == pytest.approx(3 / 5)
    assert cosine(one, -one) == pytest.approx(-1)
    with pytest.raises(ValueError, match="length 0"):
        relative_shift(0 * one, other)
    with pytest.raises(ValueError, match="no direction"):
        cosine(one, 0 * other)


@pytest.mark.parametrize(("n_mu", "n_sigma", "r"), [(0.5, 1.25, 0.1), (2.0, 1.0, 0.0), (0.0, 3.0, 0.5)])
def test_the_moments_of_the_noise_are_those_of_a_simulation(n_mu, n_sigma, r):
    rng, draws, samples = np.random.default_rng(0), 40_000, 200
    y = normalize(rng.normal(size=(samples, 1)))[0].T
    shifts = rng.uniform(-n_mu, n_mu, (draws, 1))
    factors = rng.uniform(1, n_sigma, (draws, 1)) + r * rng.standard_normal((draws, samples))
    a = factors * y + shifts + rng.uniform(-r, r, (draws, samples))
    move, variance = noise_moments(n_mu, n_sigma, r)
    assert np.abs(np.diff(shifts[:, 0])).mean() == pytest.approx(move, abs=0.01 * (1 + n_mu))
    assert a.var(1).mean() == pytest.approx(variance, rel=0.02)


def test_bad_input_is_told():
    weights, x, target = problem(4)
    with pytest.raises(ValueError, match="weights 2 have 4 inputs, the layer before has 5 outputs"):
        loss_and_gradients([weights[0], weights[1][:, :4]], x, target)
    with pytest.raises(ValueError, match="target must have the shape of the output"):
        loss_and_gradients(weights, x, target[:, :2])
    with pytest.raises(ValueError, match="layer must be from 0 to 3, got 4"):
        shifted_gradient(weights, weights, 4, x, target)
    with pytest.raises(ValueError, match="unit 1 is constant"):
        normalize(np.array([[1.0, 2.0], [3.0, 2.0]]))
    with pytest.raises(ValueError, match="n_sigma at 1"):
        noise_moments(0.5, 0.5, 0.1)
