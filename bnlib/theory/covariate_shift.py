"""Covariate shift measured on gradients in a deep linear net, and what noise behind BN does to the next layer.

A deep linear net is a list of weights, ``h_l = h_{l-1} W_l.T``, with the mean squared error to a target. With
``norm=True`` every product but the last is normalized over the batch (``gamma = 1``, ``beta = 0``).
"""

import numpy as np


def normalize(z, eps=0.0):
    """BN of z, of shape (m, units), with ``gamma = 1`` and ``beta = 0``: the output and the standard deviations."""
    centred = z - z.mean(0)
    std = np.sqrt(np.square(centred).mean(0) + eps)
    if (std == 0).any():
        raise ValueError(f"unit {int((std == 0).argmax())} is constant over the batch: with eps = 0 it has no scale")
    return centred / std, std


def loss_and_gradients(weights, x, target, norm=False, eps=0.0):
    """Mean squared error of a deep linear net, and its gradients.

    Implements {eq}`eq-cs-deep`; BN's backward pass is {eq}`eq-closed-form`.

    Parameters
    ----------
    weights : sequence of array (outputs, inputs)
    x : array (m, inputs)
    target : array (m, outputs)
    norm : bool
        BN behind every layer but the last.
    eps : float

    Returns
    -------
    loss : float
    gradients : list of array
        One for each of the weights, of its shape.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a unit is constant and ``eps`` is 0.
    """
    h, inputs, scales = np.asarray(x, float), [], []
    for layer, weight in enumerate(weights, 1):
        if weight.shape[1] != h.shape[1]:
            raise ValueError(
                f"weights {layer} have {weight.shape[1]} inputs, the layer before has {h.shape[1]} outputs"
            )
        inputs.append(h)
        h = h @ weight.T
        if norm and layer < len(weights):
            h, std = normalize(h, eps)
            scales.append((h, std))
    if h.shape != np.shape(target):
        raise ValueError(f"target must have the shape of the output, {h.shape}, got {np.shape(target)}")
    error = h - target
    dz, gradients = 2 * error / error.size, [None] * len(weights)
    for layer in reversed(range(len(weights))):
        gradients[layer] = dz.T @ inputs[layer]
        dz = dz @ weights[layer]
        if norm and layer:
            x_hat, std = scales[layer - 1]
            dz = (dz - dz.mean(0) - x_hat * (dz * x_hat).mean(0)) / std
    return float(np.square(error).mean()), gradients


def shifted_gradient(weights, later, layer, x, target, norm=False, eps=0.0):
    """The gradient of one layer after the layers before it have moved, and nothing else has.

    Implements {eq}`eq-cs-moved`.

    Parameters
    ----------
    weights, later : sequence of array
        The weights before a step and after it.
    layer : int
        Its number, from 0.
    x, target, norm, eps
        As for `loss_and_gradients`.

    Returns
    -------
    array, shape of ``weights[layer]``
    """
    if not 0 <= layer < len(weights):
        raise ValueError(f"layer must be from 0 to {len(weights) - 1}, got {layer}")
    return loss_and_gradients([*later[:layer], *weights[layer:]], x, target, norm, eps)[1][layer]


def relative_shift(before, after):
    """How far a gradient has moved, in units of its length.

    Implements {eq}`eq-cs-relative`.
    """
    length = np.linalg.norm(before)
    if length == 0:
        raise ValueError("a gradient of length 0 is no unit")
    return float(np.linalg.norm(np.asarray(after) - before) / length)


def cosine(before, after):
    """Cosine of the angle between two gradients, {eq}`eq-cs-cosine`."""
    lengths = np.linalg.norm(before) * np.linalg.norm(after)
    if lengths == 0:
        raise ValueError("a gradient of length 0 has no direction")
    return float((np.asarray(before) * after).sum() / lengths)


def noise_moments(n_mu, n_sigma, r):
    """Mean square move of a unit's mean, and its mean variance, where noise is put behind BN.

    Implements {eq}`eq-cs-moments` for outputs of BN with mean 0 and variance 1.

    Parameters
    ----------
    n_mu : float
        The shift of a unit is uniform from ``-n_mu`` to ``n_mu``, drawn anew at each step.
    n_sigma : float
        Its factor is uniform from 1 to ``n_sigma``.
    r : float
        Each sample's shift is uniform within ``r`` of the unit's; its factor is normal about the unit's with standard
        deviation ``r``.

    Returns
    -------
    move : float
        Mean absolute difference of the shifts of two steps.
    variance : float
        Mean over steps of the variance over the samples.
    """
    if n_mu < 0 or r < 0 or n_sigma < 1:
        raise ValueError(f"n_mu and r start at 0, n_sigma at 1; got {n_mu}, {r} and {n_sigma}")
    return 2 * n_mu / 3, (1 + n_sigma + n_sigma**2) / 3 + r**2 + r**2 / 3
