"""Where the boundaries of a ReLU net lie, before training and through it: BN moves them to the data.

Balestriero & Baraniuk (2022) on a 2-D spiral: 2-24-24-24-2 with ReLU and He's weights, inputs with mean 0 and
variance 1, or shifted by 3 in both directions. Regions and distances are exact (`bnlib.theory.partition`).
"""

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch.inits import he, linears
from bnlib.scratch.layers import BatchNorm, ReLU
from bnlib.scratch.network import accuracy, fit, mlp, pixels, softmax_cross_entropy
from bnlib.theory.partition import (
    fold_batch,
    jitter,
    least_squares,
    nearest,
    partition,
    preactivations,
    signed_distances,
    unit_distances,
)

from . import paired
from .core import SAME, Config, Measured, Plan, Statement, grid, known, measure

SHIFT = 3.0  # of both inputs
AWAY = 3.0  # standard deviations from the mean of a pre-activation
ROOM = 4.0  # half the side of the square in which the decision boundary is looked for
EPS = 1e-5  # of BN
PLACES = {"shifted": SHIFT, "centred": 0.0}
CLOSER = {"shifted": (None, 0.35), "centred": (None, 0.7)}  # of the distances' ratio, BN over a net without it
LAW = (0.85, 1.15)  # of the jitter over its law
ROUNDING = (None, 1e-12)  # of what is equal but for rounding
CURVES = {"loss": 3, "distance": 4, "regions": 6, "size": 4, "move_1": 4, "move_2": 4, "move_3": 4}
STARTS = {
    "zero": "biases 0",
    "random": "random biases, uniform up to 1 / sqrt(inputs) either way",
    "centre": "biases that give each pre-activation the mean 0 over the training data",
    "centre-away": "the same, then moved by 3 standard deviations, up and down in turn",
    "bn-init": "each pre-activation with mean 0 and variance 1 over the training data",
}
NORMS = {
    "bn": "BN",
    "bn-away": "BN whose beta starts at 3 and -3 in turn",
    "bn-held": "BN whose beta stays at 3 and -3 in turn",
}
TRAINED = {f"{start}-shifted": {"init": start} for start in STARTS}
TRAINED |= {f"{norm}-shifted": {"init": "zero", "norm": norm} for norm in NORMS}
TRAINED |= {
    "zero-centred": {"init": "zero", "shift": 0.0},
    "bn-centred": {"init": "zero", "norm": "bn", "shift": 0.0},
}
DIGITS = tuple(f"digits-{start}" for start in ("zero", "centre", "bn-init"))
ARMS = {
    **{
        f"map-{start}-{where}": f"untrained, inputs {where}: {told}"
        for where in PLACES
        for start, told in STARTS.items()
    },
    "jitter": "untrained, BN, inputs shifted: how far mini-batches move the boundaries",
    **{
        name: f"trained, inputs {name.rpartition('-')[2]}: {(STARTS | NORMS)[s.get('norm') or s['init']]}"
        for name, s in TRAINED.items()
    },
    **{name: f"784-100-100-100-10 on 5,000 digits: {STARTS[name.removeprefix('digits-')]}" for name in DIGITS},
}
RATES = {"spiral": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0], "digits": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]}


class HeldBatchNorm(BatchNorm):
    """BN whose beta is not trained."""

    def backward(self, dy):
        dx = super().backward(dy)
        self.grads["beta"] = np.zeros_like(self.grads["beta"])
        return dx


def spiral(rng, count, shift=0.0):
    """Points of two spiral arms, evenly spread over their disk, each input with mean 0 and variance 1, then shifted.

    Parameters
    ----------
    rng : numpy.random.Generator
    count : int
    shift : float
        Added to both inputs.

    Returns
    -------
    x : array (count, 2)
    labels : int array (count,)
    """
    labels = rng.integers(0, 2, count)
    radius = np.sqrt(rng.random(count))
    angle = np.pi * (3 * radius + labels)
    x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.02 * rng.normal(size=(count, 2))
    return (x - x.mean(0)) / x.std(0) + shift, labels


def weights_of(seed, sizes):
    """He's weights, float64, all layers but the last."""
    net = mlp(sizes, activation=ReLU)
    he(net, np.random.default_rng([seed, 0]))
    return [layer.params["weight"].astype(float) for layer in linears(net)]


def start(init, x, weights, seed):
    """The layers that a name of `STARTS` makes of weights, or a function ``(x, weights) -> layers``."""
    if callable(init):
        return init(x, weights)
    known(init, STARTS, "start")
    if init in ("zero", "random"):
        rng, bounds = np.random.default_rng([seed, 1]), [len(weight[0]) ** -0.5 for weight in weights]
        bias = [
            rng.uniform(-b, b, len(weight)) * (init == "random") for b, weight in zip(bounds, weights, strict=True)
        ]
        return fold_batch(x, weights, mean=False, scale=False, beta=bias)
    if init == "bn-init":
        return fold_batch(x, weights, eps=EPS)
    layers = []
    for weight in weights:
        h = np.maximum(preactivations(x, layers)[-1], 0) if layers else x
        z = h @ weight.T
        layers.append((weight, away(len(weight)) * z.std(0) * (init == "centre-away") - z.mean(0)))
    return layers


def away(units):
    """Plus and minus `AWAY` in turn."""
    return AWAY * (-1.0) ** np.arange(units)


def run(config, arm, seed, *, task="map", init="zero", norm=None, shift=SHIFT, lr=None):
    """Look at one untrained net, or train one.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the data, the weights and the order of the samples.
    task : {"map", "jitter", "train"}
    init : str or callable
        A name of `STARTS`, or ``init(x, weights) -> layers`` with the training inputs and He's weights of the hidden
        layers, ``layers`` a list of (weight, bias).
    norm : str, optional
        A name of `NORMS`.
    shift : float
    lr : float

    Returns
    -------
    list of dict
        Task "map": a row for each depth, which is its ``step``; ``loss`` is the mean distance of the samples from the
        nearest boundary. Task "jitter": a row for each size of mini-batch; ``loss`` is the jitter over its law. Task
        "train": a row for each evaluation.
    """
    if config.arms[arm].dataset == "mnist5k":
        return _digits(config, arm, seed, init, lr)
    sizes, options = (2, *config.options["hidden"], 2), config.options
    sets = [spiral(np.random.default_rng([seed, 10 + part]), options["samples"], shift) for part in range(3)]
    weights = weights_of(seed, sizes)[:-1]
    if task == "map":
        return _map(sets[0][0], start(init, sets[0][0], weights, seed))
    if task == "jitter":
        return _jitter(sets[0][0], weights, options, np.random.default_rng([seed, 2]))
    net = build(sizes, seed, init, norm, sets[0][0], float)
    x = sets[0][0]

    def probe(net, step):
        return {"distance": float(nearest(x, layers_of(net, x)).mean())}

    rows = _train(config, arm, net, sets, seed, lr, probe)
    if np.isfinite(rows[-1]["loss"]) and seed not in config.tuning_seeds:
        rows[-1]["margin"] = margin(net, x, *sets[2])
    return rows


def layers_of(net, x):
    """The hidden layers of a trained net, BN with the statistics of all training inputs."""
    weights = [layer.params["weight"] for layer in linears(net)[:-1]]
    norms = [layer for layer in net.layers if isinstance(layer, BatchNorm)]
    if norms:
        gamma, beta = ([layer.params[key] for layer in norms] for key in ("gamma", "beta"))
        return fold_batch(x, weights, gamma=gamma, beta=beta, eps=EPS)
    return [(layer.params["weight"], layer.params["bias"]) for layer in linears(net)[:-1]]


def margin(net, x, points, labels):
    """Mean distance of the points that a net has right from its decision boundary; ``x`` are all training inputs."""
    last, hidden = linears(net)[-1], layers_of(net, x)
    weight, bias = (last.params[key] for key in ("weight", "bias"))
    layers = [*hidden, (weight[[1]] - weight[[0]], bias[[1]] - bias[[0]])]
    logit = preactivations(points, layers)[-1][:, 0]
    points = points[(logit > 0) == labels]
    centre, units = x.mean(0), sum(len(weight) for weight, _ in layers)
    box = (centre[0] - ROOM, centre[0] + ROOM, centre[1] - ROOM, centre[1] + ROOM)
    found = partition(layers, box)
    own = found.owners == units - 1
    found = found._replace(segments=found.segments[own], owners=np.zeros(own.sum(), int))
    border = ROOM - np.abs(points - centre).max(1)  # beyond it nothing is known
    return float(np.minimum(unit_distances(points, found, 1)[:, 0], border).mean())


def _map(x, layers):
    rows, h = [], x
    box = (*(edge(x[:, 0]) for edge in (np.min, np.max)), *(edge(x[:, 1]) for edge in (np.min, np.max)))
    for depth, (weight, bias) in enumerate(layers, 1):
        found = partition(layers[:depth], box)
        squares, least = np.square(signed_distances(h, weight, -bias)).sum(0), least_squares(h, weight)[1]
        excess = squares[least > 0] / least[least > 0]
        h = np.maximum(h @ weight.T + bias, 0)
        row = {"step": depth, "loss": float(nearest(x, layers[:depth]).mean()), "regions": len(found.regions)}
        row |= {"cutting": len(np.unique(found.owners)) / sum(len(w) for w, _ in layers[:depth])}
        rows.append(row | {"excess": float(excess.mean()), "excess_error": float(np.abs(excess - 1).max())})
    return rows


def _jitter(x, weights, options, rng):
    whole = preactivations(x, fold_batch(x, weights, eps=EPS))
    first, rows = x @ weights[0].T, []
    for step, size in enumerate(options["sizes"], 1):
        means, squares, sides = [], np.zeros(len(weights)), np.zeros(len(weights))
        for _ in range(options["batches"]):
            chosen = rng.choice(len(x), size, replace=False)
            means.append(first[chosen].mean(0))
            moved = preactivations(x, fold_batch(x[chosen], weights, eps=EPS))
            squares += [np.square(z - still).mean() for z, still in zip(moved, whole, strict=True)]
            sides += [((z > 0) != (still > 0)).mean() for z, still in zip(moved, whole, strict=True)]
        law = jitter(1.0, size, len(x))
        place = float(np.sqrt(np.mean(np.var(means, 0) / np.square(first.std(0) * law))))
        row = {"step": step, "size": size, "loss": place, "law": law}
        row |= {f"move_{k}": float(v) for k, v in enumerate(np.sqrt(squares / options["batches"]), 1)}
        rows.append(row | {f"sides_{k}": float(v) for k, v in enumerate(sides / options["batches"], 1)})
    return rows


def build(sizes, seed, init, norm, x, dtype):
    classes = {"bn": BatchNorm, "bn-away": BatchNorm, "bn-held": HeldBatchNorm}
    if norm is not None:
        known(norm, classes, "norm")
    net = mlp(sizes, activation=ReLU, norm=norm and (lambda units: classes[norm](units, EPS)))
    *hidden, last = weights_of(seed, sizes)
    layers = [*start(init, x, hidden, seed), (last, np.zeros(len(last)))]
    for layer, (weight, bias) in zip(linears(net), layers, strict=True):
        layer.params = {"weight": weight.astype(dtype), "bias": np.asarray(bias).astype(dtype)}
    for layer in net.layers:
        if isinstance(layer, BatchNorm):
            units = len(layer.params["gamma"])
            beta = away(units) if norm != "bn" else np.zeros(units)
            layer.params = {"gamma": np.ones(units, dtype), "beta": beta.astype(dtype)}
    return net


def _train(config, arm, net, sets, seed, lr, probe=None):
    """Rows of `fit`; the last one has what is left at the end: loss on the training set, errors on test data in %."""
    steps, (train, validation, test) = config.arms[arm].steps, sets
    given = {"batch": config.options["batch"], "every": evaluations(steps), "seed": seed}
    with np.errstate(over="ignore", invalid="ignore"):  # of rates that diverge
        rows = fit(net, *train, lr=lr, steps=steps, validation=validation, probe=probe, progress=False, **given)
    if np.isfinite(rows[-1]["loss"]):
        loss, _ = softmax_cross_entropy(net.forward(train[0], training=False), train[1])
        rows[-1] |= {"train_loss": loss, "error": 100 * (1 - accuracy(net, *test))}
    else:  # diverged: an answer by chance
        rows[-1] |= {"train_loss": float("inf"), "error": 100 * (1 - rows[-1]["accuracy"])}
    return rows


def _digits(config, arm, seed, init, lr):
    sets = load("mnist5k").pairs(pixels)
    net = build((784, 100, 100, 100, 10), seed, init, None, sets[0][0].astype(float), np.float32)
    return _train(config, arm, net, sets, seed, lr)


def evaluations(steps):
    """The first 20 steps, then about 12 % apart."""
    later = np.geomspace(20, max(steps, 21), 1 + round(np.log(max(steps, 21) / 20) / 0.12)).round().astype(int)
    return sorted(step for step in {*range(1, 21), *later.tolist(), steps} if step <= steps)


def summarize(rows):
    """The numbers of one cell: of the deepest row, of every size of mini-batch, or of the end of training."""
    last = rows[-1]
    if "error" in last:
        kept = ("train_loss", "error", "distance", "margin")
        return {"score": last["accuracy"], **{key: last[key] for key in kept if key in last}}
    if "regions" in last:
        kept = ("regions", "cutting", "excess")
        told = {"distance": last["loss"], "excess_error": max(row["excess_error"] for row in rows)}
        return {"score": -last["loss"], **told, **{key: last[key] for key in kept}}
    found = {"score": 0.0}
    for row in rows:
        size, whole = row["size"], last["law"] / row["law"]
        found[f"place_{size}"] = row["loss"]
        found |= {f"deep_{k}_{size}": whole * row[f"move_{k}"] / last[f"move_{k}"] for k in (2, 3)}
        found |= {f"sides_{k}_{size}": 100 * row[f"sides_{k}"] for k in (1, 2, 3)}
    return found


def draw(rows, ax):
    """Distance of the data from the nearest boundary through training, on shifted inputs."""
    bands(ax, rows[rows["arm"].isin(LOOKS)], "distance", LOOKS)
    ax.set(xscale="log", yscale="log", xlabel="training step (log axis)", ylabel="distance (log axis)")


def ratio(column):
    """Geometric mean of the ratio of two arms, paired by seed."""

    def found(one, other):
        return paired.ratio(*([(v, True) for v in cells[column]] for cells in (one, other)))

    return found


def difference(column):
    """Mean of the first arm less the second, paired by seed."""
    return lambda one, other: paired.difference(one[column], other[column])


def mean(column, factor=1.0):
    """Mean over the seeds; the interval is from the smallest to the largest."""

    def found(cells):
        values = factor * cells[column].to_numpy(float)
        return Measured(float(values.mean()), (float(values.min()), float(values.max())))

    return found


def largest(column):
    """The largest over seeds and arms; the interval is from the smallest to the largest."""

    def found(*parts):
        values = np.concatenate([part[column].to_numpy(float) for part in parts])
        return Measured(float(values.max()), (float(values.min()), float(values.max())))

    return found


def farthest(*columns):
    """Of the means over the seeds the one farthest from 1; the interval is from the smallest mean to the largest."""

    def found(cells):
        means = cells[list(columns)].mean().to_numpy(float)
        return Measured(float(means[np.abs(np.log(means)).argmax()]), (float(means.min()), float(means.max())))

    return found


def claims(cells):
    """Distances and counts before training, the jitter, what training makes of each start, margins."""
    bn, where = {place: f"map-bn-init-{place}" for place in PLACES}, "2-D partitions, before training"
    short = {"zero": "biases 0", "random": "random biases", "centre": "BN's mean alone", "bn-init": "BN"}
    preprint = {"place": where, "paper_value": "closer, no number"}
    table = [
        Statement(
            *("least-squares", tuple(bn.values()), largest("excess_error")),
            "Sum of squared distances to a unit's boundary over its minimum m var / ||w||²: largest error",
            **{"unit": "error", "fidelity": SAME, "place": "total least squares, offset only"},
            **{"paper_value": "the minimum", "threshold": ROUNDING},
        )
    ]
    for place, threshold in CLOSER.items():
        for other in ("zero", "random"):
            table.append(
                Statement(
                    *(f"distance-{place}-{other}", (bn[place], f"map-{other}-{place}"), ratio("distance")),
                    f"Inputs {place}: mean distance from the nearest boundary, BN over {short[other]}",
                    **{**preprint, "threshold": threshold},
                )
            )
        table.append(
            Statement(
                *(f"distance-{place}-centre", (bn[place], f"map-centre-{place}"), ratio("distance")),
                f"Inputs {place}: mean distance from the nearest boundary, BN over BN's mean alone",
            )
        )
        for init, name in short.items():
            table.append(
                Statement(
                    *(f"regions-{place}-{init}", (f"map-{init}-{place}",), mean("regions")),
                    f"Inputs {place}: regions in the smallest rectangle that holds the data, {name}",
                    **{**preprint, "unit": "regions", "paper_value": "more, no number"},
                )
            )
            table.append(
                Statement(
                    *(f"cutting-{place}-{init}", (f"map-{init}-{place}",), mean("cutting", 100)),
                    f"Inputs {place}: units whose boundary passes through that rectangle, {name}",
                    unit="%",
                )
            )
    law = {"place": "jitter of the boundaries", "paper_value": "no law", "threshold": LAW}
    large = (32, 64, 128, 256)
    table += [
        Statement(
            *("jitter-place", ("jitter",), farthest(*(f"place_{size}" for size in large))),
            "Spread of a first-layer boundary over mini-batches, over its law: worst of B = 32 to 256",
            **law | {"fidelity": SAME},
        ),
        *(
            Statement(
                *(f"jitter-layer-{k}", ("jitter",), farthest(*(f"deep_{k}_{size}" for size in large[:-1]))),
                f"Layer {k}: change of the pre-activations over mini-batches, over that of B = 256 by the law: "
                "worst of B = 32 to 128",
                **law,
            )
            for k in (2, 3)
        ),
        Statement(
            *("jitter-small", ("jitter",), farthest("deep_3_8", "deep_3_16")),
            "Layer 3, the same for B = 8 and 16: the worse one",
            **law | {"threshold": None},
        ),
        Statement(
            *("jitter-sides", ("jitter",), mean("sides_3_32")),
            "Layer 3, B = 32: pairs of a sample and a unit whose side a mini-batch changes",
            unit="%",
        ),
    ]
    smart = {"place": "BN as an initialization", "paper_value": "better, other nets", "unit": "points"}
    ours = {"unit": "points"}
    pairs = [
        (
            "centre",
            "zero-shifted",
            "centre-shifted",
            "biases 0 less offsets set by hand",
            smart | {"threshold": 10.0},
        ),
        ("bn-init", "zero-shifted", "bn-init-shifted", "biases 0 less BN's statistics once", smart),
        ("bn", "zero-shifted", "bn-shifted", "biases 0 less BN", ours),
        ("bn-or-centre", "centre-shifted", "bn-shifted", "offsets set by hand less BN", ours),
        ("centre-away", "centre-away-shifted", "centre-shifted", "no BN, boundaries off the data less at them", ours),
        ("bn-away", "bn-away-shifted", "bn-shifted", "BN, boundaries start off the data less at it", ours),
        ("bn-held", "bn-held-shifted", "bn-shifted", "BN, boundaries held off the data less at it", ours),
        ("centred", "zero-centred", "bn-centred", "inputs centred: biases 0 less BN", ours),
        ("digits-centre", "digits-zero", "digits-centre", "5,000 digits: biases 0 less offsets set by hand", smart),
        (
            "digits-bn-init",
            "digits-zero",
            "digits-bn-init",
            "5,000 digits: biases 0 less BN's statistics once",
            smart,
        ),
    ]
    table += [
        Statement(
            f"error-{name}", (one, other), difference("error"), f"Test error after {{steps}} steps, {told}", **how
        )
        for name, one, other, told, how in pairs
    ]
    table += [
        Statement(
            *(f"loss-{arm}", ("zero-shifted", f"{arm}-shifted"), ratio("train_loss")),
            f"Inputs shifted: training loss after {{steps}} steps, biases 0 over {told}",
            **{"place": smart["place"], "paper_value": smart["paper_value"]},
        )
        for arm, told in (("centre", "offsets set by hand"), ("bn-init", "BN's statistics once"), ("bn", "BN"))
    ]
    wide = {"place": "larger margin", "paper_value": "larger, no number"}
    table += [
        Statement(f"margin-{name}", (one, other), ratio("margin"), f"Mean margin, {told}", **wide)
        for name, one, other, told in (
            ("centre", "bn-shifted", "centre-shifted", "BN over offsets set by hand"),
            ("bn-init", "bn-shifted", "bn-init-shifted", "BN over BN's statistics once"),
            ("centred", "bn-centred", "zero-centred", "inputs centred: BN over biases 0"),
        )
    ]
    return measure(table, cells, "partition", "balestriero2022")


LOOKS = {
    "zero-shifted": {"label": "no BN, biases 0", **look("none")},
    "centre-shifted": {"label": "no BN, offsets by hand", **look("none"), "linestyle": "-"},
    "bn-shifted": {"label": "BN", **look("batchnorm")},
    "bn-away-shifted": {"label": "BN, starts off the data", **look("variant")},
    "bn-held-shifted": {"label": "BN, held off the data", **look("variant"), "linestyle": ":"},
}


def _plans(steps, digit_steps, rates):
    plans = {}
    for arm in ARMS:
        if arm.startswith("map-"):
            init, _, where = arm.removeprefix("map-").rpartition("-")
            plans[arm] = Plan("generated", 3, grid(task="map", init=init, shift=PLACES[where]))
        elif arm == "jitter":
            plans[arm] = Plan("generated", 6, grid(task="jitter"))
        elif arm in DIGITS:
            plans[arm] = Plan("mnist5k", digit_steps, grid(init=arm.removeprefix("digits-"), lr=rates["digits"]))
        else:
            plans[arm] = Plan("generated", steps, grid(task="train", **TRAINED[arm], lr=rates["spiral"]))
    return plans


OPTIONS = {"hidden": (24, 24, 24), "samples": 512, "batch": 64, "sizes": (8, 16, 32, 64, 128, 256), "batches": 1_000}
LITE = {"spiral": [0.03, 0.1, 0.3], "digits": [0.03, 0.1, 0.3]}
PRESETS = {
    "lite": Config(_plans(300, 100, LITE), (11, 12, 13), (1, 2), options=OPTIONS | {"batches": 100}),
    "full": Config(_plans(1_000, 300, RATES), tuple(range(11, 21)), (1, 2, 3), options=OPTIONS),
}
