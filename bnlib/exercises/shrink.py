"""The exercise ``signal-shrink``: what is left, layer by layer, of the variance that the images cause."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(7)

    def case(images, units, signals):
        """Pre-activations with an offset for each unit, far larger than what the images change."""
        layers = []
        for count, signal in zip(units, signals, strict=True):
            own = signal * rng.uniform(0.3, 2, count)
            layers.append(rng.normal(0.5, 1, count) + own * rng.standard_normal((images, count)))
        return Case((layers,), tolerance=1e-6)

    return [
        case(20, (6, 6, 6, 6), (1.0, 0.25, 0.05, 0.2)),  # the last layer amplifies
        case(8, (3, 5, 4), (2.0, 1.5, 0.3)),
        case(5, (5, 5), (0.1, 0.02)),  # as many images as units
    ]


def _signals(layers):
    return np.array([z.var(0).mean() for z in layers])


def _reference(layers):
    signals = _signals(layers)
    return signals[1:] / signals[:-1]


EXERCISE = Exercise(
    name="signal-shrink",
    usage="factors = my_shrink(layers)",
    inputs=("layers",),
    outputs=("factors",),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, layers: [as_float(answer(layers))],
)


def _consecutive(values):
    values = np.array(values)
    return values[1:] / values[:-1]


@EXERCISE.mistake(
    "units-counted",
    "Your variance runs over images and units at once. Most of it is that the units have different offsets, which "
    "no image changes. Take it over the images first, unit by unit.",
)
def variance_of_everything(layers):
    return _consecutive([z.var() for z in layers])


@EXERCISE.mistake(
    "wrong-axis",
    "You take the variance over the units of one image. The signal is what differs from image to image: axis 0.",
)
def over_the_units(layers):
    return _consecutive([z.var(1).mean() for z in layers])


@EXERCISE.mistake(
    "mean-not-subtracted",
    "You average the squares. A unit that gives 0.5 for each image has a large square and no signal: subtract the "
    "unit's mean over the images first.",
)
def mean_of_squares(layers):
    return _consecutive([(z**2).mean() for z in layers])


@EXERCISE.mistake(
    "units-averaged-first",
    "You average over the units and then take the variance. Units that move in opposite directions cancel that way. "
    "The variance comes first.",
)
def variance_of_the_mean(layers):
    return _consecutive([z.mean(1).var() for z in layers])


@EXERCISE.mistake(
    "standard-deviations",
    "Your factors are those of a standard deviation. Asked for is the variance, which falls by the square of that.",
)
def root_of_the_factor(layers):
    return np.sqrt(_reference(layers))


@EXERCISE.mistake("standard-deviations")
def mean_of_deviations(layers):
    return _consecutive([z.std(0).mean() for z in layers])


@EXERCISE.mistake(
    "upside-down",
    "Your factors are upside down: they are above 1 where the signal gets smaller. Divide each layer by the one "
    "before it.",
)
def upside_down(layers):
    return 1 / _reference(layers)


@EXERCISE.mistake(
    "against-the-first",
    "You compare each layer with the first one. Asked for is the factor of a single layer: divide by its neighbour.",
)
def against_the_first(layers):
    signals = _signals(layers)
    return signals[1:] / signals[0]


@EXERCISE.mistake(
    "summed",
    "You add up the variances of the units. A layer with more units then seems to have more signal: take their mean.",
)
def summed(layers):
    return _consecutive([z.var(0).sum() for z in layers])


@EXERCISE.mistake(
    "signals-returned",
    "You return the variance of each layer. Asked for are the factors from one layer to the next, one fewer than "
    "there are layers.",
)
def signals_returned(layers):
    return _signals(layers)


@EXERCISE.mistake(
    "logarithms",
    "You return logarithms. The factor itself is asked for: 1 where a layer passes everything on.",
)
def logarithms(layers):
    return np.log(_reference(layers))


@EXERCISE.mistake("logarithms")
def decimal_logarithms(layers):
    return np.log10(_reference(layers))


@EXERCISE.mistake(
    "one-number",
    "You return one number for the whole net. Asked for is one factor for each pair of neighbouring layers.",
)
def mean_factor(layers):
    return np.exp(np.log(_reference(layers)).mean())


@EXERCISE.mistake("one-number")
def last_over_first(layers):
    signals = _signals(layers)
    return signals[-1] / signals[0]
