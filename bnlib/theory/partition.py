"""A ReLU net cuts its input space into regions, on each of which it is affine: where the cuts are, and how far.

A net is a list of layers ``(weight (units, inputs), bias (units,))`` here. Between two layers stands a ReLU, or a
leaky one with slope ``slope`` below zero. The **boundary** of a unit is where its pre-activation changes its sign;
BN with given statistics is an affine map, so it is part of such a layer.
"""

from typing import NamedTuple

import numpy as np

TINY = 1e-12  # of the largest term of a pre-activation: below it a corner lies on a boundary


class Partition(NamedTuple):
    """The regions of a rectangle, and the boundaries in it.

    Attributes
    ----------
    regions : list of array (corners, 2)
        Convex polygons, corners in order.
    patterns : bool array (regions, units of all layers)
        Which units are positive in a region.
    segments : array (pieces, 2, 2)
        Straight pieces of boundaries, both ends.
    owners : int array (pieces,)
        The unit of each piece, units of all layers counted through.
    """

    regions: list
    patterns: np.ndarray
    segments: np.ndarray
    owners: np.ndarray


def boundary_offset(mu, var, gamma=1.0, beta=0.0, eps=0.0):
    """The ``t`` of the boundary ``w . x = t`` of a unit with BN.

    Implements {eq}`eq-partition-beta`, and for ``beta = 0`` {eq}`eq-partition-centroid`.

    Parameters
    ----------
    mu, var : array (units,)
        Batch mean and variance of ``w . x``.
    gamma, beta : float or array (units,)
        No ``gamma`` is 0: such a unit has no boundary.
    eps : float

    Returns
    -------
    array (units,)
    """
    if np.any(np.asarray(gamma) == 0):
        raise ValueError("gamma must not be 0: the unit is constant and has no boundary")
    return mu - beta * np.sqrt(np.asarray(var) + eps) / gamma


def signed_distances(x, weight, offset):
    """Distance of each sample from each hyperplane ``w . x = offset``, positive on the side that ``w`` points to.

    Implements {eq}`eq-partition-distance`.

    Parameters
    ----------
    x : array (N, inputs)
    weight : array (units, inputs)
    offset : array (units,)

    Returns
    -------
    array (N, units)
    """
    x, weight = _samples(x, weight.shape[1]), np.asarray(weight, float)
    length = np.linalg.norm(weight, axis=1)
    if not length.all():
        raise ValueError(f"unit {int(np.argmin(length))} has weights of length 0: it has no hyperplane")
    return (x @ weight.T - offset) / length


def least_squares(x, weight):
    """The offsets that minimize the sum of squared distances of the samples, and these sums.

    Implements {eq}`eq-partition-least`.

    Returns
    -------
    offset, least : array (units,)
    """
    z = _samples(x, weight.shape[1]) @ weight.T
    return z.mean(0), len(z) * z.var(0) / np.square(weight).sum(1)


def fold_batch(x, weights, *, mean=True, scale=True, gamma=1.0, beta=0.0, eps=0.0, slope=0.0):
    """The layers that BN makes of these weights on this batch: its statistics taken into weights and biases.

    Implements {eq}`eq-partition-fold`, layer after layer.

    Parameters
    ----------
    x : array (N, inputs)
        The batch.
    weights : list of array (units, inputs)
    mean, scale : bool
        Subtract the mean, divide by the standard deviation. With neither the layers are those of a plain net whose
        biases are ``beta``.
    gamma, beta : float, or list with a float or array (units,) for each layer
    eps, slope : float

    Returns
    -------
    list of (weight, bias)

    Raises
    ------
    ValueError
        If a unit's pre-activation does not vary over the batch, and ``scale`` divides by it with ``eps = 0``.
    """
    h, layers = _samples(x, weights[0].shape[1]), []
    for depth, weight in enumerate(weights):
        g, b = (value[depth] if isinstance(value, list | tuple) else value for value in (gamma, beta))
        z = h @ weight.T
        var = z.var(0)
        if scale and not (var + eps > 0).all():
            unit = int(np.argmin(var))
            raise ValueError(f"unit {unit} of layer {depth + 1} has variance 0 over the batch: use eps above 0")
        factor = g / np.sqrt(var + eps) if scale else g * np.ones(len(weight))
        layers.append((factor[:, None] * weight, b - factor * z.mean(0) * mean))
        h = _activate(h @ layers[-1][0].T + layers[-1][1], slope)
    return layers


def preactivations(x, layers, slope=0.0):
    """Pre-activations of all layers, one array (N, units) each."""
    h, found = _samples(x, layers[0][0].shape[1]), []
    for weight, bias in layers:
        found.append(h @ weight.T + bias)
        h = _activate(found[-1], slope)
    return found


def local_maps(x, layers, slope=0.0):
    """Every unit as an affine function of the input, in the region of each sample.

    Implements {eq}`eq-partition-local`.

    Returns
    -------
    z : array (N, units of all layers)
        Pre-activations.
    gradient : array (N, units of all layers, inputs)
        Their derivatives by the input.
    """
    inputs = layers[0][0].shape[1]
    h = _samples(x, inputs)
    dh, values, gradients = np.broadcast_to(np.eye(inputs), (len(h), inputs, inputs)), [], []
    for weight, bias in layers:
        z, dz = h @ weight.T + bias, weight @ dh
        values.append(z)
        gradients.append(dz)
        factor = np.where(z > 0, 1.0, slope)
        h, dh = factor * z, factor[:, :, None] * dz
    return np.concatenate(values, 1), np.concatenate(gradients, 1)


def nearest(x, layers, slope=0.0):
    """Exact distance of each sample from the nearest boundary of all, folded ones included.

    Implements {eq}`eq-partition-nearest`. For a single unit the same quotient is no distance: its boundary may bend
    before it is reached (`unit_distances`).

    Returns
    -------
    array (N,)
        Infinite where no unit depends on the input.
    """
    z, gradient = local_maps(x, layers, slope)
    length = np.linalg.norm(gradient, axis=2)
    return np.divide(np.abs(z), length, out=np.full(z.shape, np.inf), where=length > 0).min(1)


def partition(layers, box, slope=0.0):
    """All regions of a net with two inputs in a rectangle, by cutting it with one unit after another.

    Implements {eq}`eq-partition-cut`.

    Parameters
    ----------
    layers : list of (weight, bias)
    box : (left, right, low, high)
    slope : float

    Returns
    -------
    Partition
    """
    left, right, low, high = box
    if layers[0][0].shape[1] != 2 or not (left < right and low < high):
        raise ValueError(f"partition takes two inputs and a box (left, right, low, high), got {box}")
    corners = np.array([[left, low], [right, low], [right, high], [left, high]], float)
    regions, segments, owners, first = [(corners, np.eye(2), np.zeros(2), ())], [], [], 0
    for weight, bias in layers:
        after = []
        for polygon, matrix, shift, signs in regions:
            matrix, shift = weight @ matrix, weight @ shift + bias  # this layer's pre-activations in the region
            pieces, cuts = _cut(polygon, matrix, shift)
            for unit, ends in cuts:
                segments.append(ends)
                owners.append(first + unit)
            for piece in pieces:
                positive = matrix @ piece.mean(0) + shift > 0
                factor = np.where(positive, 1.0, slope)
                after.append((piece, factor[:, None] * matrix, factor * shift, (*signs, *positive)))
        regions, first = after, first + len(weight)
    patterns = np.array([signs for *_, signs in regions], bool)
    ends = np.array(segments, float).reshape(-1, 2, 2)
    return Partition([polygon for polygon, *_ in regions], patterns, ends, np.array(owners, int))


def unit_distances(x, found, units):
    """Distance of each sample from each unit's own boundary, with all its folds, inside the rectangle.

    Exact where it is not larger than the distance to the rectangle's border: beyond it nothing was computed.

    Parameters
    ----------
    x : array (N, 2)
    found : Partition
    units : int
        Number of units of all layers.

    Returns
    -------
    array (N, units)
        Infinite where a unit has no boundary in the rectangle.
    """
    x = _samples(x, 2)
    start, along = found.segments[:, 0], found.segments[:, 1] - found.segments[:, 0]
    away = x[:, None] - start
    part = (away * along).sum(2) / np.square(along).sum(1)
    away = np.linalg.norm(away - np.clip(part, 0, 1)[:, :, None] * along, axis=2)
    distances = np.full((units, len(x)), np.inf)
    np.minimum.at(distances, found.owners, away.T)
    return distances.T


def jitter(std, batch, samples):
    """Standard deviation of a unit's batch mean over the mini-batches of a data set, drawn without replacement.

    Implements {eq}`eq-partition-jitter`. Divided by the length of the weights it is that of the boundary's place.

    Parameters
    ----------
    std : float or array
        Over all samples, biased.
    batch, samples : int
    """
    if not 1 <= batch <= samples or samples < 2:
        raise ValueError(f"a batch has 1 to samples, at least 2, values; got batch {batch} of {samples}")
    return std * np.sqrt(samples / (samples - 1) * (1 / batch - 1 / samples))


def golden_weights(sizes):
    """Weights without chance, so that a page can compute the same ones: directions a golden angle apart.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, then the units of each layer.

    Returns
    -------
    list of array (units, inputs)
    """
    shapes = zip(sizes[1:], sizes[:-1], strict=True)
    turns = (np.outer(np.arange(1, units + 1), np.arange(1, inputs + 1)) for units, inputs in shapes)
    return [np.cos(2.4 * turn + 1.7 * depth) for depth, turn in enumerate(turns)]


def _samples(x, inputs):
    x = np.asarray(x, float)
    if x.ndim != 2 or x.shape[1] != inputs or not len(x):
        raise ValueError(f"x must be (N, {inputs}) with at least one sample, got {x.shape}")
    return x


def _activate(z, slope):
    return np.where(z > 0, z, slope * z)


def _cut(polygon, matrix, shift):
    """Cut a convex polygon by the lines ``matrix x + shift = 0``: its pieces, and each cut as (line, two ends)."""
    whole, cuts, todo = [], [], [(polygon, 0)]
    size = TINY * (np.abs(matrix).sum(1) * np.abs(polygon).max() + np.abs(shift))
    while todo:
        piece, first = todo.pop()
        values = piece @ matrix[first:].T + shift[first:]
        values[np.abs(values) <= size[first:]] = 0
        crossing = np.flatnonzero((values.min(0) < 0) & (values.max(0) > 0))
        if not len(crossing):
            whole.append(piece)
            continue
        line = crossing[0]
        sides, ends = _halves(piece, values[:, line])
        cuts.append((first + line, ends))
        todo += [(side, first + line + 1) for side in sides]
    return whole, cuts


def _halves(polygon, values):
    """Both sides of a polygon whose corners have these values of either sign, and the two ends of the cut."""
    low, high, ends = [], [], []
    for here, after, v, w in zip(polygon, np.roll(polygon, -1, 0), values, np.roll(values, -1), strict=True):
        if v <= 0:
            low.append(here)
        if v >= 0:
            high.append(here)
        if v == 0:
            ends.append(here)
        elif v * w < 0:
            ends.append(here + v / (v - w) * (after - here))
            low.append(ends[-1])
            high.append(ends[-1])
    return (np.array(low), np.array(high)), ends
