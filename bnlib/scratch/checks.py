"""What the functions of `batchnorm` accept, and the errors that say what was expected and what came."""

from numbers import Real

import numpy as np


class NotFinite(ValueError):
    """A value is NaN or infinite: bad input, or a training run that has diverged."""


def count(x):
    """Values per channel, m."""
    return x.size // x.shape[1]


def check_float(name, a, finite=True):
    """The array, if it is float32 or float64 and, unless ``finite`` is False, without NaN and infinities."""
    a = np.asarray(a)
    if a.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {a.dtype}: convert it with {name}.astype(...)")
    if finite and not np.isfinite(a).all():
        raise NotFinite(f"{name} of shape {a.shape} holds {np.sum(~np.isfinite(a))} NaN or infinite values")
    return a


def check_input(x, training, finite=True):
    x = check_float("x", x, finite)
    if x.ndim < 2:
        raise ValueError(f"x must be (N, C, *spatial), at least two axes, got shape {x.shape}")
    if x.size == 0:
        raise ValueError(f"x is empty, got shape {x.shape}")
    if training and count(x) == 1:
        raise ValueError(
            f"expected more than one value per channel in training, got shape {x.shape}: the only value of a "
            "channel is its own mean, and every output would be beta"
        )
    return x


def check_channels(x, axis, **vectors):
    """The vectors as float64, each with one entry per channel; axis ``axis`` of ``x`` counts the channels."""
    channels = (x.shape[axis],)
    checked = []
    for name, v in vectors.items():
        v = check_float(name, v)
        if v.shape != channels:
            raise ValueError(
                f"{name} must have shape {channels}, one entry per channel (axis {axis}) of {x.shape}, got {v.shape}"
            )
        checked.append(v.astype(np.float64))
    return checked


def check_upstream(dy, shape, finite=True):
    dy = check_float("dy", dy, finite)
    if dy.shape != shape:
        raise ValueError(f"dy must have the shape of y, {shape}, got {dy.shape}")
    return dy


def check_eps(eps):
    if not (isinstance(eps, Real) and 0 <= eps < np.inf):
        raise ValueError(f"eps must be a number from 0 up, got {eps!r}")
    return float(eps)
