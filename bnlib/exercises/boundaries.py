"""The exercise ``nearest-boundary``: how far a sample is from the nearest boundary of a ReLU net, exactly."""

import numpy as np

from ..theory.partition import local_maps, nearest
from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(9)

    def case(samples, *sizes):
        pairs = zip(sizes[1:], sizes[:-1], strict=True)
        layers = [(rng.normal(size=pair), rng.normal(size=pair[0])) for pair in pairs]
        return Case((rng.normal(size=(samples, sizes[0])), layers))

    return [case(30, 2, 6, 5), case(20, 4, 5, 7), case(40, 3, 8, 6, 6)]


EXERCISE = Exercise(
    name="nearest-boundary",
    usage="distance = my_nearest(x, layers)",
    inputs=("x", "layers"),
    outputs=("distance",),
    reference=nearest,
    cases=_cases(),
    run=lambda answer, *args: [as_float(answer(*args))],
)


def _quotients(x, layers):
    """``|z|`` over the length of its gradient, samples by units; infinite where the gradient is 0."""
    z, gradient = local_maps(x, layers)
    length = np.linalg.norm(gradient, axis=2)
    return np.divide(np.abs(z), length, out=np.full(z.shape, np.inf), where=length > 0)


@EXERCISE.mistake(
    "first-layer-only",
    "You look at the first layer only. Units of later layers have boundaries too, and one of them may be nearer.",
)
def first_layer(x, layers):
    return _quotients(x, layers[:1]).min(1)


@EXERCISE.mistake(
    "last-layer-only", "You look at the last layer only. Take the minimum over the units of all layers."
)
def last_layer(x, layers):
    return _quotients(x, layers)[:, -len(layers[-1][0]) :].min(1)


@EXERCISE.mistake(
    "own-weights",
    "You divide by the length of each unit's own weights. From the second layer on they multiply hidden values, not "
    "the input: divide by the length of the derivative by the input.",
)
def own_weights(x, layers):
    lengths = np.concatenate([np.linalg.norm(weight, axis=1) for weight, _ in layers])
    return (np.abs(local_maps(x, layers)[0]) / lengths).min(1)


@EXERCISE.mistake(
    "mask-forgotten",
    "Your derivative is the product of the weights. A unit that is off passes nothing on: set the rows of units with "
    "a negative pre-activation to 0 before the next product.",
)
def mask_forgotten(x, layers):
    product, lengths = np.eye(x.shape[1]), []
    for weight, _ in layers:
        product = weight @ product
        lengths.append(np.linalg.norm(product, axis=1))
    return (np.abs(local_maps(x, layers)[0]) / np.concatenate(lengths)).min(1)


@EXERCISE.mistake(
    "linear-net",
    "You leave the ReLU out of the forward pass: your pre-activations are those of a linear net.",
)
def linear_net(x, layers):
    return _linear(x, layers, masked=False)


@EXERCISE.mistake("linear-net")
def linear_net_masked(x, layers):
    return _linear(x, layers, masked=True)


def _linear(x, layers, masked):
    h, product, best = x, np.broadcast_to(np.eye(x.shape[1]), (len(x), *[x.shape[1]] * 2)), []
    for weight, bias in layers:
        h, product = h @ weight.T + bias, weight @ product
        length = np.linalg.norm(product, axis=2)
        best.append(np.divide(np.abs(h), length, out=np.full(h.shape, np.inf), where=length > 0).min(1))
        product = product * (h > 0)[:, :, None] if masked else product
    return np.min(best, 0)


@EXERCISE.mistake(
    "not-a-length",
    "You return the smallest pre-activation. Multiply all weights and biases of the first layer by 2 and it doubles, "
    "while no boundary moves: divide by the length of the derivative.",
)
def no_length(x, layers):
    return np.abs(local_maps(x, layers)[0]).min(1)


@EXERCISE.mistake(
    "squared-length",
    "You divide by the squared length of the derivative. That is the step along the derivative; its own length is "
    "that times the length again, so divide by the length once.",
)
def squared_length(x, layers):
    z, gradient = local_maps(x, layers)
    square = np.square(gradient).sum(2)
    return np.divide(np.abs(z), square, out=np.full(z.shape, np.inf), where=square > 0).min(1)


@EXERCISE.mistake(
    "sign-kept",
    "You take the minimum of signed quotients, so the most negative unit wins. A distance has no sign: take the "
    "absolute value first.",
)
def sign_kept(x, layers):
    z, gradient = local_maps(x, layers)
    length = np.linalg.norm(gradient, axis=2)
    return np.divide(z, length, out=np.full(z.shape, np.inf), where=length > 0).min(1)


@EXERCISE.mistake(
    "units-averaged", "You average over the units. The nearest boundary is asked for: take the minimum."
)
def averaged(x, layers):
    found = _quotients(x, layers)
    return np.where(np.isfinite(found), found, 0).sum(1) / np.isfinite(found).sum(1)


@EXERCISE.mistake(
    "over-samples",
    "You take the minimum over the samples, one number for each unit. Each sample has a nearest boundary: return one "
    "number for each sample.",
)
def over_samples(x, layers):
    return _quotients(x, layers).min(0)
