"""Learning halfspaces: on which side of a plane an input lies, learned from the products ``z . w``, ``z = -y x``.

The loss is ``E[phi(z . w)]``; ``u`` and ``S`` are mean and second moments of ``z``. `Gaussian` has normal ``z`` and
exact expectations, `Sample` finitely many ``z``. `METHODS` are ways down: what BN's split into length and direction
makes of gradient descent, and what it is compared with.
"""

from functools import partial

import numpy as np

from .length_direction import direction_gradient, effective_weights, norm

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(160)  # integrals over a standard normal variable
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def expectations(functions, weights, S, u):
    """Means of functions of ``z . weights`` for Gaussian ``z`` with mean ``u`` and second moments ``S``.

    Implements {eq}`eq-ld-quadrature`: ``z . weights`` is a normal variable, and its integrals are sums over
    160 nodes. Good to ten digits for ``phi`` logistic and weights of length up to 3 in the norm of ``S``.

    Parameters
    ----------
    functions : sequence of callable
        Each takes an array and returns one of its shape.
    weights : array (..., d)
    S, u : array (d, d), (d,)

    Returns
    -------
    list of array (...)
    """
    mean = np.asarray(weights, float) @ u
    variance = np.square(norm(weights, S)) - np.square(mean)
    if np.any(variance < -1e-9 * np.square(mean)):
        raise ValueError("S must hold second moments, so S - u u^T a covariance: it has a negative eigenvalue")
    values = mean[..., None] + np.sqrt(np.maximum(variance, 0))[..., None] * NODES
    return [function(values) @ WEIGHTS for function in functions]


def gaussian_gradient(weights, S, u, first, second):
    """Gradient of ``E[phi(z . weights)]`` for Gaussian ``z``, from the means of phi' and phi''.

    Implements {eq}`eq-ld-stein`.
    """
    weights = np.asarray(weights, float)
    along = first - second * (weights @ u)
    return along[..., None] * u + np.asarray(second)[..., None] * (weights @ S)


def gdnp_step(w, g, S, u, grad, first, second, L=None):
    """One step of GDNP on the direction.

    Implements {eq}`eq-ld-gdnp`.

    Parameters
    ----------
    w : array (d,)
    g : float
    S, u : array (d, d), (d,)
    grad : array (d,)
        Gradient of the loss at the effective weights.
    first, second : float
        Means of phi' and phi'' there.
    L : float, optional
        By default the largest eigenvalue of ``S``.

    Returns
    -------
    array (d,)

    Raises
    ------
    ValueError
        If ``g`` or ``h`` is 0.
    """
    L = np.linalg.eigvalsh(S)[-1] if L is None else L
    h = (first - second * (effective_weights(w, g, S) @ u)) * (np.asarray(w, float) @ u)
    if g == 0 or h == 0:
        raise ValueError(f"the step needs g and h other than 0, got g = {g:g} and h = {h:g}")
    s = -(norm(w, S) ** 3) / (L * g * h)
    return np.asarray(w, float) - s * direction_gradient(w, g, S, grad)


def bisection(slope, low, high, steps=50):
    """A root of an increasing function, by halving an interval that holds it.

    Implements {eq}`eq-ld-bisection`. The interval is doubled to the side of the root while it does not hold one.

    Raises
    ------
    ValueError
        If ``low`` is not below ``high``, or no root is found within 60 doublings.
    """
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    for _ in range(60):
        if slope(low) > 0:
            low, high = low - 2 * (high - low), low
        elif slope(high) < 0:
            low, high = high, high + 2 * (high - low)
        else:
            break
    else:
        raise ValueError("the function has one sign as far as one can see: no root between the ends")
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2


def softplus(s):
    """The logistic loss ln(1 + e^s)."""
    return np.logaddexp(0, s)


def logistic(s):
    """Its slope."""
    return 0.5 * (1 + np.tanh(s / 2))


def curvature(s):
    """Its second derivative, at most 1/4."""
    return logistic(s) * logistic(-s)


def hinge_slope(s):
    return np.maximum(1 + s, 0)


LOSSES = {  # phi, phi', phi''
    "logistic": (softplus, logistic, curvature),
    "hinge": (lambda s: np.square(hinge_slope(s)) / 2, hinge_slope, lambda s: (s > -1).astype(float)),
    "exponential": (np.exp, np.exp, np.exp),
}


class Gaussian:
    """A halfspace with Gaussian ``z``: mean ``u``, second moments ``S``. All expectations are exact."""

    def __init__(self, S, u):
        self.S, self.u = S, u
        self.best = -2 * np.linalg.solve(S - np.outer(u, u), u)

    def means(self, weights):
        """Means of phi, phi' and phi''."""
        return expectations(LOSSES["logistic"], weights, self.S, self.u)

    def gradient(self, weights):
        """Gradient of the mean of phi."""
        return gaussian_gradient(weights, self.S, self.u, *self.means(weights)[1:])

    def slope(self, weights):
        """Of the loss along a direction: a function of the length."""
        return lambda g: float(self.gradient(g * weights) @ weights)


class Sample:
    """A halfspace of finitely many ``z`` (n, d), with the moments of the sample."""

    def __init__(self, z, loss="logistic"):
        self.z, self.phi = z, LOSSES[loss]
        self.S, self.u = z.T @ z / len(z), z.mean(0)

    def means(self, weights):
        """Means of phi, phi' and phi''."""
        s = self.z @ weights
        return [f(s).mean() for f in self.phi]

    def gradient(self, weights):
        """Gradient of the mean of phi."""
        return self.z.T @ self.phi[1](self.z @ weights) / len(self.z)

    def slope(self, weights):
        """Of the loss along a direction: a function of the length. The products with the inputs are taken once."""
        s = self.z @ weights
        return lambda g: float(self.phi[1](g * s) @ s) / len(s)

    def minimum(self, steps):
        """Newton's method with halved steps from zero; returns the weights and the losses on the way."""
        weights, losses = np.zeros(len(self.u)), []
        for _ in range(steps):
            s = self.z @ weights
            grad, hessian = self.gradient(weights), (self.z.T * self.phi[2](s)) @ self.z / len(s)
            move, size, now = np.linalg.solve(hessian, grad), 1.0, self.means(weights)[0]
            while size > 1e-6 and not self.means(weights - size * move)[0] <= now:
                size /= 2
            weights = weights - size * move
            losses.append(self.means(weights)[0])
        return weights, losses


def _length(weights, half):
    """The same direction with the best length."""
    unit = effective_weights(weights, 1.0, half.S)
    return unit * bisection(half.slope(unit), 0.0, 2.0)


def _gdnp(half, start, factor, direction=True, length=True):
    # Without the bisection nothing can turn the sign of g, so it starts with the right one.
    state = {"w": start, "g": float(norm(start, half.S)) * (1 if length else -np.sign(start @ half.u))}

    def move(weights, half, t):
        w, g = state["w"], state["g"]
        if direction:
            weights = effective_weights(w, g, half.S)
            _, first, second = half.means(weights)
            new = gdnp_step(w, g, half.S, half.u, half.gradient(weights), first, second)
            w = state["w"] = w + factor * (new - w)
        if length:
            unit = effective_weights(w, 1.0, half.S)
            g = state["g"] = bisection(half.slope(unit), g - 1, g + 1)
        return effective_weights(w, g, half.S)

    return move


def _rate(half):
    """1/L of the logistic loss, whose curvature is at most a quarter of that of the squares."""
    return 4 / np.linalg.eigvalsh(half.S)[-1]


def _gd(half, start, factor, length=False):
    rate = factor * _rate(half)

    def move(weights, half, t):
        if length and t == 1:  # the first step too starts from the best length, as that of GDNP does in effect
            weights = _length(weights, half)
        weights = weights - rate * half.gradient(weights)
        return _length(weights, half) if length else weights

    return move


def _by_curvature(half, start, factor):
    high = np.linalg.eigvalsh(half.S)[-1]

    def move(weights, half, t):
        return weights - factor / (high * half.means(weights)[2]) * half.gradient(weights)

    return move


def _agd(half, start, factor):
    rate, last = factor * _rate(half), {"weights": start}

    def move(weights, half, t):
        ahead = weights + (t - 1) / (t + 2) * (weights - last["weights"])
        last["weights"] = weights
        return ahead - rate * half.gradient(ahead)

    return move


def _adagrad(half, start, factor):
    squares = np.zeros(len(start))

    def move(weights, half, t):
        grad = half.gradient(weights)
        squares[:] += np.square(grad)
        return weights - factor * grad / (np.sqrt(squares) + 1e-12)

    return move


def _ngd(half, start, factor):
    def move(weights, half, t):
        grad = half.gradient(weights)
        return weights - factor * grad / np.linalg.norm(grad)

    return move


METHODS = {
    "gdnp": _gdnp,
    "gdnp-direction": partial(_gdnp, length=False),
    "gdnp-length": partial(_gdnp, direction=False),
    "gd": _gd,
    "gd-length": partial(_gd, length=True),
    "gd-curvature": _by_curvature,
    "agd": _agd,
    "adagrad": _adagrad,
    "ngd": _ngd,
}
