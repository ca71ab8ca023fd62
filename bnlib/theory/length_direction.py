"""Length and direction of a weight vector apart: least squares as BN sees it.

The inputs ``x`` of one linear unit have second moments ``S = E[x x^T]``, shape (d, d), symmetric and positive
definite. BN in front of a factor ``g`` uses the weights ``g w / ||w||_S``; weight normalization is ``S = I`` in the
norm. ``u`` is the mean of ``-y x``. Vectors are arrays ``(..., d)``: leading axes are weights side by side.
"""

import numpy as np


def norm(w, S):
    """Length of ``w`` in the norm of ``S``: the standard deviation of the unit's output.

    Implements {eq}`eq-ld-norm`.

    Parameters
    ----------
    w : array (..., d)
    S : array (d, d)

    Returns
    -------
    array (...)
    """
    w, S = _checked(w, S)
    return np.sqrt(_dot(w @ S, w))


def effective_weights(w, g, S):
    """The weights that the unit applies: length ``g``, direction of ``w``.

    Implements {eq}`eq-ld-reparametrization`; ``S = I`` is weight normalization.
    """
    return np.asarray(w, float) * _over(g, _nonzero(norm(w, S)))


def direction_gradient(w, g, S, grad):
    """Gradient with respect to ``w`` from the gradient with respect to the effective weights.

    Implements {eq}`eq-ld-chain`.

    Parameters
    ----------
    w : array (..., d)
    g : array (...)
    S : array (d, d)
    grad : array (..., d)
        Of the loss, at the effective weights.

    Returns
    -------
    array (..., d)
    """
    w, grad, length = np.asarray(w, float), np.asarray(grad, float), _nonzero(norm(w, S))
    along = _dot(w, grad) / np.square(length)
    return _over(g, length) * (grad - (w @ S) * along[..., None])


def least_squares(weights, S, u):
    """Mean squared error of weights, less the mean of ``y^2``.

    Implements {eq}`eq-ld-ols`.
    """
    return 2 * (np.asarray(weights, float) @ u) + np.square(norm(weights, S))


def best_length(w, S, u):
    """The ``g`` with the smallest error for the direction of ``w``.

    Implements {eq}`eq-ld-best-length`.
    """
    return -(np.asarray(w, float) @ u) / _nonzero(norm(w, S))


def rayleigh(w, S, u):
    """Error of the direction of ``w`` with its best length, at most 0: minus a generalized Rayleigh quotient.

    Implements {eq}`eq-ld-rayleigh`.
    """
    return -np.square(best_length(w, S, u))


def rayleigh_gradient(w, S, u):
    """Gradient of `rayleigh`, at right angles to ``w``.

    Implements {eq}`eq-ld-rayleigh-gradient`.
    """
    w, g = np.asarray(w, float), best_length(w, S, u)
    scale = 2 * g / norm(w, S)
    return scale[..., None] * (u + effective_weights(w, g, S) @ S)


def optimum(S, u):
    """Weights with the smallest error of all.

    Implements {eq}`eq-ld-optimum`.
    """
    _checked(u, S)
    return -np.linalg.solve(S, u)


def gap(w, S, u):
    """How far `rayleigh` is above its minimum, without the cancellation of a difference.

    Implements {eq}`eq-ld-gap`.
    """
    best = effective_weights(w, best_length(w, S, u), S)
    return np.square(norm(best - optimum(S, u), S))


def direction_step(w, S, u, L=None):
    """One step of gradient descent on the direction, with the step length ``||w||_S^2 / (2 L |rho|)``.

    Implements {eq}`eq-ld-step`.

    Parameters
    ----------
    w : array (..., d)
    S, u : array (d, d), (d,)
    L : float, optional
        By default the largest eigenvalue of ``S``.

    Returns
    -------
    array (..., d)

    Raises
    ------
    ValueError
        If ``u . w`` is 0: then rho is 0, and so is its gradient.
    """
    rho = rayleigh(w, S, u)
    if np.any(rho == 0):
        raise ValueError("the step needs rho(w) != 0: w and u must not be at right angles")
    L = np.linalg.eigvalsh(S)[-1] if L is None else L
    rate = np.square(norm(w, S)) / (2 * L * np.abs(rho))
    return np.asarray(w, float) - rate[..., None] * rayleigh_gradient(w, S, u)


def bound(S):
    """By which factor a `direction_step` shrinks the gap at least.

    Implements {eq}`eq-ld-rate`.
    """
    low, *_, high = np.linalg.eigvalsh(S)
    return (1 - low / high) ** 2


def sharp_start(S, u):
    """A direction from which a step is as slow as the bound: the optimum without its part along the lowest curvature.

    Implements {eq}`eq-ld-sharp`.

    Returns
    -------
    array (d,)
    """
    slowest = np.linalg.eigh(S)[1][:, 0]
    best = optimum(S, u)
    return best - (best @ slowest) * slowest


def ray_spectrum(S, w):
    """Curvatures of the squared error seen by the direction of ``w``, ascending: the direction ``w`` itself is gone.

    Implements {eq}`eq-ld-ray-hessian`. Each lies between two neighbouring eigenvalues of ``S``.

    Returns
    -------
    array (d - 1,)
    """
    w, S = _checked(w, S)
    _nonzero(norm(w, S))
    return np.linalg.eigvalsh(S - np.outer(S @ w, S @ w) / (w @ S @ w))[1:]


def joint_gradients(w, g, S, u, metric):
    """Gradients of half the mean squared error with respect to ``w`` and ``g``.

    Implements {eq}`eq-ld-joint`. ``metric`` is the matrix of the norm: ``S`` for BN, ``I`` for weight normalization.

    Returns
    -------
    dw : array (..., d)
    dg : array (...)
    """
    grad = u + effective_weights(w, g, metric) @ S
    return direction_gradient(w, g, metric, grad), _dot(w, grad) / norm(w, metric)


def accelerated_momentum(S):
    """Momentum of Nesterov's method for a quadratic with the matrix ``S``.

    Implements {eq}`eq-ld-nesterov`.
    """
    low, *_, high = np.linalg.eigvalsh(S)
    return (np.sqrt(high) - np.sqrt(low)) / (np.sqrt(high) + np.sqrt(low))


def _dot(a, b):
    return (a * b).sum(-1)


def _over(g, length):
    return (np.asarray(g, float) / length)[..., None]


def _nonzero(length):
    if np.any(length == 0):
        raise ValueError("w has length 0: it has no direction")
    return length


def _checked(w, S):
    w, S = np.asarray(w, float), np.asarray(S, float)
    if S.ndim != 2 or S.shape[0] != S.shape[1] or w.shape[-1:] != S.shape[:1]:
        raise ValueError(f"expected w (..., d) and S (d, d), got {w.shape} and {S.shape}")
    return w, S
