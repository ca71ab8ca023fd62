"""What is measured in a torch net: the gradient's norm, the activations, the channels that answer nothing."""

import pytest
import torch
from torch import nn

from bnlib.nets import inits, models, probes
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded


@pytest.fixture
def images():
    with seeded(0):
        return torch.randn(12, 1, 28, 28)


def net(norm=None):
    with seeded(1):
        return models.MiniInception(norm, modules=2)


def test_the_norm_of_the_gradient_is_over_all_parameters_together(images):
    model = net(BatchNorm)
    model(images).square().sum().backward()
    everything = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert probes.gradient_norm(model) == pytest.approx(float(everything.norm()), rel=1e-5)
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    assert probes.gradient_norm(model) == pytest.approx(0.5, rel=1e-4)
    model.head.bias.grad = None  # a parameter without a gradient is left out
    assert probes.gradient_norm(model) < 0.5


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_activations_come_in_the_order_of_the_calls_and_change_nothing(norm, images):
    model = net(norm).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = probes.activations(model, images)
    assert [tuple(h.shape[1:]) for h in found] == [(16, 14, 14), *[(48, 7, 7), (24, 7, 7), (8, 7, 7)] * 2]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(block._forward_hooks for block in model.modules())
    torch.testing.assert_close(found[0], model.eval().stem(images))


def test_hooks_are_removed_when_the_model_fails():
    model = net()
    with pytest.raises(RuntimeError):
        probes.activations(model, torch.randn(2, 3, 28, 28))
    assert not any(block._forward_hooks for block in model.modules())


def test_a_channel_is_dead_if_it_is_positive_nowhere(images):
    model = models.MLP([784, 10, 6, 10])
    first = model[1]
    with torch.no_grad():
        model[2].layer.bias += 100  # all six answer
        first.layer.bias[:3] = -1e4  # three of sixteen channels
    assert probes.dead(model, images) == pytest.approx(3 / 16)
    with torch.no_grad():
        first.layer.bias[0] = 0
    assert probes.dead(model, images) == pytest.approx(2 / 16)


def test_one_position_of_one_input_is_enough_to_be_alive(images):
    model = net()
    channels = 16 + 2 * (48 + 24 + 8)
    assert probes.dead(model, images) < 0.3
    with torch.no_grad():
        model.stem.layer.weight[0] = 0
        model.stem.layer.weight[0, 0, 1, 1] = 1  # channel 0 copies the image
        model.stem.layer.bias[0] = -images[3].abs().max() - 1  # and nothing is left of it
    gone = probes.dead(model, images)
    images[3, 0, 10, 10] = 100
    assert probes.dead(model, images) <= gone - 1 / channels + 1e-9


def test_sigmoids_are_never_dead(images):
    assert probes.dead(models.MLP([784, 10, 10], activation=torch.sigmoid), images) == 0


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_hessian_blocks_are_those_of_the_whole_hessian(norm):
    with seeded(2):
        model = models.MLP([5, 4, 3, 2], norm, torch.tanh).double()
        x = torch.randn(9, 5, dtype=torch.float64)
    weights = [layer.weight for layer in inits.layers(model)]
    names = [name for name, p in model.named_parameters() if any(p is w for w in weights)]
    found = probes.hessian_blocks(model(x).square().sum(), weights)

    def loss(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), x).square().sum()

    whole = torch.autograd.functional.hessian(loss, tuple(w.detach() for w in weights))
    expected = torch.tensor([[block.norm() for block in row] for row in whole])
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found, found.T)
