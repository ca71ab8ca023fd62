"""Conditioning: the curvature of a linear layer's loss, its mean direction, and gradient descent on it.

Inputs ``x`` are arrays (N, d), one sample a row; ``S`` are their second moments, shape (d, d). The loss of a linear
unit is half the mean squared error. BN whose statistics carry no gradient is here too, for one unit.
"""

import numpy as np

KINDS = ("raw", "centred", "scaled", "whitened")


def second_moments(x):
    """Second moments of the inputs: the Hessian of least squares.

    Implements {eq}`eq-cond-hessian`.

    Parameters
    ----------
    x : array (N, d)

    Returns
    -------
    array (d, d)
    """
    x = _samples(x)
    return x.T @ x / len(x)


def split(x):
    """Mean and covariance, whose parts add up to the second moments: {eq}`eq-cond-split`.

    Returns
    -------
    mean : array (d,)
    covariance : array (d, d)
        The biased one: sums are divided by N.
    """
    x = _samples(x)
    mean = x.mean(0)
    return mean, second_moments(x - mean)


def leading_bounds(mean, covariance):
    """Bounds of the largest eigenvalue of the second moments, {eq}`eq-cond-leading`, and one of the second.

    Parameters
    ----------
    mean : array (d,)
        Not zero.
    covariance : array (d, d)

    Returns
    -------
    low, high : float
        The largest eigenvalue lies between them.
    second : float
        The second one is at most this: the largest eigenvalue of the covariance, {eq}`eq-cond-second`.
    """
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    square = mean @ mean
    if square == 0:
        raise ValueError("the mean is zero: it has no direction")
    top = float(np.linalg.eigvalsh(covariance)[-1])
    return float(square + mean @ covariance @ mean / square), float(square + top), top


def with_bias(x):
    """Second moments of the inputs and of the 1 that the bias is multiplied with, {eq}`eq-cond-bias`: (d+1, d+1)."""
    x = _samples(x)
    return second_moments(np.hstack([x, np.ones((len(x), 1))]))


def factors(eigenvalues, rate):
    """What one step multiplies the error with, along each eigenvector: {eq}`eq-cond-factor`."""
    return 1 - rate * np.asarray(eigenvalues, float)


def best_rate(eigenvalues):
    """The learning rate with the least worst factor, and that factor.

    Implements {eq}`eq-cond-best`.

    Parameters
    ----------
    eigenvalues : array (d,)
        All positive.

    Returns
    -------
    rate, factor : float
    """
    low, high = float(np.min(eigenvalues)), float(np.max(eigenvalues))
    if low <= 0:
        raise ValueError(f"all eigenvalues must be positive, the smallest is {low:g}")
    return 2 / (low + high), (high - low) / (high + low)


def steps_needed(condition, share):
    """Steps of gradient descent at the best rate until the worst error has shrunk to ``share``: {eq}`eq-cond-steps`.

    Parameters
    ----------
    condition : float
        Condition number, above 1.
    share : float
        Between 0 and 1.
    """
    if not (condition > 1 and 0 < share < 1):
        raise ValueError(f"condition must be above 1 and share between 0 and 1, got {condition} and {share}")
    return float(np.log(1 / share) / np.log((condition + 1) / (condition - 1)))


def descent(S, error, rate, steps):
    """Excess of the loss over its minimum along gradient descent, without walking: {eq}`eq-cond-excess`.

    Parameters
    ----------
    S : array (d, d)
        Symmetric, no negative eigenvalue.
    error : array (d,) or (d, units)
        Distance of the weights from a minimum at the start.
    rate : float
    steps : sequence of int

    Returns
    -------
    array (len(steps),)
        Half the mean squared error, summed over the units, less the minimum.
    """
    values, vectors = np.linalg.eigh(np.asarray(S, float))
    along = np.square(vectors.T @ np.asarray(error, float)).reshape(len(values), -1).sum(1)
    steps = np.asarray(steps, float)[:, None]
    return 0.5 * (np.maximum(values, 0) * along * np.abs(factors(values, rate)) ** (2 * steps)).sum(1)


def prepare(x, kind, eps=1e-5):
    """Inputs as they are, without their mean, each with variance 1 too, or whitened.

    Implements {eq}`eq-cond-whitened`.

    Parameters
    ----------
    x : array (N, d)
    kind : {"raw", "centred", "scaled", "whitened"}
    eps : float
        Added to each variance before its root is divided by.

    Returns
    -------
    array (N, d)
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    x = _samples(x)
    if kind == "raw":
        return x
    x = x - x.mean(0)
    if kind == "centred":
        return x
    if kind == "scaled":
        return x / np.sqrt(x.var(0) + eps)
    values, vectors = np.linalg.eigh(second_moments(x))
    return x @ (vectors / np.sqrt(np.maximum(values, 0) + eps)) @ vectors.T


def unit_gradient(w, covariance, u):
    """Gradient of half the mean squared error of one normalized unit, ``(w . (x - mean)) / std``.

    Implements {eq}`eq-cond-unit`.

    Parameters
    ----------
    w : array (d,)
    covariance : array (d, d)
        Of the inputs.
    u : array (d,)
        Covariance of the inputs and the target.
    """
    w, covariance, u = (np.asarray(v, float) for v in (w, covariance, u))
    std = np.sqrt(w @ covariance @ w)
    return (w @ u) / std**3 * (covariance @ w) - u / std


def detached_field(w, covariance, u):
    """What backpropagation gives the same unit when mean and standard deviation are taken for constants.

    Implements {eq}`eq-cond-detached`; parameters as in `unit_gradient`.
    """
    w, covariance, u = (np.asarray(v, float) for v in (w, covariance, u))
    variance = w @ covariance @ w
    return covariance @ w / variance - u / np.sqrt(variance)


def detached_curl(w, covariance, u):
    """Antisymmetric part of the derivative of `detached_field`: zero everywhere for the gradient of any function.

    Implements {eq}`eq-cond-curl`.

    Returns
    -------
    array (d, d)
    """
    w, covariance, u = (np.asarray(v, float) for v in (w, covariance, u))
    weighted = covariance @ w
    outer = np.outer(u, weighted) / (w @ weighted) ** 1.5
    return (outer - outer.T) / 2


def _samples(x):
    x = np.asarray(x, float)
    if x.ndim != 2 or len(x) == 0:
        raise ValueError(f"x must be (N, d) with at least one sample, got shape {x.shape}")
    return x
