"""Weights whose length has no effect on the loss: what gradient descent then does to their length and direction.

The weights before a BN layer are such weights, for ``eps = 0`` and positive factors. A group of weights, such as a
unit's row or a layer's matrix, is one array ``w`` here; its length is the root of the sum of its squares.
"""

import numpy as np


def eps_factor(a, var, eps):
    """By which factor BN's output shrinks or grows when the weights before it are multiplied by ``a``.

    Implements {eq}`eq-scale-eps`.

    Parameters
    ----------
    a : float or array
        Positive.
    var : float or array
        Variance of the pre-activation before the multiplication.
    eps : float

    Returns
    -------
    float or array
        1 for ``eps = 0``; below 1 where ``a`` is below 1.
    """
    _positive(a=a)
    return np.sqrt((var + eps) / (var + eps / np.square(a)))


def radial_part(w, grad):
    """Cosine of the angle between weights and gradient: 0 for scale-invariant weights.

    Implements {eq}`eq-orthogonal`.

    Parameters
    ----------
    w, grad : array of one shape

    Returns
    -------
    float
    """
    w, grad = np.asarray(w, float), np.asarray(grad, float)
    if w.shape != grad.shape:
        raise ValueError(f"w and grad must have one shape, got {w.shape} and {grad.shape}")
    lengths = np.linalg.norm(w) * np.linalg.norm(grad)
    if lengths == 0:
        raise ValueError("a vector of length 0 has no angle with another")
    return float((w * grad).sum() / lengths)


def next_length(length, grad_length, lr, wd=0.0):
    """Length of the weights after one step of SGD, with weight decay ``wd`` or without.

    Implements {eq}`eq-growth` and {eq}`eq-decayed-length`; exact for a gradient at right angles to the weights.
    """
    return np.hypot((1 - lr * wd) * length, lr * grad_length)


def effective_rate(lr, length):
    """Learning rate of the direction: what ``lr`` would be for weights of length 1.

    Implements {eq}`eq-effective-rate`.
    """
    _positive(length=length)
    return lr / np.square(length)


def rescaled(a, lr, wd=0.0):
    """Learning rate and weight decay that give weights ``a`` times as long the same run.

    Implements {eq}`eq-rescaled`.

    Returns
    -------
    lr, wd : float
    """
    _positive(a=a)
    return a**2 * lr, wd / a**2


def equilibrium_length(lr, wd, square, exact=False):
    """Length at which decay and gradient balance.

    Implements {eq}`eq-equilibrium`, or with ``exact`` {eq}`eq-balance`.

    Parameters
    ----------
    lr, wd : float
    square : float
        Mean squared length of the gradient of weights of length 1.
    exact : bool
        Keep the term of the order ``lr * wd`` that the short form leaves out.
    """
    _positive(lr=lr, wd=wd)
    return (lr * square / (wd * (2 - lr * wd * bool(exact)))) ** 0.25


def turn(lr, wd):
    """Angle in radians by which one step turns weights that are at equilibrium.

    Implements {eq}`eq-turn`.
    """
    if not 0 <= lr * wd <= 2:
        raise ValueError(f"lr * wd must be between 0 and 2, got {lr * wd}")
    return float(np.arccos(1 - lr * wd))


def growing_rates(lr, wd, steps):
    """Learning rates that do without decay what ``lr`` does with decay ``wd``: the same function after every step.

    Implements {eq}`eq-growing-rate`.

    Parameters
    ----------
    lr, wd : float
    steps : int

    Returns
    -------
    array (steps,)

    Raises
    ------
    ValueError
        If ``lr * wd`` is not between 0 and 1.
    OverflowError
        If the last rate is more than float64 can hold.
    """
    if not 0 <= lr * wd < 1:
        raise ValueError(f"lr * wd must be at least 0 and below 1, got {lr * wd}")
    with np.errstate(over="ignore"):
        rates = lr * (1 - lr * wd) ** -(2.0 * np.arange(steps) + 1)
    if not np.isfinite(rates).all():
        raise OverflowError(f"after {int(np.isfinite(rates).sum())} steps the rate is too large for float64")
    return rates


def _positive(**values):
    for name, value in values.items():
        if not np.all(np.asarray(value) > 0):
            raise ValueError(f"{name} must be positive, got {value}")
