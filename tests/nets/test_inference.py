"""Probabilities of a trained net, with the three kinds of statistics, against the long way round."""

import copy

import numpy as np
import pytest
import torch

from bnlib.nets.inference import by_batch, population, probabilities
from bnlib.nets.models import MLP, SmallCNN
from bnlib.nets.norms import BatchNorm, GroupNorm
from bnlib.nets.training import fit, seeded


@pytest.fixture(scope="module")
def trained():
    """A net with BN after a few steps, so that the three statistics differ, and images."""
    with seeded(0):
        x, labels = torch.randn(46, 1, 4, 4) + 1, torch.randint(3, (46,))
        model = MLP([16, 12, 8, 3], BatchNorm)
    fit(model, x, labels, lr=0.1, steps=5, validation=(x, labels), batch=8, progress=False)
    return model, x


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_probabilities_are_those_of_evaluation_mode_in_any_portions(trained):
    model, x = trained
    found = probabilities(copy.deepcopy(model).train(), x, batch=7)
    with torch.no_grad():
        torch.testing.assert_close(found, model.eval()(x).softmax(1))
    torch.testing.assert_close(found.sum(1), torch.ones(46))
    assert not torch.allclose(found, by_batch(model, x, 8, np.random.default_rng(0)), atol=0.01)


def test_the_population_is_the_plain_average_over_the_batches(trained):
    model, x = trained
    before = state(model)
    found = population(model, x[:40].split(8))
    assert same(before, state(model))
    assert not found.training
    first = next(module for module in found.modules() if isinstance(module, BatchNorm))
    with torch.no_grad():
        inputs = [model[1].layer(part.flatten(1)) for part in x[:40].split(8)]
    torch.testing.assert_close(first.running_mean, torch.stack([z.mean(0) for z in inputs]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([z.var(0, correction=1) for z in inputs]).mean(0))
    assert first.momentum == 0.1
    assert not torch.allclose(first.running_mean, model[1].norm.running_mean, atol=1e-3)


def test_the_deeper_layers_see_what_training_shows_them(trained):
    """Statistics of layer 2 are those of inputs that were normalized by their own batch, not by the population."""
    model, x = trained
    found = population(model, x[:40].split(8))
    with torch.no_grad():
        train = copy.deepcopy(model).train()
        inputs = [train[2].layer(train[1](part.flatten(1))) for part in x[:40].split(8)]
    torch.testing.assert_close(found[2].norm.running_mean, torch.stack([z.mean(0) for z in inputs]).mean(0))


@pytest.mark.parametrize("size", [2, 8, 23, 45, 46])
def test_each_image_is_answered_once_beside_its_mates(trained, size):
    model, x = trained
    before = state(model)
    found = by_batch(model, x, size, np.random.default_rng(3))
    assert same(before, state(model))
    assert found.shape == (46, 3)
    order = np.random.default_rng(3).permutation(46)
    padded = np.concatenate([order, order])[: -(-46 // size) * size]
    for start in (0, len(padded) - size):
        mates = padded[start : start + size]
        with torch.no_grad():
            wanted = copy.deepcopy(model).train()(x[mates]).softmax(1)
        last = [i for i, mate in enumerate(mates) if start + i < 46]  # the others only fill the batch
        torch.testing.assert_close(found[mates[last]], wanted[last])


def test_without_bn_all_three_are_the_same():
    with seeded(0):
        model, x = SmallCNN(GroupNorm), torch.randn(10, 1, 28, 28)
    wanted = probabilities(model, x)
    torch.testing.assert_close(by_batch(model, x, 4, np.random.default_rng(0)), wanted)
    torch.testing.assert_close(probabilities(population(model, [x[:4]]), x), wanted)


@pytest.mark.parametrize("size", [0, 47])
def test_a_batch_holds_some_of_the_images(trained, size):
    with pytest.raises(ValueError, match=f"from 1 to the 46 images, got {size}"):
        by_batch(*trained, size, np.random.default_rng(0))
