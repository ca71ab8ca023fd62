"""Layers with a forward and a backward pass. Each keeps what its backward pass needs.

A layer has ``params`` and ``grads``, dictionaries with the same names. ``forward(x, training)`` returns the output,
``backward(dy)`` fills ``grads`` and returns the gradient with respect to the input of the last forward pass.
"""

import numpy as np

from . import batchnorm, fast
from .batchnorm import RunningStatistics, batchnorm_backward, batchnorm_forward, batchnorm_inference
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
        y = x @ weight.T
        y += self.params["bias"]
        return y

    def backward(self, dy):
        self.fill_grads(dy)
        return dy @ self.params["weight"]

    def fill_grads(self, dy):
        self.grads["weight"] = dy.T @ self.x
        self.grads["bias"] = dy.sum(0)


class Conv2d(Layer):
    """2-D convolution (cross-correlation, as in PyTorch) for x of shape (N, in, H, W).

    Implements {eq}`eq-conv`, written as one matrix product over all windows. Weights (out, in, kernel, kernel)
    start from He's normal distribution (He et al. 2015), biases at zero.

    Parameters
    ----------
    inputs, outputs : int
        Numbers of feature maps.
    kernel : int
        Side of the square window.
    rng : numpy.random.Generator
    stride : int
        Step from window to window.
    padding : int
        Rows and columns of zeros put around each input map.
    """

    def __init__(self, inputs, outputs, kernel, rng, stride=1, padding=0):
        super().__init__()
        shape = (outputs, inputs, kernel, kernel)
        self.params["weight"] = rng.normal(0, np.sqrt(2 / (inputs * kernel**2)), shape).astype(np.float32)
        self.params["bias"] = np.zeros(outputs, np.float32)
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x, training=True):
        weight = self.params["weight"]
        size, border = self.kernel, 2 * self.padding
        if x.ndim != 4 or x.shape[1] != weight.shape[1] or min(x.shape[2:]) + border < size:
            expected = f"(N, {weight.shape[1]}, H, W) with H and W at least {size - border}"
            raise ValueError(f"x must be {expected}, got shape {x.shape}")
        self.padded = np.pad(x, [(0, 0)] * 2 + [(self.padding,) * 2] * 2)
        windows = np.lib.stride_tricks.sliding_window_view(self.padded, (size, size), (2, 3))
        windows = windows[:, :, :: self.stride, :: self.stride].transpose(0, 2, 3, 1, 4, 5)
        self.places = windows.shape[:3]  # N, H out, W out
        self.windows = windows.reshape(np.prod(self.places), -1)
        y = self.windows @ weight.reshape(len(weight), -1).T + self.params["bias"]
        return np.ascontiguousarray(y.reshape(*self.places, -1).transpose(0, 3, 1, 2))

    def backward(self, dy):
        self.fill_grads(dy)
        dwindows = self._rows(dy) @ self.params["weight"].reshape(dy.shape[1], -1)
        dwindows = dwindows.reshape(*self.places, -1, self.kernel, self.kernel).transpose(0, 3, 1, 2, 4, 5)
        dpadded = np.zeros_like(self.padded)
        _, height, width = self.places
        for i in range(self.kernel):  # each window gave one value at (i, j): hand its gradient back there
            for j in range(self.kernel):
                rows = slice(i, i + self.stride * height, self.stride)
                columns = slice(j, j + self.stride * width, self.stride)
                dpadded[:, :, rows, columns] += dwindows[..., i, j]
        inside = slice(self.padding, -self.padding or None)
        return dpadded[:, :, inside, inside]

    def fill_grads(self, dy):
        rows = self._rows(dy)
        self.grads["weight"] = (rows.T @ self.windows).reshape(self.params["weight"].shape)
        self.grads["bias"] = rows.sum(0)

    @staticmethod
    def _rows(dy):
        """dy (N, out, H, W) as a matrix with a row for each window."""
        return dy.transpose(0, 2, 3, 1).reshape(-1, dy.shape[1])


class Flatten(Layer):
    """(N, C, *spatial) to (N, features), so that a `Linear` layer can follow."""

    def forward(self, x, training=True):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy):
        return dy.reshape(self.shape)


class Dropout(Layer):
    """In training set each value to zero with probability ``rate`` and divide the others by ``1 - rate``.

    In evaluation nothing happens: the division has kept the mean where it was (Srivastava et al. 2014).

    Parameters
    ----------
    rate : float in [0, 1)
    rng : numpy.random.Generator
    """

    def __init__(self, rate, rng):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate is the share that is dropped, from 0 to below 1; got {rate}")
        self.rate, self.rng = rate, rng

    def forward(self, x, training=True):
        self.mask = None
        if not training:
            return x
        self.mask = ((self.rng.random(x.shape) >= self.rate) / (1 - self.rate)).astype(x.dtype)
        return x * self.mask

    def backward(self, dy):
        return dy if self.mask is None else dy * self.mask


class Sigmoid(Layer):
    """``y = 1 / (1 + exp(-x))``, written with tanh so that no exponential overflows."""

    def forward(self, x, training=True):
        self.y = 0.5 * x
        np.tanh(self.y, out=self.y)
        self.y += 1
        self.y *= 0.5
        return self.y

    def backward(self, dy):
        dx = dy * self.y
        dx *= 1 - self.y
        return dx


class Tanh(Layer):
    """``tanh(x)``."""

    def forward(self, x, training=True):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y * self.y)


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
        Those of `fast`, or a learner's own, with the signatures of `batchnorm_forward` and `batchnorm_backward`.
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
        if isinstance(self.cache, batchnorm.Cache | fast.Cache):  # the moments of this batch are there already
            self.running.take(self.cache.mu, self.cache.var, count(x))
        else:
            self.running.update(x)
        return y

    def backward(self, dy):
        dx, self.grads["gamma"], self.grads["beta"] = self.backward_function(dy, self.cache)
        return dx
