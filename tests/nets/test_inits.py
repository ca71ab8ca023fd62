"""Where weights start: distributions, and that data_dependent gives every channel mean 0 and variance 1."""

import math

import pytest
import torch
from torch import nn

from bnlib.nets import inits, models
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded


@pytest.fixture
def images():
    with seeded(0):
        return torch.randn(64, 1, 28, 28) * 3 + 2


def inception(norm=None, seed=1, **others):
    with seeded(seed):
        return models.MiniInception(norm, modules=2, **others)


def pre_activations(model, x):
    """Output of every convolution and linear layer, in evaluation mode."""
    found = []
    hooks = [layer.register_forward_hook(lambda m, i, o: found.append(o)) for layer in inits.layers(model)]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return found


def fans(layer):
    positions = math.prod(layer.weight.shape[2:])
    return positions * layer.weight.shape[1], positions * layer.weight.shape[0]


def test_layers_are_listed_in_order_without_normalizers():
    kinds = [type(layer) for layer in inits.layers(inception(BatchNorm))]
    assert kinds == [nn.Conv2d] * 7 + [nn.Linear]
    assert [layer.kernel_size[0] for layer in inits.layers(inception())[:4]] == [3, 1, 3, 5]


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_xavier_is_uniform_with_the_variance_of_both_fans(norm):
    model = inception(norm)
    with seeded(5):
        inits.xavier(model)
    for layer in inits.layers(model):
        limit = math.sqrt(6 / sum(fans(layer)))
        assert 0.9 * limit < layer.weight.abs().max() <= limit
        assert float(layer.weight.detach().var()) == pytest.approx(limit**2 / 3, rel=0.25)
        assert layer.bias is None or not layer.bias.any()


def test_he_is_normal_with_twice_the_inverse_fan_in_and_leaves_the_last_layer():
    model = inception()
    with seeded(5):
        inits.he(model)
    *hidden, last = inits.layers(model)
    scaled = torch.cat([(layer.weight * math.sqrt(fans(layer)[0] / 2)).flatten() for layer in hidden])
    assert float(scaled.detach().std()) == pytest.approx(1, rel=0.03)
    assert 3 < scaled.abs().max() < 6  # a normal distribution has tails
    assert last.weight.abs().max() <= math.sqrt(6 / sum(fans(last)))
    assert not any(layer.bias.any() for layer in hidden)


@pytest.mark.parametrize("make", [inception, lambda: models.MLP([784, 30, 20, 10])], ids=["inception", "mlp"])
@pytest.mark.parametrize("activation", [torch.relu, torch.sigmoid])
def test_every_channel_starts_at_mean_0_and_variance_1(make, activation, images):
    with seeded(2):
        model = make()
    for block in model.modules():
        if isinstance(block, models.Block):
            block.activation = activation
    last = inits.layers(model)[-1].weight.clone()
    inits.data_dependent(model, images)
    *hidden, out = pre_activations(model, images)
    for h in hidden:  # the layers behind a branch are among them
        var, mean = torch.var_mean(h, [0, *range(2, h.ndim)], correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(var, torch.ones_like(var), atol=1e-3, rtol=0)
    assert torch.equal(inits.layers(model)[-1].weight, last)
    assert not torch.allclose(out.var(0), torch.ones(10), rtol=0.1)


def test_directions_of_the_weights_stay(images):
    model, before = inception(), inception()
    inits.data_dependent(model, images)
    for a, b in zip(inits.layers(model)[:-1], inits.layers(before)[:-1], strict=True):
        factors = a.weight / b.weight
        torch.testing.assert_close(factors, factors.flatten(1)[:, :1].view(-1, 1, 1, 1).expand_as(factors))
        assert (factors > 0).all()


def test_it_is_like_the_first_step_of_batch_normalization(images):
    """With the same weights a net with BN in training mode gives the same outputs on that batch."""
    model, norm = inception(), inception(BatchNorm)
    for a, b in zip(inits.layers(norm), inits.layers(model), strict=True):
        a.weight.data.copy_(b.weight.data)
    inits.data_dependent(model, images)
    with torch.no_grad():
        torch.testing.assert_close(model(images), norm.train()(images), rtol=1e-2, atol=1e-3)


def test_the_model_is_left_as_it_was(images):
    for training in (True, False):
        model = inception(dropout=0.5).train(training)
        inits.data_dependent(model, images)
        assert model.training == training
        assert not any(layer._forward_hooks for layer in inits.layers(model))
    one, other = inception(dropout=0.5), inception()
    for model in (one, other):
        inits.data_dependent(model, images)  # dropout draws nothing
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_net_with_normalizers_is_refused(images):
    model = inception(BatchNorm)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=r"has no bias .* data_dependent is for plain nets"):
        inits.data_dependent(model, images)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert not any(layer._forward_hooks for layer in inits.layers(model))


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_constant_channel_is_refused_and_hooks_are_removed(value, images):
    model = models.MLP([784, 6, 10]).train()
    with torch.no_grad():
        model[1].layer.weight[2] = 0
        model[1].layer.bias[2] = value
    with pytest.raises(ValueError, match="is the same for all 64 inputs: it cannot be scaled"):
        inits.data_dependent(model, images)
    assert model.training
    assert not any(layer._forward_hooks for layer in inits.layers(model))
