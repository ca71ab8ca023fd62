"""Where the weights of an MLP start. Each function changes the `Linear` layers of a net in place."""

import numpy as np

from .checks import check_float
from .layers import Linear


def gaussian(net, std, rng):
    """Weights from a normal distribution with mean 0 and standard deviation ``std``, biases zero.

    Parameters
    ----------
    net : Sequential
    std : float
    rng : numpy.random.Generator
    """
    for layer in linears(net):
        weight = layer.params["weight"]
        weight[:] = std * rng.standard_normal(weight.shape, dtype=weight.dtype)
        layer.params["bias"][:] = 0


def he(net, rng):
    """Weights that fit ReLU: normal, mean 0, standard deviation ``sqrt(2 / inputs)`` (He et al. 2015), biases zero.

    Parameters
    ----------
    net : Sequential
    rng : numpy.random.Generator
    """
    for layer in linears(net):
        weight = layer.params["weight"]
        weight[:] = np.sqrt(2 / weight.shape[1]) * rng.standard_normal(weight.shape, dtype=weight.dtype)
        layer.params["bias"][:] = 0


def sigmoid_gain(net, gain=4.0):
    """Make Xavier's weights fit sigmoids: times 4, because a sigmoid's slope is at most 1/4, and with centred inputs.

    A sigmoid's output is near 1/2, not near 0. From the second layer on, the bias cancels what that mean input adds.
    The weights of the output layer, which no sigmoid follows, keep their scale.

    Parameters
    ----------
    net : Sequential
        With Xavier weights, as `mlp` makes them.
    gain : float
    """
    layers = linears(net)
    for layer in layers[:-1]:
        layer.params["weight"] *= gain
    for layer in layers[1:]:
        layer.params["bias"][:] = -layer.params["weight"].sum(1) / 2


def data_dependent(net, batch):
    """Use the statistics of one batch once, before training: every unit starts at mean 0, variance 1 on it.

    Layer by layer, each hidden unit's weights are divided by the standard deviation of its pre-activation; the
    bias then cancels the mean (Mishkin & Matas 2016, here with the mean). The output layer keeps its weights.

    Parameters
    ----------
    net : Sequential
        Without batch normalization.
    batch : array (N, features)
        A few hundred training inputs.

    Raises
    ------
    ValueError
        If a unit's pre-activation is the same for all inputs of the batch, or the batch is not finite.
    """
    layers, batch = linears(net), check_float("batch", batch)
    for layer in net.layers:
        if layer in layers[:-1]:
            before = layer.forward(batch)
            sd = before.std(0)
            # equal numbers may have a deviation above 0, by rounding
            constant = np.ptp(before, 0) <= 1e-6 * np.abs(before).max(0)
            if constant.any():
                where = f"unit {constant.argmax()} of hidden layer {layers.index(layer) + 1}"
                raise ValueError(f"{where} has one pre-activation for all {len(batch)} inputs: it cannot be scaled")
            layer.params["weight"] /= sd[:, None]
            layer.params["bias"][:] = (layer.params["bias"] - before.mean(0)) / sd
        batch = layer.forward(batch)


def linears(net):
    """The `Linear` layers of a net, in their order."""
    return [layer for layer in net.layers if isinstance(layer, Linear)]
