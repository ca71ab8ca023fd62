"""The exercise ``data-dependent-init``: start every hidden unit at mean 0, variance 1 over one batch.

The answer chooses its batch, the checker judges over all images. Of 512 images a random half gives a unit's mean with
a standard error of 0.044 and its standard deviation with one of about 0.03; four of these errors fit into `TOLERANCE`.
"""

import numpy as np

from ..scratch.inits import data_dependent, linears
from ..scratch.layers import ReLU, Sigmoid
from ..scratch.network import mlp
from .exercise import Case, Exercise

ACTIVATIONS = {"sigmoid": Sigmoid, "ReLU": ReLU}
TOLERANCE = 0.2


def _cases():
    rng = np.random.default_rng(5)

    def case(*sizes, activation):
        images = rng.uniform(0, 1, (512, sizes[0])).astype(np.float32)  # like pixels: their mean is not 0
        note = f"{TOLERANCE} for each mean and standard deviation over all images, enough for a batch of 256"
        return Case((sizes, activation, images, note), tolerance=TOLERANCE)

    return [
        case(6, 5, 3, activation="sigmoid"),
        case(8, 8, 8, 3, activation="sigmoid"),  # square: a scale along the wrong axis still fits
        case(10, 7, 6, 5, 3, activation="ReLU"),
        case(4, 512, 3, activation="ReLU"),  # as many units as images: statistics along the wrong axis still fit
    ]


def _net(sizes, activation):
    """A net in need of the init: no unit has the spread of its neighbour, no bias is 0."""
    net, rng = mlp(sizes, seed=len(sizes), activation=ACTIVATIONS[activation]), np.random.default_rng(len(sizes))
    for layer in linears(net):
        units = len(layer.params["bias"])
        layer.params["weight"] *= rng.permutation(np.geomspace(0.5, 12, units))[:, None].astype(np.float32)
        layer.params["bias"][:] = rng.uniform(1, 4, units) * rng.choice([-1, 1], units)
    return net


def _run(answer, sizes, activation, images, _):
    net = _net(sizes, activation)
    answer(net, images, np.random.default_rng(0))
    try:
        values = net.activations(images)
    except Exception as error:
        raise ValueError(f"after your function the net does not run: {error}") from error
    *hidden, last = linears(net)
    before = np.concatenate([values[net.layers.index(layer) + 1] for layer in hidden], axis=1, dtype=float)
    judged = np.round([before.mean(0), before.std(0)], 4) + 0.0  # 4 digits: a mean of 0 shows as 0
    return judged, *(np.asarray(last.params[name], float) for name in ("weight", "bias"))


def _reference(net, images, rng):
    data_dependent(net, images)


EXERCISE = Exercise(
    name="data-dependent-init",
    usage="my_init(net, images, rng)",
    inputs=("net", "activation", "images", "tolerance"),
    outputs=("mean_and_std", "output_weight", "output_bias"),
    reference=_reference,
    cases=_cases(),
    run=_run,
)


def _through(net, batch, change, chosen=slice(-1)):
    """Send the batch through the net; ``change(layer, z)`` gets each chosen `Linear` with its pre-activations."""
    layers = linears(net)[chosen]
    for layer in net.layers:
        if layer in layers:
            change(layer, layer.forward(batch))
        batch = layer.forward(batch)


def _set(layer, scale, bias):
    """Divide the weights of each unit by its scale, replace the biases."""
    layer.params["weight"] = layer.params["weight"] / np.reshape(scale, (-1, 1))
    layer.params["bias"] = bias


def _right(layer, z):
    _set(layer, z.std(0), (layer.params["bias"] - z.mean(0)) / z.std(0))


@EXERCISE.mistake(
    "nothing-changed",
    "The net is as it was. Your function has to change the net it gets: the checker looks at the entries of "
    "`layer.params`. What you assign to a name of your own, do to a copy or return is not seen.",
)
def nothing_changed(net, images, rng):
    pass


@EXERCISE.mistake(
    "batch-not-propagated",
    "Only your first layer is right. A layer's statistics have to come from what it gets in the new net, so from the "
    "layers before it after you changed them. Look at what your second layer gets as input.",
)
def old_activations(net, images, rng):
    before = net.activations(images)
    for layer in linears(net)[:-1]:
        _right(layer, before[net.layers.index(layer) + 1])


@EXERCISE.mistake("batch-not-propagated")
def images_into_every_layer(net, images, rng):
    for layer in linears(net)[:-1]:
        _right(layer, layer.forward(images))


@EXERCISE.mistake(
    "activation-skipped",
    "Your batch goes from one Linear layer to the next. In the net there is an activation between them: "
    "send the batch through every layer of `net.layers`.",
)
def activation_skipped(net, images, rng):
    for layer in linears(net)[:-1]:
        _right(layer, layer.forward(images))
        images = layer.forward(images)


@EXERCISE.mistake(
    "mean-not-cancelled",
    "Your pre-activations have variance 1, but their means are not 0. The bias has to take the mean away.",
)
def bias_only_divided(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.std(0), layer.params["bias"] / z.std(0)))


@EXERCISE.mistake("mean-not-cancelled")
def bias_kept(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.std(0), layer.params["bias"]))


@EXERCISE.mistake("mean-not-cancelled")
def bias_zero(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.std(0), np.zeros_like(layer.params["bias"])))


@EXERCISE.mistake(
    "scale-forgotten",
    "Your pre-activations have mean 0, but each unit keeps its own spread. Scale the weights of the unit as well.",
)
def scale_forgotten(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, 1, layer.params["bias"] - z.mean(0)))


@EXERCISE.mistake(
    "divided-by-variance",
    "You divide by the variance. A unit of variance 4 then gets variance 1/4, not 1: which number has the unit of "
    "the pre-activation itself?",
)
def divided_by_variance(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.var(0), (layer.params["bias"] - z.mean(0)) / z.var(0)))


@EXERCISE.mistake("divided-by-variance")
def bias_right_for_the_variance(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.var(0), (layer.params["bias"] - z.mean(0)) / z.std(0)))


@EXERCISE.mistake(
    "bias-not-scaled",
    "Your variances are 1 and your means are not 0. You took the mean of the pre-activations before the weights were "
    "scaled and use it after: what happens to that mean, and to the old bias, when a unit is scaled?",
)
def bias_not_scaled(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.std(0), layer.params["bias"] - z.mean(0)))


@EXERCISE.mistake("bias-not-scaled")
def only_the_mean_scaled(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.std(0), layer.params["bias"] - z.mean(0) / z.std(0)))


@EXERCISE.mistake("bias-not-scaled")
def minus_the_mean(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.std(0), -z.mean(0)))


@EXERCISE.mistake(
    "old-bias-ignored",
    "Your variances are 1, and each mean is off by what the old bias was. The mean of the pre-activations contains "
    "the old bias: you take it away and do not put it back. Try a net whose biases are 0, and one whose are not.",
)
def old_bias_ignored(net, images, rng):
    _through(net, images, lambda layer, z: _set(layer, z.std(0), -z.mean(0) / z.std(0)))


@EXERCISE.mistake("old-bias-ignored")
def old_bias_ignored_after_scaling(net, images, rng):
    def change(layer, z):
        _right(layer, z)
        layer.params["bias"] = layer.params["bias"] - old[layer]

    old = {layer: layer.params["bias"] for layer in net.layers if layer.params}
    _through(net, images, change)


@EXERCISE.mistake(
    "one-scale",
    "You scale all units of a layer by one number. Each unit has a spread of its own: look at the shape of your "
    "standard deviation, which should have one entry per unit.",
)
def mean_of_the_deviations(net, images, rng):
    _through(net, images, lambda layer, z: _one(layer, z.std(0).mean(), z.mean(0)))


@EXERCISE.mistake("one-scale")
def deviation_of_the_whole_layer(net, images, rng):
    _through(net, images, lambda layer, z: _one(layer, z.std(), z.mean(0)))


@EXERCISE.mistake("one-scale")
def mean_and_deviation_of_the_whole_layer(net, images, rng):
    _through(net, images, lambda layer, z: _one(layer, z.std(), z.mean()))


def _one(layer, scale, mean):
    _set(layer, scale, (layer.params["bias"] - mean) / scale)


@EXERCISE.mistake(
    "wrong-axis",
    "You average over the units of one image. Each unit has its statistics over the images: look at the axis, and at "
    "the shape of your mean, which should have one entry per unit.",
)
def wrong_axis(net, images, rng):
    _through(net, images, lambda layer, z: _right(layer, z.T))


@EXERCISE.mistake(
    "input-axis",
    "Your standard deviations meet the weights along the wrong axis. Row k of `weight` belongs to unit k; plain "
    "broadcasting scales its columns, and on a square weight this raises no error.",
)
def input_axis(net, images, rng):
    def change(layer, z):
        bias, weight = layer.params["bias"], layer.params["weight"]
        layer.params.update(weight=weight / z.std(0), bias=(bias - z.mean(0)) / z.std(0))

    _through(net, images, change)


@EXERCISE.mistake(
    "output-layer-changed",
    "Your hidden layers are right, but you set the output layer too. No activation follows it, and its outputs are "
    "the logits: it keeps its weights and its bias.",
)
def output_layer_changed(net, images, rng):
    _through(net, images, _right, slice(None))


@EXERCISE.mistake(
    "layer-left-out",
    "Some hidden layers are right and one you leave as it was. Look at which layers your loop goes through: all "
    "Linear layers but the last.",
)
def only_the_first(net, images, rng):
    _through(net, images, _right, slice(1))


@EXERCISE.mistake("layer-left-out")
def first_left_out(net, images, rng):
    _through(net, images, _right, slice(1, -1))


@EXERCISE.mistake("layer-left-out")
def last_hidden_left_out(net, images, rng):
    _through(net, images, _right, slice(-2))
