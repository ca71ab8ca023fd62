"""BN's noise: how large it is, what a net gets that has it alone, and that BN over all images has none."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.scratch.gradcheck import numerical_gradient, scaled_error
from bnlib.scratch.layers import BatchNorm, Dropout, Linear, ReLU
from bnlib.scratch.network import Sequential, mlp, softmax_cross_entropy
from bnlib.scratch.noise import BatchNoise, Whole, noise_of

RNG = np.random.default_rng(0)


def inputs(n=200, features=6):
    return RNG.normal(1, 2, (n, features))


# --- noise alone


def test_in_evaluation_nothing_happens():
    layer, x = BatchNoise(0.5, 0.5, np.random.default_rng(0)), inputs()
    assert layer.forward(x, training=False) is x
    assert layer.backward(x) is x


def test_noise_of_size_zero_is_no_noise():
    layer, x = BatchNoise(0.0, 0.0, np.random.default_rng(0)), inputs()
    assert_allclose(layer.forward(x), x, rtol=1e-12)
    assert_allclose(layer.backward(x), x)


def test_it_moves_and_stretches_each_unit_as_a_whole():
    layer, x = BatchNoise(0.3, 0.2, np.random.default_rng(0)), inputs()
    y = layer.forward(x)
    a = (y.std(0) / x.std(0))[None]
    assert_allclose(y - y.mean(0), a * (x - x.mean(0)), atol=1e-12)
    assert np.ptp(a) > 0.05
    assert np.ptp((y.mean(0) - x.mean(0)) / x.std(0)) > 0.1
    assert not np.allclose(layer.forward(x), y)  # drawn anew at each step


@pytest.mark.parametrize(("shift", "scale"), [(0.12, 0.0), (0.0, 0.08), (0.3, 0.2)])
def test_it_has_the_size_asked_for(shift, scale):
    layer, x = BatchNoise(shift, scale, np.random.default_rng(1)), inputs(30, 20_000)
    y = layer.forward(x)
    factor = y.std(0) / x.std(0)
    moved = -(y.mean(0) - x.mean(0)) / x.std(0) / factor
    assert np.log(factor).std() == pytest.approx(scale, rel=0.03, abs=1e-9)
    assert moved.std() == pytest.approx(shift, rel=0.03, abs=1e-9)


def test_no_gradient_runs_through_the_statistics():
    layer, x, dy = BatchNoise(0.3, 0.2, np.random.default_rng(2)), inputs(), RNG.normal(size=(200, 6))
    y = layer.forward(x)
    factor = y.std(0) / x.std(0)
    assert_allclose(layer.backward(dy), factor * dy)
    offset = (y - factor * x)[0]
    frozen = numerical_gradient(lambda v: np.sum(dy * (factor * v + offset)), x)
    assert scaled_error(layer.backward(dy), frozen) < 1e-7


def test_a_size_below_zero_is_refused():
    with pytest.raises(ValueError, match="from 0 up"):
        BatchNoise(-0.1, 0.1, RNG)


def test_float32_stays_float32():
    layer, x = BatchNoise(0.3, 0.2, RNG), inputs().astype(np.float32)
    assert layer.forward(x).dtype == layer.backward(x).dtype == np.float32


# --- how large it is


def net_with_bn(units=40):
    return mlp([6, units, units, 3], 1, ReLU, BatchNorm)


def test_noise_agrees_with_a_computation_of_its_own():
    net, x = net_with_bn(), inputs().astype(np.float32)
    sizes = noise_of(net, x, 50, np.random.default_rng(5), draws=30)
    rng, first, second = np.random.default_rng(5), [], []
    for _ in range(30):
        part = x[rng.choice(200, 50, replace=False)]
        one = net.layers[0].forward(part)
        first.append((one.mean(0), one.std(0)))
        two = net.layers[3].forward(net.layers[2].forward(net.layers[1].forward(one)))
        second.append((two.mean(0), two.std(0)))
    for found, seen in zip(sizes, (first, second), strict=True):
        mean, std = (np.array([s[k] for s in seen], float) for k in (0, 1))
        shift = mean.std(0) / np.sqrt((std**2).mean(0))
        assert_allclose(found, [np.sqrt((shift**2).mean()), np.sqrt(np.log(std).var(0).mean())], rtol=1e-3)


def test_in_the_first_layer_the_shift_is_that_of_a_mean_of_m_values():
    net, x = net_with_bn(), inputs(400).astype(np.float32)
    for m in (20, 100):
        expected = np.sqrt((1 - m / 400) / m)  # drawn without replacement
        found = noise_of(net, x, m, np.random.default_rng(6), draws=300)
        assert found[0, 0] == pytest.approx(expected, rel=0.1)
        assert found[1, 0] < expected / 2  # behind a BN layer every batch has nearly the same mean


def test_measuring_leaves_the_net_as_it_was():
    net, x = net_with_bn(), inputs().astype(np.float32)
    net.layers.insert(3, Dropout(0.5, np.random.default_rng(7)))
    state = net.layers[3].rng.bit_generator.state
    noise_of(net, x, 50, RNG, draws=3)
    assert net.layers[1].running.count == 0
    assert net.layers[3].rng.bit_generator.state == state


# --- and taken away


def whole(n=30):
    x = inputs(n).astype(np.float32)
    net = Whole(net_with_bn(8).layers, x)
    for layer in net.layers:
        for key, param in layer.params.items():
            layer.params[key] = param + RNG.normal(0, 0.1, param.shape)
    return net, x


def rows_of(*chosen):
    return np.array(chosen, np.float32)[:, None]


def test_an_output_does_not_depend_on_the_mini_batch():
    net, x = whole()
    one, other = net.forward(rows_of(3, 4, 5)), net.forward(rows_of(20, 3))
    assert_array_equal(one[0], other[1])
    plain = Sequential(net.layers)
    assert_allclose(one, plain.forward(x)[3:6], rtol=1e-6)
    assert np.abs(plain.forward(x[3:6])[0] - one[0]).max() > 0.05  # which it does under ordinary BN


def test_the_gradient_is_that_of_the_loss_of_these_rows():
    net, _ = whole()
    for layer in net.layers:  # in double precision
        layer.params = {key: param.astype(float) for key, param in layer.params.items()}
    net.images = net.images.astype(float)
    chosen, labels = rows_of(7, 2, 11), np.array([0, 2, 1])
    _, dlogits = softmax_cross_entropy(net.forward(chosen), labels)
    net.backward(dlogits, to_input=False)
    for layer in net.layers:
        grads = dict(layer.grads)
        for key, param in list(layer.params.items()):

            def loss(value, layer=layer, key=key):
                layer.params[key] = value
                return softmax_cross_entropy(net.forward(chosen), labels)[0]

            numeric = numerical_gradient(loss, param)
            layer.params[key] = param
            if isinstance(layer, Linear) and key == "bias" and layer is not net.layers[-1]:
                assert np.abs(grads[key]).max() < 1e-10  # BN subtracts it again
            else:
                assert scaled_error(grads[key], numeric) < 1e-6, key


def test_statistics_without_gradient_would_be_another_gradient():
    """The known wrong version: BN's backward pass as a multiplication, its statistics taken for constants."""
    net, _ = whole()
    _, dlogits = softmax_cross_entropy(net.forward(rows_of(7, 2, 11)), np.array([0, 2, 1]))
    net.backward(dlogits, to_input=False)
    right = net.layers[0].grads["weight"].copy()
    dy = np.zeros((30, 3), np.float32)
    dy[[7, 2, 11]] = dlogits
    for layer in reversed(net.layers):
        if isinstance(layer, BatchNorm):
            dy = (dy * layer.params["gamma"] / np.sqrt(layer.cache.var + layer.eps)).astype(np.float32)
        else:
            dy = layer.backward(dy)
    assert scaled_error(net.layers[0].grads["weight"], right) > 0.05


def test_all_rows_at_once_are_one_large_batch():
    net, x = whole()
    assert_allclose(net.forward(rows_of(*range(30))), Sequential(net.layers).forward(x), rtol=1e-6)
    _, dlogits = softmax_cross_entropy(net.forward(rows_of(*range(30))), np.arange(30) % 3)
    dx = net.backward(dlogits)
    assert_allclose(dx, Sequential(net.layers).backward(dlogits), rtol=1e-6)


def test_in_evaluation_it_is_an_ordinary_net():
    net, x = whole()
    net.forward(rows_of(1, 2))
    assert_array_equal(net.forward(x[:4], training=False), Sequential(net.layers).forward(x[:4], training=False))
