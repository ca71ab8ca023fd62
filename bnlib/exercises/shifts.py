"""The exercise ``variance-shift``: variance of dropped features in training over that in evaluation."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(19)

    def case(keep, samples, *features):
        """Features given by a mean and a standard deviation, the last one cut off at 0."""
        x = np.column_stack([rng.normal(mean, deviation, samples) for mean, deviation in features])
        x[:, -1] = np.maximum(x[:, -1], 0)
        return Case((x, keep), tolerance=1e-6)

    return [
        case(0.8, 6, (0.0, 1.0), (2.0, 1.0), (0.5, 1.0)),
        case(0.35, 40, (-3.0, 0.7), (0.1, 2.0), (1.0, 1.5), (1.2, 0.6)),
        case(0.5, 8, (1.0, 4.0), (0.9, 1.0)),  # the rate is the keep probability
        case(0.9, 5, (2.0, 1.0), (1.0, 1.0)),
    ]


def _moments(x):
    return x.mean(0), x.var(0)


def _reference(x, keep):
    mean, var = _moments(x)
    return ((var + mean**2) / keep - mean**2) / var


EXERCISE = Exercise(
    name="variance-shift",
    usage="ratios = my_shift(x, keep)",
    inputs=("x", "keep"),
    outputs=("ratios",),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, x, keep: [as_float(answer(x, keep))],
)


@EXERCISE.mistake(
    "mean-forgotten",
    "You return 1 / keep, which is right only for a feature with mean 0. Dropout jumps between 0 and x / keep: the "
    "larger the mean, the larger the jump. The mean of the feature belongs into the formula.",
)
def centred(x, keep):
    return np.full(x.shape[1], 1 / keep)


@EXERCISE.mistake(
    "mean-not-subtracted",
    "In training mode you take the mean square for the variance. The squared mean is to be subtracted: it is the "
    "same in both modes.",
)
def mean_square(x, keep):
    mean, var = _moments(x)
    return (var + mean**2) / keep / var


@EXERCISE.mistake(
    "mean-divided",
    "You divide the mean by `keep`. A value is x / keep, but only in the share `keep` of all cases and 0 in the "
    "others: on average it is x. The mean does not change.",
)
def mean_divided(x, keep):
    mean, var = _moments(x)
    return ((var + mean**2) / keep - (mean / keep) ** 2) / var


@EXERCISE.mistake(
    "not-inverted",
    "Your features are not divided by `keep` when they are kept. Here dropout divides in training, so that nothing "
    "needs to be done in evaluation.",
)
def not_divided(x, keep):
    mean, var = _moments(x)
    return (keep * (var + mean**2) - (keep * mean) ** 2) / var


@EXERCISE.mistake(
    "rate-for-keep",
    "You use `keep` as if it were the share that is dropped. It is the share that stays, 1 minus the rate.",
)
def rate(x, keep):
    return _reference(x, 1 - keep)


@EXERCISE.mistake(
    "keep-squared",
    "You divide by the square of `keep`. The kept values are 1 / keep times as large and their squares 1 / keep**2 "
    "times, but only the share `keep` of them is there: one factor cancels.",
)
def squared(x, keep):
    mean, var = _moments(x)
    return ((var + mean**2) / keep**2 - mean**2) / var


@EXERCISE.mistake(
    "upside-down",
    "Your ratios are upside down: they are below 1, but dropout adds variance. Divide training by evaluation.",
)
def upside_down(x, keep):
    return 1 / _reference(x, keep)


@EXERCISE.mistake(
    "standard-deviations",
    "Your ratios are those of the standard deviations. Asked for are the variances.",
)
def roots(x, keep):
    return np.sqrt(_reference(x, keep))


@EXERCISE.mistake(
    "variance-returned",
    "You return the variance in training mode. Divide it by that in evaluation mode, feature by feature.",
)
def variance(x, keep):
    return _reference(x, keep) * x.var(0)


@EXERCISE.mistake(
    "added-part",
    "You return what dropout adds, in units of the variance in evaluation mode. The ratio is 1 more than that.",
)
def added(x, keep):
    return _reference(x, keep) - 1


@EXERCISE.mistake(
    "summed",
    "You return one number for all features. Asked for is a ratio for each feature, each column of `x`.",
)
def of_the_sums(x, keep):
    mean, var = _moments(x)
    return ((var + mean**2) / keep - mean**2).sum() / var.sum()


@EXERCISE.mistake(
    "wrong-axis",
    "You take mean and variance over the features of a sample. A feature is a column: average over the samples, "
    "axis 0.",
)
def over_features(x, keep):
    return _reference(x.T, keep)
