"""How the gradient grows from layer to layer in wide nets with BN and random weights, for any size of the batch.

A batch has ``B`` samples, so a unit is a vector of B numbers. Weights are normal with variance ``s2 / width``; BN has
``gamma = 1``, ``beta = 0``. A **rate** is the factor by which the *squared* norm of the gradient grows per layer on
the way back. The width is infinite throughout.
"""

import math

import numpy as np
from scipy.special import gammaln, roots_jacobi

LEAST = 4  # samples: with three the mean of 1 / variance is infinite


def relu_kernel(c):
    """``2 E[relu(a) relu(b)]`` for two standard normal numbers with correlation ``c``.

    Implements {eq}`eq-ge-kernel`. It is also the cosine of two samples behind a wide random ReLU layer, from their
    cosine ``c`` before it, {eq}`eq-rank-relu`.

    Parameters
    ----------
    c : float or array, from -1 to 1

    Returns
    -------
    float or array
        1 at ``c = 1``, 0 at ``c = -1``.
    """
    c = _correlation(c)
    return (np.sqrt(1 - c * c) + (np.pi - np.arccos(c)) * c) / np.pi


def relu_slope(c):
    """Twice the probability that both are positive; the derivative of `relu_kernel`.

    Implements {eq}`eq-ge-slope`.
    """
    return (np.pi - np.arccos(_correlation(c))) / np.pi


def linear_rate(batch):
    """Rate of a linear net with BN.

    Implements {eq}`eq-ge-linear`.

    Parameters
    ----------
    batch : int or inf
        At least 4.

    Returns
    -------
    float
    """
    batch = _batch(batch)
    return 1.0 if math.isinf(batch) else (batch - 2) / (batch - 3)


def relu_rate(batch):
    """Rate of a ReLU net with BN; falls to pi / (pi - 1) = 1.4669 as the batch grows.

    Implements {eq}`eq-ge-relu`, and for an infinite batch {eq}`eq-ge-limit`.

    Parameters
    ----------
    batch : int or inf
        At least 4.

    Returns
    -------
    float
    """
    batch = _batch(batch)
    if math.isinf(batch):
        return math.pi / (math.pi - 1)
    c = -1 / (batch - 1)
    kernel, slope = relu_kernel(c), relu_slope(c)
    return float((batch - 2 + kernel + slope) / ((batch - 3) * (1 - kernel)))


def rate(phi, slope, batch, *, points=48, angles=512):
    """Rate of a net with BN and any activation, by quadrature over the sphere on which BN puts a unit.

    Implements {eq}`eq-ge-rate` with the averages {eq}`eq-ge-kappa` and {eq}`eq-ge-passed`. Two entries of a point on
    the sphere are the only thing needed, so the average is an integral over a disk, {eq}`eq-ge-disk`.

    Parameters
    ----------
    phi, slope : callable
        The activation and its derivative, on arrays.
    batch : int
        At least 4.
    points, angles : int
        Of the quadrature, in the squared radius and around the disk. A smooth activation needs no more; with a kink
        the error is about ``1 / angles**2``.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If ``batch`` is below 4 or not finite, or the activation gives every sample the same output.
    """
    batch = _batch(batch)
    if math.isinf(batch):
        raise ValueError("the quadrature needs a finite batch")
    power = (batch - 5) / 2  # the density of the squared radius is (1 - s)^power
    nodes, weights = roots_jacobi(points, power, 0)
    radius = np.sqrt((batch - 1) * (1 + nodes) / 2)[:, None]
    turn, apart = 2 * np.pi * (np.arange(angles) + 0.5) / angles, np.arccos(-1 / (batch - 1))
    a, b = radius * np.cos(turn), radius * np.cos(turn - apart)

    def mean(values):
        return float(weights @ values.mean(1) / weights.sum())

    one, two, da, db = phi(a), phi(b), slope(a), slope(b)
    kappa = mean(one * one) - mean(one * two)
    if kappa <= 1e-12 * mean(one * one):
        raise ValueError("the activation gives all samples the same output: nothing is left to normalize")
    own = mean(da * da) * (1 - 1 / batch) - mean(da * da * a * a) / batch
    others = -(mean(da * db) + mean(da * db * a * b)) / batch
    return batch / (batch - 3) * (own - others) / kappa


def with_eps(eps, s2=2.0):
    """Rate, and how the variance of a unit over the batch develops, in a deep ReLU net with ``eps``; large batch.

    Implements {eq}`eq-ge-eps`.

    Parameters
    ----------
    eps : float, from 0 up
    s2 : float
        Variance of a weight times the width; 2 is He's.

    Returns
    -------
    rate : float
    signal : float
        Factor on the variance of the pre-activations per layer: 1 where it settles, below 1 where it dies.
    """
    if eps < 0 or s2 <= 0:
        raise ValueError(f"eps must not be negative and s2 positive, got {eps} and {s2}")
    threshold = s2 * (math.pi - 1) / (2 * math.pi)
    if eps < threshold:
        return relu_rate(math.inf), 1.0
    return s2 / (2 * eps), threshold / eps


def residual_growth(blocks, rate, start=1.0):
    """Growth of the squared gradient on the stream over a number of blocks ``h + W relu(BN(h))``.

    Implements {eq}`eq-ge-residual`.

    Parameters
    ----------
    blocks : int or array
    rate : float
        Of the plain net, such as `relu_rate`: here it is the power.
    start : float
        Variance of the stream over the batch before the first block, in units of what a branch adds.

    Returns
    -------
    float or array
        About ``blocks ** rate`` times a constant.
    """
    blocks = np.asarray(blocks, float)
    logs = gammaln(start + rate + blocks) - gammaln(start + blocks) + gammaln(start) - gammaln(start + rate)
    return np.exp(logs)[()]


def branch_share(block, start=1.0):
    """Share of block number ``block`` in the second moment of the stream behind it, ``1 / (block + 1)``.

    Implements {eq}`eq-ge-share`.

    Parameters
    ----------
    block : int or array
        From 1.
    start : float
        Second moment of the stream before the first block, in units of a branch's.
    """
    return 1 / (np.asarray(block, float) + start)


def skip_growth(blocks, alpha=1.0):
    """Growth of the squared gradient over blocks ``h + alpha W relu(h)`` without BN, He's weights.

    Implements {eq}`eq-ge-skipinit`. With ``alpha = 1 / sqrt(blocks)`` it stays below e.
    """
    return (1 + np.asarray(alpha, float) ** 2) ** blocks


def _batch(batch):
    if not batch >= LEAST or (not math.isinf(batch) and batch != int(batch)):
        raise ValueError(f"batch must be a whole number from {LEAST} up, or inf, got {batch!r}")
    return float(batch)


def _correlation(c):
    c = np.asarray(c, float)
    if np.any(np.abs(c) > 1):
        raise ValueError(f"a correlation is from -1 to 1, got {c}")
    return c
