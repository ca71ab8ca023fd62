"""The torch nets: shapes, parameters, the merged convolutions of the Inception module, and what a seed decides."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnlib.nets import inits, models
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded

NETS = {
    "inception": lambda norm: models.MiniInception(norm, modules=2),
    "mlp": lambda norm: models.MLP([784, 20, 30, 10], norm),
    "cnn": models.SmallCNN,
    "residual": lambda norm: models.ResidualMLP(784, 20, 3, 10, norm),
}
each_net = pytest.mark.parametrize("make", NETS.values(), ids=NETS)
norms = pytest.mark.parametrize("norm", [None, BatchNorm])


@pytest.fixture
def images():
    with seeded(0):
        return torch.randn(6, 1, 28, 28)


def build(make, norm=None, seed=3):
    with seeded(seed):
        return make(norm)


def count(model):
    return sum(p.numel() for p in model.parameters())


def outputs_of(model, kind, x):
    """Shapes that come out of each module of a kind."""
    found = []
    hooks = [
        m.register_forward_hook(lambda m, i, o: found.append(tuple(o.shape)))
        for m in model.modules()
        if isinstance(m, kind)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    return found


@each_net
@norms
def test_images_become_ten_numbers_and_every_parameter_gets_a_gradient(make, norm, images):
    model = build(make, norm)
    scores = model(images)
    assert scores.shape == (6, 10)
    scores.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())
    for other in (model.eval(), build(make, norm).eval()):
        assert other(images[:1]).shape == (1, 10)


@pytest.mark.parametrize("modules", [1, 5, 9])
def test_shapes_inside_an_inception(modules, images):
    model = models.MiniInception(modules=modules)
    assert outputs_of(model, models.Inception, images) == [(6, 56, 7, 7)] * modules
    assert outputs_of(model, models.Block, images)[0] == (6, 16, 14, 14)
    assert outputs_of(model, models.Block, images)[1:4] == [(6, 48, 7, 7), (6, 24, 7, 7), (6, 8, 7, 7)]
    assert len(outputs_of(model, models.Block, images)) == 1 + 3 * modules


@pytest.mark.parametrize("modules", [5, 9])
def test_parameters_of_an_inception(modules):
    """By hand: weights and biases of stem, first module, the others, and the last layer."""

    def module(inputs):
        return (inputs * 48 + 48) + (16 * 24 * 9 + 24) + (8 * 8 * 25 + 8)

    plain = (9 * 16 + 16) + module(16) + (modules - 1) * module(56) + (56 * 10 + 10)
    assert count(models.MiniInception(modules=modules)) == plain
    maps = 16 + modules * (48 + 24 + 8)  # two parameters of BN in the place of a bias
    assert count(models.MiniInception(BatchNorm, modules=modules)) == plain + maps
    assert count(models.MiniInception(modules=5)) == 37_930


@each_net
def test_a_layer_before_a_normalizer_has_no_bias(make):
    for block in build(make, BatchNorm).modules():
        if isinstance(block, models.Block):
            assert block.layer.bias is None
            assert isinstance(block.norm, BatchNorm)
    for block in build(make).modules():
        if isinstance(block, models.Block):
            assert block.layer.bias is not None
            assert block.norm is None


def test_a_residual_branch_normalizes_then_activates_then_multiplies(images):
    model = build(NETS["residual"], BatchNorm)
    h = model.first(images.flatten(1))
    for norm, weight in zip(model.norms, model.weights, strict=True):
        inner = (h - h.mean(0)) / (h.var(0, correction=0) + norm.eps).sqrt()
        h = h + torch.relu(inner) @ weight.weight.T
    torch.testing.assert_close(model(images), model.head(h))


@norms
def test_a_block_is_a_layer_a_normalizer_and_an_activation(norm):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    block = models.Block(lambda bias: nn.Linear(4, 3, bias=bias), 3, norm, torch.sigmoid)
    before = x @ block.layer.weight.T
    if norm is None:
        before = before + block.layer.bias
    else:
        before = (before - before.mean(0)) / (before.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(block(x), torch.sigmoid(before))


# --- the module


def separate(module, x):
    """The module with four convolutions of their own, each with a normalizer of its own."""
    parts, start = [], 0
    for width in module.PARTS:
        rows = slice(start, start + width)
        bias = None if module.ones.layer.bias is None else module.ones.layer.bias[rows]
        y = F.conv2d(x, module.ones.layer.weight[rows], bias)
        if module.ones.norm is not None:
            norm = nn.BatchNorm2d(width).to(x.dtype).train(module.training)
            norm.load_state_dict(
                {
                    "weight": module.ones.norm.gamma[rows],
                    "bias": module.ones.norm.beta[rows],
                    "running_mean": module.ones.norm.running_mean[rows],
                    "running_var": module.ones.norm.running_var[rows],
                    "num_batches_tracked": torch.tensor(0),
                }
            )
            y = norm(y)
        parts.append(torch.relu(y))
        start += width
    alone, three, five, mean = parts
    return torch.cat([alone, module.threes(three), module.fives(five), average(mean)], 1)


def average(x):
    """Means over 3x3 neighbours; at the border over those there are."""
    inside = F.pad(torch.ones_like(x), (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5))
    return F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5)) / inside


@norms
@pytest.mark.parametrize("training", [True, False])
def test_merged_convolutions_are_four_separate_ones(norm, training):
    with seeded(0):
        module = models.Inception(16, norm, torch.relu).double().train(training)
        x = torch.randn(5, 16, 7, 7, dtype=torch.float64)
        if norm is not None:
            with torch.no_grad():
                for block in (module.ones, module.threes, module.fives):
                    block.norm.gamma.uniform_(0.5, 2)
                    block.norm.beta.normal_()
            module.eval() if not training else module.train()
        wanted = separate(module, x)
        torch.testing.assert_close(module(x), wanted, rtol=1e-10, atol=1e-12)
        assert wanted.shape == (5, 56, 7, 7)


def test_the_parts_add_up():
    module = models.Inception(16, None, torch.relu)
    assert module.ones.layer.out_channels == sum(module.PARTS)
    alone, three, five, mean = module.PARTS
    widths = alone + module.threes.layer.out_channels + module.fives.layer.out_channels + mean
    assert widths == module.OUTPUTS
    assert (three, five) == (module.threes.layer.in_channels, module.fives.layer.in_channels)


# --- seeds, dropout, response normalization


@each_net
@norms
def test_a_seed_decides_the_weights(make, norm):
    one, again, other = build(make, norm), build(make, norm), build(make, norm, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    assert not torch.equal(inits.layers(one)[0].weight, inits.layers(other)[0].weight)


@each_net
def test_biases_start_at_zero(make):
    assert all(not layer.bias.any() for layer in inits.layers(build(make)) if layer.bias is not None)


def test_dropout_acts_in_training_only(images):
    model = build(lambda norm: models.MiniInception(modules=1, dropout=0.5))
    same = build(lambda norm: models.MiniInception(modules=1))
    with torch.no_grad():
        assert not torch.equal(model.train()(images), model(images))
        torch.testing.assert_close(model.eval()(images), same(images))
        averages = same.stack(F.max_pool2d(same.stem(images), 2)).mean((2, 3))
    with seeded(0):
        kept = model.train().dropout(averages)
    assert ((kept == 0) | torch.isclose(kept, 2 * averages)).all()


def test_response_normalization_stands_after_the_stem(images):
    model = build(lambda norm: models.MiniInception(modules=1, response=True))
    without = build(lambda norm: models.MiniInception(modules=1))
    with torch.no_grad():
        h = F.local_response_norm(F.max_pool2d(without.stem(images), 2), 5, alpha=1.0)
        wanted = without.head(without.stack(h).mean((2, 3)))
        torch.testing.assert_close(model(images), wanted)
        assert not torch.allclose(model(images), without(images), rtol=1e-6)


def test_sigmoids_take_the_place_of_every_relu(images):
    model = models.MiniInception(activation=torch.sigmoid, modules=2)
    found = []
    for block in model.modules():
        if isinstance(block, models.Block):
            block.register_forward_hook(lambda b, i, o: found.append(o))
    model(images)
    assert len(found) == 7
    assert all(((h > 0) & (h < 1)).all() for h in found)
