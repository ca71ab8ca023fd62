"""What a step along the gradient meets, with and without BN; other norms in BN's place; sharpness and learning rate.

Santurkar et al. (2018) on a small net: 784-100 x 10-10 with ReLU and He's weights, 3,500 digits, 200 steps with
batches of 128. Cohen et al. (2021) on a smaller one: 49-32-32-10, full batch.
"""

import copy

import numpy as np
import torch
from torch import nn

from bnlib.data import load
from bnlib.nets import inits, models
from bnlib.nets.images import images
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import adam, seeded, sgd
from bnlib.page.figures import bands, look
from bnlib.theory.smoothness import along

from . import paired
from .core import Config, Measured, Plan, Statement, grid, known, measure
from .scale_invariance import shrink


class Divided(nn.Module):
    """BN's place taken by another norm: centre, divide by a mean l_p norm over the batch, scale and shift.

    Implements {eq}`eq-sm-lp`; the norm is that of the values before centring. In training only: it keeps no running
    statistics.

    Parameters
    ----------
    channels : int
    p : float or None
        Infinity is allowed. None divides by nothing.
    centre : bool
    """

    def __init__(self, channels, p, centre=True):
        super().__init__()
        self.p, self.centre = p, centre
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        size = 1.0
        if self.p == float("inf"):
            size = x.abs().amax(0) + 1e-5
        elif self.p is not None:
            size = (x.abs().pow(self.p).mean(0) + 1e-5).pow(1 / self.p)
        return self.gamma * ((x - x.mean(0)) if self.centre else x) / size + self.beta


NORMS = {
    "none": None,
    "dd": None,
    "bn": BatchNorm,
    "l1": lambda channels: Divided(channels, 1.0),
    "l2": lambda channels: Divided(channels, 2.0),
    "linf": lambda channels: Divided(channels, float("inf")),
    "centre": lambda channels: Divided(channels, None),
    "scale": lambda channels: Divided(channels, 2.0, centre=False),
}
TOLD = {
    "none": "no normalization",
    "dd": "no normalization, started from data",
    "bn": "BN",
    "l1": "centred, divided by the mean absolute value",
    "l2": "centred, divided by the root mean square before centring",
    "linf": "centred, divided by the largest absolute value",
    "centre": "centred, divided by nothing",
    "scale": "divided by the root mean square, not centred",
}
OPTIMIZERS = {"sgd": lambda model, lr: sgd(model, lr, momentum=0.0), "adam": adam}
RATES = {
    "sgd": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "adam": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
}
LANDSCAPE = ("none", "dd", "bn")
FACTORS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)  # of the learning rate, along the gradient
COMMON = 0.1  # the rate of the same measure at one rate for all
LOOKED = (1, 2, 4, 7, 10, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200)
EARLY = 10  # the steps up to here are counted apart
SHARP_RATES = (0.1, 0.2, 0.4, 0.8, 1.6)
SHARP_EVERY = 20
CURVES = {"loss": 3, "range": 3, "change": 3, "beta": 3, "sharpness": 3}
STEPS = 200


def build(kind, seed, x, sizes):
    """The net of an arm, from He's weights; *dd* starts from 512 of the images ``x``."""
    known(kind, NORMS, "arm")
    with seeded(seed):
        net = models.MLP(sizes, NORMS[kind])
    with seeded(seed):  # again, because a layer with a bias has drawn more: now all arms get the same weights
        inits.he(net)
        if kind == "dd":
            inits.data_dependent(net, x[torch.randperm(len(x))[:512]])
    return net


def run(config, arm, seed, *, kind="bn", optimizer="sgd", lr=0.1, weights=None):
    """Train one net and measure the loss along its gradients, or the sharpness of a net trained on the full batch.

    Parameters
    ----------
    config : Config
    arm : str
        ``sharp-...`` is trained on the full batch.
    seed : int
        Of the weights and of the order of the images.
    kind : str
        A name of `NORMS`.
    optimizer : {"sgd", "adam"}
    lr : float
    weights : float, optional
        Multiply all weights by this before training: a small one gives a plateau.

    Returns
    -------
    list of dict
        A row per step: ``loss``; in confirming cells of landscape arms, at `LOOKED`, also ``range``, ``change`` and
        ``beta``, and the same with ``common_`` before the name; or ``sharpness``.
    """
    if arm.startswith("sharp"):
        return _sharp(config, arm, seed, kind, lr)
    known(optimizer, OPTIMIZERS, "optimizer")
    plan = config.arms[arm]
    (x, labels), _, _ = images(plan.dataset)
    net = build(kind, seed, x, [784, *[100] * config.options["hidden"], 10])
    if weights is not None:
        with torch.no_grad():
            for layer in inits.layers(net):
                layer.weight *= weights
    update, rng, rows = OPTIMIZERS[optimizer](net, lr), np.random.default_rng([seed, 3]), []
    losses = []
    probed = plan.probed and seed not in config.tuning_seeds
    for step in range(1, plan.steps + 1):
        chosen = torch.from_numpy(rng.choice(len(x), config.options["batch"], replace=False))
        update.zero_grad()
        loss = nn.functional.cross_entropy(net(x[chosen]), labels[chosen])
        row = {"step": step, "loss": float(loss.detach())}
        losses.append(row["loss"])
        if not np.isfinite(row["loss"]):
            rows.append({"step": step, "loss": float("nan")})
            break
        if probed and step in LOOKED:
            for name, rate in (("", lr), ("common_", COMMON)):
                found = along(*ray(net, x[chosen], labels[chosen], rate))
                row |= dict(zip((f"{name}range", f"{name}change", f"{name}beta"), found, strict=True))
        loss.backward()
        update.step()
        if step <= 20 or step % 10 == 0 or step == plan.steps:
            rows.append(row)
    if np.isnan(rows[-1]["loss"]):  # diverged: the loss of a guess to the end
        losses = [*losses[:-1], *[np.log(10)] * (plan.steps - len(losses) + 1)]
    rows[-1] |= {"area": float(np.mean(losses)), "end": float(np.mean(losses[-50:]))}
    return rows


def ray(net, x, labels, lr, factors=FACTORS):
    """Losses and gradients at the points ``w - factor * lr * g``, the net left as it is.

    Returns
    -------
    losses : list of float
    gradients : array (1 + points, n)
        The first at w itself.
    steps : array (points,)
        ``factor * lr``.
    """
    net = copy.deepcopy(net)
    parameters = list(net.parameters())
    start = [p.detach().clone() for p in parameters]

    def at(step, direction):
        with torch.no_grad():
            for p, s, d in zip(parameters, start, direction, strict=True):
                p.copy_(s - step * d)
        loss = nn.functional.cross_entropy(net(x), labels)
        return float(loss.detach()), torch.autograd.grad(loss, parameters)

    _, first = at(0.0, start)
    points = [at(factor * lr, first) for factor in factors]
    flat = [
        torch.cat([part.flatten() for part in grads]).double().numpy() for grads in (first, *(g for _, g in points))
    ]
    return [loss for loss, _ in points], np.array(flat), lr * np.asarray(factors)


def sharpness(net, x, labels, tries=15):
    """Largest eigenvalue of the Hessian of the training loss, by power iteration.

    Parameters
    ----------
    net : Module
        In training mode.
    x, labels : tensor
    tries : int
        Products of the Hessian with a vector.

    Returns
    -------
    float
    """
    parameters = list(net.parameters())
    loss = nn.functional.cross_entropy(net(x), labels)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    with seeded(0):
        v = [torch.randn_like(p) for p in parameters]
    value = 0.0
    for _ in range(tries):
        length = torch.sqrt(sum((part * part).sum() for part in v))
        v = [part / length for part in v]
        product = torch.autograd.grad(gradients, parameters, grad_outputs=v, retain_graph=True)
        value = float(sum((a * b).sum() for a, b in zip(v, product, strict=True)))
        v = list(product)
    return value


def _sharp(config, arm, seed, kind, lr):
    plan, digits, count = config.arms[arm], load(config.arms[arm].dataset), config.options["samples"]
    x = torch.from_numpy(shrink(digits.x_train[:count])).float()
    labels = torch.tensor(digits.y_train[:count]).long()
    net, rows = build(kind, seed, x, [49, 32, 32, 10]), []
    parameters = list(net.parameters())
    for step in range(1, plan.steps + 1):
        loss = nn.functional.cross_entropy(net(x), labels)
        row = {"step": step, "loss": float(loss.detach())}
        if not np.isfinite(row["loss"]):
            rows.append({"step": step, "loss": float("nan")})
            break
        gradients = torch.autograd.grad(loss, parameters)
        if step == 1 or step % SHARP_EVERY == 0:
            row["sharpness"] = sharpness(net, x, labels)
        if step <= 20 or "sharpness" in row:
            rows.append(row)
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p -= lr * g
    return rows


def summarize(rows):
    """The numbers of one cell; the score is minus the mean loss of the last 50 steps."""
    found = {key: rows[-1][key] for key in ("area", "end") if key in rows[-1]}
    found["score"] = -found.get("end", rows[-1]["loss"])
    for name in ("range", "change", "beta", "common_range", "common_change", "common_beta"):
        seen = [(row["step"], row[name]) for row in rows if name in row]
        for part, kept in (("", [v for s, v in seen if s > EARLY]), ("_early", [v for s, v in seen if s <= EARLY])):
            if kept:
                found[name + part] = float(np.mean(kept))
    sharp = [row["sharpness"] for row in rows if "sharpness" in row]
    if sharp:
        found |= {"sharp_first": sharp[0], "sharp_most": max(sharp), "sharp_last": sharp[-1]}
    return found


def draw(rows, ax):
    """Effective smoothness along the gradient, over training."""
    bands(ax, rows[rows["arm"].isin(LOOKS) & ~rows["tuning"]].dropna(subset="beta"), "beta", LOOKS)
    ax.set(xlabel="training step", ylabel="effective beta (log axis)", yscale="log")


LOOKS = {
    "sgd-none": {"label": "no BN", **look("none")},
    "sgd-dd": {"label": "no BN, started from data", **look("none"), "linestyle": ":"},
    "sgd-bn": {"label": "BN", **look("batchnorm")},
}


def ratio(column):
    """Geometric mean of the first arm's number over the second's, paired by seed."""
    return lambda one, other: paired.ratio(*([(v, True) for v in part[column]] for part in (one, other)))


def mean(column, factor=1.0):
    """Mean over the seeds; the interval is from the smallest to the largest."""

    def found(part):
        values = factor * part[column].to_numpy(float)
        return Measured(float(values.mean()), (float(values.min()), float(values.max())))

    return found


def claims(cells):
    """The landscape along the gradient, other norms in BN's place, sharpness times learning rate."""
    paper = {
        "place": "the landscape along the gradient",
        "paper_value": "far smaller with BN, early nearly 100 times",
    }
    table = []
    least = {"range": 10.0, "change": 4.0, "beta": 2.0}
    words = {
        "range": "range of the loss along the gradient",
        "change": "range of the gradient's change along the gradient",
        "beta": "effective beta along the gradient",
    }
    for column, told in words.items():
        for name, other in (("none", "bn"), ("dd", "bn"), ("none", "dd")):
            arms = (f"sgd-{name}", f"sgd-{other}")
            told_arms = f"{TOLD[name]} over {TOLD[other]}"
            how = paper | {"threshold": least[column]} if name == "none" and other == "bn" else {}
            table += [
                Statement(
                    *(f"{column}-{name}-{other}", arms, ratio(column)),
                    f"Steps 20 to {{steps}}, each at its own rate: {told}, {told_arms}",
                    **how,
                ),
                Statement(
                    *(f"{column}-early-{name}-{other}", arms, ratio(f"{column}_early")),
                    f"The first {EARLY} steps, each at its own rate: {told}, {told_arms}",
                ),
                Statement(
                    *(f"common-{column}-{name}-{other}", arms, ratio(f"common_{column}")),
                    f"Steps 20 to {{steps}}, measured at the rate {COMMON:g} for all: {told}, {told_arms}",
                ),
            ]
    for kind in ("none", "dd", "bn"):
        table.append(Statement(f"beta-{kind}", (f"sgd-{kind}",), mean("beta"), f"{TOLD[kind]}: {words['beta']}", ""))
        table.append(
            Statement(
                *(f"end-{kind}", (f"sgd-{kind}",), mean("end"), f"{TOLD[kind]}: mean loss of the last 50 steps", "")
            )
        )
    table += [
        Statement("beta-stuck", ("stuck",), mean("beta"), f"A net on a plateau: {words['beta']}", ""),
        Statement("end-stuck", ("stuck",), mean("end"), "A net on a plateau: mean loss of the last 50 steps", ""),
    ]
    for optimizer, name in (("sgd", "SGD"), ("adam", "Adam")):
        for kind in ("l1", "l2", "linf", "centre", "scale", "none", "dd"):
            norm = kind.startswith("l")
            told = (
                {"place": "l_p variants", "paper_value": "as good as BN", "threshold": (None, 1.25)} if norm else {}
            )
            table.append(
                Statement(
                    *(f"end-{optimizer}-{kind}", (f"{optimizer}-{kind}", f"{optimizer}-bn"), ratio("end")),
                    f"{name}: mean loss of the last 50 steps, {TOLD[kind]} over BN",
                    **told if optimizer == "sgd" else told | {"threshold": None},
                )
            )
    cohen = {"paper": "cohen2021", "place": "abstract", "paper_value": "rises to about 1"}
    for kind in ("none", "bn"):
        for rate in SHARP_RATES:
            arm = f"sharp-{kind}-{rate:g}"
            table.append(
                Statement(
                    *(f"edge-{kind}-{rate:g}".replace(".", "-"), (arm,), mean("sharp_most", rate / 2)),
                    f"{TOLD[kind]}, full batch, rate {rate:g}: largest sharpness, in units of 2 / rate",
                    **cohen,
                )
            )
    low, high = f"{SHARP_RATES[0]:g}", f"{SHARP_RATES[-1]:g}"
    for kind in ("none", "bn"):
        arms = (f"sharp-{kind}-{low}", f"sharp-{kind}-{high}")
        table.append(
            Statement(
                *(f"sharp-{kind}", arms, ratio("sharp_last")),
                f"{TOLD[kind]}, full batch: sharpness after {{steps}} steps at the rate {low}, over that at {high}",
                **{"paper": "cohen2021"},
            )
        )
    return measure(table, cells, "smoothness", "santurkar2018")


def _plans(steps, sharp_steps, rates):
    found = {}
    for optimizer, values in rates.items():
        for kind in NORMS:
            probed = optimizer == "sgd" and kind in LANDSCAPE
            setting = grid(kind=kind, optimizer=optimizer, lr=values)
            found[f"{optimizer}-{kind}"] = Plan("mnist5k", steps, setting, probed=probed)
    found["stuck"] = Plan("mnist5k", steps, grid(kind="none", lr=0.1, weights=0.3), probed=True)
    for kind in ("none", "bn"):
        for rate in SHARP_RATES:
            found[f"sharp-{kind}-{rate:g}"] = Plan("mnist5k", sharp_steps, grid(kind=kind, lr=rate))
    return found


OPTIONS = {"batch": 128, "hidden": 10, "samples": 1_000}
SEEDS = {"seeds": (11, 12, 13, 14, 15), "tuning_seeds": (1, 2)}
PRESETS = {
    "lite": Config(_plans(60, 60, {"sgd": [0.1], "adam": [1e-3]}), options=OPTIONS | {"samples": 300}, **SEEDS),
    "full": Config(_plans(STEPS, 400, RATES), options=OPTIONS, **SEEDS),
}


def _line(arm):
    if arm == "stuck":
        return "no normalization, He's weights times 0.3: a plateau"
    part, kind, *rate = arm.split("-")
    if part == "sharp":
        return f"49-32-32-10, full batch, rate {rate[0]}: {TOLD[kind]}"
    return f"{part}: {TOLD[kind]}"


ARMS = {arm: _line(arm) for arm in PRESETS["full"].arms}
