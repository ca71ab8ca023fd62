"""Lean BN, skip connections in a flat list, and the hand on the gradient."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from bnlib.scratch.checks import NotFinite
from bnlib.scratch.deep import Fork, Join, LeanBatchNorm, Meter, Scale, deep_net, meters
from bnlib.scratch.inits import linears
from bnlib.scratch.layers import BatchNorm, Linear, ReLU
from bnlib.scratch.network import Sequential, softmax_cross_entropy


def to_float64(net):
    for layer in net.layers:
        layer.params = {name: value.astype(float) for name, value in layer.params.items()}
    return net


def test_lean_bn_is_bn():
    rng = np.random.default_rng(0)
    x, dy = 3 + 2 * rng.normal(size=(20, 5)), rng.normal(size=(20, 5))
    lean, ours = LeanBatchNorm(5, 1e-3), BatchNorm(5, 1e-3)
    for layer in (lean, ours):
        layer.params = {"gamma": np.linspace(0.5, 2, 5), "beta": np.linspace(-1, 1, 5)}
    assert_allclose(lean.forward(x), ours.forward(x), atol=1e-12)
    assert_allclose(lean.backward(dy.copy()), ours.backward(dy), rtol=1e-6, atol=1e-9)
    for name in ("gamma", "beta"):
        assert_allclose(lean.grads[name], ours.grads[name], atol=1e-11)


def test_lean_bn_evaluates_with_the_statistics_of_the_last_training_pass():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 3))
    layer = LeanBatchNorm(3)
    y = layer.forward(x)
    assert_allclose(layer.forward(x[:1], training=False), y[:1], atol=1e-12)
    assert_allclose(layer.forward(x[:1] + 5, training=False), y[:1] + 5 / np.sqrt(x.var(0) + 1e-5), rtol=1e-6)


@pytest.mark.parametrize(
    "how",
    [{}, {"norm": LeanBatchNorm}, {"norm": LeanBatchNorm, "residual": True}, {"residual": True, "alpha": 0.3}],
)
def test_gradients_are_those_of_differences(how):
    rng = np.random.default_rng(2)
    net = to_float64(deep_net(3, 6, rng, inputs=5, classes=4, **how))
    x, labels = rng.normal(size=(7, 5)), rng.integers(0, 4, 7)

    def loss():
        return softmax_cross_entropy(net.forward(x), labels)[0]

    net.forward(x)
    net.backward(softmax_cross_entropy(net.forward(x), labels)[1])
    for layer in net.layers:
        for name, param in layer.params.items():
            place, step = tuple(rng.integers(0, size) for size in param.shape), 1e-6
            param[place] += step
            above = loss()
            param[place] -= 2 * step
            below = loss()
            param[place] += step
            assert layer.grads[name][place] == pytest.approx((above - below) / (2 * step), abs=1e-7)


def test_a_branch_is_added_to_the_stream():
    rng = np.random.default_rng(3)
    fork, inside = Fork(), Linear(4, 4, rng)
    net, x = Sequential([fork, inside, Scale(0.5), Join(fork)]), rng.normal(size=(3, 4))
    assert_allclose(net.forward(x), x + 0.5 * x @ inside.params["weight"].T)
    dy = rng.normal(size=(3, 4))
    assert_allclose(net.backward(dy), dy + 0.5 * dy @ inside.params["weight"])


def test_a_meter_measures_and_changes_nothing():
    dy = np.array([[3.0, 4.0]])
    meter = Meter()
    assert meter.forward(dy) is dy
    assert meter.backward(dy) is dy
    assert (meter.norm, meter.arrived) == (5, 5)


@pytest.mark.parametrize("growth", [1.0, 1.5])
@pytest.mark.parametrize("norm", [None, LeanBatchNorm])
def test_growth_sets_the_length_of_the_gradient_and_not_its_direction(growth, norm):
    nets = [deep_net(6, 20, np.random.default_rng(4), norm=norm, growth=g, inputs=8) for g in (None, growth)]
    rng = np.random.default_rng(5)
    x, labels = rng.normal(size=(16, 8)).astype(np.float32), rng.integers(0, 10, 16)
    for net in nets:
        net.backward(softmax_cross_entropy(net.forward(x), labels)[1])
    plain, steered = (np.array([meter.norm for meter in meters(net)]) for net in nets)
    assert_allclose(steered[:-1] / steered[1:], growth**0.5, rtol=1e-6)
    assert steered[0] == pytest.approx(plain[-1], rel=1e-5)  # the largest is what arrives at the last layer
    for one, other in zip(*(linears(net) for net in nets), strict=True):
        a, b = one.grads["weight"].ravel(), other.grads["weight"].ravel()
        assert a @ b / np.sqrt((a @ a) * (b @ b)) == pytest.approx(1, abs=1e-5)


def test_a_gradient_of_zero_stays_and_one_that_is_not_finite_ends_the_run():
    top = Meter(None, 1.0)
    below = Meter(top, 1.0)
    top.backward(np.ones((1, 2)))
    assert_allclose(below.backward(np.zeros((1, 2))), 0)
    top.arrived = np.inf
    with pytest.raises(NotFinite, match="norm is inf"):
        below.backward(np.ones((1, 2)))


def test_deep_nets_have_the_layers_and_weights_of_their_lines():
    net = deep_net(4, 300, np.random.default_rng(6), norm=LeanBatchNorm)
    assert [type(layer) for layer in net.layers[:4]] == [Linear, Meter, LeanBatchNorm, ReLU]
    assert (len(net.layers), len(meters(net))) == (17, 4)
    assert linears(net)[1].params["weight"].std() == pytest.approx((2 / 300) ** 0.5, rel=0.02)
    skip = deep_net(2, 30, np.random.default_rng(6), residual=True, alpha=0.5)
    assert [type(layer).__name__ for layer in skip.layers] == [
        *("Linear", "Fork", "ReLU", "Linear", "Scale", "Meter", "Join"),
        *("Fork", "ReLU", "Linear", "Scale", "Meter", "Join", "Linear"),
    ]
    with pytest.raises(ValueError, match="at least 1"):
        deep_net(2, 3, np.random.default_rng(0), growth=0.5)
