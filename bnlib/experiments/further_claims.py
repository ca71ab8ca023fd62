"""What else Ioffe & Szegedy (2015) say: statements of their text that no other experiment of Part II measures.

Statistics outside the gradient (section 2), the shape of Wu and where BN belongs (3.2), the Jacobian of a layer, the
growth of the weights and small changes that add up (3.3), saturated sigmoids (1), large batches (Hoffer, Hubara &
Soudry 2017). MLPs of width 100 on Fashion-MNIST, plain SGD at a constant rate.
"""

import copy
import time
from functools import partial

import numpy as np

from bnlib.page.figures import bands, look
from bnlib.scratch import fast, inits
from bnlib.scratch.batchnorm import (
    RunningStatistics,
    batchnorm_backward,
    batchnorm_backward_staged,
    batchnorm_forward,
    batchnorm_inference,
    fold,
)
from bnlib.scratch.gradcheck import scaled_error
from bnlib.scratch.layers import BatchNorm, Linear, ReLU, Sigmoid
from bnlib.scratch.network import accuracy, fit, mlp
from bnlib.theory.further_claims import (
    correlation,
    ignored,
    layer_jacobian,
    linear_map,
    near_one,
    saturated,
    shape_of,
)

from .core import Config, Plan, grid, measure, named
from .further_rows import GROWTH_RATES, SCALES, statements
from .paired import smooth, steps_to
from .speed_up_map import images

WIDTH, BATCH = 100, 64
LEVELS = (0.8, 0.85)
NUDGE = 1e-3  # of the first layer's weights, relative to their length
STUCK = 0.95  # a unit is stuck if it is saturated for this share of the images
DIM = 0.4  # brightness of the shifted images
ACTIVATIONS = {"sigmoid": Sigmoid, "relu": ReLU}
INITS = {
    "xavier": lambda net, x, rng: None,  # as `mlp` makes it
    "he": lambda net, x, rng: inits.he(net, rng),
    "wide": lambda net, x, rng: inits.gaussian(net, 1.0, rng),
    "dd": lambda net, x, rng: inits.data_dependent(net, x[rng.choice(len(x), 512, replace=False)]),
}


def outside(dy, cache):
    """BN's backward pass when mean and standard deviation count as constants."""
    dx = dy * cache.gamma / np.sqrt(cache.var + cache.eps)
    return dx.astype(dy.dtype), (dy * cache.x_hat).sum(0), dy.sum(0)


class Centred(BatchNorm):
    """Subtracts the mean of the batch and does not divide; the mean counts as a constant in the backward pass."""

    def forward(self, x, training=True):
        mean = self.running.mean
        if training:
            mean = x.mean(0, dtype=float)
            self.running.take(mean, np.ones(len(mean)), len(x))
        self.xc = x - mean.astype(x.dtype)
        return self.params["gamma"] * self.xc + self.params["beta"]

    def backward(self, dy):
        self.grads = {"gamma": (dy * self.xc).sum(0), "beta": dy.sum(0)}
        return self.params["gamma"] * dy


class Ghost:
    """Forward and backward pass of BN over parts of the batch, each with statistics of its own."""

    def __init__(self, size):
        self.size = size

    def forward(self, x, gamma, beta, eps):
        parts = len(x) // self.size
        y, cache = fast.batchnorm_forward(self._fold(x, parts), np.tile(gamma, parts), np.tile(beta, parts), eps)
        return self._back(y, x.shape), (cache, parts)

    def backward(self, dy, cache):
        cache, parts = cache
        dx, *grads = fast.batchnorm_backward(self._fold(dy, parts), cache)
        return self._back(dx, dy.shape), *(g.reshape(parts, -1).sum(0) for g in grads)

    def _fold(self, x, parts):
        if len(x) != parts * self.size:
            raise ValueError(f"a batch of {len(x)} has no parts of {self.size}")
        return x.reshape(parts, self.size, -1).swapaxes(0, 1).reshape(self.size, -1)

    def _back(self, y, shape):
        return y.reshape(self.size, -1, shape[1]).swapaxes(0, 1).reshape(shape)


def ghost(units, size=BATCH):
    """A BN layer that takes its statistics over parts of ``size`` samples in training."""
    parts = Ghost(size)
    return BatchNorm(units, forward=parts.forward, backward=parts.backward)


NORMS = {
    "none": None,
    "bn": BatchNorm,
    "outside": partial(BatchNorm, backward=outside),
    "centred": Centred,
    "ghost": ghost,
}
RATES = {
    "sigmoid": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
    "relu": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "wide": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "batch": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
}
KINDS = {  # of a net: norm, place, init where not the activation's own, words
    "none": ("none", "before", None, "no normalization"),
    "dd": ("none", "before", "dd", "no normalization, started from data"),
    "before": ("bn", "before", None, "BN before the nonlinearity"),
    "after": ("bn", "after", None, "BN after the nonlinearity"),
    "outside": ("outside", "before", None, "BN with constant statistics in the backward pass"),
    "centred": ("centred", "before", None, "centring alone, with a constant mean in the backward pass"),
}
OWN = {"sigmoid": "xavier", "relu": "he"}
DEPTHS = {"sigmoid": 3, "relu": 5, "deep": 6}
SAMPLES = 5_120  # images of the runs with large batches


def plans(dataset="fashion-mnist", steps=1_200, rates=RATES):
    """Arm -> plan of the full scale."""

    def net(family, kind, goal, init=None):
        activation = "relu" if family == "relu" else "sigmoid"
        norm, place, start, _ = KINDS[kind]
        about = {"activation": activation, "depth": DEPTHS[family], "norm": norm, "place": place}
        about |= {"init": init or start or OWN[activation], "goal": goal}
        return Plan(dataset, steps, grid(**about, lr=rates["wide" if init else activation]), probed=True)

    found = {"exact": Plan("mnist5k", 300, grid(lr=0.1)), "clock": Plan("mnist5k", 40, grid(lr=0.1), alone=True)}
    for family in ("sigmoid", "relu"):
        found |= {f"{family}-{kind}": net(family, kind, "speed") for kind in list(KINDS)[:4]}
        found |= {f"{family}-{kind}-high": net(family, kind, "high") for kind in list(KINDS)[:4]}
        found[f"{family}-before-again"] = Plan(
            dataset, steps, like=f"{family}-before", seeds=(21, 22, 23), probed=True
        )
    found |= {f"relu-{kind}": net("relu", kind, "high") for kind in ("outside", "centred")}
    found |= {f"deep-{kind}": net("deep", kind, "high") for kind in list(KINDS)[:3]}
    found |= {f"wide-{kind}": net("sigmoid", kind, "high", "wide") for kind in ("none", "before")}
    for kind in ("none", "before"):
        for scale in SCALES:
            for lr in GROWTH_RATES:
                norm = KINDS[kind][0]
                found[f"growth-{kind}-{scale:g}-{lr:g}"] = Plan(
                    dataset, steps // 4, grid(activation="relu", depth=5, norm=norm, init="he", scale=scale, lr=lr)
                )
    for batch, kind, updates in ((64, "bn", 800), (1024, "bn", 50), (1024, "bn", 800), (1024, "ghost", 50)):
        about = {"activation": "relu", "depth": 3, "norm": kind, "init": "he", "batch": batch, "samples": SAMPLES}
        found[f"batch-{batch}-{kind}-{updates}"] = Plan(dataset, updates, grid(**about, lr=rates["batch"]))
    found["batch-64-again"] = Plan(dataset, 800, like="batch-64-bn-800", seeds=(21, 22, 23))
    return found


def lines(arms):
    """What each of these arms changes, in words."""
    words = {"exact": "what holds without training", "clock": "milliseconds of BN and of whitening, in turns"}
    nets = {"sigmoid": "3 layers of sigmoids", "relu": "5 layers of ReLU", "deep": "6 layers of sigmoids"}
    nets["wide"] = "3 layers of sigmoids, weights N(0, 1)"
    for arm in arms:
        family, *rest = arm.split("-")
        if family in nets:
            more = {"high": ", tuned for accuracy", "again": ", other seeds"}.get(rest[-1], "")
            words[arm] = f"{nets[family]}, {KINDS[rest[0]][3]}{more}"
        elif family == "growth":
            words[arm] = f"5 layers of ReLU, {KINDS[rest[0]][3]}, He's weights times {rest[1]}, rate {rest[2]}"
        elif arm == "batch-64-again":
            words[arm] = "batch 64 with other seeds"
        elif family == "batch":
            size, kind, updates = rest
            words[arm] = f"batch {size}, {'ghost batches of 64' if kind == 'ghost' else 'BN'}, {updates} steps"
    return words


FULL = plans()
ARMS = lines(FULL)
LITE = {
    arm: plan
    for arm, plan in plans("mnist5k", 300, dict.fromkeys(RATES, [0.03, 0.1, 0.3])).items()
    if arm in ("exact", "relu-none", "relu-before", "relu-after")
}
# ``few``: images on which a cell is scored or looked at; ``tested``: test images of a confirming cell;
# ``jacobians``: images whose Jacobian is taken.
OPTIONS = {"few": 2_000, "tested": 5_000, "jacobians": 10}
ARRAYS = {"saturated": 6}
CURVES = {"accuracy": 3}
PRESETS = {
    "lite": Config(LITE, seeds=(31,), tuning_seeds=(3,), arrays=ARRAYS, options=OPTIONS | {"few": 500}),
    "full": Config(FULL, seeds=(11, 12, 13), tuning_seeds=(1, 2), arrays=ARRAYS, options=OPTIONS),
}


def run(
    config,
    arm,
    seed,
    *,
    activation="relu",
    depth=5,
    norm="none",
    place="before",
    init="he",
    goal="high",
    scale=1.0,
    batch=BATCH,
    samples=None,
    lr=0.1,
):
    """Train one net and look into it at the start, on the way and at the end.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights and of the order of the samples. A tuning seed is measured on validation images, a confirming
        seed on test images.
    activation : {"sigmoid", "relu"} or callable
    depth : int
        Hidden layers.
    norm : {"none", "bn", "outside", "centred", "ghost"} or callable
        ``norm(units)`` gives a layer.
    place : {"before", "after"}
        The norm's, before or after the nonlinearity.
    init : {"xavier", "he", "wide", "dd"} or callable
        ``init(net, images, rng)`` changes a net in place.
    goal : {"speed", "high"}
        What the score rewards: few steps to 80 %, or a high accuracy.
    scale : float
        Factor of the hidden weights after the initialization.
    batch : int
    samples : int, optional
        Train on so many images only, drawn with the seed.
    lr : float

    Returns
    -------
    list of dict
        A row per evaluation: ``step, loss``, after step 20 ``accuracy``, and where the plan says ``probed`` what
        `share_saturated` gives. The last one has ``score, growth, gamma`` and, of a probed confirming cell, what
        `inspect` finds at the start (``start_...``) and at the end (``end_...``).
    """
    plan, options, tuning = config.arms[arm], config.options, seed in config.tuning_seeds
    rng = np.random.default_rng([seed, 1])
    train, validation, test = images(plan.dataset)
    if arm == "exact":
        return exact(train[0].astype(float), plan.steps, lr, rng)
    if plan.alone:
        return _clock(train[0], plan.steps, rng)
    if samples:
        chosen = np.random.default_rng([seed, 2]).choice(len(train[0]), samples, replace=False)
        train = train[0][chosen], train[1][chosen]
    held_out = validation if tuning else test
    few, tested = (tuple(part[: options[n]] for part in held_out) for n in ("few", "tested"))
    net = build(activation, depth, norm, place, seed)
    named(INITS, init)(net, train[0], rng)
    for layer in inits.linears(net)[:-1]:
        layer.params["weight"] *= np.float32(scale)
    probed, before = plan.probed and not tuning, lengths(net)
    last, wanted = {}, frozenset(evaluations(plan.steps))
    start = inspect(net, few[0], options["jacobians"], rng) if probed else {}

    def look_at(net, step):
        last.update(growth=float(np.exp(np.log(lengths(net) / before).mean())))
        if step not in wanted:
            return {}
        row = {"accuracy": accuracy(net, *(few if tuning else tested))}
        return row | ({"saturated": share_saturated(net, few[0][:500])} if probed else {})

    with np.errstate(all="ignore"):  # a run that diverges is a result
        rows = fit(
            *(net, *train),
            lr=lr,
            steps=plan.steps,
            validation=(few[0][:1], few[1][:1]),  # next to nothing: the probe takes the accuracy, less often
            batch=batch,
            every={*range(1, 21), *wanted},
            seed=seed,
            probe=look_at,
            progress=False,
        )
        diverged = not np.isfinite(rows[-1]["loss"])
        rows = [row if row["step"] in wanted else {k: row[k] for k in ("step", "loss")} for row in rows]
        if diverged:  # at chance to the end
            rows[-1]["accuracy"] = 0.1
            rows.append({"step": plan.steps, "loss": float("nan"), "accuracy": 0.1})
        rows[-1] |= {"score": _score(rows, goal), "diverged": diverged, **last}
        rows[-1] |= {f"start_{key}": value for key, value in start.items()}
        if probed and not diverged:
            found = inspect(net, few[0], options["jacobians"], rng)
            rows[-1] |= {f"end_{key}": value for key, value in found.items()}
            if norm == "bn":
                rows[-1] |= _shifted(net, *few, plan.dataset)
    return rows


def build(activation, depth, norm, place, seed):
    """An MLP of width 100 with Xavier's weights, its norm before or after each nonlinearity."""
    make = named(NORMS, norm)
    shape, kind = [784, *[WIDTH] * depth, 10], named(ACTIVATIONS, activation)
    if place == "before" or make is None:
        return mlp(shape, seed, kind, make)
    net = mlp(shape, seed, kind)
    pairs = ([layer, make(WIDTH)] if isinstance(layer, kind) else [layer] for layer in net.layers)
    net.layers = [layer for pair in pairs for layer in pair]
    return net


def evaluations(steps):
    """Steps after which the accuracy is taken: every 10th of the first 400, about 4 % apart later."""
    later = np.geomspace(400, max(steps, 401), 1 + round(np.log(max(steps, 401) / 400) / 0.04)).round().astype(int)
    chosen = {*range(30, 401, 10), *range(25, 51, 5), *later.tolist(), steps - 1, steps}
    return sorted(step for step in chosen if 20 < step <= steps)


def lengths(net):
    """Lengths of the hidden layers' weights, array (layers,)."""
    return np.array([np.linalg.norm(layer.params["weight"].astype(float)) for layer in inits.linears(net)[:-1]])


def hidden(net, x):
    """Inputs and outputs of each nonlinearity in training mode, and of the layers that follow, on inputs (N, 784).

    A list of dicts ``y, h, z, weight``: the nonlinearity's input and output, the pre-activation Wu + b of the next
    layer, and its W. The net's running statistics stay as they are.
    """
    net = copy.deepcopy(net)
    values = net.activations(x, training=True)
    found = []
    for i, layer in enumerate(net.layers):
        if isinstance(layer, Sigmoid | ReLU):
            after = next(j for j in range(i + 1, len(net.layers)) if isinstance(net.layers[j], Linear))
            weight = net.layers[after].params["weight"]
            found.append({"y": values[i], "h": values[i + 1], "z": values[after + 1], "weight": weight})
    return found


def share_saturated(net, x):
    """Share of the nonlinearities' inputs that would saturate a sigmoid, a list with a number for each layer."""
    return [float(saturated(part["y"]).mean()) for part in hidden(net, x)]


def inspect(net, x, samples, rng):
    """What the statements of sections 1 and 3 are about, measured on inputs (N, 784); lists hold layers.

    ``u_skew, u_kurtosis, u_zeros, wu_...``: shape of the nonlinearity's output and of the next layer's Wu, means over
    units and layers of the absolute values; ``saturated, stuck``: saturated values of each layer, and units of all
    layers; ``near_one, rms``: singular values of `layer_jacobian`, over samples and layers, for nets without a norm
    after the nonlinearity; ``linear_near_one, explained, correlation``: of `linear_map`; ``amplified``: how much
    larger the relative change of the last layer is than that of the first, where the first layer's weights move.
    """
    parts = hidden(net, x)
    found = {"saturated": [float(saturated(part["y"]).mean()) for part in parts]}
    stuck = [(saturated(part["y"]).mean(0) >= STUCK).mean() for part in parts]
    found |= {"stuck": float(np.mean(stuck)), "saturated_mean": float(np.mean(found["saturated"]))}
    inner = parts[:-1]  # the next layer is hidden too
    for name, key in (("u", "h"), ("wu", "z")):
        shapes = [np.nanmean(np.abs(shape_of(part[key])), axis=1) for part in inner]
        found |= {
            f"{name}_{what}": float(v)
            for what, v in zip(("skew", "kurtosis", "zeros"), np.nanmean(shapes, 0), strict=True)
        }
    found["amplified"] = _amplified(net, x, parts, rng)
    kinds = [type(layer) for layer in net.layers]
    if not any(a in (Sigmoid, ReLU) and issubclass(b, BatchNorm) for a, b in zip(kinds, kinds[1:], strict=False)):
        found |= _jacobians(net, inner, samples)
    return found


def _jacobians(net, parts, samples):
    sigmoid = any(isinstance(layer, Sigmoid) for layer in net.layers)
    singular, fits, others, correlations = [], [], [], []
    for part in parts:
        std_in, std_out = part["y"].std(0, dtype=float), part["z"].std(0, dtype=float)
        usable_in, usable_out = std_in > 1e-9, std_out > 1e-9
        for i in range(samples):
            slopes = part["h"][i] * (1 - part["h"][i]) if sigmoid else part["y"][i] > 0
            scale = np.where(usable_out, std_out, np.inf)
            singular.append(np.linalg.svd(layer_jacobian(part["weight"], slopes, std_in, scale), compute_uv=False))
        x_hat, z_hat = (
            (part[key][:, good] - part[key][:, good].mean(0, dtype=float)) / std[good]
            for key, std, good in (("y", std_in, usable_in), ("z", std_out, usable_out))
        )
        jacobian, explained = linear_map(x_hat, z_hat)
        fits.append(explained)
        others.append(near_one(np.linalg.svd(jacobian, compute_uv=False))[0])
        correlations.append(correlation(x_hat))
    share, rms = near_one(np.concatenate(singular))
    found = {"near_one": share, "rms": rms, "linear_near_one": float(np.mean(others))}
    return found | {"explained": float(np.mean(fits)), "correlation": float(np.mean(correlations))}


def _amplified(net, x, parts, rng):
    moved = copy.deepcopy(net)
    weight = inits.linears(moved)[0].params["weight"]
    step = rng.normal(size=weight.shape)
    weight += (NUDGE * np.linalg.norm(weight) / np.linalg.norm(step) * step).astype(weight.dtype)
    changes = []
    for old, new in zip(parts, hidden(moved, x), strict=True):
        spread = np.linalg.norm(old["y"] - old["y"].mean(0))
        changes.append(np.linalg.norm(new["y"] - old["y"]) / spread if spread > 0 else np.nan)
    return float(changes[-1] / changes[0])


def _shifted(net, x, labels, dataset):
    """Accuracy on dimmed images with the running statistics, and with statistics of other dimmed images."""
    black = float(x.min())
    dim = black + np.float32(DIM) * (x - black)
    half, net = len(x) // 2, copy.deepcopy(net)
    found = {"bright": accuracy(net, x[half:], labels[half:]), "dim": accuracy(net, dim[half:], labels[half:])}
    for layer in net.layers:
        if isinstance(layer, BatchNorm):
            layer.running = RunningStatistics(None, len(layer.params["gamma"]))
    for begin in range(0, half - BATCH + 1, BATCH):
        net.forward(dim[begin : begin + BATCH], training=True)
    return found | {"dim_again": accuracy(net, dim[half:], labels[half:])}


def exact(pixels, steps, lr, rng):
    """Statements that need no training, in float64, on pre-activations (N, 100) of an untrained layer.

    The rows are the steps of `ignored`; the last one has the errors and ratios.
    """
    units = pixels @ rng.normal(0, pixels.shape[1] ** -0.5, (WIDTH, pixels.shape[1])).T
    u = units[:200, 0]
    u = (u - u.mean()) / u.std()
    noise = rng.normal(size=len(u))
    targets = 0.5 + 0.5 * u + noise - noise.mean() - u * (u @ noise) / (u @ u)  # mean and correlation with u: 1/2
    path = ignored(u, targets, lr, steps)
    x_hat = u + path[-1, 2] - np.mean(u + path[-1, 2])
    naive, true = _bias_gradients(x_hat, targets)
    far = {"half": ignored(u, targets, lr, steps, True), "more": ignored(u, targets + u, lr, steps, True)}
    found = {
        "still": float(np.abs(path[:, 0] / path[0, 0] - 1).max()),
        "linear": float(abs(path[-1, 2] / (2 * path[steps // 2, 2]) - 1)),
        "true": abs(true / naive),
        **{f"divided_{key}": float(np.abs(p[:, 2]).max() / abs(path[-1, 2])) for key, p in far.items()},
    }
    x, gamma, beta, dy = units[:60], *rng.normal(size=(2, WIDTH)), rng.normal(size=(60, WIDTH))
    found["rank"] = int(np.linalg.matrix_rank(np.cov(x.T)))
    same, _ = batchnorm_forward(x, x.std(0), x.mean(0), 0.0)
    y, cache = batchnorm_forward(x, gamma, beta)
    staged = batchnorm_backward_staged(dy, cache)
    found |= {
        "identity": scaled_error(same, x),
        "moments": float(
            max(
                np.abs(cache.x_hat.mean(0)).max(),
                np.abs((cache.var + cache.eps) / cache.var * cache.x_hat.var(0) - 1).max(),
            )
        ),
        "staged": max(
            scaled_error(a, staged[k])
            for a, k in zip(batchnorm_backward(dy, cache), ("dx", "dgamma", "dbeta"), strict=True)
        ),
    }
    small = np.array([units[rng.choice(len(units), 4, replace=False)].var(0) for _ in range(4_000)]).mean(0)
    found["unbiased"] = float((4 / 3 * small / units.var(0)).mean())
    weight, bias = rng.normal(size=(WIDTH, WIDTH)), rng.normal(size=WIDTH)
    z = x @ weight.T + bias
    mean, var = units.mean(0), units.var(0)
    folded = fold(weight, bias, gamma, beta, mean, var)
    found["fold"] = scaled_error(batchnorm_inference(z, gamma, beta, mean, var), x @ folded[0].T + folded[1])
    white = _white(rng.normal(size=(1_000, WIDTH)))
    z = white @ weight.T
    singular = {
        "rows": np.linalg.svd(weight / z.std(0)[:, None], compute_uv=False),
        "both": np.linalg.svd(np.linalg.lstsq(white, _white(z), rcond=None)[0], compute_uv=False),
    }
    share, rms = near_one(singular["rows"])
    found |= {"rows_rms": abs(rms - 1), "rows_near": share, "both": float(np.abs(singular["both"] - 1).max())}
    rows = [{"step": i, "loss": float(path[i - 1, 0]), "b": float(path[i - 1, 2])} for i in range(1, 21)]
    return [*rows, {"step": steps, "loss": float(path[-1, 0]), "b": float(path[-1, 2]), "score": 0.0, **found}]


def _bias_gradients(x_hat, targets):
    """Gradient of b with the mean as a constant, and through it."""
    dx = 2 * (x_hat - targets) / len(targets)
    return float(dx.sum()), float((dx - dx.mean()).sum())


def _white(x):
    x = x - x.mean(0)
    left, _, right = np.linalg.svd(x, full_matrices=False)
    return np.sqrt(len(x)) * left @ right


def _clock(pixels, turns, rng):
    """Time BN and whitening of a batch of 256 in turns, forward only, in milliseconds."""
    units = pixels[:256] @ rng.normal(0, 0.05, (784, WIDTH)).astype(np.float32)
    one, zero, rows = np.ones(WIDTH), np.zeros(WIDTH), []

    def whitened():
        xc = units - units.mean(0)
        values, vectors = np.linalg.eigh(xc.T @ xc / len(xc))
        return xc @ (vectors / np.sqrt(values + np.float32(1e-5))) @ vectors.T

    for turn in range(turns):
        row = {"step": turn + 1, "loss": 0.0, "score": 0.0}
        jobs = {"bn_ms": lambda: fast.batchnorm_forward(units, one, zero), "whiten_ms": whitened}
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            row[name] = 1000 * (time.perf_counter() - start)
        rows.append(row)
    return rows


def _score(rows, goal):
    """Higher is better: the smoothed accuracy, or 2 minus the share of the steps to 80 %, where it was reached."""
    seen = [row for row in rows if "accuracy" in row]
    values = [row["accuracy"] for row in seen]
    step, reached = steps_to(LEVELS[0], [row["step"] for row in seen], values)
    return 2 - step / rows[-1]["step"] if goal == "speed" and reached else float(smooth(values).max())


def summarize(rows):
    """The numbers of one cell: what its last row has, steps to each of `LEVELS`, and the highest accuracy."""
    last = rows[-1]
    if "whiten_ms" in last:
        return {"score": 0.0, **{key: float(np.median([r[key] for r in rows])) for key in ("bn_ms", "whiten_ms")}}
    summary = {k: v for k, v in last.items() if k not in ("step", "loss", "accuracy", "saturated", "b")}
    for when in ("start", "end"):
        layers = summary.pop(f"{when}_saturated", None)
        if layers:
            summary |= {f"{when}_first": layers[0], f"{when}_last": layers[-1]}
    seen = [row for row in rows if "accuracy" in row]
    if seen:
        steps, values = [row["step"] for row in seen], [row["accuracy"] for row in seen]
        summary["best"] = float(smooth(values).max())
        for level in LEVELS:
            summary[f"steps_{level:.0%}"], summary[f"reached_{level:.0%}"] = steps_to(level, steps, values)
    return summary


def draw(rows, ax):
    """Accuracy against steps: a curve for each arm, its band the range over the confirming seeds."""
    shown = rows[~rows["tuning"] & rows["arm"].isin(LOOKS)]
    bands(ax, shown.dropna(subset="accuracy"), "accuracy", LOOKS)
    ax.set(xscale="log", xlabel="training step (log axis)", ylabel="accuracy")


def claims(cells):
    """Section after section of the paper. Arms that were not run give none."""
    return measure(statements(), cells, "further-claims", "ioffe2015")


LOOKS = {
    f"{family}-{kind}-high": {"label": f"{family.replace('relu', 'ReLU')}, {words}", **look(colour)}
    for family in ("sigmoid", "relu")
    for kind, words, colour in (
        ("none", "no BN", "none"),
        ("before", "BN before", "batchnorm"),
        ("after", "BN after", "variant"),
    )
}
