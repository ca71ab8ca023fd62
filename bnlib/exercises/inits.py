"""The exercise ``data-dependent-init``: start every hidden unit at mean 0, variance 1 over one batch.

The answer draws its batch, the checker judges over all 512 images. A random half of them gives a unit's mean with a
standard error of 0.044 and its standard deviation with one of about 0.03: four of them fit into `TOLERANCE`.
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
    net, rng = mlp(sizes, len(sizes), ACTIVATIONS[activation]), np.random.default_rng(len(sizes))
    for layer in linears(net):
        units = len(layer.params["bias"])
        layer.params["weight"] *= rng.permutation(np.geomspace(1, 8, units))[:, None].astype(np.float32)
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


EXERCISE = Exercise(
    name="data-dependent-init",
    usage="my_init(net, images, rng)",
    inputs=("net", "activation", "images", "tolerance"),
    outputs=("mean_and_std", "output_weight", "output_bias"),
    reference=lambda net, images, rng: data_dependent(net, images),
    cases=_cases(),
    run=_run,
)


def _through(net, batch, rule, chosen=slice(-1)):
    """Set the chosen layers in turn: ``rule(z, b)`` of pre-activations and old bias gives divisor and new bias."""
    layers = linears(net)[chosen]
    for layer in net.layers:
        if layer in layers:
            _set(layer, *rule(layer.forward(batch), layer.params["bias"]))
        batch = layer.forward(batch)


def _set(layer, divisor, bias):
    divisor = divisor[:, None] if np.ndim(divisor) == 1 else divisor
    layer.params.update(weight=layer.params["weight"] / divisor, bias=bias)


def _right(z, b):
    return z.std(0), (b - z.mean(0)) / z.std(0)


@EXERCISE.mistake(
    "nothing-changed",
    "The net is as it was. Your function has to change the net it gets: the checker looks at the entries of "
    "`layer.params`. What you assign to a name of your own, do to a copy or return is not seen.",
)
def nothing_changed(net, images, rng):
    pass


@EXERCISE.mistake(
    "batch-not-propagated",
    "A layer's statistics have to come from what it gets in the changed net. Look at what goes into your second "
    "layer: is it what the layers before it, already changed, make of the batch?",
)
def old_activations(net, images, rng):
    before = net.activations(images)
    for layer in linears(net)[:-1]:
        _set(layer, *_right(before[net.layers.index(layer) + 1], layer.params["bias"]))


@EXERCISE.mistake("batch-not-propagated")
def images_into_every_layer(net, images, rng):
    for layer in linears(net)[:-1]:
        _set(layer, *_right(layer.forward(images), layer.params["bias"]))


@EXERCISE.mistake("batch-not-propagated")
def images_into_every_layer_and_only_centred(net, images, rng):
    for layer in linears(net)[:-1]:
        _set(layer, 1, -layer.forward(images).mean(0))


@EXERCISE.mistake(
    "activation-skipped",
    "Your batch goes from one Linear layer to the next. In the net there is an activation between them: "
    "send the batch through every layer of `net.layers`.",
)
def activation_skipped(net, images, rng):
    for layer in linears(net)[:-1]:
        _set(layer, *_right(layer.forward(images), layer.params["bias"]))
        images = layer.forward(images)


@EXERCISE.mistake(
    "mean-not-cancelled", "Your pre-activations have variance 1, but not mean 0. The bias has to take the mean away."
)
def bias_only_divided(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0), b / z.std(0)))


@EXERCISE.mistake("mean-not-cancelled")
def bias_kept(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0), b))


@EXERCISE.mistake("mean-not-cancelled")
def bias_zero(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0), 0 * b))


@EXERCISE.mistake(
    "scale-forgotten", "Your pre-activations have mean 0, but each unit keeps its own spread. Scale its weights too."
)
def scale_forgotten(net, images, rng):
    _through(net, images, lambda z, b: (1, b - z.mean(0)))


@EXERCISE.mistake(
    "divided-by-variance",
    "You divide by the variance. A unit of variance 4 then gets variance 1/4, not 1: which measure of spread has "
    "the unit of the pre-activation itself?",
)
def divided_by_variance(net, images, rng):
    _through(net, images, lambda z, b: (z.var(0), (b - z.mean(0)) / z.var(0)))


@EXERCISE.mistake(
    "bias-not-scaled",
    "Your variances are 1 and your means are not 0. Your bias belongs to the unit before it was scaled: what happens "
    "to the mean, and to the old bias, when a unit is scaled?",
)
def bias_not_scaled(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0), b - z.mean(0)))


@EXERCISE.mistake("bias-not-scaled")
def minus_the_mean(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0), -z.mean(0)))


@EXERCISE.mistake(
    "old-bias-ignored",
    "Your variances are 1, and each mean is off by what the old bias adds. The mean of the pre-activations contains "
    "the old bias, and you overwrite it. Compare a net whose biases are 0 with one whose are not.",
)
def old_bias_ignored(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0), -z.mean(0) / z.std(0)))


@EXERCISE.mistake("old-bias-ignored")
def old_bias_ignored_after_scaling(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0), (b - z.mean(0)) / z.std(0) - b))


@EXERCISE.mistake(
    "one-scale",
    "You scale all units of a layer by one number. Each unit has a spread of its own: look at the shape of your "
    "standard deviation, which should have one entry per unit.",
)
def mean_of_the_deviations(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0).mean(), (b - z.mean(0)) / z.std(0).mean()))


@EXERCISE.mistake("one-scale")
def deviation_of_the_whole_layer(net, images, rng):
    _through(net, images, lambda z, b: (z.std(), (b - z.mean(0)) / z.std()))


@EXERCISE.mistake("one-scale")
def mean_of_the_whole_layer_too(net, images, rng):
    _through(net, images, lambda z, b: (z.std(), (b - z.mean()) / z.std()))


@EXERCISE.mistake(
    "wrong-axis",
    "You average over the units of one image. Each unit has its statistics over the images: look at the axis, and at "
    "the shape of your mean, which should have one entry per unit.",
)
def wrong_axis(net, images, rng):
    _through(net, images, lambda z, b: _right(z.T, b))


@EXERCISE.mistake(
    "input-axis",
    "Your standard deviations meet the weights along the wrong axis. Row k of `weight` belongs to unit k; plain "
    "broadcasting scales its columns, and on a square weight this raises no error.",
)
def input_axis(net, images, rng):
    _through(net, images, lambda z, b: (z.std(0)[None], _right(z, b)[1]))


@EXERCISE.mistake(
    "output-layer-changed",
    "Your hidden layers are right, but you set the output layer too. No activation follows it: it stays as it was.",
)
def output_layer_changed(net, images, rng):
    _through(net, images, _right, slice(None))


@EXERCISE.mistake(
    "layer-left-out", "Some hidden layers are right, others are as they were. Which ones does your loop go through?"
)
def only_the_first(net, images, rng):
    _through(net, images, _right, slice(1))


@EXERCISE.mistake("layer-left-out")
def first_left_out(net, images, rng):
    _through(net, images, _right, slice(1, -1))


@EXERCISE.mistake("layer-left-out")
def last_hidden_left_out(net, images, rng):
    _through(net, images, _right, slice(-2))
