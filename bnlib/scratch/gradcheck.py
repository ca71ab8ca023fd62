"""Gradient checks by centred differences, and the measure of error that does not fool you."""

import numpy as np


def numerical_gradient(f, x, h=1e-5):
    """Centred differences of a scalar function, entry by entry.

    Implements {eq}`eq-centred`.

    Parameters
    ----------
    f : callable
        ``f(x) -> float``.
    x : array, float64
        Not changed.
    h : float
        Step. 1e-5 balances the error of the formula, of order h squared, against rounding.

    Returns
    -------
    array, shape of x

    Raises
    ------
    TypeError
        If x is not float64: in float32 the difference drowns in rounding.
    """
    x = np.asarray(x)
    if x.dtype != np.float64:
        raise TypeError(f"a gradient check needs float64, got {x.dtype}")
    grad = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        grad[i] = (f(up) - f(down)) / (2 * h)
    return grad


def scaled_error(a, b):
    """Largest difference divided by the largest entry of both (0 when both are zero).

    Implements {eq}`eq-scaled-error`. Entries that are tiny by chance do not blow it up.
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise ValueError(f"cannot compare shapes {a.shape} and {b.shape}")
    scale = np.maximum(np.abs(a), np.abs(b)).max()  # NaN where an entry is NaN, and so is the error then
    return float(np.abs(a - b).max() / scale) if scale != 0 else 0.0


def elementwise_error(a, b):
    """Largest relative error of a single entry: what `scaled_error` replaces, and why is shown in ``backward``."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(a) + np.abs(b), np.finfo(np.float64).tiny)))
