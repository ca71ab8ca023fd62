"""The exercise ``population-statistics``: average the statistics of several batches, weights at rest."""

import numpy as np

from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(5)

    def batches(*sizes, places=()):
        """The batches differ in mean and in spread, as those of a net do."""
        shapes = [(n, 3, *places) for n in sizes]
        mean = np.array([1.0, -4, 0.5]).reshape(3, *[1] * len(places))
        sd = np.array([1.0, 3, 0.2]).reshape(3, *[1] * len(places))
        return Case(([mean + sd * rng.normal(rng.normal(), rng.uniform(0.5, 2), shape) for shape in shapes],))

    six = np.array([[3.0, 15], [8, 14], [9, 11], [11, 9], [14, 8], [15, 3]])
    return [
        Case(([six[:3], six[3:]],)),
        batches(6, 6, 6),
        batches(9, 9, 4),  # the last batch of an epoch is smaller
        batches(3, 3, 3, 3),  # as many samples as channels: the wrong axis still fits
        batches(4, 4, 3, places=(2, 5)),
    ]


class _Average:
    """A right version in small steps; each wrong version below changes one of them."""

    def axes(self, x):
        return (0, *range(2, x.ndim))

    def weight(self, x):
        return x.size // x.shape[1]

    def weight_of_var(self, x):
        return self.weight(x)

    def var(self, x):
        return x.var(self.axes(x), ddof=1)

    def end(self, var, batches):
        return var

    def __call__(self, batches):
        weights, of_var = [self.weight(x) for x in batches], [self.weight_of_var(x) for x in batches]
        mean = sum(w * x.mean(self.axes(x)) for w, x in zip(weights, batches, strict=True)) / sum(weights)
        var = sum(w * self.var(x) for w, x in zip(of_var, batches, strict=True)) / sum(of_var)
        return mean, self.end(var, batches)


EXERCISE = Exercise(
    name="population-statistics",
    usage="mean, var = my_population(batches)",
    inputs=("batches",),
    outputs=("mean", "var"),
    reference=_Average(),
    cases=_cases(),
)


def _mistake(slug, message=None):
    """Enter an instance of the class: an answer is called with the batches."""
    enter = EXERCISE.mistake(slug, message)

    def decorate(kind):
        version = kind()
        version.__name__ = kind.__name__
        enter(version)
        return kind

    return decorate


@_mistake(
    "biased-variance",
    "You average the biased batch variances, divided by m. Each is too small by the factor (m - 1) / m on average: "
    "multiply it by m / (m - 1) first.",
)
class Biased(_Average):
    def var(self, x):
        return x.var(self.axes(x))


@_mistake(
    "corrected-twice", "You apply m / (m - 1) twice: a variance with `ddof=1` or `correction=1` is already unbiased."
)
class CorrectedTwice(_Average):
    def var(self, x):
        m = self.weight(x)
        return x.var(self.axes(x), ddof=1) * m / (m - 1)


@_mistake(
    "corrected-at-the-end",
    "You correct the averaged variance once, with the number of all values. Each variance was taken around the mean "
    "of its own batch: correct each with its own m.",
)
class CorrectedAtTheEnd(Biased):
    def end(self, var, batches):
        m = sum(map(self.weight, batches))
        return var * m / (m - 1)


@_mistake(
    "batch-size-for-m",
    "On (N, C, H, W) input your correction uses the batch size N. A channel holds m = N * H * W values: the factor "
    "is m / (m - 1).",
)
class BatchSize(_Average):
    def var(self, x):
        return x.var(self.axes(x)) * len(x) / (len(x) - 1)


@_mistake(
    "standard-deviations-averaged",
    "You average standard deviations. Average variances, and let the layer take the root: the mean of roots is "
    "smaller than the root of the mean.",
)
class MeanOfRoots(_Average):
    def var(self, x):
        return x.std(self.axes(x), ddof=1)


@_mistake("standard-deviations-averaged")
class MeanOfBiasedRoots(_Average):
    def var(self, x):
        return x.std(self.axes(x))


@_mistake(
    "standard-deviation-returned", "You return the standard deviation. Return the variance: the layer takes the root."
)
class RootOfMean(_Average):
    def end(self, var, batches):
        return np.sqrt(var)


@_mistake(
    "variance-of-means",
    "Your `var` is the variance of the batch means. It says how far the batches differ from each other. Wanted is "
    "the average of the variances inside the batches.",
)
class BetweenBatches(_Average):
    ddof = 0

    def end(self, var, batches):
        return np.var([x.mean(self.axes(x)) for x in batches], axis=0, ddof=self.ddof)


@_mistake("variance-of-means")
class BetweenBatchesUnbiased(BetweenBatches):
    ddof = 1


@_mistake(
    "all-values-together",
    "You take the variance of all values together, around one mean. That estimates the population too, but it needs "
    "all values at once. Algorithm 2 averages the variances of the batches, each around its own mean.",
)
class Together(_Average):
    ddof = 1

    def end(self, var, batches):
        values = np.concatenate(batches)
        return values.var(self.axes(values), ddof=self.ddof)


@_mistake("all-values-together")
class TogetherBiased(Together):
    ddof = 0


@_mistake(
    "batches-weighted-equally",
    "You give each batch the same weight, and the last one is smaller. Its few values then count more than others: "
    "weight each batch by its number of values m, and divide by the sum of the weights.",
)
class Equal(_Average):
    def weight(self, x):
        return 1


@_mistake(
    "weighted-by-m-minus-1",
    "You weight the variances by m - 1. That is the pooled variance of statistics, a good estimate too. This "
    "exercise asks for the weight m in both averages.",
)
class Pooled(_Average):
    def weight_of_var(self, x):
        return self.weight(x) - 1


@_mistake(
    "moving-average",
    "You keep a moving average, in which early batches fade. Here the weights of the net stand still, so all batches "
    "tell of the same net: average them evenly, by their number of values.",
)
class Moving:
    first, momentum = False, 0.1

    def __call__(self, batches):
        mean, var = 0.0, 1.0
        for k, x in enumerate(batches):
            axes = (0, *range(2, x.ndim))
            new = 1 if self.first and k == 0 else self.momentum
            mean = (1 - new) * mean + new * x.mean(axes)
            var = (1 - new) * var + new * x.var(axes, ddof=1)
        return mean, var


@_mistake("moving-average")
class MovingFromFirst(Moving):
    first = True


@_mistake("not-averaged", "You return the statistics of one batch only. Average over all of them.")
class LastOnly(_Average):
    def __call__(self, batches):
        return super().__call__(batches[-1:])


@_mistake(
    "wrong-axis",
    "You take the statistics along axis 1, which counts the channels. Each channel needs its own: average over the "
    "samples, axis 0, and over the positions.",
)
class PerSample(_Average):
    def axes(self, x):
        return (1, *range(2, x.ndim))


@_mistake(
    "conv-unsupported",
    "Your function is right on (N, C) batches and not on (N, C, H, W). Take mean and variance of each channel over "
    "the axes 0, 2 and 3: both keep the shape (C,).",
)
class BatchAxisOnly(_Average):
    def axes(self, x):
        return 0


@_mistake("conv-unsupported")
class ConvRaises(_Average):
    def axes(self, x):
        if x.ndim > 2:
            raise ValueError(f"expected (N, C), got {x.shape}")
        return 0
