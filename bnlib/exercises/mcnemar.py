"""The exercise ``mcnemar``: are two nets equally good, judged by the images on which only one of them is right?"""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(12)

    def case(count, first, second):
        return Case((rng.random(count) < first, rng.random(count) < second))

    return [case(200, 0.85, 0.7), case(60, 0.6, 0.8), case(1_000, 0.9, 0.88)]


def _counts(right, other):
    """Images that only the first, only the second has right."""
    return int((right & ~other).sum()), int((~right & other).sum())


def _reference(right, other):
    b, c = _counts(right, other)
    return (b - c) / np.sqrt(b + c)


EXERCISE = Exercise(
    name="mcnemar",
    usage="z = my_mcnemar(right, other)",
    inputs=("right", "other"),
    outputs=("z",),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, *args: [as_float(answer(*args))],
)


@EXERCISE.mistake(
    "two-samples",
    "You compare the two accuracies as if each net had images of its own. They answered the same images: only those "
    "on which they differ tell the nets apart.",
)
def pooled(right, other):
    share = (right.mean() + other.mean()) / 2
    return (right.mean() - other.mean()) / np.sqrt(2 * share * (1 - share) / len(right))


@EXERCISE.mistake("two-samples")
def unpooled(right, other):
    variances = [net.mean() * (1 - net.mean()) for net in (right, other)]
    return (right.mean() - other.mean()) / np.sqrt(sum(variances) / len(right))


@EXERCISE.mistake(
    "paired-t",
    "You divide the mean difference by its standard error. That is a fair paired test. McNemar's z takes the "
    "variance that holds if both nets are equally good, `b + c`.",
)
def standard_error(right, other):
    d = right.astype(float) - other
    return d.mean() / (d.std() / np.sqrt(len(d)))


@EXERCISE.mistake("paired-t")
def standard_error_unbiased(right, other):
    d = right.astype(float) - other
    return d.mean() / (d.std(ddof=1) / np.sqrt(len(d)))


@EXERCISE.mistake(
    "continuity",
    "You subtract 1 from the difference, the correction for continuity. It makes z smaller. Here it is left out; the "
    "exact binomial test needs none.",
)
def corrected(right, other):
    b, c = _counts(right, other)
    return np.sign(b - c) * (abs(b - c) - 1) / np.sqrt(b + c)


@EXERCISE.mistake("continuity")
def corrected_size(right, other):
    return abs(corrected(right, other))


@EXERCISE.mistake(
    "squared", "Your number is z squared, which is compared with a chi-squared distribution. Its sign is lost."
)
def chi_squared(right, other):
    return _reference(right, other) ** 2


@EXERCISE.mistake("squared")
def chi_squared_corrected(right, other):
    return corrected(right, other) ** 2


@EXERCISE.mistake(
    "sign-turned", "Your z is positive where the *second* net is better. Take the first minus the second."
)
def turned(right, other):
    return -_reference(right, other)


@EXERCISE.mistake(
    "sign-lost", "Your z has no sign. It should say which net is better: `b - c`, not its absolute value."
)
def size_only(right, other):
    return abs(_reference(right, other))


@EXERCISE.mistake(
    "all-images",
    "You divide by the root of the number of all images. Those that both have right, or both wrong, toss no coin: "
    "divide by the root of `b + c`.",
)
def root_of_all(right, other):
    b, c = _counts(right, other)
    return (b - c) / np.sqrt(len(right))


@EXERCISE.mistake(
    "no-root",
    "You divide by `b + c`. The sum of that many fair coins, each +1 or -1, has the standard deviation "
    "`np.sqrt(b + c)`.",
)
def a_share(right, other):
    b, c = _counts(right, other)
    return (b - c) / (b + c)


@EXERCISE.mistake(
    "fair-coin-counted-from-zero",
    "You count heads, `b`, and divide by a standard deviation that belongs to b - c. Heads have the mean (b + c) / 2 "
    "and the standard deviation sqrt(b + c) / 2.",
)
def half(right, other):
    b, c = _counts(right, other)
    return (b - (b + c) / 2) / np.sqrt(b + c)


@EXERCISE.mistake(
    "agreements",
    "You compare the images that both nets have right with those that both have wrong. They say how hard the images "
    "are, and nothing about which net is better.",
)
def both(right, other):
    a, d = int((right & other).sum()), int((~right & ~other).sum())
    return (a - d) / np.sqrt(a + d)
