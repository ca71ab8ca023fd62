"""The exercise ``paired-ratio``: how many times the steps one arm takes, paired by seed."""

import numpy as np

from .exercise import Case, Exercise


def _cases():
    def case(slow, fast):
        return Case((np.array(slow), np.array(fast)), tolerance=1e-4)  # float32 is precise enough

    return [
        case([4000.0, 900, 2500], [500.0, 300, 1250]),  # ratios 8, 3, 2
        case([700.0, 2000, 150, 1800], [1400.0, 500, 300, 200]),  # in two seeds the "fast" arm is the slower one
        case([12300, 9800, 31000, 15400, 8700], [900, 2100, 1000, 700, 3900]),  # whole numbers, as steps are
    ]


def as_float(value):
    """Numbers as float64, for integers and float32 are welcome too. What is no number is left for the checker."""
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        return np.array(None)
    return array.astype(float) if array.dtype.kind in "fiu" else array


def _reference(slow, fast):
    return np.exp(np.mean(np.log(slow / fast)))


EXERCISE = Exercise(
    name="paired-ratio",
    usage="ratio = my_ratio(slow, fast)",
    inputs=("slow", "fast"),
    outputs=("ratio",),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, slow, fast: [as_float(answer(slow, fast))],
)


@EXERCISE.mistake(
    "ratio-of-averages",
    "You average each arm first and divide the averages. The runs are paired by seed: compare the two runs of a seed "
    "first, then average over the seeds.",
)
def ratio_of_means(slow, fast):
    return slow.mean() / fast.mean()


@EXERCISE.mistake("ratio-of-averages")
def ratio_of_medians(slow, fast):
    return np.median(slow) / np.median(fast)


@EXERCISE.mistake(
    "arithmetic-mean",
    "You take the arithmetic mean of the ratios. Try 2 and 1/2, a draw: your mean says 1.25, whichever arm "
    "is on top. Which mean of the two is 1?",
)
def arithmetic_mean(slow, fast):
    return np.mean(slow / fast)


@EXERCISE.mistake(
    "harmonic-mean",
    "Your number is the harmonic mean of the ratios, the inverse of the mean of `fast / slow`. Try the ratios 2 and "
    "1/2, a draw: yours is 0.8. Which mean of the two is 1?",
)
def harmonic_mean(slow, fast):
    return 1 / np.mean(fast / slow)


@EXERCISE.mistake(
    "median",
    "You take the median of the ratios. It is a fair summary, but here each seed is to count by the size of its "
    "ratio: a mean is asked for, and one that treats 2 and 1/2 alike.",
)
def median(slow, fast):
    return np.median(slow / fast)


@EXERCISE.mistake("median")
def median_of_logs(slow, fast):
    return np.exp(np.median(np.log(slow / fast)))


@EXERCISE.mistake(
    "upside-down",
    "Your ratio is upside down: it gets smaller the slower `slow` is. Asked for is how many times the steps of "
    "`fast` the other arm takes.",
)
def upside_down(slow, fast):
    return _reference(fast, slow)


@EXERCISE.mistake("upside-down")
def upside_down_arithmetic(slow, fast):
    return np.mean(fast / slow)


@EXERCISE.mistake("upside-down")
def upside_down_averages(slow, fast):
    return fast.mean() / slow.mean()


# Sorting both arms leaves the geometric mean as it is, so it is seen only beside another mean.
@EXERCISE.mistake(
    "unpaired",
    "You do not pair the runs by seed. Entry i of both arrays is of the same seed. Compare it with that one "
    "only, and leave the order as it is.",
)
def sorted_arithmetic(slow, fast):
    return np.mean(np.sort(slow) / np.sort(fast))


@EXERCISE.mistake("unpaired")
def sorted_median(slow, fast):
    return np.median(np.sort(slow) / np.sort(fast))


@EXERCISE.mistake("unpaired")
def sorted_harmonic(slow, fast):
    return 1 / np.mean(np.sort(fast) / np.sort(slow))


@EXERCISE.mistake("unpaired")
def all_pairs(slow, fast):
    return np.mean(slow[:, None] / fast)


@EXERCISE.mistake(
    "log-returned",
    "You return the mean of the logarithms. It is 0 where the arms are level; a ratio is 1 there. A step back from "
    "logarithms to ratios is missing.",
)
def log_returned(slow, fast):
    return np.mean(np.log(slow / fast))


@EXERCISE.mistake(
    "bases-mixed",
    "You take logarithms to one base and go back with another. Look at the base of each function.",
)
def exp_of_log10(slow, fast):
    return np.exp(np.mean(np.log10(slow / fast)))


@EXERCISE.mistake("bases-mixed")
def exp_of_log2(slow, fast):
    return np.exp(np.mean(np.log2(slow / fast)))


@EXERCISE.mistake("bases-mixed")
def power_of_ten_of_log(slow, fast):
    return 10 ** np.mean(np.log(slow / fast))


@EXERCISE.mistake(
    "root-forgotten",
    "You multiply the ratios, or add up their logarithms, and stop there. With more seeds your number gets ever "
    "larger: the number of seeds has to come in.",
)
def product(slow, fast):
    return np.prod(slow / fast)


@EXERCISE.mistake(
    "wrong-root",
    "You take the square root of the product of the ratios. That is a mean for two seeds only: which root belongs to "
    "n seeds?",
)
def square_root(slow, fast):
    return np.sqrt(np.prod(slow / fast))


@EXERCISE.mistake(
    "product-overflows",
    "Your function is right for few seeds. The product of five whole numbers of steps does not fit into 64 bits, "
    "and NumPy says nothing. Divide before you multiply, or work with logarithms.",
)
def product_overflows(slow, fast):
    return (np.prod(slow) / np.prod(fast)) ** (1 / len(slow))


@EXERCISE.mistake(
    "one-seed",
    "You return the ratio of one seed, the largest or the smallest. All seeds are to count.",
)
def largest_ratio(slow, fast):
    return np.max(slow / fast)


@EXERCISE.mistake("one-seed")
def smallest_ratio(slow, fast):
    return np.min(slow / fast)


@EXERCISE.mistake(
    "difference",
    "You subtract the steps. Asked for is how many times the steps one arm takes: divide, seed by seed.",
)
def difference(slow, fast):
    return np.mean(slow - fast)


@EXERCISE.mistake(
    "not-averaged",
    "You return one value per seed. Asked for is one number for all seeds: a mean of the ratios. Which one, if 2 and "
    "1/2 are to cancel?",
)
def not_averaged(slow, fast):
    return slow / fast
