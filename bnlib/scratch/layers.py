"""Layers with a forward and a backward pass. Each keeps what its backward pass needs.

A layer has ``params`` and ``grads``, dictionaries with the same names. ``forward(x, training)`` returns the output,
``backward(dy)`` fills ``grads`` and returns the gradient with respect to the input of the last forward pass.
"""

import numpy as np

from .batchnorm import Cache, RunningStatistics, batchnorm_backward, batchnorm_forward, batchnorm_inference
from .checks import count


class Layer:
    """What all layers share: no parameters until a layer adds some."""

    def __init__(self):
        self.params = {}
        self.grads = {}


class Linear(Layer):
    """``y = x @ weight.T + bias`` for x of shape (N, in), weight (out, in), bias (out,).

    Weights start from Xavier's uniform distribution (Glorot & Bengio 2010), biases at zero.

    Parameters
    ----------
    inputs, outputs : int
    rng : numpy.random.Generator
    """

    def __init__(self, inputs, outputs, rng):
        super().__init__()
        bound = np.sqrt(6 / (inputs + outputs))
        self.params["weight"] = rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
        self.params["bias"] = np.zeros(outputs, np.float32)

    def forward(self, x, training=True):
        weight = self.params["weight"]
        if x.ndim != 2 or x.shape[1] != weight.shape[1]:
            raise ValueError(f"x must be (N, {weight.shape[1]}), got shape {x.shape}")
        self.x = x
        return x @ weight.T + self.params["bias"]

    def backward(self, dy):
        self.fill_grads(dy)
        return dy @ self.params["weight"]

    def fill_grads(self, dy):
        self.grads["weight"] = dy.T @ self.x
        self.grads["bias"] = dy.sum(0)


class Sigmoid(Layer):
    """``y = 1 / (1 + exp(-x))``, written with tanh so that no exponential overflows."""

    def forward(self, x, training=True):
        self.y = 0.5 * (1 + np.tanh(0.5 * x))
        return self.y

    def backward(self, dy):
        return dy * self.y * (1 - self.y)


class ReLU(Layer):
    """``y = max(x, 0)``."""

    def forward(self, x, training=True):
        self.positive = x > 0
        return x * self.positive

    def backward(self, dy):
        return dy * self.positive


class BatchNorm(Layer):
    """Batch normalization: batch statistics in training, running statistics in evaluation.

    Parameters
    ----------
    channels : int
    eps : float
    momentum : float or None
        As in `RunningStatistics`.
    forward, backward : callable
        A learner's functions, with the signatures of `batchnorm_forward` and `batchnorm_backward`.
    """

    def __init__(self, channels, eps=1e-5, momentum=0.1, forward=batchnorm_forward, backward=batchnorm_backward):
        super().__init__()
        self.params["gamma"] = np.ones(channels, np.float32)
        self.params["beta"] = np.zeros(channels, np.float32)
        self.eps = eps
        self.running = RunningStatistics(momentum, channels)
        self.forward_function, self.backward_function = forward, backward

    def forward(self, x, training=True):
        gamma, beta = self.params["gamma"], self.params["beta"]
        if not training:
            return batchnorm_inference(x, gamma, beta, self.running.mean, self.running.var, self.eps)
        result = self.forward_function(x, gamma, beta, self.eps)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"forward must return the pair (y, cache), got {type(result).__name__}")
        y, self.cache = result
        if isinstance(self.cache, Cache):  # the moments of this batch are there already
            self.running.take(self.cache.mu, self.cache.var, count(x))
        else:
            self.running.update(x)
        return y

    def backward(self, dy):
        dx, self.grads["gamma"], self.grads["beta"] = self.backward_function(dy, self.cache)
        return dx
