"""Each layer's backward pass against centred differences and against torch."""

import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.scratch import layers
from bnlib.scratch.batchnorm import (
    RunningStatistics,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
)
from bnlib.scratch.gradcheck import numerical_gradient, scaled_error
from bnlib.scratch.layers import BatchNorm, Conv2d, Dropout, Flatten, Layer, Linear, ReLU, Sigmoid, Tanh

RNG = np.random.default_rng(0)

# name: how to make the layer, the shapes it is tried on, the same function in torch
LAYERS = {
    "Linear": (lambda: Linear(4, 3, np.random.default_rng(1)), [(5, 4)], torch.nn.functional.linear),
    "Sigmoid": (Sigmoid, [(5, 4), (2, 3, 4)], torch.sigmoid),
    "Tanh": (Tanh, [(5, 4), (2, 3, 4)], torch.tanh),
    "ReLU": (ReLU, [(5, 4), (2, 3, 4)], torch.relu),
    "BatchNorm": (
        lambda: BatchNorm(4),
        [(5, 4), (2, 4, 3), (2, 4, 3, 2)],
        lambda x, gamma, beta: torch.nn.functional.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-5),
    ),
}
for stride, padding in ((1, 0), (1, 1), (2, 1), (3, 2)):
    LAYERS[f"Conv2d stride {stride} padding {padding}"] = (
        lambda stride=stride, padding=padding: Conv2d(2, 3, 3, np.random.default_rng(1), stride, padding),
        [(2, 2, 5, 6), (1, 2, 7, 3)],
        lambda x, w, b, stride=stride, padding=padding: torch.nn.functional.conv2d(x, w, b, stride, padding),
    )
LAYERS["Flatten"] = (Flatten, [(5, 4), (2, 3, 4, 2)], lambda x: x.flatten(1))
LAYERS["Dropout"] = (lambda: Dropout(0.0, RNG), [(5, 4), (2, 3, 4)], lambda x: torch.nn.functional.dropout(x, 0.0))
EACH = [(name, shape) for name, (_, shapes, _) in LAYERS.items() for shape in shapes]


def in_float64(layer):
    """Random parameters in double precision: zeros and ones would hide a wrong backward pass."""
    for name, param in layer.params.items():
        layer.params[name] = RNG.standard_normal(param.shape)
    return layer


def test_every_layer_is_tested_here():
    made = [c for c in vars(layers).values() if isinstance(c, type) and issubclass(c, Layer) and c is not Layer]
    assert {c.__name__ for c in made} == {name.split()[0] for name in LAYERS}


@pytest.mark.parametrize(("name", "shape"), EACH)
def test_gradients_agree_with_centred_differences(name, shape):
    layer = in_float64(LAYERS[name][0]())
    x = RNG.uniform(0.1, 2, shape) * RNG.choice([-1, 1], shape)  # away from the kink of ReLU
    dy = RNG.standard_normal(layer.forward(x).shape)
    dx = layer.backward(dy)
    grads = dict(layer.grads)
    assert set(grads) == set(layer.params)
    assert scaled_error(dx, numerical_gradient(lambda v: np.sum(dy * layer.forward(v)), x)) < 1e-7
    for key, param in list(layer.params.items()):

        def loss(value, key=key):
            layer.params[key] = value
            return np.sum(dy * layer.forward(x))

        assert scaled_error(grads[key], numerical_gradient(loss, param)) < 1e-7, key
        layer.params[key] = param


@pytest.mark.parametrize(("name", "shape"), EACH)
def test_forward_and_gradients_agree_with_torch(name, shape):
    layer = in_float64(LAYERS[name][0]())
    x = RNG.standard_normal(shape)
    y = layer.forward(x)
    dy = RNG.standard_normal(y.shape)
    dx = layer.backward(dy)

    tensors = {key: torch.tensor(value, requires_grad=True) for key, value in {"x": x, **layer.params}.items()}
    theirs = LAYERS[name][2](*tensors.values())
    theirs.backward(torch.tensor(dy))
    assert scaled_error(y, theirs.detach().numpy()) < 1e-13
    for key, ours in {"x": dx, **layer.grads}.items():
        assert scaled_error(ours, tensors[key].grad.numpy()) < 1e-13, key


@pytest.mark.parametrize(("name", "shape"), EACH)
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_keeps_the_dtype_and_changes_no_input(name, shape, training):
    layer = LAYERS[name][0]()
    x = RNG.standard_normal(shape).astype(np.float32)
    layer.forward(x)
    params = {key: value.tobytes() for key, value in layer.params.items()}
    before = x.tobytes()
    y = layer.forward(x, training)
    dy = RNG.standard_normal(y.shape).astype(np.float32)
    dy_before = dy.tobytes()
    dx = layer.backward(dy)
    assert y.dtype == dx.dtype == np.float32
    assert all(grad.dtype == np.float32 for grad in layer.grads.values())
    assert x.tobytes() == before
    assert dy.tobytes() == dy_before
    assert {key: value.tobytes() for key, value in layer.params.items()} == params


def test_linear_starts_from_xavier_uniform_and_its_generator():
    layer = Linear(300, 200, np.random.default_rng(3))
    weight = layer.params["weight"]
    bound = np.sqrt(6 / 500)
    assert weight.shape == (200, 300)
    assert weight.dtype == np.float32
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert_allclose(weight.std(), bound / np.sqrt(3), rtol=0.01)  # the spread of a uniform distribution
    assert_array_equal(layer.params["bias"], np.zeros(200))
    assert_array_equal(weight, Linear(300, 200, np.random.default_rng(3)).params["weight"])


@pytest.mark.parametrize("shape", [(5, 3), (4,), (5, 4, 1)])
def test_linear_refuses_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"\(N, 4\).*" + str(shape).replace("(", r"\(").replace(")", r"\)")):
        Linear(4, 3, np.random.default_rng(0)).forward(np.ones(shape))


def test_conv2d_starts_from_he_normal_and_its_generator():
    layer = Conv2d(20, 30, 5, np.random.default_rng(3))
    weight = layer.params["weight"]
    assert weight.shape == (30, 20, 5, 5)
    assert weight.dtype == np.float32
    assert_allclose(weight.std(), np.sqrt(2 / 500), rtol=0.02)
    assert_allclose(weight.mean(), 0, atol=0.002)
    assert_array_equal(layer.params["bias"], np.zeros(30))
    assert_array_equal(weight, Conv2d(20, 30, 5, np.random.default_rng(3)).params["weight"])


@pytest.mark.parametrize("shape", [(5, 2), (5, 3, 4, 4), (5, 2, 4), (5, 2, 0, 4)])
def test_conv2d_refuses_a_wrong_shape(shape):
    with pytest.raises(
        ValueError, match=rf"\(N, 2, H, W\) with H and W at least 1, got shape {re.escape(str(shape))}"
    ):
        Conv2d(2, 3, 3, RNG, padding=1).forward(np.ones(shape))


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_drops_that_share_and_keeps_the_mean(rate):
    layer = Dropout(rate, np.random.default_rng(5))
    x = np.full((200, 100), 3.0)
    y = layer.forward(x)
    assert_allclose(np.mean(y == 0), rate, atol=0.01)
    assert_allclose(y[y != 0], 3 / (1 - rate))
    assert_array_equal(layer.backward(x), y)  # the same mask, the same factor
    assert np.any(layer.forward(x) != y)  # a new one at each step
    again = Dropout(rate, np.random.default_rng(5))
    assert_array_equal(again.forward(x), y)
    assert_array_equal(layer.forward(x, training=False), x)
    assert_array_equal(layer.backward(x), x)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5])
def test_dropout_refuses_a_rate_that_is_no_share(rate):
    with pytest.raises(ValueError, match="from 0 to below 1; got"):
        Dropout(rate, RNG)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_neither_overflows_nor_loses_its_ends(dtype):
    x = np.array([-1e4, -800, -1, 0, 1, 800, 1e4], dtype)
    layer = Sigmoid()
    with np.errstate(all="raise"):
        y = layer.forward(x)
        dx = layer.backward(np.ones_like(x))
    assert_allclose(y, torch.sigmoid(torch.tensor(x)).numpy(), rtol=0, atol=np.finfo(dtype).eps)
    assert_array_equal(dx[[0, 1, 5, 6]], 0)


def test_relu_sends_nothing_back_where_it_was_off():
    layer = ReLU()
    assert_array_equal(layer.forward(np.array([-2.0, 0.0, 3.0])), [0, 0, 3])
    assert_array_equal(layer.backward(np.array([5.0, 5.0, 5.0])), [0, 0, 5])  # torch too takes 0 at 0


# --- BatchNorm -------------------------------------------------------------------------------------


def test_batchnorm_starts_as_torch_does():
    layer, module = BatchNorm(3), torch.nn.BatchNorm1d(3)
    assert_array_equal(layer.params["gamma"], module.weight.detach().numpy())
    assert_array_equal(layer.params["beta"], module.bias.detach().numpy())
    assert (layer.eps, layer.running.momentum) == (module.eps, module.momentum)
    x = RNG.standard_normal((4, 3))  # evaluation before any training: mean 0, variance 1
    assert_allclose(layer.forward(x, training=False), x / np.sqrt(1 + 1e-5), rtol=1e-14)


def test_batchnorm_evaluates_with_running_statistics_of_one_sample_at_a_time():
    layer = in_float64(BatchNorm(3, eps=1e-3, momentum=0.5))
    for _ in range(4):
        layer.forward(RNG.standard_normal((8, 3)) * 2 + 1)
    x = RNG.standard_normal((6, 3))
    whole = layer.forward(x, training=False)
    gamma, beta, running = layer.params["gamma"], layer.params["beta"], layer.running
    assert_array_equal(whole, batchnorm_inference(x, gamma, beta, running.mean, running.var, 1e-3))
    assert_array_equal(whole, np.concatenate([layer.forward(x[i : i + 1], training=False) for i in range(6)]))
    assert np.abs(whole - batchnorm_forward(x, gamma, beta, 1e-3)[0]).max() > 0.1
    assert running.count == 4


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("momentum", [0.1, 0.75, None])
@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 5), (2, 3, 4, 2)])
def test_batchnorm_keeps_the_running_statistics_of_update_and_of_torch(shape, momentum, dtype, own):
    def forward(x, gamma, beta, eps):
        y, cache = batchnorm_forward(x, gamma, beta, eps)
        return y, tuple(cache)  # a learner's own cache, in which nobody can look for the moments

    layer = BatchNorm(3, momentum=momentum, **({"forward": forward} if own else {}))
    updated = RunningStatistics(momentum, 3)
    module = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    module = module(3, momentum=momentum).double()
    if not own:
        layer.running.update = None  # the moments in the cache are taken, not computed again
    for i in range(4):
        x = (RNG.standard_normal(shape) * (i + 1) + 10 * i).astype(dtype)
        layer.forward(x)
        layer.forward(x, training=False)  # leaves no trace
        updated.update(x)
        module(torch.tensor(x, dtype=torch.float64))
        for ours, same, theirs in (
            (layer.running.mean, updated.mean, module.running_mean),
            (layer.running.var, updated.var, module.running_var),
        ):
            assert ours.dtype == np.float64
            assert_array_equal(ours, same)
            assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-14)
        assert layer.running.count == updated.count == module.num_batches_tracked.item() == i + 1


@pytest.mark.parametrize("given", [True, False])
def test_batchnorm_calls_the_functions_of_the_learner(given):
    seen = []

    def forward(x, gamma, beta, eps):
        seen.append(("forward", x, gamma, beta, eps))
        return batchnorm_forward(x, gamma, beta, eps)

    def backward(dy, cache):
        seen.append(("backward", dy, cache))
        return tuple(2 * grad for grad in batchnorm_backward(dy, cache))

    layer = BatchNorm(3, eps=0.25, **(dict(forward=forward, backward=backward) if given else {}))
    x, dy = RNG.standard_normal((2, 5, 3))
    y, dx = layer.forward(x), layer.backward(dy)
    right_y, cache = batchnorm_forward(x, np.ones(3), np.zeros(3), 0.25)
    right = batchnorm_backward(dy, cache)
    factor = 2 if given else 1
    assert_array_equal(y, right_y)
    for got, wanted in zip((dx, layer.grads["gamma"], layer.grads["beta"]), right, strict=True):
        assert_array_equal(got, factor * wanted)
    assert [call[0] for call in seen] == (["forward", "backward"] if given else [])
    if given:
        assert seen[0][1] is x
        assert seen[0][4] == 0.25
        assert seen[1][1] is dy
        layer.forward(x, training=False)
        assert len(seen) == 2  # evaluation is not the learner's forward


@pytest.mark.parametrize("answer", [None, np.zeros((5, 3)), (1, 2, 3)])
def test_batchnorm_says_what_a_learners_forward_must_return(answer):
    layer = BatchNorm(3, forward=lambda x, gamma, beta, eps: answer)
    with pytest.raises(TypeError, match=rf"pair \(y, cache\), got {type(answer).__name__}"):
        layer.forward(np.ones((5, 3)))


def test_batchnorm_refuses_a_wrong_number_of_channels_in_both_modes():
    layer = BatchNorm(3)
    for training in (True, False):
        with pytest.raises(ValueError, match=r"\(4,\).*\(5, 4\).*\(3,\)"):
            layer.forward(np.ones((5, 4)), training)
    with pytest.raises(ValueError, match="more than one value"):
        layer.forward(np.ones((1, 3)))
    assert layer.running.count == 0
