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


def small(norm=None, seed=3):
    with seeded(seed):
        model = models.MLP([6, 5, 4, 3], norm).double()
        x, labels = torch.randn(14, 6, dtype=torch.float64) + 1, torch.randint(3, (14,))
    return model, x, labels


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_products_rows_and_lanczos_are_of_the_whole_hessian(norm):
    model, x, labels = small(norm)
    weights = dict(model.named_parameters())

    def loss(flat):
        parts = flat.split([w.numel() for w in weights.values()])
        given = {name: part.view(w.shape) for part, (name, w) in zip(parts, weights.items(), strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(model, given, x), labels)

    flat = torch.cat([w.detach().flatten() for w in weights.values()])
    whole = torch.autograd.functional.hessian(loss, flat)
    gradient, product = probes.products(nn.functional.cross_entropy(model(x), labels), list(weights.values()))
    assert not gradient.requires_grad
    torch.testing.assert_close(gradient, torch.autograd.functional.jacobian(loss, flat))
    v = torch.linspace(-1, 1, len(flat), dtype=torch.float64)
    torch.testing.assert_close(product(v), whole @ v)
    rows = probes.hessian(nn.functional.cross_entropy(model(x), labels), list(weights.values()))
    torch.testing.assert_close(rows, whole)
    values, vectors = probes.leading(product, gradient, 4)
    everything, basis = torch.linalg.eigh(whole)
    assert values == pytest.approx(everything.flip(0)[:4].numpy(), rel=1e-5)
    part = (basis.T @ gradient).flip(0)[:4].square().sum() / gradient.square().sum()
    assert probes.share(gradient, vectors) == pytest.approx(float(part), rel=1e-3)
    assert probes.share(gradient, basis.numpy()) == pytest.approx(1)


def test_lanczos_takes_the_largest_and_not_the_largest_in_size():
    matrix = torch.diag(torch.tensor([5.0, 3.0, 1.0, -9.0, 0.5, 0.1], dtype=torch.float64))
    values, vectors = probes.leading(lambda v: matrix @ v, matrix[0], 2)
    assert values == pytest.approx([5, 3])
    assert abs(vectors[0, 0]) == pytest.approx(1)


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_the_fisher_matrix_is_the_mean_square_of_the_outputs_gradients(norm):
    model, x, _ = small(norm)
    model.append(BatchNorm(3).double())
    weights = [layer.weight for layer in inits.layers(model)]
    outputs = model(x)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, weights, retain_graph=True)])
        for value in outputs.flatten()
    ]
    jacobian = torch.stack(rows)
    v = torch.linspace(1, 2, jacobian.shape[1], dtype=torch.float64)
    torch.testing.assert_close(probes.fisher(outputs, weights)(v), jacobian.T @ (jacobian @ v) / len(x))
    # BN after the last layer: the gradients of an output, summed over the samples, are zero.
    summed = jacobian.view(len(x), 3, -1).sum(0).norm() / jacobian.norm()
    assert summed < 1e-10


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_sides_are_sums_over_single_samples(norm):
    model, x, labels = small(norm)
    found = probes.sides(model, lambda outputs: nn.functional.cross_entropy(outputs, labels), x)
    linears, inputs = inits.layers(model), [x]
    for block in list(model)[1:-1]:
        inputs.append(block(inputs[-1]).detach())
    loss = nn.functional.cross_entropy(model(x), labels)
    whole = torch.autograd.grad(loss, [layer.weight for layer in linears])
    assert len(found) == 3
    assert not any(layer._forward_hooks for layer in linears)
    for told, layer, h, _dw in zip(found, linears, inputs, whole, strict=True):
        z = h @ layer.weight.detach().T + (0 if layer.bias is None else layer.bias.detach())
        ratio = z.mean(0).norm() / z.std(0, correction=0).norm()
        assert told["mean"] == pytest.approx(float(ratio))
        assert 0 < told["aligned"] <= 1
        if norm is None or layer is linears[-1]:
            assert told["along"] > 1e-4
        else:
            assert told["along"] < 1e-20
    last = linears[-1]
    z = (inputs[-1] @ last.weight.T + last.bias).detach().requires_grad_()
    (dz,) = torch.autograd.grad(nn.functional.cross_entropy(z, labels), z)
    single = torch.stack([torch.outer(dz[n], inputs[-1][n]) for n in range(len(x))])
    torch.testing.assert_close(single.sum(0), whole[-1])
    assert found[-1]["aligned"] == pytest.approx(float(single.sum(0).abs().sum() / single.abs().sum()))
    mean = torch.outer(dz.sum(0), inputs[-1].mean(0))
    assert found[-1]["along"] == pytest.approx(float(mean.square().sum() / whole[-1].square().sum()))
