"""What very deep nets need: a lean BN, skip connections in a flat list of layers, and a hand on the gradient.

`Fork` and `Join` are the two ends of a skip connection; all layers between them are the branch. A `Meter` changes
nothing on the way forward and measures the gradient on the way back; with a `growth` it also sets its length.
"""

import numpy as np

from .checks import NotFinite
from .layers import Layer, Linear, ReLU
from .network import Sequential


class LeanBatchNorm(Layer):
    """BN of (N, C) in the dtype of the input, without checks, for many thin layers.

    Evaluation uses the statistics of the last forward pass in training mode: send a few hundred training samples
    through the net before it. Outputs and gradients are those of `BatchNorm` up to rounding.
    """

    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.params = {"gamma": np.ones(channels, np.float32), "beta": np.zeros(channels, np.float32)}
        self.eps = eps

    def forward(self, x, training=True):
        if training:
            self.mu = x.mean(0)
            xc = x - self.mu
            self.scale = 1 / np.sqrt(np.einsum("ij,ij->j", xc, xc) / len(x) + self.eps)
            self.x_hat = xc * self.scale
            return self.x_hat * self.params["gamma"] + self.params["beta"]
        return (x - self.mu) * (self.scale * self.params["gamma"]) + self.params["beta"]

    def backward(self, dy):
        self.grads["beta"] = dbeta = dy.sum(0)
        self.grads["gamma"] = dgamma = np.einsum("ij,ij->j", dy, self.x_hat)
        m = np.float32(len(dy))
        return (dy - dbeta / m - self.x_hat * (dgamma / m)) * (self.scale * self.params["gamma"])


class Fork(Layer):
    """Where a branch leaves the stream."""

    def forward(self, x, training=True):
        self.x = x
        return x

    def backward(self, dy):
        return dy + self.dy


class Join(Layer):
    """Where the branch that left at ``fork`` is added to the stream again."""

    def __init__(self, fork):
        super().__init__()
        self.fork = fork

    def forward(self, x, training=True):
        return x + self.fork.x

    def backward(self, dy):
        self.fork.dy = dy
        return dy


class Scale(Layer):
    """One trained number times the input: the ``alpha`` of SkipInit (De & Smith 2020)."""

    def __init__(self, alpha):
        super().__init__()
        self.params["alpha"] = np.full(1, alpha, np.float32)

    def forward(self, x, training=True):
        self.x = x
        return x * self.params["alpha"]

    def backward(self, dy):
        self.grads["alpha"] = np.array([np.vdot(dy, self.x)], dy.dtype)
        return dy * self.params["alpha"]


class Meter(Layer):
    """Measures the norm of the gradient that passes it, and may set it.

    Parameters
    ----------
    top : Meter or None
        The meter of the last hidden layer, which the gradient passes first; None for this one itself.
    factor : float or None
        With a number the gradient leaves with the norm that arrived at ``top``, times this factor. Its direction
        stays. For the weights below it this is the same as another learning rate at each step.

    Attributes
    ----------
    norm : float
        Of the gradient as it leaves.
    """

    def __init__(self, top=None, factor=None):
        super().__init__()
        self.top, self.factor, self.norm, self.arrived = top or self, factor, np.nan, np.nan

    def forward(self, x, training=True):
        return x

    def backward(self, dy):
        self.arrived = self.norm = float(np.linalg.norm(dy))
        if self.factor is None or not self.arrived:
            return dy
        self.norm = self.top.arrived * self.factor
        if not np.isfinite(self.norm):
            raise NotFinite(f"the gradient's norm is {self.norm}")
        return dy * np.float32(self.norm / self.arrived)


def deep_net(depth, width, rng, *, norm=None, residual=False, alpha=None, growth=None, inputs=784, classes=10):
    """A ReLU net of ``depth`` equal layers, He's weights, with a meter at each pre-activation.

    Parameters
    ----------
    depth, width : int
    rng : numpy.random.Generator
    norm : callable, optional
        ``norm(channels) -> Layer``, such as `LeanBatchNorm`: before each ReLU.
    residual : bool
        After a first linear layer, ``depth`` blocks ``h + W relu(norm(h))``; otherwise ``depth`` times
        ``relu(norm(W h))``.
    alpha : float, optional
        With ``residual``: blocks ``h + alpha W relu(norm(h))`` with a trained ``alpha`` that starts here.
    growth : float, optional
        Set the *squared* norm of the gradient to grow by this factor per layer on the way back: 1 makes it the same
        everywhere. The largest one is that which arrives at the last hidden layer.
    inputs, classes : int

    Returns
    -------
    Sequential
    """
    meters = [Meter()]
    for _ in range(depth - 1):
        meters.insert(0, Meter(meters[-1]))
    if growth is not None:
        if growth < 1:
            raise ValueError(
                f"growth must be at least 1, so that the lowest layer has the largest gradient, got {growth}"
            )
        for below, meter in enumerate(meters):
            meter.factor = float(growth ** (-below / 2))

    def linear(one, other, gain=2.0):
        layer = Linear(one, other, rng)
        layer.params["weight"] = np.float32(np.sqrt(gain / one)) * rng.standard_normal((other, one), dtype=np.float32)
        return layer

    layers = [linear(inputs, width, 1.0)] if residual else []
    for number, meter in enumerate(meters):
        middle = ([norm(width)] if norm else []) + [ReLU()]
        if residual:
            fork = Fork()
            layers += [fork, *middle, linear(width, width), *([] if alpha is None else [Scale(alpha)])]
            layers += [meter, Join(fork)]
        else:
            layers += [linear(width if number else inputs, width), meter, *middle]
    return Sequential([*layers, linear(width, classes, 1.0)])


def meters(net):
    """The `Meter` layers of a net, from the first hidden layer to the last."""
    return [layer for layer in net.layers if isinstance(layer, Meter)]
