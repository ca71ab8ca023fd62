"""Where the weights start: the distributions asked for, and on the batch itself mean 0 and variance 1."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.scratch.inits import data_dependent, gaussian, he, linears, sigmoid_gain
from bnlib.scratch.layers import BatchNorm, Linear, ReLU, Sigmoid
from bnlib.scratch.network import mlp

RNG = np.random.default_rng(0)


def with_biases(net):
    """Biases that are not zero, as after some training."""
    for layer in linears(net):
        layer.params["bias"][:] = RNG.standard_normal(layer.params["bias"].shape)
    return net


def copies(net):
    return [{name: param.copy() for name, param in layer.params.items()} for layer in linears(net)]


def inputs(rows, columns):
    """Inputs far from normalized: each column with a mean and a spread of its own."""
    spread, mean = RNG.uniform(0.5, 5, columns), RNG.uniform(-4, 4, columns)
    return (spread * RNG.standard_normal((rows, columns)) + mean).astype(np.float32)


def test_linears_are_the_linear_layers_in_their_order():
    net = mlp([4, 3, 2, 2], norm=BatchNorm)
    assert linears(net) == [net.layers[0], net.layers[3], net.layers[6]]


# each changes a net in place, with inputs of 8 features
EACH = {
    "gaussian": lambda net: gaussian(net, 0.3, np.random.default_rng(0)),
    "he": lambda net: he(net, np.random.default_rng(0)),
    "sigmoid_gain": sigmoid_gain,
    "data_dependent": lambda net: data_dependent(net, inputs(100, 8)),
}


@pytest.mark.parametrize("name", EACH)
def test_arrays_are_changed_in_place_and_keep_their_dtype(name):
    net = mlp([8, 6, 5, 3], seed=1)
    before = [(layer, key, param) for layer in net.layers for key, param in layer.params.items()]
    start = copies(net)
    EACH[name](net)
    for layer, key, param in before:
        assert layer.params[key] is param
        assert param.dtype == np.float32
    assert np.abs(net.layers[0].params["weight"] - start[0]["weight"]).min() > 0


def test_he_has_mean_0_variance_2_by_the_inputs_and_no_biases():
    net = with_biases(mlp([400, 300, 200, 10]))
    he(net, np.random.default_rng(1))
    for layer, inputs_ in zip(linears(net), (400, 300, 200), strict=True):
        weight = layer.params["weight"]
        assert abs(weight.mean()) < 4 * np.sqrt(2 / inputs_ / weight.size)
        assert weight.std() == pytest.approx(np.sqrt(2 / inputs_), rel=0.06)
        assert not layer.params["bias"].any()


# --- gaussian --------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.01, 2.0])
def test_gaussian_has_mean_0_and_the_standard_deviation_asked_for_in_every_layer(std):
    net = with_biases(mlp([300, 200, 200, 50], norm=BatchNorm))
    gaussian(net, std, np.random.default_rng(1))
    for layer in linears(net):
        weight = layer.params["weight"].astype(float)
        assert abs(weight.mean()) < 4 * std / np.sqrt(weight.size)
        assert abs(weight.std() - std) < 4 * std / np.sqrt(2 * weight.size)
        assert abs((np.abs(weight) < std).mean() - 0.6827) < 4 * np.sqrt(0.22 / weight.size)  # a bell, no box
        assert_array_equal(layer.params["bias"], 0)
    for layer in net.layers:
        if isinstance(layer, BatchNorm):
            assert_array_equal(layer.params["gamma"], 1)


def test_gaussian_follows_its_generator():
    def weights(seed):
        net = mlp([6, 6, 6, 6], seed=seed)  # what was there before does not matter
        gaussian(net, 0.1, np.random.default_rng(5 + seed // 2))
        return [layer.params["weight"] for layer in linears(net)]

    assert_array_equal(weights(0), weights(1))
    assert np.abs(np.array(weights(0)) - weights(2)).min() > 0
    first, second, third = weights(0)
    assert min(np.abs(first - second).min(), np.abs(second - third).min()) > 0  # each layer draws its own


# --- sigmoid_gain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [None, 2.5])
@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_sigmoid_gain_scales_hidden_weights_and_cancels_a_mean_input_of_one_half(norm, gain):
    net = mlp([9, 7, 6, 5, 4], seed=2, norm=norm)
    before = copies(net)
    sigmoid_gain(net, **({} if gain is None else {"gain": gain}))
    *hidden, last = zip(linears(net), before, strict=True)
    for layer, old in hidden:
        assert_allclose(layer.params["weight"], (gain or 4) * old["weight"], rtol=1e-6)
    assert_array_equal(last[0].params["weight"], last[1]["weight"])

    first, *later = linears(net)
    assert_array_equal(first.params["bias"], 0)
    for layer in later:
        weight, bias = layer.params["weight"], layer.params["bias"]
        assert_allclose(bias, -weight.sum(1) / 2, rtol=1e-6)
        half = np.full((1, weight.shape[1]), 0.5, np.float32)
        assert_allclose(layer.forward(half), 0, atol=1e-6)
        assert np.abs(bias).min() > 1e-3  # there was something to cancel


# --- data_dependent --------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-13)])
@pytest.mark.parametrize("activation", [Sigmoid, ReLU])
def test_data_dependent_starts_every_hidden_unit_at_mean_0_and_variance_1(activation, dtype, tolerance, biases):
    net = mlp([20, 16, 12, 10, 8, 5], seed=3, activation=activation)
    if biases:
        with_biases(net)
    for layer in net.layers:
        layer.params = {name: param.astype(dtype) for name, param in layer.params.items()}
    batch = inputs(400, 20).astype(dtype)
    before, before_batch = copies(net), batch.tobytes()
    data_dependent(net, batch)
    assert batch.tobytes() == before_batch

    values = net.activations(batch)
    hidden = [values[i + 1] for i, layer in enumerate(net.layers[:-1]) if isinstance(layer, Linear)]
    assert len(hidden) == 4
    for value in hidden:
        assert_allclose(value.mean(0, dtype=float), 0, atol=tolerance)
        assert_allclose(value.std(0, dtype=float), 1, atol=tolerance)

    *scaled, last = zip(linears(net), before, strict=True)
    for layer, old in scaled:  # the weights of a unit share one positive factor: its direction is the old one
        ratio = layer.params["weight"].astype(float) / old["weight"]
        assert ratio.min() > 0
        assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-6)
    for name, param in last[0].params.items():
        assert_array_equal(param, last[1][name])


def test_data_dependent_is_done_the_second_time():
    net, batch = mlp([20, 16, 12, 5], activation=ReLU), inputs(400, 20)
    data_dependent(net, batch)
    before = copies(net)
    data_dependent(net, batch)
    for layer, old in zip(linears(net), before, strict=True):
        for name, param in layer.params.items():
            assert_allclose(param, old[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("bias", [0, 0.5, -1, 0.1, 0.3, 1.7])
def test_data_dependent_refuses_a_unit_that_is_constant_on_the_batch(bias, number):
    net = mlp([20, 16, 12, 5], activation=ReLU)
    unit = linears(net)[number].params
    unit["weight"][3], unit["bias"][3] = 0, bias
    with pytest.raises(
        ValueError, match=f"unit 3 of hidden layer {number + 1} has one pre-activation for all 300 inputs"
    ):
        data_dependent(net, inputs(300, 20))


@pytest.mark.parametrize("init", [sigmoid_gain, lambda net: data_dependent(net, inputs(50, 6))])
def test_a_net_without_hidden_layers_is_left_as_it_is(init):
    net = with_biases(mlp([6, 3]))
    (before,) = copies(net)
    init(net)
    for name, param in net.layers[0].params.items():
        assert_array_equal(param, before[name])
