"""How the gradient and the curvature of the loss change from BN's output to its input, for one unit.

A unit has inputs x, of shape (m,), normalized values ``x_hat`` with ``eps = 0``, and outputs
``y = gamma * x_hat + beta``. ``dy`` is the gradient of the loss by y, of shape (m,).
"""

import numpy as np


def input_square(dy, x_hat, gamma, std):
    """Square of the length of the gradient by BN's input.

    Implements {eq}`eq-sm-square` (Santurkar et al. 2018, Theorem 4.1), an equality.

    Parameters
    ----------
    dy, x_hat : array (m,)
    gamma, std : float
        Scale of the unit, and standard deviation of its inputs over the batch.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes differ, ``std`` is not positive, or ``x_hat`` has not mean 0 and mean square 1.
    """
    dy, x_hat = _unit(dy, x_hat, std)
    m = len(dy)
    return float((gamma / std) ** 2 * (dy @ dy - dy.sum() ** 2 / m - (dy @ x_hat) ** 2 / m))


def input_curvature(dy, x_hat, gamma, std, hessian):
    """Curvature of the loss along its own gradient by BN's input, ``dx @ H_x @ dx``.

    Implements {eq}`eq-sm-curvature` (Santurkar et al. 2018, Theorem 4.2), an equality.

    Parameters
    ----------
    dy, x_hat, gamma, std
        As for `input_square`.
    hessian : array (m, m)
        Of the loss by y.

    Returns
    -------
    float
    """
    dy, x_hat = _unit(dy, x_hat, std)
    m = len(dy)
    dx = gamma / std * (dy - dy.mean() - x_hat * (dy @ x_hat) / m)
    first = (gamma / std) ** 2 * (dx @ np.asarray(hessian) @ dx)
    return float(first - gamma / (m * std**2) * (dy @ x_hat) * (dx @ dx))


def along(losses, gradients, steps):
    """What a step along the gradient meets: three measures of smoothness.

    Implements {eq}`eq-sm-range`, {eq}`eq-sm-predict` and {eq}`eq-sm-beta`.

    Parameters
    ----------
    losses : array (K,)
        At the points ``w - steps[k] * g``.
    gradients : array (K + 1, n)
        The first is g, at w; then those at the points.
    steps : array (K,)
        Positive.

    Returns
    -------
    loss_range, predictiveness, beta : float
    """
    losses, gradients, steps = (np.asarray(v, float) for v in (losses, gradients, steps))
    if len(losses) != len(steps) or len(gradients) != len(steps) + 1 or not (steps > 0).all():
        raise ValueError("losses and steps must be of one length, gradients one longer, and all steps positive")
    change = np.linalg.norm(gradients[1:] - gradients[0], axis=1)
    length = np.linalg.norm(gradients[0])
    if length == 0:
        raise ValueError("the gradient is 0: there is no direction to go")
    return float(np.ptp(losses)), float(np.ptp(change)), float((change / (steps * length)).max())


def _unit(dy, x_hat, std):
    dy, x_hat = np.asarray(dy, float), np.asarray(x_hat, float)
    if dy.shape != x_hat.shape or dy.ndim != 1:
        raise ValueError(f"dy and x_hat must be of one shape (m,), got {dy.shape} and {x_hat.shape}")
    if not std > 0:
        raise ValueError(f"std must be positive, got {std!r}")
    if abs(x_hat.mean()) > 1e-6 or abs(np.square(x_hat).mean() - 1) > 1e-6:
        raise ValueError("x_hat must have mean 0 and mean square 1: BN with eps = 0")
    return dy, x_hat
