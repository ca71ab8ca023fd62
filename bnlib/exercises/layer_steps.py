"""The exercise ``batchnorm-layer``: a whole layer, trained for three steps and then used.

Its wrong versions are in `layer_statistics` (which statistics, and when) and `layer` (everything else).
"""

import numpy as np

from ..scratch.layers import BatchNorm
from ..scratch.network import Sequential
from ..scratch.optimizers import SGD
from .comparing import as_float
from .exercise import Case, Exercise

SIZES, RATE = (6, 4, 5), 0.1  # of the training batches, one step each; of the steps


def _cases():
    rng = np.random.default_rng(7)

    def case(*shape, eps=1e-5, momentum=0.1, spread=1.0):
        """Batches of three sizes; a mean and a spread of its own for each channel, and a trend over positions."""
        wide = (1, shape[0], *[1] * (len(shape) - 1))
        mean, sd = rng.normal(1, 2, wide) * spread, rng.uniform(0.4, 2, wide) * spread
        trend = np.linspace(0, 1.5, np.prod(shape[1:], dtype=int)).reshape(1, 1, *shape[1:])

        def values(n):
            return mean + sd * (rng.normal(size=(n, *shape)) + trend)

        # dy with a mean, and large enough that gamma and beta leave 1 and 0
        training = tuple((values(n), rng.normal(0.5, 1, (n, *shape))) for n in SIZES)
        return Case((shape[0], eps, momentum, training, values(7)), tolerance=1e-5)  # parameters may be float32

    return [
        case(1),
        case(3, eps=1e-3, momentum=0.3),
        case(3, 2, 5),
        case(3, 3, 3),  # a cube: statistics along a wrong axis still fit
        case(2, 4, spread=3e-3),  # sequences, variances near eps
    ]


def _run(answer, channels, eps, momentum, training, evaluation):
    layer = answer(channels, eps, momentum)
    outputs = [np.concatenate([_entry(layer, "params", name).ravel() for name in ("gamma", "beta")])]
    for x, dy in training:
        for result in (layer.forward(x, True), layer.backward(dy)):
            outputs.append(as_float(result).copy())  # the layer may go on to work on its own array
        for name in ("gamma", "beta"):
            outputs.append(_entry(layer, "grads", name).copy())
            shapes = outputs[-1].shape, _entry(layer, "params", name).shape
            if shapes[0] != shapes[1]:
                raise ValueError(f"`grads[{name!r}]` has shape {shapes[0]}, `params[{name!r}]` has {shapes[1]}")
        SGD(RATE).step(Sequential([layer]))
    outputs += [as_float(layer.forward(x, False)) for x in (evaluation, evaluation[:2])]
    return [*outputs, *(np.ravel(as_float(getattr(layer, name))) for name in ("running_mean", "running_var"))]


def _entry(layer, kind, name):
    """An array of `layer.params` or `layer.grads`, as float64."""
    entries = getattr(layer, kind, {})
    if not isinstance(entries, dict) or name not in entries:
        raise ValueError(f"your layer has no `{kind}[{name!r}]`")
    return as_float(entries[name])


class Reference(BatchNorm):
    """Our layer, with the two running statistics under the names of the exercise."""

    running_mean = property(lambda self: self.running.mean)
    running_var = property(lambda self: self.running.var)


EXERCISE = Exercise(
    name="batchnorm-layer",
    usage="layer = MyBatchNorm(channels, eps, momentum); layer.forward(x, training); layer.backward(dy)",
    inputs=("channels", "eps", "momentum", "training", "evaluation"),
    outputs=(
        "gamma_and_beta_at_start",
        *(f"step_{t}.{name}" for t in range(1, len(SIZES) + 1) for name in ("y", "dx", "dgamma", "dbeta")),
        *("evaluation.y", "two_samples.y", "running_mean", "running_var"),
    ),
    reference=Reference,
    cases=_cases(),
    run=_run,
)


class Steps:
    """A right version in small steps; each wrong version changes one. Statistics have axes until they are stored."""

    first_var = 1.0

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        self.eps, self.momentum = eps, momentum
        self.params = {"gamma": np.ones(channels), "beta": np.zeros(channels)}
        self.grads = {"gamma": np.zeros(channels), "beta": np.zeros(channels)}
        self.running_mean, self.running_var = np.zeros(channels), np.full(channels, self.first_var)

    def axes(self, x):
        return (0, *range(2, x.ndim))

    def count(self, x):
        return x.size // x.shape[1]

    def wide(self, v, x):
        return v.reshape(1, -1, *[1] * (x.ndim - 2))

    def forward(self, x, training=True):
        mu, var = x.mean(self.axes(x), keepdims=True), x.var(self.axes(x), keepdims=True)
        if training:
            self.learn(mu, var, x)
        mu, var = self.chosen(mu, var, x, training)
        self.root = self.rooted(self.normalizing(var, x, training), training)
        self.x_hat = (x - mu) / self.root
        return self.wide(self.parameter("gamma"), x) * self.x_hat + self.wide(self.parameter("beta"), x)

    def chosen(self, mu, var, x, training):
        return (mu, var) if training else (self.wide(self.running_mean, x), self.wide(self.running_var, x))

    def normalizing(self, var, x, training):
        return var

    def rooted(self, var, training):
        return np.sqrt(var + self.eps)

    def parameter(self, name):
        return self.params[name]

    def learn(self, mu, var, x):
        new = self.new()
        self.running_mean = (1 - new) * self.running_mean + new * self.kept(mu, x)
        self.running_var = (1 - new) * self.running_var + new * self.kept(self.stored(var, x), x)

    def new(self):
        return self.momentum

    def stored(self, var, x):
        return var * self.count(x) / (self.count(x) - 1)

    def kept(self, v, x):
        return v.ravel()

    def backward(self, dy):
        self.m, self.samples = self.count(dy), len(dy)
        dbeta, dgamma = (a.sum(self.axes(a), keepdims=True) for a in (dy, dy * self.x_hat))
        self.enter({"beta": self.of_channel(dbeta, dy), "gamma": self.of_channel(dgamma, dy)})
        paths = self.mean_path(dbeta / self.m) + self.x_hat * self.variance_path(dgamma / self.m)
        return self.scale(dy) / self.root * (dy - paths)

    def of_channel(self, total, dy):
        return total.ravel()

    def enter(self, grads):
        self.grads = grads

    def mean_path(self, term):
        return term

    def variance_path(self, term):
        return term

    def scale(self, dy):
        return self.wide(self.parameter("gamma"), dy)
