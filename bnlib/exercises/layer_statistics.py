"""Wrong versions of ``batchnorm-layer``: which statistics it takes, keeps and uses."""

import numpy as np

from .layer_steps import EXERCISE, Steps


@EXERCISE.mistake(
    "evaluation-uses-batch",
    "In evaluation your layer still uses the statistics of the batch. With `training=False` take the running mean "
    "and the running variance: a sample then has one output, whatever the other samples of the batch are.",
)
class EvaluationUsesBatch(Steps):
    def chosen(self, mu, var, x, training):
        return mu, var


@EXERCISE.mistake("evaluation-uses-batch")
class EvaluationIsTraining(Steps):
    def forward(self, x, training=True):
        return super().forward(x, True)


@EXERCISE.mistake(
    "updated-in-evaluation",
    "Your running statistics change in evaluation too. Only a forward pass with `training=True` may update them: "
    "otherwise the output for one image depends on the images that were shown before.",
)
class UpdatedBeforeUse(Steps):
    def chosen(self, mu, var, x, training):
        if not training:
            self.learn(mu, var, x)
        return super().chosen(mu, var, x, training)


@EXERCISE.mistake("updated-in-evaluation")
class UpdatedAfterUse(Steps):
    def chosen(self, mu, var, x, training):
        statistics = super().chosen(mu, var, x, training)
        if not training:
            self.learn(mu, var, x)
        return statistics


@EXERCISE.mistake(
    "biased-running-variance",
    "Your running variance takes in the biased variance. It estimates the variance of the population: multiply by "
    "m / (m - 1) before you average it, with m = N * H * W. The normalization itself stays biased.",
)
class BiasedRunning(Steps):
    def stored(self, var, x):
        return var


@EXERCISE.mistake(
    "batch-size-for-m",
    "On (N, C, H, W) your running variance is corrected with the batch size N. A feature map holds m = N * H * W "
    "values: the factor is m / (m - 1).",
)
class BatchSizeInCorrection(Steps):
    def stored(self, var, x):
        return var * len(x) / (len(x) - 1)


@EXERCISE.mistake(
    "unbiased-normalization",
    "You normalize with the unbiased variance. In training divide by the root of the biased one, so that the outputs "
    "of this batch have variance 1. Only the running variance takes in the unbiased one.",
)
class UnbiasedNormalization(Steps):
    def normalizing(self, var, x, training):
        m = x.size // x.shape[1]
        self.correction = m / (m - 1) if training else 1
        return var * self.correction

    def variance_path(self, term):  # the gradient of what it computes
        return term * self.correction


@EXERCISE.mistake("unbiased-normalization")
class UnbiasedWithTheUsualGradient(UnbiasedNormalization):
    variance_path = Steps.variance_path


@EXERCISE.mistake(
    "momentum-reversed",
    "You give the weight `momentum` to the old value. Here it is the weight of the new batch, as in PyTorch: "
    "`running = (1 - momentum) * running + momentum * new`.",
)
class MomentumReversed(Steps):
    def new(self):
        return 1 - self.momentum


@EXERCISE.mistake(
    "momentum-ignored", "Your running statistics move by 0.1 whatever `momentum` says. Keep the argument and use it."
)
class MomentumIgnored(Steps):
    def new(self):
        return 0.1


@EXERCISE.mistake(
    "last-batch-only",
    "Your layer keeps the statistics of the last batch. Running statistics are moving averages: the old value keeps "
    "the weight 1 - momentum.",
)
class LastBatchOnly(Steps):
    def new(self):
        return 1


@EXERCISE.mistake(
    "variance-starts-at-zero",
    "Your running variance starts at 0. Start it at 1 and the running mean at 0, as `torch.nn.BatchNorm2d` does.",
)
class VarianceFromZero(Steps):
    first_var = 0.0


@EXERCISE.mistake(
    "per-activation",
    "On (N, C, H, W) your layer has a mean for each position. All positions of a feature map share one mean and one "
    "variance: take both over the axes 0, 2 and 3.",
)
class PerActivation(Steps):
    def axes(self, x):
        return 0

    def learn(self, mu, var, x):
        if self.running_mean.size != mu.size:
            self.running_mean, self.running_var = np.zeros(mu.size), np.ones(mu.size)
        super().learn(mu, var, x)

    def count(self, x):
        return len(x)

    def wide(self, v, x):
        return v.reshape(1, *x.shape[1:]) if v.size == x[0].size else super().wide(v, x)

    def of_channel(self, total, dy):
        return total.reshape(dy.shape[1], -1).sum(1)


@EXERCISE.mistake(
    "averaged-over-channels",
    "Your mean runs over the channels too. Each channel has its own mean and variance: axis 1 is the one axis that "
    "you leave out.",
)
class OneMeanForAll(Steps):
    def axes(self, x):
        return tuple(range(x.ndim))

    def kept(self, v, x):
        return np.full(x.shape[1], v.ravel())


@EXERCISE.mistake(
    "channels-last",
    "You take the last axis for the channels. Here they are axis 1, as in PyTorch; in Keras they are the last one. "
    "Where a map has as many columns as there are channels, no error is raised.",
)
class ChannelsLast(Steps):
    def forward(self, x, training=True):
        return np.moveaxis(super().forward(np.moveaxis(x, -1, 1), training), 1, -1)

    def backward(self, dy):
        return np.moveaxis(super().backward(np.moveaxis(dy, -1, 1)), 1, -1)
