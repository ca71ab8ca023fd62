"""Smaller statements of the 2015 paper as functions of arrays: steps that leave the statistics out of the gradient,
the shape of a distribution, saturated sigmoids, and the Jacobian of a layer between normalized values.
"""

import numpy as np

SATURATED = 0.05  # a sigmoid is saturated where its slope is below this share of its largest, 1/4
NEAR_ZERO = 0.1  # a value is near zero below this share of its unit's root mean square
NEAR_ONE = (0.5, 2.0)  # a singular value is near one between these


def ignored(u, t, lr, steps, divide=False):
    """Gradient descent on a normalized layer when mean and standard deviation count as constants.

    Implements {eq}`eq-naive-step`: ``x_hat = x - mu`` with ``x = u + b``; and with ``divide`` {eq}`eq-naive-divide`:
    ``x_hat = (x - mu) / std`` with ``x = a u + b``. The loss is ``mean((x_hat - t)**2)``; a starts at 1, b at 0.

    Parameters
    ----------
    u, t : array (N,)
        Inputs and targets.
    lr : float
    steps : int
    divide : bool

    Returns
    -------
    array (steps + 1, 3)
        Loss, a and b before each step and after the last.
    """
    u, t = np.asarray(u, float), np.asarray(t, float)
    if u.ndim != 1 or u.shape != t.shape:
        raise ValueError(f"u and t must be (N,), of one length; got {u.shape} and {t.shape}")
    a, b, rows = 1.0, 0.0, []
    for _ in range(steps + 1):
        x = a * u + b
        std = x.std() if divide else 1.0
        x_hat = (x - x.mean()) / std
        rows.append((np.mean((x_hat - t) ** 2), a, b))
        dx = 2 * (x_hat - t) / (len(u) * std)  # nothing through the mean and the standard deviation
        a, b = a - lr * (dx @ u) * divide, b - lr * dx.sum()
    return np.array(rows)


def shape_of(values):
    """How far the values of each unit are from a normal distribution.

    Implements {eq}`eq-skewness` and {eq}`eq-kurtosis`.

    Parameters
    ----------
    values : array (N, units)

    Returns
    -------
    skewness, kurtosis, zeros : array (units,)
        Both moments are 0 for a normal distribution; ``zeros`` is the share of values nearer to zero than `NEAR_ZERO`
        times the unit's root mean square. All are NaN where a unit is constant.
    """
    values = _matrix("values", values)
    z = values - values.mean(0)
    std = z.std(0)
    constant = std <= 1e-6 * np.abs(values).max(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(constant, np.nan, z / std)
        zeros = (np.abs(values) < NEAR_ZERO * np.sqrt((values**2).mean(0))).mean(0)
    return (z**3).mean(0), (z**4).mean(0) - 3, np.where(constant, np.nan, zeros)


def saturated(x, share=SATURATED):
    """Where a sigmoid's slope at x is below this share of its largest, 1/4: implements {eq}`eq-saturated`."""
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    return np.abs(np.asarray(x)) > 2 * np.arccosh(1 / np.sqrt(share))


def layer_jacobian(weight, slopes, std_in, std_out):
    """Jacobian of one sample from normalized values to those of the next layer, statistics held fixed.

    Implements {eq}`eq-layer-jacobian`.

    Parameters
    ----------
    weight : array (out, in)
    slopes : array (in,)
        Of the nonlinearity, at the sample.
    std_in : array (in,)
        Standard deviations of the nonlinearity's inputs.
    std_out : array (out,)
        Those of the next layer's pre-activations.

    Returns
    -------
    array (out, in)
    """
    weight = _matrix("weight", weight)
    slopes, std_in, std_out = (np.asarray(v, float) for v in (slopes, std_in, std_out))
    shapes = slopes.shape, std_in.shape, std_out.shape
    if shapes != (weight.shape[1:], weight.shape[1:], weight.shape[:1]):
        raise ValueError(f"weight {weight.shape} needs slopes and std_in (in,) and std_out (out,); got {shapes}")
    return weight * (slopes * std_in) / std_out[:, None]


def near_one(singular):
    """Share of singular values in `NEAR_ONE`, and the root of the mean of their squares."""
    singular = np.asarray(singular, float)
    low, high = NEAR_ONE
    return float(((singular >= low) & (singular <= high)).mean()), float(np.sqrt((singular**2).mean()))


def quarter_circle(low, high):
    """Share of the singular values of a large square matrix of independent entries between two numbers.

    Implements {eq}`eq-quarter-circle`; the entries have mean 0 and variance 1 / size.
    """

    def below(s):
        s = min(max(s, 0.0), 2.0)
        return (s * np.sqrt(4 - s**2) / 2 + 2 * np.arcsin(s / 2)) / np.pi

    if not low <= high:
        raise ValueError(f"low must be at most high, got {low} and {high}")
    return float(below(high) - below(low))


def linear_map(x_hat, z_hat):
    """The linear map that fits normalized values best by those before, and the share of their variance it explains.

    Implements {eq}`eq-linear-map`.

    Parameters
    ----------
    x_hat : array (N, in)
    z_hat : array (N, out)
        Both with mean 0; N above in.

    Returns
    -------
    jacobian : array (out, in)
    explained : float
    """
    x_hat, z_hat = _matrix("x_hat", x_hat), _matrix("z_hat", z_hat)
    if len(x_hat) != len(z_hat) or len(x_hat) <= x_hat.shape[1]:
        raise ValueError(f"x_hat (N, in) and z_hat (N, out) need one N, above in; got {x_hat.shape}, {z_hat.shape}")
    jacobian = np.linalg.lstsq(x_hat, z_hat, rcond=None)[0].T
    rest = z_hat - x_hat @ jacobian.T
    return jacobian, float(1 - (rest**2).sum() / (z_hat**2).sum())


def correlation(x_hat):
    """Root mean square of the correlations between different units of normalized values (N, units)."""
    x_hat = _matrix("x_hat", x_hat)
    matrix = np.corrcoef(x_hat.T)
    other = ~np.eye(len(matrix), dtype=bool)
    return float(np.sqrt((matrix[other] ** 2).mean()))


def _matrix(name, values):
    values = np.asarray(values, float)
    if values.ndim != 2:
        raise ValueError(f"{name} must have two axes, got shape {values.shape}")
    return values
