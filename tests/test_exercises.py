"""The checker accepts what is right, names what it knows, and rejects the rest with the case that fails."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import linalg, stats

from bnlib.exercises import Feedback, check
from bnlib.exercises.attempt import Problem, attempt
from bnlib.exercises.check import EXERCISES, agree, makes
from bnlib.scratch.batchnorm import (
    RunningStatistics,
    batchnorm_backward,
    batchnorm_backward_staged,
    batchnorm_forward,
    batchnorm_inference,
    fold,
)
from bnlib.scratch.gradcheck import scaled_error
from bnlib.scratch.inits import data_dependent, linears

VERSIONS = [
    pytest.param(name, slug, version, id=f"{name}/{slug}/{version.__name__}")
    for name, exercise in EXERCISES.items()
    for slug, mistake in exercise.mistakes.items()
    for version in mistake.versions
]
each_exercise = pytest.mark.parametrize("name", EXERCISES)


def axes_of(x):
    return (0, *range(2, x.ndim))


def along_channels(v, x):
    return v.reshape(1, -1, *[1] * (x.ndim - 2))


def outcomes(exercise, answer, expected):
    return [attempt(exercise, case, answer, right) for case, right in zip(exercise.cases, expected, strict=True)]


def references(exercise):
    return [attempt(exercise, case, exercise.reference) for case in exercise.cases]


# What passes


@each_exercise
def test_reference_passes(name):
    feedback = check(name, EXERCISES[name].reference)
    assert feedback.passed
    assert feedback.mistake is None
    assert f"all {len(EXERCISES[name].cases)} cases" in feedback.message


def forward_channels_last(x, gamma, beta, eps=1e-5):
    """Right, by another way: channels to the end, two passes, plain float32 where x is float32."""
    moved = np.moveaxis(x, 1, -1)
    flat = moved.reshape(-1, x.shape[1])
    var = np.var(flat, axis=0)
    y = (flat - flat.mean(0)) * (gamma / np.sqrt(var + eps)) + beta
    return np.moveaxis(y.reshape(moved.shape), -1, 1), {"var": var}


def backward_staged(dy, cache):
    grads = batchnorm_backward_staged(dy, cache)
    return [grads["dx"], grads["dgamma"], grads["dbeta"]]


def backward_by_projection(dy, cache):
    """Right, by another way: remove from gamma * dy its parts along 1 and x_hat, channel by channel."""
    dx, (dgamma, dbeta) = np.empty_like(dy), np.empty((2, dy.shape[1]))
    for c in range(dy.shape[1]):
        g, h = cache.gamma[c] * dy[:, c].ravel(), cache.x_hat[:, c].ravel()
        dgamma[c], dbeta[c] = np.vdot(dy[:, c], cache.x_hat[:, c]), np.sum(dy[:, c])
        projected = g - g.mean() - h * (g @ h) / g.size
        dx[:, c] = (projected / np.sqrt(cache.var[c] + cache.eps)).reshape(dy[:, c].shape)
    return dx, dgamma, dbeta


class StatisticsAsProperties:
    """Right, by another way: keeps sums, has mean and var as properties."""

    def __init__(self, momentum):
        self.momentum, self.count = momentum, 0
        self._mean, self._var = 0.0, 1.0

    mean = property(lambda self: self._mean)
    var = property(lambda self: self._var)

    def update(self, x):
        self.count += 1
        w = self.momentum if self.momentum is not None else 1 / self.count
        self._mean += w * (x.mean(axes_of(x)) - self._mean)  # in place: earlier readers must have copied
        self._var += w * (x.var(axes_of(x), ddof=1) - self._var)


def population_from_sums(batches):
    """Right, by another way: sums of the values and of the centred squares, channel by channel."""
    mean, var = np.zeros((2, batches[0].shape[1]))
    total = sum(x.size // x.shape[1] for x in batches)
    for x in batches:
        for c in range(x.shape[1]):
            values = x[:, c].ravel()
            mean[c] += values.sum() / total
            squares = ((values - values.mean()) ** 2).sum()
            var[c] += squares * len(values) / (len(values) - 1) / total
    return mean, var


def fold_by_probing(weight, bias, gamma, beta, mean, var, eps=1e-5):
    scale = gamma / np.sqrt(var + eps)
    shift = beta - mean * scale
    return np.einsum("o...,o->o...", weight, scale), shift if bias is None else shift + bias * scale


class LayerAsWritten:
    """A whole layer as a student writes it; the keyword arguments make it wrong."""

    def __init__(self, channels, eps=1e-5, momentum=0.1, dtype=np.float32, **wrong):
        self.params = {"gamma": np.ones(channels, dtype), "beta": np.zeros(channels, dtype)}
        self.grads = {name: np.zeros_like(value) for name, value in self.params.items()}
        self.running_mean, self.running_var = np.zeros(channels), np.ones(channels)
        self.eps, self.momentum, self.wrong = eps, momentum, wrong

    def forward(self, x, training=True):
        axes = self.wrong.get("axes", axes_of)(x)
        mean, var = along_channels(self.running_mean, x), along_channels(self.running_var, x)
        if training or "always_batch" in self.wrong:
            mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
            ddof = self.wrong.get("ddof", 1)
            self.running_mean += self.momentum * (mean.squeeze() - self.running_mean)
            self.running_var += self.momentum * (x.var(axes, ddof=ddof) - self.running_var)
        self.inverse = 1 / np.sqrt(var + self.eps)
        self.x_hat = (x - mean) * self.inverse
        return along_channels(self.params["gamma"], x) * self.x_hat + along_channels(self.params["beta"], x)

    def backward(self, dy):
        axes = self.wrong.get("axes", axes_of)(dy)
        self.grads["gamma"][:] = self.wrong.get("kept", 0) * self.grads["gamma"] + (dy * self.x_hat).sum(axes)
        self.grads["beta"][:] = self.wrong.get("kept", 0) * self.grads["beta"] + dy.sum(axes)
        g = dy if "no_gamma" in self.wrong else dy * along_channels(self.params["gamma"], dy)
        correlation = (g * self.x_hat).mean(axes, keepdims=True)
        return self.inverse * (g - g.mean(axes, keepdims=True) - self.x_hat * correlation)


class LayerFromParts:
    """Right, by another way: our functions put together; running statistics that keep their axes."""

    running_mean = property(lambda self: self.running.mean[None, :, None, None])
    running_var = property(lambda self: list(self.running.var))

    def __init__(self, channels, eps, momentum):
        self.params, self.grads = dict(gamma=np.ones(channels), beta=np.zeros(channels)), {}
        self.running, self.eps = RunningStatistics(momentum, channels), eps

    def forward(self, x, training=True):
        if not training:
            return batchnorm_inference(x, *self.params.values(), self.running.mean, self.running.var, self.eps)
        self.running.update(x)
        y, self.cache = batchnorm_forward(x, *self.params.values(), self.eps)
        return y

    def backward(self, dy):
        dx, self.grads["gamma"], self.grads["beta"] = batchnorm_backward(dy, self.cache)
        return dx


def init_on(size, **options):
    """The reference on a random batch; without a seed of its own it uses the generator the checker hands over."""

    def answer(net, images, rng):
        data_dependent(net, images[rng.choice(len(images), size, **options)])

    return answer


def init_in_two_steps(net, images, rng):
    """Right, by another way: float64 arrays put in the place of the old ones, the mean taken after the scaling."""
    for layer in linears(net)[:-1]:
        place = net.layers.index(layer) + 1
        scale = net.activations(images)[place].astype(float).std(0, ddof=1)
        layer.params["weight"] = (layer.params["weight"].T.astype(float) / scale).T
        layer.params["bias"] = layer.params["bias"] - net.activations(images)[place].mean(0)
    return net  # not looked at


def init_unit_by_unit(net, images, rng):
    batch = images[:512]
    *hidden, _ = linears(net)
    for layer in net.layers:
        if layer in hidden:
            weight, bias = layer.params["weight"], layer.params["bias"]
            for k in range(len(bias)):
                z = batch @ weight[k] + bias[k]
                weight[k] /= z.std() + 1e-8
                bias[k] = (bias[k] - z.mean()) / (z.std() + 1e-8)
        batch = layer.forward(batch)


def ratio_by_loop(slow, fast):
    product = 1.0
    for s, f in zip(slow.tolist(), fast.tolist(), strict=True):
        product *= s / f
    return product ** (1 / len(slow))


def drift_by_loop(p15, p50, p85):
    ranges = [max(column) - min(column) for column in p50.T.tolist()]
    spreads = [sum(row) / len(row) for row in (p85 - p15).T.tolist()]
    return [r / s for r, s in zip(ranges, spreads, strict=True)]


def whiten_by_singular_values(x, eps):
    xc = x - np.mean(x, axis=0)
    left, values, right = np.linalg.svd(xc, full_matrices=False)
    return left * (values / np.sqrt(values**2 / len(x) + eps)) @ right


def whiten_from_the_left(x, eps):
    """Right, by another way: f(X X') X = X f(X' X), so the matrix of the samples may do the work."""
    xc = x - x.mean(0)
    values, vectors = np.linalg.eigh(xc @ xc.T / len(x))
    return vectors @ (vectors.T @ xc / np.sqrt(np.abs(values) + eps)[:, None])


def whiten_by_matrix_root(x, eps):
    cov = np.cov(x.T, bias=True) + eps * np.eye(x.shape[1])
    return np.linalg.solve(linalg.sqrtm(cov), (x - x.mean(0)).T).T


def rates_by_loop(lr, wd, steps):
    rates, rate = [], lr / (1 - lr * wd)
    for _ in range(steps):
        rates.append(rate)
        rate /= (1 - lr * wd) ** 2
    return np.array(rates)


def width_by_loop(rates, accuracies, level):
    best = now = 0
    for value in accuracies.tolist():
        now = now + 1 if value >= level else 0
        best = max(best, now)
    return best * np.log10(rates[-1] / rates[0]) / (len(rates) - 1)


def width_by_text(rates, accuracies, level):
    text = "".join("x" if usable else " " for usable in accuracies >= level)
    return max(map(len, text.split()), default=0) * np.diff(np.log10(rates)).mean()


def clip_as_one_vector(grads, limit):
    vector = np.concatenate([g.ravel() for g in grads])
    vector *= limit / max(limit, np.linalg.norm(vector))
    ends = np.cumsum([g.size for g in grads])[:-1]
    return [part.reshape(g.shape) for part, g in zip(np.split(vector, ends), grads, strict=True)]


def clip_with_a_guard(grads, limit):
    """As PyTorch does it: a small number keeps the division from failing."""
    norm = math.hypot(*(np.linalg.norm(g) for g in grads))
    return tuple(np.float32(min(1, limit / (norm + 1e-6)) * g) for g in grads)


def clip_with(norm):
    """Scale by ``limit`` over this norm where it is above the limit."""
    return lambda grads, limit: [g * limit / norm(grads) if norm(grads) > limit else g for g in grads]


def shrink_by_pairs(layers):
    """Right, by another way: a variance is half the mean squared distance of all pairs of images."""
    signals = [np.mean((z[:, None] - z) ** 2) / 2 for z in layers]
    return [after / before for before, after in itertools.pairwise(signals)]


def group_norm_by_loop(x, gamma, beta, groups, eps):
    """Right, by another way: sample by sample, group by group."""
    y, width = np.empty_like(x), x.shape[1] // groups
    for n, g in itertools.product(range(len(x)), range(groups)):
        part = x[n, g * width : (g + 1) * width]
        squares = np.mean(part**2) - np.mean(part) ** 2
        y[n, g * width : (g + 1) * width] = (part - np.mean(part)) / (squares + eps) ** 0.5
    return along_channels(gamma, x) * y + along_channels(beta, x)


def direction_by_chain_rule(w, g, S, grad):
    """Right, by another way: the whole matrix of derivatives of the effective weights."""
    length = np.sqrt(w @ S @ w)
    return (g * (np.eye(len(w)) / length - np.outer(w, S @ w) / length**3)).T @ grad


def mcnemar_by_coins(right, other):
    """Right, by another way: how far the number of heads is from its mean."""
    tosses = [a for a, b in zip(right.tolist(), other.tolist(), strict=True) if a != b]
    return (sum(tosses) - len(tosses) / 2) / math.sqrt(len(tosses) / 4)


def rank_by_eigenvalues(h):
    values = np.linalg.eigvalsh(h @ h.T)
    size = np.sqrt(values.clip(0))
    gram = h @ h.T / np.trace(h @ h.T)
    return values.sum() / values[-1], int(sum(size > size[-1] / 100)), np.sqrt((gram**2).sum() - 1 / len(h))


def nearest_by_loop(x, layers):
    """Right, sample by sample, with weights and biases of the cell instead of derivatives."""
    found = []
    for sample in x:
        matrix, shift, best = np.eye(len(sample)), np.zeros(len(sample)), math.inf
        for weight, bias in layers:
            matrix, shift = weight @ matrix, weight @ shift + bias
            for row, constant in zip(matrix, shift, strict=True):
                best = min(best, abs(row @ sample + constant) / max(math.hypot(*row), 1e-300))
            on = matrix @ sample + shift > 0
            matrix, shift = matrix * on[:, None], shift * on
        found.append(best)
    return found


def rate_by_matrices(y, h, slope):
    """Right, unit by unit: the trace of DPD on the vectors with mean 0."""
    batch = y.shape[1]
    centre, passed, kappa = np.eye(batch) - 1 / batch, [], []
    for one, out, along in zip(y, h, slope, strict=True):
        passing = np.diag(along) @ (centre - np.outer(one, one) / batch) @ np.diag(along)
        passed.append(np.trace(centre @ passing) / (batch - 1))
        kappa.append((out**2).mean() - (out.sum() ** 2 - (out**2).sum()) / (batch * (batch - 1)))
    return batch / (batch - 3) * np.mean(passed) / np.mean(kappa)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("explosion-rate", rate_by_matrices),
        ("nearest-boundary", nearest_by_loop),
        ("rank-measures", rank_by_eigenvalues),
        ("group-norm", group_norm_by_loop),
        ("layer-jacobian", lambda w, slopes, a, b: np.diag(1 / b) @ w @ np.diag(slopes) @ np.diag(a)),
        ("mcnemar", mcnemar_by_coins),
        ("direction-gradient", direction_by_chain_rule),
        ("mcnemar", lambda a, b: (a.sum(dtype=float) - b.sum()) / np.count_nonzero(a ^ b) ** 0.5),
        ("clip-gradients", clip_as_one_vector),
        ("clip-gradients", clip_with_a_guard),
        ("clip-gradients", clip_with(lambda grads: np.linalg.norm([np.linalg.norm(g) for g in grads]))),
        ("batchnorm-forward", forward_channels_last),
        ("batchnorm-backward", backward_staged),
        ("batchnorm-backward", backward_by_projection),
        ("running-statistics", StatisticsAsProperties),
        ("population-statistics", population_from_sums),
        ("fold", fold_by_probing),
        ("batchnorm-layer", LayerAsWritten),
        ("batchnorm-layer", LayerFromParts),
        ("data-dependent-init", init_in_two_steps),
        ("data-dependent-init", init_unit_by_unit),
        ("data-dependent-init", init_on(512, replace=False)),
        ("data-dependent-init", init_on(512)),
        ("data-dependent-init", init_on(256, replace=False)),
        ("paired-ratio", ratio_by_loop),
        ("paired-ratio", lambda slow, fast: stats.gmean(slow / fast)),
        ("paired-ratio", lambda slow, fast: stats.gmean(slow) / stats.gmean(fast)),
        ("paired-ratio", lambda slow, fast: np.exp(np.mean(np.log(slow) - np.log(fast)))),
        ("paired-ratio", lambda slow, fast: math.exp(np.log(np.float32(slow / fast)).mean())),
        ("paired-ratio", lambda slow, fast: np.exp(np.log(np.float32(slow / fast)).mean())),  # a float32
        ("paired-ratio", lambda slow, fast: 2 ** np.mean(np.log2(np.sort(slow) / np.sort(fast)))),  # all the same
        ("drift", drift_by_loop),
        ("drift", lambda p15, p50, p85: np.ptp(p50, axis=0) / np.mean(p85 - p15, axis=0)),
        ("drift", lambda p15, p50, p85: (p50.max(0) - p50.min(0)) / (p85.mean(0) - p15.mean(0))),
        ("drift", lambda *p: np.ptp(np.float32(p[1]), 0) / np.float32(p[2] - p[0]).mean(0)),
        ("whiten", whiten_by_singular_values),
        ("whiten", whiten_from_the_left),
        ("whiten", whiten_by_matrix_root),
        ("band-width", width_by_loop),
        ("band-width", width_by_text),
        ("signal-shrink", shrink_by_pairs),
        ("signal-shrink", lambda zs: [np.mean(b.var(0)) / np.mean(a.var(0)) for a, b in itertools.pairwise(zs)]),
        ("variance-shift", lambda x, keep: 1 + (1 / keep - 1) * (x**2).mean(0) / x.var(0)),
        ("variance-shift", lambda x, keep: list(1 / keep + (1 / keep - 1) * x.mean(0) ** 2 / x.var(0))),
        ("growing-rate", rates_by_loop),
        ("growing-rate", lambda lr, wd, steps: [lr * (1 - lr * wd) ** (-2 * t - 1) for t in range(steps)]),
        ("growing-rate", lambda lr, wd, steps: lr * np.exp(-np.log1p(-lr * wd) * (2 * np.arange(steps) + 1))),
    ],
)
def test_right_answer_written_differently_passes(name, answer):
    feedback = check(name, answer)
    assert feedback.passed, feedback


def test_cache_of_the_forward_answer_is_not_judged():
    assert check("batchnorm-forward", lambda *args: (batchnorm_forward(*args)[0], None)).passed


# The catalogue


@pytest.mark.parametrize(("name", "slug", "version"), VERSIONS)
def test_known_mistake_is_named(name, slug, version):
    feedback = check(name, version)
    assert not feedback.passed
    assert feedback.mistake == slug
    assert feedback.message.startswith(EXERCISES[name].mistakes[slug].message)


@each_exercise
def test_catalogue_has_six_mistakes_with_messages_of_their_own(name):
    messages = [mistake.message for mistake in EXERCISES[name].mistakes.values()]
    assert len(messages) >= 6
    assert len(set(messages)) == len(messages)
    assert all(40 < len(message) < 400 for message in messages)
    assert all(message.count("`") % 2 == 0 for message in messages)


@each_exercise
def test_mistakes_are_told_apart(name):
    """No wrong version passes for another mistake, and values differ by far more than the tolerance."""
    exercise = EXERCISES[name]
    expected = references(exercise)
    known = [(slug, v) for slug, mistake in exercise.mistakes.items() for v in mistake.versions]
    known = [("right", exercise.reference), *known]
    results = {version: outcomes(exercise, version, expected) for _, version in known}
    for (slug_a, a), (slug_b, b) in itertools.permutations(known, 2):
        if slug_a == slug_b:
            continue
        assert slug_a == "right" or not makes(exercise, a, expected, results[b]), f"{b.__name__} passes for {slug_a}"
        assert any(
            not agree(case._replace(tolerance=max(1e-6, 3 * case.tolerance)), u, v)
            for case, u, v in zip(exercise.cases, results[a], results[b], strict=True)
        ), f"{a.__name__} and {b.__name__} hardly differ"


def test_a_second_message_for_a_mistake_is_refused():
    with pytest.raises(ValueError, match="already has a message"):
        EXERCISES["fold"].mistake("eps-forgotten", "again")(fold)


# Mistakes as a student writes them


def forward_with(var_of, x_hat_of=lambda xc, var, eps: xc / np.sqrt(var + eps)):
    def answer(x, gamma, beta, eps):
        mu = x.mean(axes_of(x), keepdims=True)
        x_hat = x_hat_of(x - mu, var_of(x, mu), eps)
        return along_channels(gamma, x) * x_hat + along_channels(beta, x), None

    return answer


def forward_loop_over_samples(x, gamma, beta, eps):
    rows = [(row - row.mean()) / np.sqrt(row.var() + eps) for row in x]
    return along_channels(gamma, x) * np.stack(rows) + along_channels(beta, x), None


def forward_not_reshaped(x, gamma, beta, eps):
    mu = x.mean(axes_of(x), keepdims=True)
    return gamma * (x - mu) / np.sqrt(x.var(axes_of(x), keepdims=True) + eps) + beta, None


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (forward_with(lambda x, mu: x.var(axes_of(x), keepdims=True, ddof=1)), "unbiased-variance"),
        (forward_with(lambda x, mu: (x**2).mean(axes_of(x), keepdims=True) - mu**2), "float32-cancellation"),
        (forward_with(lambda x, mu: abs((x * x - mu * mu).mean(axes_of(x), keepdims=True))), "float32-cancellation"),
        (forward_with(lambda x, mu: x.std(axes_of(x), keepdims=True)), None),
        (forward_loop_over_samples, "per-sample"),
        (forward_not_reshaped, "conv-unsupported"),
    ],
)
def test_forward_mistakes_as_students_write_them(answer, slug):
    feedback = check("batchnorm-forward", answer)
    assert not feedback.passed
    assert feedback.mistake == slug


def backward_staged_with(half=0.5, twice=2, mean_path=1, eps=1.0):
    def answer(dy, cache):
        axes, m = axes_of(dy), dy.size // dy.shape[1]
        std = along_channels(np.sqrt(cache.var + eps * cache.eps), dy)
        dx_hat = dy * along_channels(cache.gamma, dy)
        dvar = -half * (dx_hat * cache.xc).sum(axes, keepdims=True) / std**3
        dxc = dx_hat / std + twice * cache.xc * dvar / m
        dx = dxc - mean_path * dxc.mean(axes, keepdims=True)
        return dx, (dy * cache.x_hat).sum(axes), dy.sum(axes)

    return answer


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"half": 1}, "variance-path-factor"),
        ({"twice": 1}, "variance-path-factor"),
        ({"half": 0}, "variance-path-missing"),
        ({"half": -0.5}, "sign-flipped"),
        ({"mean_path": 0}, "mean-path-missing"),
        ({"mean_path": 0, "half": 0}, "statistics-as-constants"),
        ({"eps": 0}, "eps-forgotten"),
        ({"half": 0.3}, None),
    ],
)
def test_backward_mistakes_as_students_write_them(changes, slug):
    assert check("batchnorm-backward", backward_staged_with()).passed
    feedback = check("batchnorm-backward", backward_staged_with(**changes))
    assert not feedback.passed
    assert feedback.mistake == slug


@pytest.mark.parametrize(
    ("wrong", "slug"),
    [
        ({"always_batch": 1}, "evaluation-uses-batch"),
        ({"ddof": 0}, "biased-running-variance"),
        ({"kept": 1}, "gradients-accumulated"),
        ({"no_gamma": 1}, "gamma-forgotten-in-dx"),
        ({"axes": lambda x: 0}, "conv-unsupported"),
        ({"axes": lambda x: (0, 2, 3)}, "images-only"),
        ({"axes": lambda x: tuple(range(x.ndim))}, None),
        ({"kept": 0.5}, None),
    ],
)
def test_layer_mistakes_as_students_write_them(wrong, slug):
    feedback = check("batchnorm-layer", lambda *args: LayerAsWritten(*args, **wrong))
    assert not feedback.passed
    assert feedback.mistake == slug, feedback


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda layer: layer.params.pop("beta"), "your layer has no `params['beta']`"),
        (lambda layer: setattr(layer, "grads", None), "your layer has no `grads['gamma']`"),
        (lambda layer: vars(layer).pop("running_mean"), "has no attribute 'running_mean'"),
    ],
)
def test_a_layer_without_a_part_is_told_which(change, said):
    def answer(channels, eps, momentum):
        layer = LayerAsWritten(channels, eps, momentum)
        if "params" not in said:  # its own passes would fail before the checker looks
            layer.forward = lambda x, training: x
            layer.backward = lambda dy: dy
        change(layer)
        return layer

    feedback = check("batchnorm-layer", answer)
    assert feedback.mistake == "raised"
    assert said in feedback.message


def test_gradients_of_another_shape_are_told_before_the_step():
    class Row(LayerFromParts):
        def backward(self, dy):
            dx = super().backward(dy)
            self.grads["gamma"] = self.grads["gamma"][None]
            return dx

    feedback = check("batchnorm-layer", Row)
    assert feedback.mistake == "raised"
    assert "`grads['gamma']` has shape (1, 1), `params['gamma']` has (1,)" in feedback.message


@pytest.mark.parametrize("slug", [s for s in EXERCISES["data-dependent-init"].mistakes if s != "wrong-axis"])
@pytest.mark.parametrize("seed", range(3))
def test_mistakes_on_a_random_batch_are_named_too(slug, seed):
    """Half of the images, drawn anew. A wrong axis cannot be told then: no layer has as many units as the batch."""
    for version in EXERCISES["data-dependent-init"].mistakes[slug].versions:
        draw = np.random.default_rng(seed)

        def answer(net, images, rng, version=version, draw=draw):
            version(net, images[draw.choice(len(images), 256, replace=False)], rng)

        feedback = check("data-dependent-init", answer)
        assert feedback.mistake == slug, f"{version.__name__}: {feedback}"


@pytest.mark.parametrize("seed", range(10))
def test_any_random_half_of_the_images_is_accepted(seed):
    draw = np.random.default_rng(seed)
    assert check(
        "data-dependent-init", lambda net, images, rng: init_on(256, replace=False)(net, images, draw)
    ).passed


def init_with(rule):
    """``rule(weight, bias, z)`` gives the new weight and bias of a hidden layer."""

    def answer(net, images, rng):
        batch = images
        for layer in net.layers:
            if layer in linears(net)[:-1]:
                weight, bias = rule(layer.params["weight"], layer.params["bias"], layer.forward(batch))
                layer.params.update(weight=weight, bias=bias)
            batch = layer.forward(batch)

    return answer


def init_of_a_copy(net, images, rng):
    layers = [type("Copy", (), {"params": dict(layer.params)})() for layer in linears(net)]
    for layer in layers:
        layer.params["weight"] = layer.params["weight"] / 2
    return layers


def init_with_old_batch(net, images, rng):
    batch = images
    for layer in net.layers:
        after = layer.forward(batch)
        if layer in linears(net)[:-1]:
            layer.params["weight"] /= after.std(0)[:, None]
            layer.params["bias"][:] = (layer.params["bias"] - after.mean(0)) / after.std(0)
        batch = after


def init_with_the_images(net, images, rng):
    """The cell a learner starts from in ``fair-comparison``."""
    for layer in linears(net)[:-1]:
        before = layer.forward(images[:512])
        layer.params["bias"][:] = -before.mean(0)


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (init_with(lambda w, b, z: (w / z.std(0)[:, None], b - z.mean(0) / z.std(0))), None),
        (init_with(lambda w, b, z: ((w - w.mean()) / w.std(), 0 * b)), None),
        (init_with(lambda w, b, z: (w / z.std(1)[:, None], b)), "raised"),
        (init_with(lambda w, b, z: (w.T / z.std(0), b)), "raised"),
        (init_with(lambda w, b, z: (w / np.sqrt(z.var(0, keepdims=True)).T, b)), "mean-not-cancelled"),
        (init_with(lambda w, b, z: (w / z.std(0).mean(), (b - z.mean(0)) / z.std(0).mean())), "one-scale"),
        (init_with(lambda w, b, z: (w * 0, b)), None),
        (init_with(lambda w, b, z: (w / 0, b)), "not-finite"),
        (init_of_a_copy, "nothing-changed"),
        (init_with_old_batch, "batch-not-propagated"),
        (init_with_the_images, "batch-not-propagated"),
    ],
)
def test_init_mistakes_as_students_write_them(answer, slug):
    feedback = check("data-dependent-init", answer)
    assert not feedback.passed
    assert feedback.mistake == slug, feedback


def test_a_net_that_no_longer_runs_and_changed_images_are_named():
    def turned(net, images, rng):
        net.layers[0].params["weight"] = net.layers[0].params["weight"].T

    def centred_in_place(net, images, rng):
        images -= images.mean(0)

    message = check("data-dependent-init", turned).message
    assert "after your function the net does not run: x must be (N, 5), got shape (512, 6)" in message
    assert "net (6, 5, 3); activation sigmoid; images (512, 6); tolerance 0.2 for each mean" in message
    feedback = check("data-dependent-init", centred_in_place)
    assert feedback.mistake == "mutates-input"
    assert "`images`" in feedback.message


def test_a_batch_that_is_too_small_shows_the_tolerance():
    feedback = check("data-dependent-init", lambda net, images, rng: data_dependent(net, images[:20]))
    assert not feedback.passed
    assert feedback.mistake is None
    assert "`mean_and_std[" in feedback.message
    assert "enough for a batch of 256" in feedback.message


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (lambda slow, fast: sum(slow) / sum(fast), "ratio-of-averages"),
        (lambda slow, fast: stats.hmean(slow / fast), "harmonic-mean"),
        (lambda slow, fast: np.exp(-np.mean(np.log(slow / fast))), "upside-down"),
        (lambda slow, fast: np.log(slow).mean() - np.log(fast).mean(), "log-returned"),
        (lambda slow, fast: np.exp(np.sum(np.log(slow / fast))), "root-forgotten"),
        (lambda slow, fast: math.prod(slow / fast) ** 0.5, "wrong-root"),
        (lambda slow, fast: (math.prod(slow) / math.prod(fast)) ** (1 / len(fast)), "product-overflows"),
        (lambda slow, fast: sorted(slow / fast)[-1], "one-seed"),
        (lambda slow, fast: list(slow / fast), "not-averaged"),
        (lambda slow, fast: slow.sort(), "mutates-input"),
        (lambda slow, fast: 0.9 * stats.gmean(slow / fast), None),
    ],
)
def test_ratio_mistakes_as_students_write_them(answer, slug):
    feedback = check("paired-ratio", answer)
    assert not feedback.passed
    assert feedback.mistake == slug, feedback


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (lambda p15, p50, p85: float(np.median(np.ptp(p50, 0) / (p85 - p15).mean(0))), "one-number"),
        (lambda p15, p50, p85: (p50.max() - p50.min()) / (p85 - p15).mean(), "one-number"),
        (lambda p15, p50, p85: np.ptp(p50.mean(1)) / (p85 - p15).mean(), "units-averaged-first"),
        (lambda p15, p50, p85: np.ptp(p50, -1) / (p85 - p15).mean(-1), "wrong-axis"),
        (lambda p15, p50, p85: np.ptp(p50, 0) / (p85[-1] - p15[-1]), "spread-of-one-evaluation"),
        (lambda p15, p50, p85: np.ptp(p50, 0) / (p15 - p85).mean(0), "negative"),
        (lambda p15, p50, p85: (p50.min(0) - p50.max(0)) / (p85 - p15).mean(0), "negative"),
        (lambda p15, p50, p85: np.ptp(p50, 0) / ((p85 - p15).mean(0) / 2), "half-spread"),
        (lambda p15, p50, p85: 1.1 * np.ptp(p50, 0) / (p85 - p15).mean(0), None),
    ],
)
def test_drift_mistakes_as_students_write_them(answer, slug):
    feedback = check("drift", answer)
    assert not feedback.passed
    assert feedback.mistake == slug, feedback


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        # the cell a learner starts from
        (lambda grads, limit: [g * min(1, limit / np.linalg.norm(g)) for g in grads], "each-on-its-own"),
        (lambda grads, limit: [np.sign(g) * np.minimum(abs(g), limit) for g in grads], "by-value"),
        (lambda grads, limit: [limit * g for g in clip_with(lambda g: 1)(grads, 0.5)], None),
        (clip_with(lambda grads: max(map(np.linalg.norm, grads))), "largest-norm"),
        (clip_with(lambda grads: sum(map(np.linalg.norm, grads))), "norms-added"),
        (clip_with(lambda grads: sum(np.vdot(g, g) for g in grads)), "root-forgotten"),
        (clip_with(lambda grads: np.sqrt(np.mean([np.vdot(g, g) for g in grads]))), "root-mean-square"),
        (clip_with(lambda grads: 0), "not-clipped"),
        (lambda grads, limit: clip_as_one_vector(grads, limit)[0], "wrong-number"),
        (lambda grads, limit: (clip_as_one_vector(grads, limit), 1.0), "wrong-number"),
        (lambda grads, limit: [g.ravel() for g in clip_as_one_vector(grads, limit)], "wrong-shape"),
        (lambda grads, limit: [g.sort() for g in grads], "mutates-input"),
    ],
)
def test_clipping_mistakes_as_students_write_them(answer, slug):
    feedback = check("clip-gradients", answer)
    assert not feedback.passed
    assert feedback.mistake == slug, feedback


def shift_as(ratios):
    """``ratios(mean, var, keep)`` of the features."""
    return lambda x, keep: ratios(x.mean(0), x.var(0), keep)


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (shift_as(lambda mean, var, keep: var / keep / var), "mean-forgotten"),  # the cell a learner starts from
        (lambda x, keep: [1 / keep] * x.shape[1], "mean-forgotten"),
        (shift_as(lambda mean, var, keep: 1 / keep + mean**2 / var / keep), "mean-not-subtracted"),
        (shift_as(lambda mean, var, keep: 1 + keep / (1 - keep) * (1 + mean**2 / var)), "rate-for-keep"),
        (shift_as(lambda mean, var, keep: (1 / keep - 1) * (1 + mean**2 / var)), "added-part"),
        (lambda x, keep: 1 / keep, "summed"),
        (lambda x, keep: ((x**2).mean() / keep - x.mean() ** 2) / x.var(), "summed"),
        (shift_as(lambda mean, var, keep: 1 / keep + (1 / keep - 1) * mean / var), None),
        (lambda x, keep: 3, "summed"),
    ],
)
def test_shift_mistakes_as_students_write_them(answer, slug):
    feedback = check("variance-shift", answer)
    assert not feedback.passed
    assert feedback.mistake == slug, feedback


def whiten_with(cov=lambda x: np.cov(x, rowvar=False, bias=True), scale=lambda v, eps: 1 / np.sqrt(v + eps)):
    def answer(x, eps):
        values, vectors = np.linalg.eigh(cov(x))
        return (x - x.mean(0)) @ vectors @ np.diag(scale(values, eps)) @ vectors.T

    return answer


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (whiten_with(np.cov), "samples-as-channels"),  # the cell a learner starts from
        (whiten_with(lambda x: np.cov(x.T)), "unbiased-covariance"),
        (whiten_with(lambda x: x.T @ x / len(x)), "covariance-not-centred"),
        (whiten_with(lambda x: np.diag(x.var(0))), "channels-on-their-own"),
        (whiten_with(scale=lambda v, eps: 1 / (v + eps)), "root-forgotten"),
        (whiten_with(scale=lambda v, eps: abs(v) ** -0.5), "eps-forgotten"),
        (whiten_with(scale=lambda v, eps: np.where(v > 1e-9, abs(v) ** -0.5, 0)), "eps-forgotten"),
        (whiten_with(scale=lambda v, eps: 1 / (abs(v) ** 0.5 + eps)), "eps-outside-root"),
        (whiten_with(np.corrcoef), "samples-as-channels"),
        (whiten_with(lambda x: np.corrcoef(x.T)), None),
        (whiten_with(lambda x: np.linalg.inv(np.cov(x))), "samples-as-channels"),
        (whiten_with(scale=lambda v, eps: np.sqrt(v + eps)), None),
    ],
)
def test_whiten_mistakes_as_students_write_them(answer, slug):
    assert check("whiten", whiten_with()).passed
    feedback = check("whiten", answer)
    assert not feedback.passed
    assert feedback.mistake == slug, feedback


@pytest.mark.parametrize(
    ("name", "answer", "slug", "said"),
    [
        ("paired-ratio", lambda slow, fast: None, "wrong-dtype", "`ratio` is not an array of numbers"),
        ("paired-ratio", lambda slow, fast: "2", "wrong-dtype", "`ratio` is not an array of numbers"),
        ("paired-ratio", lambda slow, fast: (2.0, (1.0, 3.0)), "wrong-dtype", "`ratio` is not an array of numbers"),
        ("paired-ratio", lambda slow, fast: (2.0, 3.0), "wrong-shape", "`ratio` has shape (2,), expected ()"),
        ("paired-ratio", lambda slow, fast: np.log(slow - slow).sum(), "not-finite", "`ratio` holds 1 NaN"),
        ("drift", lambda *p: None, "wrong-dtype", "`drift` is not an array of numbers"),
        ("drift", lambda *p: [1, [2, 3]], "wrong-dtype", "`drift` is not an array of numbers"),
        ("drift", lambda *p: p[1][:1], "wrong-shape", "`drift` has shape (1, 1), expected (1,)"),
        ("drift", lambda *p: 3, None, "`drift.ndim` should be 1, yours is 0"),
        ("drift", lambda *p: p[1].ptpp(0), "raised", "has no attribute 'ptpp'"),
    ],
)
def test_unfit_results_of_ratio_and_drift(name, answer, slug, said):
    feedback = check(name, answer)
    assert feedback.mistake == slug
    assert said in feedback.message


def test_a_named_mistake_still_shows_the_exception():
    message = check("batchnorm-forward", forward_not_reshaped).message
    assert "(C,) to (1, C, 1, 1)" in message
    assert "ValueError: operands could not be broadcast" in message
    assert "x (4, 3, 2, 5)" in message


# Unknown mistakes


def double(outputs):
    return tuple(2.5 * np.asarray(value) for value in outputs)


class Doubled(RunningStatistics):
    def update(self, x):
        super().update(2.5 * x)


@pytest.mark.parametrize(
    ("name", "answer", "parts"),
    [
        (
            "batchnorm-forward",
            lambda *a: (2.5 * batchnorm_forward(*a)[0], None),
            ["`y[0, 0]`", "-1.75", "-4.375", "x (6, 1)"],
        ),
        (
            "batchnorm-backward",
            lambda *a: double(batchnorm_backward(*a)),
            ["`dx[0, 0]`", "dy (6, 1)", "cache (6, 1)"],
        ),
        ("running-statistics", Doubled, ["`mean[0]` should be 1, yours is 2.5", "momentum 0.1", "batches (6, 1)"]),
        ("fold", lambda *a: double(fold(*a)), ["`weight[0, 0]`", "weight (3, 3)", "bias (3,)", "eps 1e-05"]),
        (
            "batchnorm-layer",
            lambda c, eps, momentum: LayerFromParts(c, 100 * eps, momentum),
            ["`step_1.y[0, 0]` should be", "channels 1; eps 1e-05; momentum 0.1", "evaluation (7, 1)"],
        ),
        (
            "data-dependent-init",
            lambda net, images, rng: data_dependent(net, 2.5 * images),
            ["`mean_and_std[0, 0]` should be 0, yours is ", "net (6, 5, 3)", "images (512, 6)"],
        ),
        (
            "paired-ratio",
            lambda slow, fast: 2.5 * stats.gmean(slow / fast),
            ["`ratio` should be 3.63424, yours is 9.0856", "slow (3,); fast (3,)"],
        ),
        ("drift", lambda *p: 2.5 * np.ptp(p[1], 0) / (p[2] - p[0]).mean(0), ["`drift[0]`", "p15 (9, 1); p50 (9, 1)"]),
    ],
)
def test_unknown_mistake_is_rejected_with_the_failing_case(name, answer, parts):
    feedback = check(name, answer)
    assert not feedback.passed
    assert feedback.mistake is None
    for part in parts:
        assert part in feedback.message


def test_a_difference_in_late_digits_is_shown():
    feedback = check("batchnorm-forward", lambda *a: ((1 + 1e-7) * batchnorm_forward(*a)[0], None))
    should, yours = feedback.message.split(" should be ")[1].split(". 6 of 6")[0].split(", yours is ")
    assert should != yours


def test_a_difference_in_the_last_output_only_is_found():
    def wrong_beta(*args):
        dx, dgamma, dbeta = batchnorm_backward(*args)
        return dx, dgamma, dbeta + 1

    assert "`dbeta[0]`" in check("batchnorm-backward", wrong_beta).message


# Problems of every exercise


@each_exercise
@pytest.mark.parametrize("value", [None, 3, np.ones(3), (1, 2), "y"])
def test_what_cannot_be_called(name, value):
    feedback = check(name, value)
    assert feedback.mistake == "not-callable"
    assert type(value).__name__ in feedback.message


def test_an_exception_becomes_help():
    def answer(x, gamma, beta, eps):
        return x.men(0), None

    feedback = check("batchnorm-forward", answer)
    assert feedback.mistake == "raised"
    for part in ("AttributeError", "'men'", "return x.men(0), None", "x (6, 1)", "batchnorm_forward(x, gamma, beta"):
        assert part in feedback.message


@each_exercise
def test_wrong_signature_shows_how_it_is_called(name):
    feedback = check(name, lambda: None)
    assert feedback.mistake == "raised"
    assert EXERCISES[name].usage in feedback.message


@each_exercise
def test_exit_is_caught_and_interrupt_is_not(name):
    def leave(*args):
        raise SystemExit(1)

    def interrupt(*args):
        raise KeyboardInterrupt

    assert check(name, leave).mistake == "raised"
    with pytest.raises(KeyboardInterrupt):
        check(name, interrupt)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda dx, dg, db: dx, "one ndarray"),
        (lambda dx, dg, db: (dx, dg), "2 values"),
        (lambda *g: None, "NoneType"),
    ],
)
def test_wrong_number_of_values(returned, said):
    feedback = check("batchnorm-backward", lambda *a: returned(*batchnorm_backward(*a)))
    assert feedback.mistake == "wrong-number"
    assert said in feedback.message
    assert "dx, dgamma, dbeta" in feedback.message


@pytest.mark.parametrize(
    ("change", "slug", "said"),
    [
        (lambda y: y.T, "wrong-shape", "(1, 6), expected (6, 1)"),
        (lambda y: y.mean(0), "wrong-shape", "(1,), expected (6, 1)"),
        (lambda y: y.astype(np.float64), "wrong-dtype", "float64, expected float32"),
        (lambda y: y.astype(int), "wrong-dtype", "int64, expected float64"),
        (lambda y: None, "wrong-dtype", "object"),
        (lambda y: [y, [y]], "wrong-dtype", "not an array of numbers"),
        (lambda y: "y", "wrong-dtype", "not an array of numbers"),
        (lambda y: y / 0, "not-finite", "6 NaN or infinite values out of 6"),
        (lambda y: np.where(y > y.min(), y, np.nan), "not-finite", "1 NaN"),
    ],
)
def test_unfit_outputs(change, slug, said):
    feedback = check("batchnorm-forward", lambda *a: (change(batchnorm_forward(*a)[0]), None))
    assert feedback.mistake == slug
    assert said in feedback.message


def test_mutated_input_is_named():
    def answer(x, gamma, beta, eps):
        result = batchnorm_forward(x, gamma, beta, eps)
        x -= x.mean()
        return result

    feedback = check("batchnorm-forward", answer)
    assert feedback.mistake == "mutates-input"
    assert "`x`" in feedback.message
    assert check("batchnorm-forward", batchnorm_forward).passed  # the cases are as they were


def test_mutated_cache_and_batches_are_named():
    def backward(dy, cache):
        result = batchnorm_backward(dy, cache)
        cache.x_hat[:] = 0
        return result

    class Greedy(RunningStatistics):
        def update(self, x):
            super().update(x)
            x[:] = 0

    assert "`cache`" in check("batchnorm-backward", backward).message
    assert check("running-statistics", Greedy).mistake == "mutates-input"


def test_missing_count_attribute_is_named():
    class Uncounted:
        def __init__(self, momentum):
            self.inner = RunningStatistics(momentum)

        def update(self, x):
            self.inner.update(x)
            self.mean, self.var = self.inner.mean, self.inner.var

    assert check("running-statistics", Uncounted).mistake == "count-not-kept"


@pytest.mark.parametrize(("name", "meant"), [("batchnorm-forwrd", "batchnorm-forward"), ("Fold", "fold")])
def test_unknown_exercise_lists_the_names(name, meant):
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'") as error:
        check(name, fold)
    assert all(known in str(error.value) for known in EXERCISES)


def test_unknown_exercise_far_from_all_names():
    with pytest.raises(ValueError, match="there is no exercise None. The exercises are"):
        check(None, fold)


# How it shows itself


def test_text_and_box():
    right = Feedback(True, None, "All agree.")
    wrong = Feedback(False, "raised", "Use `a<b>` & <script>alert(1)</script>.")
    assert str(right) == repr(right) == "Right. All agree."
    assert str(wrong).startswith("Not yet. Use")
    assert 'class="bn-feedback bn-right"' in right._repr_html_()
    assert "<strong>Right.</strong> All agree." in right._repr_html_()
    box = wrong._repr_html_()
    assert 'class="bn-feedback bn-wrong"' in box
    assert "<strong>Not yet.</strong>" in box
    assert "<script>" not in box
    assert "<code>a&lt;b&gt;</code> &amp; &lt;script&gt;" in box
    assert "background" not in box  # text and ground are the page's, light or dark


def test_import_is_light():
    heavy = ("torch", "matplotlib", "ipywidgets", "pandas")
    code = f"import sys, bnlib.exercises; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The cases themselves


@each_exercise
def test_references_are_clean(name):
    """No case is degenerate: outputs are finite and the reference is far from zero everywhere it is judged."""
    exercise = EXERCISES[name]
    for case, arrays in zip(exercise.cases, references(exercise), strict=True):
        assert not isinstance(arrays, Problem), arrays
        assert all(np.isfinite(a).all() and np.abs(a).max() > 1e-3 for a in arrays)
        assert not isinstance(attempt(exercise, case, exercise.reference, arrays), Problem)


def test_tolerance_of_the_float32_case():
    """Plain float32, two passes, stays a factor of five inside it; the cancelling formula is far outside."""
    exercise = EXERCISES["batchnorm-forward"]
    case = exercise.cases[-1]
    assert case.rough
    right = attempt(exercise, case, batchnorm_forward)
    plain = attempt(exercise, case, forward_channels_last)
    cancelled = attempt(exercise, case, exercise.mistakes["float32-cancellation"].versions[0])
    assert plain[0].dtype == np.float32
    assert scaled_error(plain[0], right[0]) < case.tolerance / 5
    assert scaled_error(cancelled[0], right[0]) > 0.3


class Broken(BaseException):
    def __str__(self):
        return 1 / 0


class BrokenByExit(Exception):
    def __str__(self):
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Broken(), "Broken. "),
        (BrokenByExit(), "BrokenByExit"),
        (AssertionError(), "AssertionError, in line"),
        (GeneratorExit(), "GeneratorExit"),
        (ValueError("Too wide."), "ValueError: Too wide,"),
    ],
)
def test_whatever_an_answer_raises_is_reported(error, said):
    def answer(x, gamma, beta, eps):
        raise error

    feedback = check("batchnorm-forward", answer)
    assert feedback.mistake == "raised"
    assert said.rstrip(" ,.") in feedback.message
    assert "..," not in feedback.message
    assert ".. " not in feedback.message


def test_keyboard_interrupt_stops_the_checker():
    def answer(x, gamma, beta, eps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("batchnorm-forward", answer)


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(ValueError, match="no exercise"):
        check(["batchnorm-forward"], lambda x: x)
