"""The batch normalization transform: forward, backward, inference, running statistics, folding.

``x`` is ``(N, C, *spatial)``: N samples, C channels on axis 1. A channel holds ``m = N * prod(spatial)``
values, and every statistic is taken over them. float32 input is computed in float64 and rounded once,
at the end, so the sums of a large batch keep their digits.

Equation numbers in the docstrings are labels of the book: ``forward`` and ``backward`` in Part I.
"""

from typing import NamedTuple

import numpy as np

from .checks import check_channels, check_eps, check_float, check_input, check_upstream, count


class Cache(NamedTuple):
    """What the forward pass keeps for the backward pass. Statistics have shape (C,), in float64."""

    xc: np.ndarray  # centred input, shape of x, float64
    x_hat: np.ndarray  # normalized input, shape of x, float64
    mu: np.ndarray
    var: np.ndarray  # biased: divided by m
    eps: float
    gamma: np.ndarray
    dtype: np.dtype  # of x, and of every array handed back


def batchnorm_forward(x, gamma, beta, eps=1e-5):
    """Normalize each channel over the batch, then scale and shift it (Algorithm 1 of Ioffe & Szegedy 2015).

    Implements {eq}`eq-mean`, {eq}`eq-var`, {eq}`eq-xhat` and {eq}`eq-y`.

    Parameters
    ----------
    x : array (N, C, *spatial), float32 or float64
    gamma, beta : array (C,)
        Scale and shift, the affine parameters.
    eps : float
        Added to the variance, inside the root. 0 is allowed where every variance is positive.

    Returns
    -------
    y : array, shape and dtype of x
    cache : Cache
        For `batchnorm_backward` and `batchnorm_backward_staged`; also holds ``mu`` and ``var``.

    Raises
    ------
    TypeError
        If an array is not float32 or float64.
    ValueError
        If shapes do not fit, a value is not finite, the batch is empty, a channel has a single value,
        or ``eps`` is 0 and a channel is constant.
    """
    x = check_input(x, training=True)
    gamma, beta = check_channels(x, 1, gamma=gamma, beta=beta)
    eps = check_eps(eps)
    mu, xc, var = _moments(x)
    std = _std(var, eps)
    x_hat = xc / _spread(std, x)
    y = _spread(gamma, x) * x_hat + _spread(beta, x)
    return y.astype(x.dtype), Cache(xc, x_hat, mu, var, eps, gamma, x.dtype)


def batchnorm_backward_staged(dy, cache):
    """Gradient of every node of the forward graph, one line per node, last node first.

    Implements {eq}`eq-staged-affine`, {eq}`eq-staged-xhat`, {eq}`eq-staged-var` and {eq}`eq-staged-x`.

    Parameters
    ----------
    dy : array, shape of x
        Gradient of the loss with respect to ``y``.
    cache : Cache

    Returns
    -------
    dict
        ``dbeta, dgamma, dinv_std, dstd, dvar, dmu`` of shape (C,); ``dx_hat, dsq, dxc, dx`` of the shape of x.
        ``dxc`` and ``dx`` are totals over all paths.
    """
    dy = check_upstream(dy, cache.x_hat.shape).astype(np.float64)
    m = count(dy)
    std = _std(cache.var, cache.eps)
    # y = gamma * x_hat + beta
    dbeta = _sum(dy)
    dgamma = _sum(dy * cache.x_hat)
    dx_hat = dy * _spread(cache.gamma, dy)
    # x_hat = xc * inv_std, inv_std = 1 / std, std = sqrt(var + eps)
    dinv_std = _sum(dx_hat * cache.xc)
    dstd = -dinv_std / std**2
    dvar = dstd / (2 * std)
    # var = mean(sq), sq = xc ** 2
    dsq = np.broadcast_to(_spread(dvar / m, dy), dy.shape)
    dxc = dx_hat / _spread(std, dy) + 2 * cache.xc * dsq  # xc is used twice: two paths add up
    # xc = x - mu, mu = mean(x)
    dmu = -_sum(dxc)
    dx = dxc + _spread(dmu / m, dy)
    grads = dict(dbeta=dbeta, dgamma=dgamma, dx_hat=dx_hat, dinv_std=dinv_std, dstd=dstd, dvar=dvar)
    grads |= dict(dsq=dsq, dxc=dxc, dmu=dmu, dx=dx)
    return {name: grad.astype(cache.dtype) for name, grad in grads.items()}


def batchnorm_backward(dy, cache):
    """The same gradients in closed form: project dy, then scale.

    Implements {eq}`eq-closed-form`.

    Parameters
    ----------
    dy : array, shape of x
    cache : Cache

    Returns
    -------
    dx : array, shape of x
    dgamma, dbeta : array (C,)
    """
    dy = check_upstream(dy, cache.x_hat.shape).astype(np.float64)
    m = count(dy)
    dbeta = _sum(dy)
    dgamma = _sum(dy * cache.x_hat)
    scale = cache.gamma / _std(cache.var, cache.eps)
    dx = _spread(scale, dy) * (dy - _spread(dbeta / m, dy) - cache.x_hat * _spread(dgamma / m, dy))
    return dx.astype(cache.dtype), dgamma.astype(cache.dtype), dbeta.astype(cache.dtype)


def batchnorm_inference(x, gamma, beta, mean, var, eps=1e-5):
    """Normalize with given population statistics: each sample on its own, whatever its batch.

    Implements {eq}`eq-inference` (step 11 of Algorithm 2 of Ioffe & Szegedy 2015).

    Parameters
    ----------
    x : array (N, C, *spatial), float32 or float64
    gamma, beta, mean, var : array (C,)
    eps : float

    Returns
    -------
    y : array, shape and dtype of x
    """
    x = check_input(x, training=False)
    gamma, beta, mean, var = check_channels(x, 1, gamma=gamma, beta=beta, mean=mean, var=var)
    std = _std(var, check_eps(eps))
    y = (x - _spread(mean, x)) * _spread(gamma / std, x) + _spread(beta, x)
    return y.astype(x.dtype)


class RunningStatistics:
    """Moving averages of the batch mean and of the unbiased batch variance, as `torch.nn.BatchNorm` keeps them.

    Implements {eq}`eq-running`.

    Parameters
    ----------
    momentum : float in [0, 1] or None
        Weight of the *new* batch. None gives the plain average of all batches so far.
    channels : int, optional
        With it, ``mean`` (0) and ``var`` (1) exist before the first update; without it they are None.

    Attributes
    ----------
    mean, var : array (C,), float64
    count : int
        Number of batches seen.
    """

    def __init__(self, momentum=0.1, channels=None):
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum is the weight of the new batch, from 0 to 1, or None; got {momentum}")
        self.momentum = momentum
        self.count = 0
        self.mean = None if channels is None else np.zeros(channels)
        self.var = None if channels is None else np.ones(channels)

    def update(self, x):
        """Take in one batch ``x`` of shape (N, C, *spatial); ValueError if a channel has a single value."""
        x = check_input(x, training=True)
        if self.mean is None:
            self.mean, self.var = np.zeros(x.shape[1]), np.ones(x.shape[1])
        check_channels(x, 1, mean=self.mean)
        mu, _, var = _moments(x)
        self.take(mu, var, count(x))

    def take(self, mu, var, m):
        """Take in the mean and the biased variance, arrays (C,), of a batch with ``m`` values per channel."""
        self.count += 1
        new = 1 / self.count if self.momentum is None else self.momentum
        self.mean = (1 - new) * self.mean + new * mu
        self.var = (1 - new) * self.var + new * var * m / (m - 1)


def fold(weight, bias, gamma, beta, mean, var, eps=1e-5):
    """Merge the inference transform into the linear or convolution layer before it.

    Implements {eq}`eq-fold`.

    Parameters
    ----------
    weight : array (out, in) or (out, in, *kernel), float32 or float64
    bias : array (out,) or None
    gamma, beta, mean, var : array (out,)
    eps : float

    Returns
    -------
    weight, bias : arrays of the shape of ``weight`` and (out,), dtype of ``weight``
        One layer that computes what the two computed.
    """
    weight = check_float("weight", weight)
    if weight.ndim < 2:
        raise ValueError(f"weight must be (out, in) or (out, in, *kernel), got shape {weight.shape}")
    rows = np.swapaxes(weight, 0, 1)  # output units are the channels of what follows
    bias = np.zeros(len(weight)) if bias is None else bias
    bias, gamma, beta, mean, var = check_channels(weight, 0, bias=bias, gamma=gamma, beta=beta, mean=mean, var=var)
    scale = gamma / _std(var, check_eps(eps))
    folded = np.swapaxes(rows * _spread(scale, rows), 0, 1)
    return folded.astype(weight.dtype), ((bias - mean) * scale + beta).astype(weight.dtype)


def _moments(x):
    """Mean, centred input and biased variance of each channel, in float64."""
    m = count(x)
    mu = _sum(x) / m
    xc = x - _spread(mu, x)
    # A mean far from zero is rounded by more than the spread of the data allows: what is left is subtracted.
    rest = _sum(xc) / m
    xc -= _spread(rest, x)
    return mu + rest, xc, _sum(xc * xc) / m


def _sum(a):
    """Sum of each channel in float64, shape (C,).

    NumPy adds contiguous numbers pairwise; over the first axis it adds row by row, and the rounding grows with N.
    """
    return np.ascontiguousarray(np.swapaxes(a, 0, 1), dtype=np.float64).reshape(a.shape[1], -1).sum(1)


def _spread(v, x):
    """Reshape ``v`` of shape (C,) so that it broadcasts along axis 1 of ``x``."""
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


def _std(var, eps):
    if np.any(var < 0):
        raise ValueError(f"var must not be negative, got {var.min()}")
    if np.any(var + eps == 0):
        raise ValueError(f"eps = 0 needs a positive variance: channels {np.flatnonzero(var == 0)} are constant")
    return np.sqrt(var + eps)
