"""The exercise ``running-statistics``: moving averages of the batch mean and the unbiased batch variance."""

import numpy as np

from ..scratch.batchnorm import RunningStatistics
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(3)
    six = np.array([[3.0], [8], [9], [11], [14], [15]])
    flat = tuple(rng.normal([2, -5], [1, 3], (n, 2)) for n in (6, 9, 4))
    conv = tuple(rng.normal(1, 2, (n, 3, 2, 5)) * np.array([1, 0.2, 3]).reshape(1, 3, 1, 1) for n in (4, 3))
    return [Case((0.1, (six,))), Case((0.1, flat)), Case((0.3, conv)), Case((None, flat))]


def _run(answer, momentum, batches):
    statistics = answer(momentum)
    for x in batches:
        statistics.update(x)
    return statistics.mean, statistics.var, float(getattr(statistics, "count", 0))


EXERCISE = Exercise(
    name="running-statistics",
    usage="s = RunningStatistics(momentum); s.update(x); s.mean, s.var, s.count",
    inputs=("momentum", "batches"),
    outputs=("mean", "var", "count"),
    reference=RunningStatistics,
    cases=_cases(),
    run=_run,
)


class _Running:
    """A right version in small steps; each wrong version below changes one of them."""

    first_var = 1.0

    def __init__(self, momentum):
        self.momentum, self.batches, self.count = momentum, 0, 0
        self.mean, self.var = 0.0, self.first_var

    def axes(self, x):
        return (0, *range(2, x.ndim))

    def moments(self, x):
        m = x.size // x.shape[1]
        return x.mean(self.axes(x)), self.spread(x.var(self.axes(x)), m, len(x))

    def spread(self, var, m, n):
        return var * m / (m - 1)

    def new(self, x):
        return 1 / self.batches if self.momentum is None else self.momentum

    def update(self, x):
        self.batches += 1
        mu, var = self.moments(x)
        new = self.new(x)
        self.mean = (1 - new) * self.mean + new * mu
        self.var = (1 - new) * self.var + new * var
        self.count = self.counted(x)

    def counted(self, x):
        return self.batches


@EXERCISE.mistake(
    "biased-variance",
    "Your running variance takes in the biased batch variance, divided by m. Inference estimates the variance of the "
    "population: multiply the batch variance by m / (m - 1) before you average it.",
)
class Biased(_Running):
    def spread(self, var, m, n):
        return var


@EXERCISE.mistake(
    "wrong-correction",
    "Your correction of the variance is upside down. The biased variance is too small, so it is multiplied by "
    "m / (m - 1), which is larger than 1.",
)
class UpsideDown(_Running):
    def spread(self, var, m, n):
        return var * (m - 1) / m


@EXERCISE.mistake(
    "corrected-twice", "You apply m / (m - 1) twice: a variance with `ddof=1` or `correction=1` is already unbiased."
)
class CorrectedTwice(_Running):
    def spread(self, var, m, n):
        return var * (m / (m - 1)) ** 2


@EXERCISE.mistake(
    "batch-size-for-m",
    "On (N, C, H, W) input your correction uses the batch size N. A channel holds m = N * H * W values: the factor "
    "is m / (m - 1).",
)
class BatchSize(_Running):
    def spread(self, var, m, n):
        return var * n / (n - 1)


@EXERCISE.mistake(
    "standard-deviation-stored",
    "You average standard deviations. Average variances, and take the root when you normalize: the mean of roots is "
    "not the root of the mean.",
)
class Deviation(_Running):
    def spread(self, var, m, n):
        return np.sqrt(var * m / (m - 1))


@EXERCISE.mistake("standard-deviation-stored")
class BiasedDeviation(_Running):
    def spread(self, var, m, n):
        return np.sqrt(var)


@EXERCISE.mistake(
    "momentum-reversed",
    "You keep `momentum` of the old value. Here `momentum` is the weight of the *new* batch, as in PyTorch: "
    "`mean = (1 - momentum) * mean + momentum * mu`.",
)
class Reversed(_Running):
    def new(self, x):
        return 1 - super().new(x)


@EXERCISE.mistake("momentum-reversed")
class ReversedUnlessNone(_Running):
    def new(self, x):
        return super().new(x) if self.momentum is None else 1 - self.momentum


@EXERCISE.mistake(
    "momentum-hard-coded",
    "You give the new batch the weight 0.1 whatever `momentum` says. Keep the argument and use it.",
)
class HardCoded(_Running):
    def new(self, x):
        return super().new(x) if self.momentum is None else 0.1


@EXERCISE.mistake(
    "first-batch-copied",
    "You start from the statistics of the first batch. Start from mean 0 and variance 1, and average the first batch "
    "in like the others, as `torch.nn.BatchNorm` does.",
)
class FirstCopied(_Running):
    def new(self, x):
        return 1 if self.batches == 1 else super().new(x)


@EXERCISE.mistake(
    "variance-starts-at-zero",
    "Your running variance starts at 0. Start it at 1, so "
    "that a layer that has seen no batch leaves its input as it is.",
)
class FromZero(_Running):
    first_var = 0.0


@EXERCISE.mistake(
    "not-averaged",
    "You keep the statistics of the last batch only. The running statistics are moving averages: the old value keeps "
    "the weight 1 - momentum.",
)
class LastBatch(_Running):
    def new(self, x):
        return 1


@EXERCISE.mistake(
    "momentum-none-unsupported",
    "Your class is right with a number as `momentum`, but not with None. None asks for the plain average of all "
    "batches so far: the k-th batch gets the weight 1 / k.",
)
class NoneRaises(_Running):
    def new(self, x):
        return 1 * self.momentum


@EXERCISE.mistake("momentum-none-unsupported")
class NoneIgnored(_Running):
    def new(self, x):
        return 0.1 if self.momentum is None else self.momentum


@EXERCISE.mistake("momentum-none-unsupported")
class NoneKeepsLast(_Running):
    def new(self, x):
        return 1 if self.momentum is None else self.momentum


@EXERCISE.mistake(
    "none-counts-samples",
    "With `momentum=None` you weight each batch by its size. None gives the plain average over batches: the k-th "
    "batch gets the weight 1 / k, large or small.",
)
class Samples(_Running):
    seen = 0

    def new(self, x):
        self.seen += len(x)
        return len(x) / self.seen if self.momentum is None else self.momentum


@EXERCISE.mistake(
    "count-not-kept",
    "Your `count` is not the number of batches seen. Start it at 0 and add 1 in each `update`: with `momentum=None` "
    "the weight of a batch depends on it.",
)
class NotCounted(_Running):
    def counted(self, x):
        return 0


@EXERCISE.mistake("count-not-kept")
class DividesByZero(NotCounted):
    def new(self, x):
        return 1 / self.count if self.momentum is None else self.momentum


@EXERCISE.mistake("count-not-kept")
class CountsSamples(_Running):
    def counted(self, x):
        return self.count + len(x)


@EXERCISE.mistake(
    "conv-unsupported",
    "Your class is right on (N, C) input and not on (N, C, H, W). Take mean and variance of each channel over the "
    "axes 0, 2 and 3: both keep the shape (C,).",
)
class BatchAxisOnly(_Running):
    def axes(self, x):
        return 0


@EXERCISE.mistake("conv-unsupported")
class ConvRaises(_Running):
    def axes(self, x):
        if x.ndim > 2:
            raise ValueError(f"expected (N, C), got {x.shape}")
        return 0
