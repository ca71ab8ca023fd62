"""The same transform, written for the memory system: `batchnorm_forward` and `batchnorm_backward` for training.

The input is read in blocks that fit in a cache: once for the sums, once for the result. Both passes are affine maps
with a few numbers per channel, ``y = a x + d`` and ``dx = a dy + k1 x + k0``, so no normalized copy of x is kept.
A block is summed in the dtype of the input, by matrix products; blocks are added in float64. The variance,
``mean(x^2) - mean(x)^2``, cancels where the mean is large against the standard deviation: such channels are seen from
their own sums and shifted first. What is not finite, or too small to square, is left to the pair in `batchnorm`.
"""

import math
from typing import NamedTuple

import numpy as np

from . import batchnorm
from .checks import check_channels, check_eps, check_input, check_upstream, count

BLOCK = 2**19  # bytes of a block: small enough for a second-level cache, large enough to hide the cost of a call
TERMS = 256  # most rows that are added one after another in the dtype of the input
LONG = 1024  # most numbers of one row in one product, which keeps several partial sums
FAR = 64  # squared: from a mean of 8 standard deviations on, a channel is shifted
TINY = 1e-24  # below this variance the squares of float32 run out of exponents


class Layout(NamedTuple):
    """How arrays ``(N, C, *spatial)`` are read: as (rows, width, length), contiguous.

    With channels on axis 1 in memory a row is a sample: width C, length the number of positions. With channels last,
    or no positions, length is 1 and a row holds ``groups`` values of each channel, so that it is not too short.
    """

    shape: tuple
    last: bool
    groups: int

    @classmethod
    def of(cls, x):
        last = x.ndim == 2 or (not x.flags.c_contiguous and np.moveaxis(x, 1, -1).flags.c_contiguous)
        short = 2 ** int(math.log2(max(1, 1024 // x.shape[1])))
        return cls(x.shape, last, math.gcd(count(x), short) if last else 1)

    def read(self, a):
        if self.last:
            return np.ascontiguousarray(np.moveaxis(a, 1, -1)).reshape(-1, self.groups * self.shape[1], 1)
        return np.ascontiguousarray(a).reshape(*self.shape[:2], -1)

    def back(self, a):
        """The inverse of `read`: same shape and order of memory as the input."""
        if self.last:
            return np.moveaxis(a.reshape(self.shape[0], *self.shape[2:], self.shape[1]), -1, 1)
        return a.reshape(self.shape)

    def parts(self, a):
        """Slices of columns, each with the slices of rows that make its blocks. A block is contiguous."""
        rows, width, length = a.shape
        size = length * a.itemsize
        columns = width if self.last else min(width, max(1, BLOCK // size))
        step = 1 if columns < width else min(TERMS, max(1, BLOCK // (width * size)))
        blocks = [slice(start, start + step) for start in range(0, rows, step)]
        return [(slice(start, start + columns), blocks) for start in range(0, width, columns)]

    def add(self, v):
        """Sums of columns to sums of channels."""
        return v.reshape(self.groups, -1).sum(0)

    def fill(self, block, v):
        """One number per channel, of shape (C,) or less, as an array of the shape and dtype of a block.

        NumPy multiplies two whole blocks twice as fast as a block by a row or by a column.
        """
        full = np.empty_like(block)
        full[:] = np.tile(v, self.groups)[:, None]
        return full


class Cache(NamedTuple):
    """What the forward pass keeps. ``x`` is no copy where the input was contiguous: leave the input as it is."""

    x: np.ndarray  # as `Layout.read` gives it
    layout: Layout
    shift: np.ndarray  # (C,), in the dtype of x; 0 where the mean is near
    mu: np.ndarray  # (C,), float64, as are the following
    var: np.ndarray
    eps: float
    gamma: np.ndarray


def batchnorm_forward(x, gamma, beta, eps=1e-5):
    """The forward pass of `batchnorm.batchnorm_forward`, faster and with more rounding.

    Implements {eq}`eq-mean`, {eq}`eq-var` and {eq}`eq-fast-forward`.

    Parameters
    ----------
    x : array (N, C, *spatial), float32 or float64
        Fastest where it is contiguous, with channels on axis 1 or last in memory.
    gamma, beta : array (C,)
    eps : float

    Returns
    -------
    y : array, shape and dtype of x
    cache : Cache
        For `batchnorm_backward` of this module; also holds ``mu`` and ``var``.

    Raises
    ------
    TypeError, ValueError
        As `batchnorm.batchnorm_forward`.
    """
    x = check_input(x, training=True, finite=False)
    gamma, beta = check_channels(x, 1, gamma=gamma, beta=beta)
    eps = check_eps(eps)
    layout, m = Layout.of(x), count(x)
    read = layout.read(x)
    y = np.empty_like(read)
    shift, mu, var = np.zeros(x.shape[1], x.dtype), np.empty(x.shape[1]), np.empty(x.shape[1])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for part, blocks in layout.parts(read):
            c = slice(0, None) if layout.last else part
            first, far = read[blocks[0], part], None
            total, squares = sums(layout, part, blocks, read)
            mu[c], var[c] = total / m, squares / m - (total / m) ** 2
            if (mu[c] ** 2 > FAR * var[c]).any():
                shift[c] = mu[c]
                far = layout.fill(first, shift[c])
                total, squares = sums(layout, part, blocks, read, far=far)
                rest = total / m
                mu[c], var[c] = shift[c] + rest, squares / m - rest**2
                rounding = 64 * np.finfo(x.dtype).eps * squares / m
                var[c] = np.where(
                    var[c] > rounding, var[c], 0
                )  # a constant channel differs from its shift by rounding
            a = gamma[c] / np.sqrt(var[c] + eps)
            d = layout.fill(first, beta[c] - a * (mu[c] - shift[c]))
            a = layout.fill(first, a)
            for rows in reversed(blocks):  # the last block read is still in the cache
                block, out = read[rows, part], y[rows, part]
                if far is not None:
                    block = np.subtract(block, far[: len(block)], out=out)
                np.multiply(block, a[: len(block)], out=out)
                np.add(out, d[: len(block)], out=out)
    if not np.all(var + eps > TINY) or not np.isfinite(mu + var).all():  # also where a sum is NaN
        return batchnorm.batchnorm_forward(x, gamma, beta, eps)
    return layout.back(y), Cache(read, layout, shift, mu, var, eps, gamma)


def batchnorm_backward(dy, cache):
    """The closed form of `batchnorm.batchnorm_backward`, from the input instead of the normalized input.

    Implements {eq}`eq-fast-backward`.

    Parameters
    ----------
    dy : array, shape of x
    cache : Cache
        Of this module's `batchnorm_forward`.

    Returns
    -------
    dx : array, shape and dtype of x
    dgamma, dbeta : array (C,)
    """
    if isinstance(cache, batchnorm.Cache):  # the forward pass went there
        return batchnorm.batchnorm_backward(dy, cache)
    layout, x = cache.layout, cache.x
    upstream = check_upstream(dy, layout.shape, finite=False)
    m = math.prod(layout.shape) // layout.shape[1]
    read = layout.read(upstream.astype(x.dtype, copy=False))
    dx = np.empty_like(x)
    dbeta, dgamma = np.empty_like(cache.mu), np.empty_like(cache.mu)
    with np.errstate(over="ignore", invalid="ignore"):
        for part, blocks in layout.parts(x):
            c = slice(0, None) if layout.last else part
            first, shift = x[blocks[0], part], cache.shift[c]
            far = layout.fill(first, shift) if shift.any() else None
            rest = cache.mu[c] - shift
            inv_std = 1 / np.sqrt(cache.var[c] + cache.eps)
            dbeta[c], products = sums(layout, part, blocks, x, read, far)
            dgamma[c] = (products - rest * dbeta[c]) * inv_std
            a = cache.gamma[c] * inv_std
            k1 = -a * inv_std * dgamma[c] / m
            k0 = -a * dbeta[c] / m - k1 * rest
            a, k1, k0 = (layout.fill(first, v) for v in (a, k1, k0))
            other = np.empty_like(first)
            for rows in reversed(blocks):
                block, out = x[rows, part], dx[rows, part]
                n, t = len(block), other[: len(block)]
                if far is not None:
                    block = np.subtract(block, far[:n], out=t)
                np.multiply(block, k1[:n], out=t)
                np.add(t, k0[:n], out=t)
                np.multiply(read[rows, part], a[:n], out=out)
                np.add(out, t, out=out)
    if not np.isfinite(dbeta + dgamma).all():  # NaN or inf came in, or a product went over the top of float32
        beta = np.zeros_like(cache.gamma)  # plays no part
        kept = batchnorm.batchnorm_forward(layout.back(x), cache.gamma, beta, cache.eps)[1]
        return batchnorm.batchnorm_backward(dy, kept)
    return layout.back(dx), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def sums(layout, part, blocks, x, dy=None, far=None):
    """Per channel, in float64: the sums of x and x^2, or with an upstream gradient those of dy and dy x.

    With ``far``, a block of shifts, x stands for x - far.
    """
    plain, products, shifted = 0, 0, None if far is None else np.empty_like(far)
    for rows in blocks:
        b = x[rows, part]
        if far is not None:
            b = np.subtract(b, far[: len(b)], out=shifted[: len(b)])
        a = b if dy is None else dy[rows, part]
        plain, products = plain + _columns(a), products + _columns(a, b)
    return layout.add(plain), layout.add(products)


def _columns(a, b=None):
    """Sum over rows and positions of a block, or of the product of two, shape (width,), in float64."""
    rows, width, length = a.shape
    if length == 1:
        a = a[:, :, 0]
        sums = np.ones(rows, a.dtype) @ a if b is None else np.einsum("rw,rw->w", a, b[:, :, 0])
        return sums.astype(np.float64)
    total, a = 0, a.reshape(-1, length)
    b = None if b is None else b.reshape(-1, length)
    for start in range(0, length, LONG):
        piece = a[:, start : start + LONG]
        sums = piece @ np.ones(piece.shape[1], a.dtype) if b is None else np.vecdot(piece, b[:, start : start + LONG])
        total = total + sums.astype(np.float64)
    return total.reshape(rows, width).sum(0)
