"""What dropout does to the variance of the features it drops, and to what a linear layer makes of them.

Throughout, ``keep`` is the probability that a value is kept, 1 minus the rate. In training a kept value is divided by
it; in evaluation nothing happens. The mean is then the same in both modes and the variance is not.
"""

import numpy as np


def dropped_variance(mean, var, keep):
    """Variance in training mode of a feature that has ``mean`` and ``var`` in evaluation mode.

    Implements {eq}`eq-dropped-variance`.

    Parameters
    ----------
    mean, var : float or array
    keep : float
        In (0, 1].

    Returns
    -------
    float or array
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep is the share that stays, above 0 and at most 1; got {keep}")
    mean, var = np.asarray(mean, float), np.asarray(var, float)
    if np.any(var < 0):
        raise ValueError(f"var must not be negative, got {var.min()}")
    return (var + mean**2) / keep - mean**2


def variance_ratio(mean, var, keep):
    """Variance in training mode over variance in evaluation mode, of a unit that sees one feature or many.

    Implements {eq}`eq-variance-shift` for a single feature, and {eq}`eq-shift-random` for an array of them: the ratio
    of the sums, which is that of a unit behind a linear layer, on average over random weights.

    Parameters
    ----------
    mean, var : float or array (features,)
        In evaluation mode.
    keep : float

    Returns
    -------
    float
        At least 1, and ``1 / keep`` where all means are 0.
    """
    total = np.sum(var)
    if not total > 0:
        raise ValueError("no feature varies: there is no ratio")
    return float(np.sum(dropped_variance(mean, var, keep)) / total)


def shift_of_weights(weight, features, keep):
    """The same ratio for units with these weights, one for each: exact on average over the masks.

    Implements {eq}`eq-shift-weights`.

    Parameters
    ----------
    weight : array (units, inputs)
    features : array (N, inputs)
        The features in evaluation mode, before dropout.
    keep : float

    Returns
    -------
    array (units,)
    """
    weight, features = np.asarray(weight, float), np.asarray(features, float)
    if weight.ndim != 2 or features.ndim != 2 or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"weight must be (units, inputs), features (N, inputs); got {weight.shape}, {features.shape}"
        )
    added = dropped_variance(features.mean(0), features.var(0), keep) - features.var(0)
    return 1 + weight**2 @ added / (features @ weight.T).var(0)


def relu_moments(mean=0.0, std=1.0):
    """Mean and variance of ``max(z, 0)`` for z from a normal distribution.

    Implements {eq}`eq-relu-moments` for mean 0; in general with its density and distribution function.
    """
    if not std > 0:
        raise ValueError(f"std must be positive, got {std}")
    from scipy.stats import norm

    below = mean / std
    first = mean * norm.cdf(below) + std * norm.pdf(below)
    second = (mean**2 + std**2) * norm.cdf(below) + mean * std * norm.pdf(below)
    return float(first), float(second - first**2)
