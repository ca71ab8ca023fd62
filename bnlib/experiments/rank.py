"""How many directions a batch keeps on its way through a random net, and whether a net needs them to train.

Two parts. *Depth*: 32 samples of one cluster go through 200 random layers of width 128, float64, and their rank is
taken behind each (Daneshmand et al. 2020). *Training*: ReLU nets of 10, 32 and 64 hidden layers with 100 units on
5,000 digits, SGD with momentum, 200 steps, with starts that keep or destroy the rank, with BN and without it.
"""

import functools
import math

import numpy as np
import torch
from scipy import stats

from bnlib.nets import inits, models
from bnlib.nets.images import images
from bnlib.nets.inference import population
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import accuracy, seeded, sgd
from bnlib.page.figures import bands, look
from bnlib.theory.rank import (
    layer,
    log_volume,
    lyapunov,
    mirrored_weights,
    random_weights,
    rank,
    relu_stable_rank,
    twin_weights,
)

from . import paired
from .core import SAME, Config, Measured, Plan, Statement, grid, known, measure, named

SPREAD = 0.3  # of a cluster, in units of its centre's size: behind the first layer the stable rank is about 1.1
DEPTHS = (10, 32, 64)  # hidden layers of the nets that are trained
TINY = 1e-30  # stands for the norm of a gradient that is 0
TWINS = 0.99  # cosine of the weights of two units of a layer, up to its sign
MANY, FEW, KEPT = (31, None), (None, 6), (16, None)  # singular values above 1 % of the largest
LAW = (0.92, 1.08)  # of the stable rank over its theory
VOLUME = (0.95, 1.05)  # of the growth of a logarithm of volume over its theory
CURVES = {"loss": 4, "count": 3, "gap": 3, "volume": 5}
BN = {"mean": True, "scale": True}
NORMS = {"none": {}, "bn": BN, "centring": {"mean": True}, "scaling": {"scale": True}}
TOLD = {
    "none": "without BN",
    "bn": "with BN",
    "centring": "with BN's mean alone",
    "scaling": "with BN's division alone",
    "orthogonal": "without BN, orthogonal weights",
    "mirrored": "without BN, mirrored orthogonal weights",
    "isotropic": "without BN, isotropic inputs",
    "isotropic-bn": "with BN, isotropic inputs",
}
LOOKED = {  # untrained nets: name of a setting, by the end of the arm's name
    **{norm: {"norm": norm} for norm in NORMS},
    "orthogonal": {"init": "orthogonal"},
    "mirrored": {"init": "mirrored"},
    "isotropic": {"inputs": "isotropic"},
    "isotropic-bn": {"inputs": "isotropic", "norm": "bn"},
}
WIDTHS = (32, 512)  # beside 128, of linear nets


def _he(rng, sizes):
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    return [random_weights(rng, units, inputs, relu=True) for units, inputs in pairs]


def _orthogonal(rng, sizes):
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    return [random_weights(rng, units, inputs, "orthogonal", relu=True) for units, inputs in pairs]


INITS = {  # weights of all hidden layers of a ReLU net
    "he": _he,
    "orthogonal": _orthogonal,
    "mirrored": mirrored_weights,
    "tenth": functools.partial(mirrored_weights, shrink=1 / 10),
    "thousandth": functools.partial(mirrored_weights, shrink=1 / 1000),
    "twins": functools.partial(twin_weights, common=TWINS),
}
TRAINED = {
    "he": ({"init": "he"}, "without BN, He's weights"),
    "orthogonal": ({"init": "orthogonal"}, "without BN, orthogonal weights"),
    "mirrored": ({"init": "mirrored"}, "without BN, mirrored orthogonal weights: linear at the start, rank kept"),
    "tenth": ({"init": "tenth"}, "mirrored, all directions but one shrunk to a tenth through the net"),
    "thousandth": ({"init": "thousandth"}, "mirrored, all directions but one shrunk to a thousandth"),
    "dd": ({"init": "he", "start": "dd"}, "without BN, He's weights, then BN's statistics of 512 images once"),
    "bn": ({"init": "he", "start": "bn"}, "with BN, He's weights"),
    "bn-twins": (
        {"init": "twins", "start": "bn"},
        "with BN, units of a layer nearly twins up to the sign: rank destroyed",
    ),
}
DEEPEST = ("he", "mirrored", "dd", "bn")  # of 64 layers only these: they take longest
ARMS = {
    f"{net}-{end}": f"untrained, {net}, {TOLD[end]}"
    for net in ("linear", "relu")
    for end in LOOKED
    if (net, end) != ("linear", "mirrored")
}
ARMS |= {
    f"linear-{norm}-{width}": f"untrained, linear, {TOLD[norm]}, width {width}"
    for norm in ("none", "bn")
    for width in WIDTHS
}
ARMS |= {
    f"{name}-{depth}": f"{depth} hidden layers, {told}"
    for depth in DEPTHS
    for name, (_, told) in TRAINED.items()
    if depth < 64 or name in DEEPEST
}


def run(
    config, arm, seed, *, net="linear", norm="none", init="gaussian", inputs="cluster", width=128, start=None, lr=None
):
    """Look at an untrained net layer by layer, or train one.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the samples, the weights and the order of the images.
    net : {"linear", "relu"} or int
        An untrained net, or the number of hidden layers of one that is trained.
    norm : {"none", "bn", "centring", "scaling"}
        Of an untrained net.
    init : str or callable
        Of an untrained net "gaussian", "orthogonal" or "mirrored"; else a name of `INITS`, or
        ``init(rng, sizes) -> list of array (units, inputs)``, the weights of all hidden layers.
    inputs : {"cluster", "isotropic"}
    width : int
        Of an untrained net.
    start : {None, "bn", "dd"}
        Of a net that is trained: plain, with BN, or with BN's statistics used once before training.
    lr : float

    Returns
    -------
    list of dict
        Untrained: a row for each layer looked at, which is its ``step``; ``loss`` is the stable rank. Trained: a row
        for each evaluation; the first also has the rank of the untrained net, the last the accuracies.
    """
    if isinstance(net, int):
        return _train(config, config.arms[arm], seed, net, init, start, lr)
    known(norm, NORMS, "norm")
    rng = np.random.default_rng([seed, 0])
    h = batch(np.random.default_rng([seed, 1]), inputs, config.options["samples"], width)
    depth, relu = config.arms[arm].steps, net == "relu"
    mirrored = iter(mirrored_weights(rng, [width] * (depth + 1)) if init == "mirrored" else ())
    rows, before = [], log_volume(h)
    for step in range(1, depth + 1):
        weight = next(mirrored) if init == "mirrored" else random_weights(rng, width, width, init, relu)
        h = layer(h, weight, relu=relu, **NORMS[norm])
        if step in looked(depth):
            found = rank(h)
            row = {"step": step, "loss": found.stable, "count": found.count, "gap": found.gap}
            if (net, norm, init) == ("linear", "none", "gaussian"):
                row["volume"] = log_volume(h) - before
            rows.append(row)
    return rows


def batch(rng, inputs, samples, width):
    """A batch, array (samples, width): independent samples, or those of one cluster."""
    known(inputs, ("cluster", "isotropic"), "inputs")
    apart = rng.normal(size=(samples, width))
    return apart if inputs == "isotropic" else rng.normal(size=width) + SPREAD * apart


def looked(depth):
    """The first 20 layers, 50 and 100, and others about evenly spaced on a logarithmic axis."""
    later = np.geomspace(20, max(depth, 21), 16).round().astype(int).tolist()
    return {step for step in {*range(1, 21), 50, 100, *later, depth} if step <= depth}


def build(depth, init, start, seed, x, width=100):
    """The net of a trained arm, before its first step."""
    sizes, rng = [784] + [width] * depth, np.random.default_rng([seed, 0])
    weights = named(INITS, init, "init")(rng, sizes)
    with seeded(seed):
        net = models.MLP([*sizes, 10], BatchNorm if start == "bn" else None)
        for hidden, weight in zip(inits.layers(net)[:-1], weights, strict=True):
            if weight.shape != hidden.weight.shape:
                raise ValueError(f"weights must be {tuple(hidden.weight.shape)}, got {weight.shape}")
            hidden.weight.data = torch.tensor(weight, dtype=torch.float32)
            if hidden.bias is not None:
                torch.nn.init.zeros_(hidden.bias)
    if start == "dd":
        inits.data_dependent(net, x[:512])
    return net


def untrained(net, x, labels, samples):
    """Rank behind the last hidden layer in training mode, and the growth of the gradient on its way back.

    ``growth`` is the logarithm to base 10 of the norm of the gradient of the second layer's weights over that of the
    last hidden layer's.
    """
    net, x = net.double().train(), x.double()
    h = x[:samples]
    with torch.no_grad():
        for part in list(net)[:-1]:
            h = part(h)
    net.zero_grad()
    torch.nn.functional.cross_entropy(net(x[:256]), labels[:256]).backward()
    norms = [float(part.weight.grad.norm()) for part in inits.layers(net)]
    net.zero_grad()
    growth = math.log10(max(norms[1], TINY) / max(norms[-2], TINY))
    return dict(zip(("stable", "count", "apart"), rank(h.numpy()), strict=True)) | {"growth": growth}


def _train(config, plan, seed, depth, init, start, lr):
    (x, labels), *held_out = images(plan.dataset)
    x = x.flatten(1)
    net = build(depth, init, start, seed, x)
    seen = untrained(build(depth, init, start, seed, x), x, labels, config.options["samples"])
    optimizer, rng, rows = sgd(net, lr), np.random.default_rng([seed, 2]), []
    net.train()
    for step in range(1, plan.steps + 1):
        chosen = torch.from_numpy(rng.choice(len(x), config.options["batch"], replace=False))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x[chosen]), labels[chosen])
        if not torch.isfinite(loss):
            rows.append({"step": step, "loss": float("nan"), "accuracy": 0.1, "test": 0.1})
            break
        loss.backward()
        optimizer.step()
        if step <= 20 or step % 10 == 0 or step == plan.steps:
            rows.append({"step": step, "loss": float(loss.detach())})
    else:
        if start == "bn":  # so that no lag of the running statistics counts against a deep net
            size = config.options["batch"]
            net = population(net, list(x.split(size))[: len(x) // size])
        rows[-1] |= {
            key: accuracy(net, a.flatten(1), b) for key, (a, b) in zip(("accuracy", "test"), held_out, strict=True)
        }
    rows[0] |= seen
    return rows


def summarize(rows):
    """The numbers of one cell."""
    last = rows[-1]
    if "test" in last:
        kept = {key: rows[0][key] for key in ("stable", "count", "apart", "growth")}
        return {"score": last["accuracy"], "right": 100 * last["test"], **kept}
    found = {"score": last["loss"], "stable": last["loss"], "count": last["count"], "apart": last["gap"]}
    found |= {"count_first": rows[0]["count"], "stable_first": rows[0]["loss"]}
    found["count_least"] = min(row["count"] for row in rows)
    if "volume" in last:
        row = max((row for row in rows if row["step"] <= 100), key=lambda row: row["step"])
        found["volume"] = row["volume"] / row["step"]
    return found


LOOKS = {
    "linear-none": {"label": "linear, no BN", **look("none")},
    "linear-bn": {"label": "linear, BN", **look("batchnorm")},
    "relu-none": {"label": "ReLU, no BN", **look("none"), "linestyle": ":"},
    "relu-bn": {"label": "ReLU, BN", **look("batchnorm"), "linestyle": ":"},
}


def draw(rows, ax, column="loss"):
    """Stable rank against depth, or another column: the four nets that the thresholds are about."""
    bands(ax, rows[rows["arm"].isin(LOOKS)], column, LOOKS)
    told = {"loss": "stable rank", "count": "values above 1 %", "gap": "orthogonality gap"}
    ax.set(xscale="log", xlabel="layer (log axis)", ylabel=told[column])


def worst(column, choose, factor=1.0):
    """The least or the largest over the seeds; the interval is from the least to the largest."""

    def found(cells):
        values = factor * cells[column].to_numpy(float)
        return Measured(float(choose(values)), (float(values.min()), float(values.max())))

    return found


def mean(column, factor=1.0):
    """Mean over the seeds; the interval is from the least to the largest."""
    return worst(column, np.mean, factor)


def over_theory(column, theory):
    """Mean over the seeds of a column over its theory."""
    return mean(column, 1 / theory)


def difference(one, other):
    """Accuracy of the first arm less that of the second, in points, paired by seed."""
    return paired.difference(one["right"], other["right"])


def rank_order(column):
    """Spearman's correlation over the arms: a measure of the untrained net and the accuracy, means over the seeds.

    The interval is over the seeds: one correlation for each.
    """

    def found(*arms):
        def correlation(values):
            return float(stats.spearmanr(*np.transpose(values)).statistic)

        pairs = np.array([arm[[column, "right"]].to_numpy(float) for arm in arms])  # arms, seeds, 2
        seeds = [correlation(pairs[:, i]) for i in range(pairs.shape[1])]
        return Measured(correlation(pairs.mean(1)), (min(seeds), max(seeds)))

    return found


def _looked_at():
    words, above = "Singular values above 1 % of the largest", "values above 1 %, 32 samples, width 128"
    collapse = {"unit": "directions", "place": "rank collapse of a random net", "paper_value": "falls to one"}
    keeps = {"unit": "directions", "place": "BN avoids the collapse", "paper_value": "of order root of the width"}
    for net, told in (("linear", "linear"), ("relu", "ReLU")):
        none, bn = (f"{net}-none",), (f"{net}-bn",)
        for name, arm, column, choose, where, how, limits in (
            ("first", none, "count_first", min, "without BN, behind layer 1 (least over the seeds)", collapse, MANY),
            ("last", none, "count", max, "without BN, behind layer {steps} (largest over the seeds)", collapse, FEW),
            ("bn", bn, "count_least", min, "with BN, least over all layers to {steps} and all seeds", keeps, KEPT),
        ):
            text = f"Singular {above}: {told} net {where}"
            yield Statement(f"count-{name}-{net}", arm, worst(column, choose), text, **how | {"threshold": limits})
        for arm in (arm for arm in ARMS if arm.startswith(f"{net}-")):
            text = f"behind layer {{steps}}, 32 samples: {ARMS[arm].removeprefix('untrained, ')}"
            yield Statement(f"stable-{arm}", (arm,), mean("stable"), f"Stable rank {text}", unit="")
            yield Statement(f"left-{arm}", (arm,), mean("count"), f"{words} {text}", unit="directions")
            if (arm,) in (none, bn):
                yield Statement(f"gap-{arm}", (arm,), mean("apart"), f"Orthogonality gap {text}", unit="")
        for end in ("none", "centring"):
            text = f"Stable rank behind layer 1: {told} net {TOLD[end]}"
            yield Statement(f"first-{net}-{end}", (f"{net}-{end}",), mean("stable_first"), text, unit="")
    yield Statement(
        *("relu-theory", ("relu-bn",), over_theory("stable", relu_stable_rank(32))),
        "ReLU net with BN: stable rank behind layer {steps} over N / (1 + (N - 1) J(-1/(N - 1))), N = 32",
        **{"place": "our theory, infinite width", "threshold": LAW},
    )
    yield Statement(
        *("volume", ("linear-none",), over_theory("volume", lyapunov(128, 32).sum())),
        "Linear net without BN: growth per layer of the logarithm of the volume of 32 samples, over its theory",
        **{"place": "a theorem on Gaussian matrices", "threshold": VOLUME, "fidelity": SAME},
    )


def _trained():
    cause = {"unit": "points", "place": "rank at the start and training", "paper_value": "no number"}
    pairs = {
        "kept": ("mirrored", "he", "without BN, mirrored orthogonal weights less He's"),
        "orthogonal": ("orthogonal", "he", "without BN, orthogonal weights less He's"),
        "dd": ("dd", "he", "without BN, BN's statistics once less He's weights alone"),
        "tenth": ("tenth", "mirrored", "without BN, all directions but one shrunk to a tenth less not shrunk"),
        "thousandth": ("thousandth", "mirrored", "the same, shrunk to a thousandth"),
        "bn": ("bn", "he", "with BN less without, He's weights"),
        "bn-mirrored": ("bn", "mirrored", "with BN less without BN, mirrored"),
        "bn-twins": ("bn-twins", "bn", "with BN, units nearly twins less independent units"),
    }
    back = "before training, norm of the gradient of layer 2 over that of the last hidden layer"
    for depth in DEPTHS:
        for name, (one, other, told) in pairs.items():
            text = f"{depth} hidden layers, test accuracy after {{steps}} steps: {told}"
            yield Statement(
                f"train-{name}-{depth}", (f"{one}-{depth}", f"{other}-{depth}"), difference, text, **cause
            )
        for arm in ("mirrored", "dd", "bn"):
            text = f"{depth} hidden layers, {back}: {TRAINED[arm][1].partition(':')[0]}"
            yield Statement(f"growth-{arm}-{depth}", (f"{arm}-{depth}",), mean("growth"), text, unit="decades")
        for name, told in (("stable", "stable rank"), ("count", "singular values above 1 % of the largest")):
            arms = tuple(arm for arm in ARMS if arm in {f"{name}-{depth}" for name in TRAINED})
            text = (
                f"{depth} hidden layers, {len(arms)} arms: Spearman's correlation of accuracy and {told} at the start"
            )
            yield Statement(f"order-{name}-{depth}", arms, rank_order(name), text, unit="")


def claims(cells):
    """Rank against depth, theory, and accuracy with the rank kept or destroyed."""
    return measure([*_looked_at(), *_trained()], cells, "rank", "daneshmand2020")


def _rates(lowest, count):
    """The middle ``count`` of five learning rates half a decade apart, from 10 ** (lowest / 2) up, to one digit."""
    first = lowest + (5 - count) // 2
    return [float(f"{10 ** (k / 2):.0e}") for k in range(first, first + count)]


LOWEST = {  # learning rate of each arm, in half decades, for 10, 32 and 64 layers: from a pilot with a tuning seed
    "he": (-6, -8, -8),
    "orthogonal": (-6, -8),
    "mirrored": (-6, -7, -8),
    "tenth": (-6, -7),
    "thousandth": (-5, -6),
    "dd": (-7, -10, -13),
    "bn": (-5, -5, -5),
    "bn-twins": (-4, -4),
}


def _plans(layers, steps, depths, count):
    """Untrained nets of so many layers, and nets trained for so many steps with ``count`` learning rates each."""
    plans = {}
    for arm in ARMS:
        name, _, end = arm.rpartition("-")
        if arm.split("-")[0] in ("linear", "relu"):
            net, _, setting = arm.partition("-")
            chosen = {"norm": name.partition("-")[2], "width": int(end)} if end.isdigit() else LOOKED[setting]
            plans[arm] = Plan("generated", layers, grid(net=net, **chosen))
        elif int(end) in depths:
            rates = _rates(LOWEST[name][DEPTHS.index(int(end))], count)
            plans[arm] = Plan("mnist5k", steps, grid(net=int(end), **TRAINED[name][0], lr=rates))
    return plans


OPTIONS = {"samples": 32, "batch": 64}
PRESETS = {
    "lite": Config(_plans(200, 100, (10, 32), 3), (11, 12, 13), (1,), options=OPTIONS),
    "full": Config(_plans(200, 200, DEPTHS, 5), (11, 12, 13, 14, 15), (1, 2), options=OPTIONS),
}
