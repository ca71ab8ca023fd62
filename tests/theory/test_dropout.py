"""Dropout and variances: each formula against what it is about, computed directly."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.stats import norm

from bnlib.scratch.layers import Dropout
from bnlib.theory.dropout import dropped_variance, relu_moments, shift_of_weights, variance_ratio

SIX = np.array([3.0, 8.0, 9.0, 11.0, 14.0, 15.0])


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("x", [SIX, SIX - SIX.mean(), np.maximum(SIX - 10, 0)])
def test_the_variance_of_a_dropped_feature_is_that_over_all_samples_and_masks(x, keep):
    """Each sample is x / keep with probability keep, else 0: two values, exact moments."""
    values = np.concatenate([x / keep, 0 * x])
    weights = np.repeat([keep, 1 - keep], len(x)) / len(x)
    mean = weights @ values
    assert mean == pytest.approx(x.mean())
    direct = weights @ (values - mean) ** 2
    assert dropped_variance(x.mean(), x.var(), keep) == pytest.approx(direct)
    assert variance_ratio(x.mean(), x.var(), keep) == pytest.approx(direct / x.var())


def test_what_our_layer_drops_has_this_variance():
    x = np.random.default_rng(0).normal(2, 1, (200_000, 2)) * [1, 3]
    there = Dropout(0.2, np.random.default_rng(1)).forward(x)
    assert_allclose(there.var(0), dropped_variance(x.mean(0), x.var(0), 0.8), rtol=0.01)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.8])
def test_the_ratio_of_centred_features_is_one_over_keep_and_larger_with_a_mean(keep):
    assert variance_ratio(0.0, 7.0, keep) == pytest.approx(1 / keep)
    assert variance_ratio(np.zeros(3), np.arange(1, 4), keep) == pytest.approx(1 / keep)
    ratios = [variance_ratio(mean, 1.0, keep) for mean in (0, 1, -2, 3)]
    assert ratios == sorted(ratios)


@pytest.mark.parametrize(("rate", "ratio"), [(0.5, 2.467), (0.1, 1.163)])
def test_the_ratio_after_a_relu(rate, ratio):
    assert variance_ratio(*relu_moments(), 1 - rate) == pytest.approx(ratio, abs=1e-3)


@pytest.mark.parametrize(("mean", "std"), [(0, 1), (0.7, 2.0), (-1.5, 0.5)])
def test_the_moments_of_a_relu(mean, std):
    first, second = (
        quad(lambda z, k=k: max(z, 0) ** k * norm.pdf(z, mean, std), 0, mean + 12 * std)[0] for k in (1, 2)
    )
    assert_allclose(relu_moments(mean, std), (first, second - first**2), atol=1e-8)
    assert_allclose(relu_moments(), (1 / np.sqrt(2 * np.pi), 0.5 - 0.5 / np.pi))


def some(samples=6, inputs=4, units=3):
    rng = np.random.default_rng(3)
    mixed = rng.normal(size=(samples, inputs)) @ rng.normal(size=(inputs, inputs)) + rng.normal(size=inputs)
    return rng.normal(size=(units, inputs)), mixed


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9])
def test_the_shift_of_given_weights_is_exact_on_average_over_masks(keep):
    """Every sample with every one of its 2^4 masks, correlated features included."""
    weight, features = some()
    masks = np.array(list(itertools.product([0, 1], repeat=4)))
    chance = keep ** masks.sum(1) * (1 - keep) ** (4 - masks.sum(1))
    outputs = (features[:, None] * masks / keep) @ weight.T  # (samples, masks, units)
    weights = np.broadcast_to(chance / len(features), outputs.shape[:2])
    mean = np.einsum("sm,smu->u", weights, outputs)
    var = np.einsum("sm,smu->u", weights, (outputs - mean) ** 2)
    assert_allclose(shift_of_weights(weight, features, keep), var / (features @ weight.T).var(0))


def test_over_random_weights_the_variances_have_the_ratio_of_the_sums():
    _, features = some()
    weight = np.random.default_rng(4).normal(size=(400_000, 4))
    evaluation = (features @ weight.T).var(0)
    training = evaluation * shift_of_weights(weight, features, 0.5)
    expected = variance_ratio(features.mean(0), features.var(0), 0.5)
    assert training.sum() / evaluation.sum() == pytest.approx(expected, rel=0.01)
    ratios = dropped_variance(features.mean(0), features.var(0), 0.5) / features.var(0)
    assert abs(ratios.mean() / expected - 1) > 0.05  # the mean of the ratios is another number


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1])
def test_a_keep_probability_is_above_0_and_at_most_1(keep):
    with pytest.raises(ValueError, match="keep is the share that stays"):
        dropped_variance(0, 1, keep)


def test_bad_moments_are_refused():
    with pytest.raises(ValueError, match="var must not be negative"):
        dropped_variance(0, -1, 0.5)
    with pytest.raises(ValueError, match="no feature varies"):
        variance_ratio(np.ones(3), np.zeros(3), 0.5)
    with pytest.raises(ValueError, match="weight must be"):
        shift_of_weights(np.ones((2, 3)), np.ones((5, 4)), 0.5)
    with pytest.raises(ValueError, match="std must be positive"):
        relu_moments(0, 0)
