"""The noise that mini-batches bring into BN: measured, put into a net without BN, taken away from one with BN."""

import copy

import numpy as np

from .layers import BatchNorm, Layer
from .network import Sequential


class BatchNoise(Layer):
    """Disturb each unit as the statistics of a mini-batch disturb it under BN, but without normalizing anything.

    Implements {eq}`eq-noise-alone` for x of shape (N, units). In training each unit draws two numbers a step, the
    same for all samples of the batch: a shift, in units of the unit's own standard deviation, and the logarithm of a
    factor. Both are normal with mean 0. The unit's mean and standard deviation are those of the batch, taken as
    constants: no gradient runs through them. In evaluation nothing happens.

    Parameters
    ----------
    shift, scale : float
        Standard deviations of the shift and of the logarithm of the factor.
    rng : numpy.random.Generator
    """

    def __init__(self, shift, scale, rng):
        super().__init__()
        if shift < 0 or scale < 0:
            raise ValueError(f"shift and scale are standard deviations, from 0 up; got {shift} and {scale}")
        self.shift, self.scale, self.rng = shift, scale, rng

    def forward(self, x, training=True):
        self.factor = None
        if not training:
            return x
        b, log_a = self.rng.normal(0, [[self.shift], [self.scale]], (2, x.shape[1])).astype(x.dtype)
        self.factor = np.exp(log_a)
        mu = x.mean(0)
        return mu + self.factor * (x - mu - b * x.std(0))

    def backward(self, dy):
        return dy if self.factor is None else dy * self.factor


def noise_of(net, x, batch, rng, draws=100):
    """How much the statistics of a net's BN layers differ from mini-batch to mini-batch.

    Measures {eq}`eq-noise-size` in training mode, dropout included.

    Parameters
    ----------
    net : Sequential
        Left as it is.
    x : array (N, features)
        What the mini-batches are drawn from, without replacement.
    batch, draws : int
        Their size and their number.
    rng : numpy.random.Generator

    Returns
    -------
    array (layers, 2)
        For each BN layer the standard deviations over the mini-batches of the batch mean, in units of the unit's own
        standard deviation, and of the logarithm of the batch standard deviation: root mean squares over the units.
    """
    net = copy.deepcopy(net)
    norms = [layer for layer in net.layers if isinstance(layer, BatchNorm)]
    seen = []
    for _ in range(draws):
        net.forward(x[rng.choice(len(x), batch, replace=False)])
        seen.append([(layer.cache.mu, layer.cache.var + layer.eps) for layer in norms])
    sizes = []
    for layer in range(len(norms)):
        mu, var = (np.array([step[layer][k] for step in seen]) for k in (0, 1))
        shift = mu.var(0) / var.mean(0)
        scale = (np.log(var) / 2).var(0)
        sizes.append([np.sqrt(shift.mean()), np.sqrt(scale.mean())])
    return np.array(sizes)


class Whole(Sequential):
    """A net whose training mode takes BN's statistics over all training images, with their gradient.

    In training its input is a column of row numbers: all images go through the net as one batch, and the outputs of
    these rows are handed on. The backward pass is that of this computation, through the statistics into every image.
    So the output of an image does not depend on its mini-batch, and the gradient is that of the loss of these rows.

    Parameters
    ----------
    layers : list of Layer
    images : array (N, features)
    """

    def __init__(self, layers, images):
        super().__init__(layers)
        self.images = images

    def forward(self, x, training=True):
        if not training:
            return super().forward(x, training)
        self.chosen = x[:, 0].astype(int)
        return super().forward(self.images)[self.chosen]

    def backward(self, dy, to_input=True):
        whole = np.zeros((len(self.images), dy.shape[1]), dy.dtype)
        whole[self.chosen] = dy
        return super().backward(whole, to_input)
