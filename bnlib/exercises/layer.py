"""The exercise ``batchnorm-layer``; here its wrong versions in shapes, eps, parameters and gradients."""

import numpy as np

from .layer_statistics import EXERCISE
from .layer_steps import Steps


@EXERCISE.mistake(
    "conv-unsupported",
    "Your layer is right for (N, C) and raises an error for (N, C, H, W). Take statistics and sums over the axes "
    "(0, 2, 3), and reshape vectors of shape (C,) to (1, C, 1, 1) before they meet `x`.",
)
class ConvRaises(Steps):
    def axes(self, x):
        if x.ndim > 2:
            raise ValueError(f"expected (N, C), got {x.shape}")
        return 0


@EXERCISE.mistake(
    "images-only",
    "Your layer raises an error for (N, C). Let the axes depend on the input, `axes = (0, *range(2, x.ndim))`: the "
    "same layer then serves units, sequences and images.",
)
class ImagesOnly(Steps):
    def axes(self, x):
        if x.ndim < 4:
            raise ValueError(f"expected (N, C, H, W), got {x.shape}")
        return 0, 2, 3


@EXERCISE.mistake(
    "eps-outside-root", "You add `eps` to the standard deviation. It belongs inside the root: `sqrt(var + eps)`."
)
class EpsOutside(Steps):
    def rooted(self, var, training):
        return np.sqrt(var) + self.eps


@EXERCISE.mistake(
    "eps-forgotten", "`eps` is missing. Divide by `sqrt(var + eps)`, in training, in evaluation and in the gradient."
)
class NoEps(Steps):
    def rooted(self, var, training):
        return np.sqrt(var)


@EXERCISE.mistake("eps-forgotten")
class NoEpsInEvaluation(Steps):
    def rooted(self, var, training):
        return np.sqrt(var + self.eps * training)


@EXERCISE.mistake(
    "parameters-not-read",
    "Your layer computes with a copy of `gamma` and `beta`. The optimizer changes the arrays in `params`: read "
    "`self.params` in each pass.",
)
class ParametersNotRead(Steps):
    def parameter(self, name):
        return np.ones_like(self.params[name]) * (name == "gamma")


@EXERCISE.mistake(
    "gamma-forgotten-in-dx",
    "`gamma` is missing in your `dx`. It shows from the second step on, when `gamma` is no longer 1: the gradient "
    "passes `y = gamma * x_hat + beta` first.",
)
class NoGammaInDx(Steps):
    def scale(self, dy):
        return 1.0


@EXERCISE.mistake(
    "gradients-accumulated",
    "Your `grads` grow from step to step. `backward` replaces them: `self.grads[name] = ...`, not `+=`. PyTorch does "
    "accumulate, and therefore needs `zero_grad`.",
)
class Accumulated(Steps):
    def enter(self, grads):
        self.grads = {name: self.grads[name] + grad for name, grad in grads.items()}


@EXERCISE.mistake(
    "gradients-averaged",
    "Your `grads` are means over the batch. `gamma` and `beta` act on each of the m values, and the gradients of all "
    "these uses add up. The division of the loss is already in `dy`.",
)
class Averaged(Steps):
    def enter(self, grads):
        self.grads = {name: grad / self.m for name, grad in grads.items()}


@EXERCISE.mistake(
    "statistics-as-constants",
    "Your `dx` treats a statistic of the batch as a constant. `x` acts through `mu` and through `var` as well: take "
    "off `mean(dy)` and `x_hat * mean(dy * x_hat)`.",
)
class Constants(Steps):
    def mean_path(self, term):
        return 0 * term

    def variance_path(self, term):
        return 0 * term


@EXERCISE.mistake("statistics-as-constants")
class ConstantVariance(Steps):
    def variance_path(self, term):
        return 0 * term


@EXERCISE.mistake("statistics-as-constants")
class ConstantMean(Steps):
    def mean_path(self, term):
        return 0 * term


@EXERCISE.mistake(
    "batch-size-in-dx",
    "On (N, C, H, W) your `dx` divides by the batch size N. The statistics are means over m = N * H * W values: so "
    "are the two terms that `dx` takes off.",
)
class BatchSizeInDx(Steps):
    def mean_path(self, term):
        return term * self.m / self.samples

    variance_path = mean_path
