"""SGD, momentum and Adam against torch: on given gradients, and in the training of a whole net."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.scratch.gradcheck import scaled_error
from bnlib.scratch.layers import BatchNorm
from bnlib.scratch.network import mlp, softmax_cross_entropy
from bnlib.scratch.optimizers import SGD, Adam, Momentum, parameters

RNG = np.random.default_rng(0)

# name: ours, called with the learning rate; torch's, called with the tensors and the learning rate
OPTIMIZERS = {
    "SGD": (SGD, torch.optim.SGD),
    "Momentum": (Momentum, lambda tensors, lr: torch.optim.SGD(tensors, lr, momentum=0.9)),
    "SGD, momentum 0.5": (
        lambda lr: SGD(lr, momentum=0.5),
        lambda tensors, lr: torch.optim.SGD(tensors, lr, momentum=0.5),
    ),
    "Adam": (Adam, torch.optim.Adam),
    "Adam, other averages": (
        lambda lr: Adam(lr, betas=(0.5, 0.8), eps=1e-3),
        lambda tensors, lr: torch.optim.Adam(tensors, lr, betas=(0.5, 0.8), eps=1e-3),
    ),
}
EACH = pytest.mark.parametrize(("ours", "theirs"), OPTIMIZERS.values(), ids=OPTIMIZERS)


def random_net(sizes, dtype=np.float64, norm=None):
    net = mlp(sizes, norm=norm)
    for layer in net.layers:
        layer.params = {name: RNG.standard_normal(param.shape).astype(dtype) for name, param in layer.params.items()}
    return net


def fill(net, scale=1.0):
    """New random gradients in the dtype of the parameters."""
    for layer in net.layers:
        layer.grads = {
            name: (scale * RNG.standard_normal(param.shape)).astype(param.dtype)
            for name, param in layer.params.items()
        }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-9, 1, 1e3])  # the smallest are below Adam's eps
@EACH
def test_twenty_steps_on_given_gradients_agree_with_torch(ours, theirs, scale, dtype):
    net = random_net([4, 4, 4, 4], dtype)  # layers of one shape: states that get mixed up raise no error
    params = [param for layer in net.layers for param in layer.params.values()]
    for param in params:
        param *= scale  # then the steps are of the size of the weights
    tensors = [torch.tensor(param) for param in params]
    ours, theirs = ours(0.1), theirs(tensors, lr=0.1)
    for _ in range(20):
        fill(net, scale)
        for tensor, (_, _, grad) in zip(tensors, parameters(net), strict=True):
            tensor.grad = torch.tensor(grad)
        ours.step(net)
        theirs.step()
    for param, tensor in zip(params, tensors, strict=True):
        assert scaled_error(param, tensor.numpy()) < 32 * np.finfo(dtype).eps


@EACH
def test_twenty_steps_of_training_agree_with_torch(ours, theirs):
    net = random_net([5, 6, 6, 3])
    x, labels = RNG.standard_normal((30, 5)), RNG.integers(0, 3, 30)
    tensors = [torch.tensor(p, requires_grad=True) for layer in net.layers for p in layer.params.values()]
    ours, theirs = ours(0.1), theirs(tensors, lr=0.1)
    losses = []
    for _ in range(20):
        loss, dlogits = softmax_cross_entropy(net.forward(x), labels)
        net.backward(dlogits)
        ours.step(net)

        h, (*hidden, last) = torch.tensor(x), zip(tensors[::2], tensors[1::2], strict=True)
        for weight, bias in hidden:
            h = torch.sigmoid(torch.nn.functional.linear(h, weight, bias))
        cost = torch.nn.functional.cross_entropy(torch.nn.functional.linear(h, *last), torch.tensor(labels))
        theirs.zero_grad()
        cost.backward()
        theirs.step()
        assert_allclose(loss, cost.item(), rtol=1e-11)
        losses.append(loss)
    for (key, param, _), tensor in zip(parameters(net), tensors, strict=True):
        assert scaled_error(param, tensor.detach().numpy()) < 1e-11, key
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [0.1, np.float64(0.1)])
@EACH
def test_a_step_changes_every_parameter_in_place_and_nothing_else(ours, theirs, rate, dtype):
    net = random_net([3, 4, 2], dtype, norm=BatchNorm)
    params = [(layer, name, p, p.copy()) for layer in net.layers for name, p in layer.params.items()]
    optimizer = ours(rate)
    for _ in range(3):
        fill(net)
        grads = [layer.grads[name] for layer, name, *_ in params]
        before = [grad.tobytes() for grad in grads]
        optimizer.step(net)
        assert [grad.tobytes() for grad in grads] == before
        assert all(layer.grads[name] is grad for (layer, name, *_), grad in zip(params, grads, strict=True))
    assert len(params) == 6
    for layer, name, param, start in params:
        assert layer.params[name] is param
        assert param.dtype == dtype
        assert np.all(param != start), name


@EACH
def test_a_gradient_that_changes_after_the_step_does_not_change_what_is_remembered(ours, theirs):
    net = random_net([3, 4, 2])
    twin, one, other = deepcopy(net), ours(0.1), ours(0.1)
    for _ in range(3):
        fill(net)
        for layer, same in zip(net.layers, twin.layers, strict=True):
            same.grads = deepcopy(layer.grads)
        one.step(net)
        other.step(twin)
        for layer in net.layers:
            for grad in layer.grads.values():
                grad[:] = 1e6
    for (key, param, _), (_, same, _) in zip(parameters(net), parameters(twin), strict=True):
        assert_array_equal(param, same, err_msg=str(key))


@pytest.mark.parametrize("make", [Momentum, Adam])
def test_each_optimizer_remembers_for_itself_alone(make):
    used, fresh = make(0.25), make(0.25)
    net = random_net([3, 2])
    for _ in range(5):
        fill(net, 100)  # far above eps
        used.step(net)
    fill(net, 100)
    weight, grad = net.layers[0].params["weight"], net.layers[0].grads["weight"]
    start = weight.copy()
    fresh.step(net)
    # the first step of each, from no memory: momentum goes along the gradient, Adam by lr along its sign
    first = {Momentum: 0.25 * grad, Adam: 0.25 * np.sign(grad)}[make]
    assert_allclose(start - weight, first, rtol=1e-5)
    middle = weight.copy()
    used.step(net)
    assert np.abs((middle - weight) / first - 1).max() > 0.1  # this one does remember


def test_parameters_names_each_with_its_gradient_in_the_dtype_of_the_parameter():
    net = random_net([3, 4, 2], np.float32, norm=BatchNorm)
    for layer in net.layers:
        layer.grads = {name: RNG.standard_normal(param.shape) for name, param in layer.params.items()}  # in float64
    found = list(parameters(net))
    linear, norm = ("weight", "bias"), ("gamma", "beta")
    assert [key for key, *_ in found] == [(i, n) for i, names in ((0, linear), (1, norm), (3, linear)) for n in names]
    for (i, name), param, grad in found:
        assert param is net.layers[i].params[name]
        assert grad.dtype == np.float32
        assert_allclose(grad, net.layers[i].grads[name], rtol=1e-7)
