"""Can BN take the place of dropout? Three small data sets, every regularizer tuned, and what BN's noise does.

Ioffe & Szegedy (2015) say that with BN dropout can be removed or reduced. Here nets 784-256-256-10 with ReLU are
trained on few images, without and with BN, weight decay and dropout. One arm keeps BN and takes its noise away, one
keeps the noise without BN. Dropout before BN also shifts variances, which is measured where it happens.
"""

import copy
from functools import cache

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch import fast, inits
from bnlib.scratch.layers import BatchNorm, Dropout, Linear, ReLU
from bnlib.scratch.network import Sequential, fit, mlp, softmax_cross_entropy
from bnlib.scratch.noise import BatchNoise, Whole, noise_of
from bnlib.scratch.optimizers import Momentum
from bnlib.theory.dropout import variance_ratio

from .core import SAME, Config, Measured, Plan, Statement, grid, known, measure, named
from .paired import difference

SIZES = [784, 256, 256, 10]
CASES = {  # data set, training images, steps, noise that stands for BN's
    "mnist-1000": ("mnist", 1_000, 600, "mnist"),
    "fashion-500": ("fashion-mnist", 500, 600, "fashion"),
    "fashion-5000": ("fashion-mnist", 5_000, 800, None),
}
FIRST = 20  # steps whose loss is kept
CHANCE = 0.1
PIXELS = {"fashion-mnist": (0.286, 0.353)}  # mean and standard deviation; of digits 0.13 and 0.31
NORMS = {
    "none": None,
    "bn": lambda units: BatchNorm(units, forward=fast.batchnorm_forward, backward=fast.batchnorm_backward),
}
STATISTICS = ("batch", "all")  # of BN in training: over the mini-batch, or over all training images
PLACES = ("after", "last", "before")  # after each hidden ReLU, after the last one only, directly before each norm
# Standard deviations of the shift and of the logarithm of the factor, for each hidden layer: what `noise_of` finds in
# nets with BN, seeds 91 and 92, learning rates 0.01 and 0.1, at five steps from the first to the last.
NOISES = {"none": None, "mnist": ((0.12, 0.087), (0.02, 0.08)), "fashion": ((0.12, 0.078), (0.02, 0.075))}


def rates(low, high, count):
    """Learning rates from ``10**low`` to ``10**high``, evenly spaced on a logarithmic axis."""
    return [float(f"{10**e:.3g}") for e in np.linspace(low, high, count)]


DROPPED, DECAYS = (0.1, 0.2, 0.5), (1e-4, 1e-3, 1e-2, 1e-1)
# 24 cells for each kind of net and each tuning seed: three rates of dropout at eight learning rates, four decays at
# six, and where nothing else is to choose 24 learning rates. Nets with BN bear larger ones: half a decade.
RATES = {
    "none": {"dropout": rates(-3, 0, 8), "decay": rates(-2.75, -0.25, 6), "alone": rates(-3, 0, 24)},
    "bn": {"dropout": rates(-2.5, 0.5, 8), "decay": rates(-2.25, 0.25, 6), "alone": rates(-2.5, 0.5, 24)},
}


def plans(cases=CASES, dropped=DROPPED, decays=DECAYS, rates=RATES, controls=True):
    """Arm -> its plan. ``controls``: also the arms that are no rival of BN but a question about it."""
    found = {}
    for case, (dataset, samples, steps, noise) in cases.items():

        def add(kind, case=case, plan=(dataset, steps), about=(samples, steps), like=None, change=None, **values):
            settings = () if like else grid(samples=about[0], horizon=about[1], **values)
            like = tuple(f"{case}-{one}" for one in like or ()) or None
            found[f"{case}-{kind}"] = Plan(*plan, settings, like=like, change=change or {})

        for norm, start in (("none", ""), ("bn", "bn-")):
            add(norm, norm=norm, lr=rates[norm]["alone"])
            if decays:
                add(f"{start}decay", norm=norm, decay=list(decays), lr=rates[norm]["decay"])
            each = [f"{start}dropout-{rate:g}" for rate in dropped]
            for kind, rate in zip(each, dropped, strict=True):
                add(kind, norm=norm, dropout=rate, lr=rates[norm]["dropout"])
            if controls:
                add(f"{start}dropout", like=each)
                add(f"{norm}-again", like=[norm], change={"again": True})
        if controls and noise:
            add("quiet", norm="bn", statistics="all", lr=rates["bn"]["alone"])
            add("noise", norm="none", noise=noise, lr=rates["none"]["alone"])
        elif controls:
            for place in ("last", "before"):
                add(f"bn-{place}-0.5", norm="bn", dropout=0.5, place=place, lr=rates["bn"]["dropout"])
    return found


def lines(arms):
    """Arm -> one line that says what it is."""
    words = {
        "none": "no BN",
        "bn": "BN",
        "decay": "no BN, L2 on the weights",
        "bn-decay": "BN and L2 on the weights",
        "dropout": "no BN, the best of the dropout rates",
        "bn-dropout": "BN and the best of the dropout rates",
        "none-again": "no BN, the same images, other weights and another order",
        "bn-again": "BN, the same images, other weights and another order",
        "quiet": "BN with statistics over all training images at every step: no noise of mini-batches",
        "noise": "no BN, units disturbed as mini-batches disturb BN",
        "bn-last-0.5": "BN and dropout 0.5 after the last ReLU only, behind the last BN layer",
        "bn-before-0.5": "BN and dropout 0.5 directly before each BN layer",
    }
    words |= {f"dropout-{rate:g}": f"no BN, dropout {rate:g} after each ReLU" for rate in DROPPED}
    words |= {f"bn-dropout-{rate:g}": f"BN, dropout {rate:g} after each ReLU" for rate in DROPPED}
    said = {"mnist": "digits", "fashion-mnist": "clothes"}
    cases = [(arm, *next((c, a) for c, a in CASES.items() if arm.startswith(f"{c}-"))) for arm in arms]
    return {arm: f"{about[1]:,} {said[about[0]]}: {words[arm[len(case) + 1 :]]}" for arm, case, about in cases}


SHIFTED = {  # arms in which dropout stands before BN, and their names in claims
    **{f"bn-dropout-{rate:g}": f"bn-dropout-{100 * rate:.0f}" for rate in DROPPED},
    "bn-before-0.5": "bn-before-50",
}
SAID = {
    "decay": "the best L2",
    "dropout": "the best dropout",
    "bn": "BN",
    "bn-decay": "BN and the best L2",
    "bn-dropout": "BN and the best dropout",
}
FULL = plans()
LITE = plans(
    *({"mnist-1000": ("mnist5k", 1_000, 300, None)}, (0.2,), ()),
    {
        "none": dict.fromkeys(RATES["none"], [0.01, 0.03, 0.1]),
        "bn": dict.fromkeys(RATES["bn"], [0.1, 0.3, 1.0]),
    },
    controls=False,
)
ARMS = lines(FULL)
CURVES = {"accuracy": 4, "test_loss": 3}
OPTIONS = {"batch": 64, "evaluations": [25, 50, 100, 200, 400, 600, 800], "points": 12}
PRESETS = {
    "lite": Config(LITE, seeds=(31, 32, 33), tuning_seeds=(3, 4), options=OPTIONS),
    "full": Config(FULL, seeds=tuple(range(11, 21)), tuning_seeds=(1, 2), options=OPTIONS),
}


class Decaying(Momentum):
    """Momentum 0.9 and a rate that falls on a straight line to 0, with L2 on the weights of `Linear` layers.

    Parameters
    ----------
    lr : float
        Of the first step.
    horizon : int
        Steps after which the rate is 0.
    decay : float
        Times the weight it is added to the gradient.
    """

    def __init__(self, lr, horizon, decay=0.0):
        super().__init__(lr)
        self.start, self.horizon, self.decay, self.done = lr, horizon, decay, 0

    def step(self, net):
        self.lr = self.start * max(0.0, 1 - self.done / self.horizon)
        self.done += 1
        if self.decay:
            for layer in inits.linears(net):
                layer.grads["weight"] = layer.grads["weight"] + self.decay * layer.params["weight"]
        super().step(net)


def run(
    config,
    arm,
    seed,
    *,
    norm="none",
    statistics="batch",
    noise="none",
    dropout=0.0,
    place="after",
    decay=0.0,
    samples=1_000,
    horizon=600,
    again=False,
    lr=0.03,
):
    """Train one net on few images and measure it on those and on held-out ones.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the training images, the weights, the order of the samples and what is dropped, so that arms are paired.
        A tuning seed is measured on validation images, a confirming seed on test images.
    norm : {"none", "bn"} or callable
        ``norm(channels)`` gives a layer.
    statistics : {"batch", "all"}
        Over what BN takes its statistics in training; "all" is `Whole`.
    noise : {"none", "mnist", "fashion"} or pair of pairs
        Sizes for a `BatchNoise` before each hidden ReLU.
    dropout : float
        Rate.
    place : {"after", "last", "before"}
        Where it drops: after each hidden ReLU, after the last one only, or directly before each ``norm``.
    decay : float
        L2 on the weights.
    samples : int
        Training images, drawn anew for each seed.
    horizon : int
        Steps in which the rate falls to 0.
    again : bool
        The same images with other weights and another order.
    lr : float

    Returns
    -------
    list of dict
        Rows for steps 1 to 20 and for each evaluation. ``step``, ``loss``; evaluations also have ``accuracy`` and
        ``test_loss`` on held-out images; the last one ``train_accuracy``, ``train_loss``, ``score``, and in a
        confirming cell with BN what `_look_into` finds.
    """
    steps, options = config.arms[arm].steps, config.options
    known(statistics, STATISTICS, "value")
    known(place, PLACES, "value")
    tuning = seed in config.tuning_seeds
    x, labels, held_out = images(config.arms[arm].dataset, samples, seed, tuning)
    sizes = noise if isinstance(noise, tuple | list) else named(NOISES, noise)
    net = build([seed, 1 + 10 * again], named(NORMS, norm), dropout, place, sizes)
    inputs = x
    if statistics == "all":
        net, inputs = Whole(net.layers, x), np.arange(len(x), dtype=np.float32)[:, None]
    asked = {steps} if tuning else {step for step in options["evaluations"] if step <= steps} | {steps}
    found = {} if tuning else _look_into(net, x, seed, options["batch"], "_start")

    def probe(net, step):
        if step not in asked:
            return {}
        right, loss = evaluate(net, *held_out)
        return {"held_out": right, "test_loss": loss}

    with np.errstate(all="ignore"):  # a run that diverges is a result
        rows = fit(
            *(net, inputs, labels),
            lr=lr,
            steps=steps,
            validation=(x[:1], labels[:1]),  # next to nothing: the probe measures, less often
            batch=options["batch"],
            every={*range(1, FIRST + 1), *asked},
            seed=[seed, 10] if again else seed,
            optimizer=lambda lr: Decaying(lr, horizon, decay),
            probe=probe,
            progress=False,
        )
        diverged = rows[-1]["step"] < steps or "held_out" not in rows[-1]
        if diverged:
            rows = [row for row in rows if row["step"] < steps]
            rows.append({"step": steps, "loss": float("nan"), "held_out": CHANCE, "train_accuracy": CHANCE})
        else:
            rows[-1] |= dict(zip(("train_accuracy", "train_loss"), evaluate(net, x, labels), strict=True))
        for row in rows:
            row.pop("accuracy", None)  # of the one image
            if "held_out" in row:
                row["accuracy"] = row.pop("held_out")
        if not tuning and not diverged:
            found |= _look_into(net, x, seed, options["batch"], "")
            if _norms(net):
                found |= dict(zip(("repaired", "repaired_loss"), evaluate(repaired(net, x), *held_out), strict=True))
    rows[-1] |= {**found, "score": rows[-1]["accuracy"]}
    return rows


@cache
def _parts(dataset):
    """The data set, and validation and test images (N, 784) with their labels."""
    data = load(dataset)
    return data, tuple((_pixels(dataset, x), y) for x, y in ((data.x_val, data.y_val), (data.x_test, data.y_test)))


def _pixels(dataset, x):
    mean, deviation = PIXELS.get(dataset, (0.13, 0.31))
    return ((x.reshape(len(x), -1) / 255 - mean) / deviation).astype(np.float32)


def images(dataset, samples, seed, tuning):
    """What a cell sees: ``samples`` training images (samples, 784) drawn by the seed, labels, held-out pair."""
    data, (validation, test) = _parts(dataset)
    if not 0 < samples <= len(data.y_train):
        raise ValueError(f"samples must be from 1 to {len(data.y_train)}, got {samples}")
    chosen = np.random.default_rng([seed, 2]).choice(len(data.y_train), samples, replace=False)
    return _pixels(dataset, data.x_train[chosen]), data.y_train[chosen], validation if tuning else test


def build(seed, norm=None, dropout=0.0, place="after", noise=None):
    """784-256-256-10 with ReLU and He's weights; before each hidden ReLU the norm or the noise, dropout in its place.

    Parameters
    ----------
    seed : int or list of int
    norm : callable or None
    dropout, place
        As for `run`.
    noise : pair of pairs or None
        Sizes for a `BatchNoise` in each hidden layer.
    """
    net, rng = mlp(SIZES, seed, ReLU, norm), np.random.default_rng(np.append(seed, 3))
    inits.he(net, np.random.default_rng(seed))
    layers, hidden = [], 0
    for layer in net.layers:
        layers.append(layer)
        if isinstance(layer, Linear) and hidden < len(SIZES) - 2:
            if dropout and place == "before":
                layers.append(Dropout(dropout, rng))
            if noise is not None:
                layers.append(BatchNoise(*noise[hidden], rng))
            hidden += 1
        if dropout and isinstance(layer, ReLU) and (place == "after" or (place == "last" and hidden == 2)):
            layers.append(Dropout(dropout, rng))
    return Sequential(layers)


def evaluate(net, x, labels):
    """Share of images classified right, and the mean loss, in evaluation mode."""
    right = loss = 0.0
    for start in range(0, len(x), 500):
        part = slice(start, start + 500)
        logits = net.forward(x[part], training=False)
        right += (logits.argmax(1) == labels[part]).sum()
        loss += softmax_cross_entropy(logits, labels[part])[0] * len(logits)
    return float(right / len(x)), float(loss / len(x))


def _norms(net):
    return [layer for layer in net.layers if isinstance(layer, BatchNorm)]


def repaired(net, x):
    """A copy whose running statistics are those of the images x (N, 784) with dropout in evaluation mode."""
    net = copy.deepcopy(net)
    for layer in net.layers:
        if isinstance(layer, Dropout):
            layer.rate = 0.0
        elif isinstance(layer, BatchNorm):
            layer.running.momentum = 1.0  # the statistics of this one batch
    Sequential(net.layers).forward(x)
    return net


def variance_shift(net, x, rng):
    """How dropout changes the variance of the input of the first BN layer behind it: measured, and by the formula.

    Parameters
    ----------
    net : Sequential
        Left as it is.
    x : array (N, features)
    rng : numpy.random.Generator
        Of the masks.

    Returns
    -------
    (float, float) or None
        Sum over the units of the variance in training mode, over that in evaluation mode; and the same ratio for
        random weights, from the mean and the variance of each feature. None where no BN layer follows a dropout.
    """
    kinds = [type(layer) for layer in net.layers]
    if Dropout not in kinds or BatchNorm not in kinds[kinds.index(Dropout) :]:
        return None
    first = kinds.index(Dropout)
    layers = copy.deepcopy(net.layers)
    features = Sequential(layers[:first]).forward(x)
    between = Sequential(layers[first + 1 : kinds.index(BatchNorm, first)])
    rate = layers[first].rate
    there, here = (between.forward(part) for part in (Dropout(rate, rng).forward(features), features))
    measured = there.var(0, dtype=float).sum() / here.var(0, dtype=float).sum()
    features = features.astype(float)
    return float(measured), variance_ratio(features.mean(0), features.var(0), 1 - rate)


def _look_into(net, x, seed, batch, when):
    """What only a net with BN has: the shift behind dropout, and at the end the noise of its statistics."""
    found, rng = {}, np.random.default_rng([seed, 4])
    plain = Sequential(net.layers)
    shift = variance_shift(plain, x, rng)
    if shift is not None:
        found |= {f"shift{when}": shift[0], f"formula{when}": shift[1]}
    if not when and _norms(net) and not isinstance(net, Whole):
        found["noise_sizes"] = noise_of(plain, x, min(batch, len(x)), rng).round(4).tolist()
    return found


def summarize(rows):
    """The numbers of one cell: accuracy and loss on held-out and on training images, their gap, and the rest."""
    last = rows[-1]
    names = ("score", "accuracy", "test_loss", "train_accuracy", "train_loss", "repaired", "repaired_loss")
    names += ("noise_sizes", "shift_start", "formula_start", "shift", "formula")
    found = {name: last[name] for name in names if name in last}
    return found | {"gap": last["train_accuracy"] - last["accuracy"]}


def draw(rows, ax):
    """Accuracy against steps: one curve for each arm, its band the range over the confirming seeds."""
    bands(ax, rows[~rows["tuning"]].dropna(subset="accuracy"), "accuracy", LOOKS)
    ax.set(xscale="log", xlabel="training step (log axis)", ylabel="accuracy")


def claims(cells):
    """BN against the best dropout and the best decay, what its noise does, and where dropout shifts variances.

    In a case where the best dropout is no help (the interval of its gain reaches down to 0), nothing is said about
    replacing it: the claim is then report only.
    """
    there, table = set(cells["arm"]), []

    def state(name, arms, measured, statement, unit="points", **more):
        table.append(Statement(name, arms, measured, statement, unit, **more))

    def more(column, factor=100):
        """Second arm minus first."""
        return lambda low, high: difference(factor * high[column], factor * low[column])

    def lower_end(low, high):
        value, spread, _ = more("accuracy")(low, high)
        return Measured(spread[0], spread)

    def of(column, factor=1.0):
        return lambda part: difference(factor * part[column].to_numpy(float), 0)

    def repair(after, before, factor):
        return lambda part: difference(factor * part[after], factor * part[before])

    def over_formula(part):
        return difference(part["shift_start"] / part["formula_start"], 0)

    stated = {"place": "section 3.4", "paper_value": "stated, no number"}
    little = {
        "place": "section 4.2.3",
        "paper_value": "5 or 10 % of dropout in the ensemble's nets; no number for it",
    }
    shifted = {"paper": "li2019", "place": "the variance shift", "paper_value": "a formula"}
    harm = {**shifted, "paper_value": "77.42 to 68.55 % (DenseNet, CIFAR-100, 0.5 in each block)"}
    for case, (*_, noise) in CASES.items():
        arm = {kind: f"{case}-{kind}" for kind in KINDS}
        words, replaces = f"{ARMS[arm['none']].split(':')[0]}, {{steps}} steps", (arm["dropout"], arm["bn"])
        # may BN take the place of dropout?
        pair = (arm["none"], arm["dropout"])
        told = f"{words}: accuracy of the dropout rate that won on validation images, minus no regularizer"
        state(f"{case}-helps", pair, more("accuracy"), told)
        if there.issuperset(pair):
            parts = (cells[cells["arm"] == one].sort_values("seed") for one in pair)
            counts = lower_end(*parts).value > 0
            told = f"{words}: accuracy of BN minus the best dropout, lower end of the interval"
            told += "" if counts else " (that dropout is no help here: no verdict)"
            state(f"{case}-replaces", replaces, lower_end, told, threshold=-0.5 if counts else None, **stated)
        state(f"{case}-bn", replaces, more("accuracy"), f"{words}: accuracy of BN minus the best dropout", **stated)
        told = f"{words}: accuracy of BN minus the best L2"
        state(f"{case}-bn-decay", (arm["decay"], arm["bn"]), more("accuracy"), told)
        told = f"{words}: accuracy of BN minus no regularizer"
        state(f"{case}-bn-none", (arm["none"], arm["bn"]), more("accuracy"), told)
        for rate in DROPPED:
            kind, name = f"dropout-{rate:g}", f"dropout-{100 * rate:.0f}"
            told = f"{words}: accuracy of dropout {rate:g} minus no regularizer"
            state(f"{case}-{name}", (arm["none"], arm[kind]), more("accuracy"), told)
            told = f"{words}: accuracy of BN minus dropout {rate:g}"
            state(f"{case}-over-{name}", (arm[kind], arm["bn"]), more("accuracy"), told)
            told = f"{words}: accuracy of BN and dropout {rate:g} minus BN"
            about = little if rate == 0.1 else harm if rate == 0.5 and not noise else {}
            state(f"{case}-bn-{name}", (arm["bn"], arm[f"bn-{kind}"]), more("accuracy"), told, **about)
        for kind, other in (("dropout", "the best dropout"), ("decay", "the best L2")):
            told = f"{words}: accuracy of BN and {other} minus BN"
            state(f"{case}-both-{kind}", (arm["bn"], arm[f"bn-{kind}"]), more("accuracy"), told)
        # overfitting
        for kind in ("decay", "dropout", "bn", "bn-decay", "bn-dropout"):
            pair, name = (arm["none"], arm[kind]), SAID[kind]
            told = f"{words}: gap between training and test accuracy, that of {name} minus that of no regularizer"
            state(f"{case}-gap-{kind}", pair, more("gap"), told)
            told = f"{words}: test loss of {name} minus no regularizer"
            state(f"{case}-loss-{kind}", pair, more("test_loss", 1), told, "nats")
        # the noise: taken away from BN, and put where no BN is
        for name, kinds, told in (
            ("quiet", ("quiet", "bn"), "BN minus BN without its noise"),
            ("quiet-none", ("none", "quiet"), "BN without its noise minus no regularizer"),
            ("noise", ("none", "noise"), "BN's noise without BN minus no regularizer"),
        ):
            pair = arm[kinds[0]], arm[kinds[1]]
            state(f"{case}-{name}", pair, more("accuracy"), f"{words}: accuracy of {told}")
            gap = f"{words}: gap between training and test accuracy, {told}"
            state(f"{case}-{name}-gap", pair, more("gap"), gap)
            state(f"{case}-{name}-loss", pair, more("test_loss", 1), f"{words}: test loss of {told}", "nats")
        for layer in (1, 2) if noise else ():
            for k, (name, unit, what) in enumerate(
                (("shift", "standard deviations", "mean"), ("scale", "%", "standard deviation"))
            ):
                told = f"{words}: noise of the {what} of a mini-batch in BN layer {layer}, in the trained net"
                state(f"{case}-{name}-{layer}", (arm["bn"],), _noise_size(layer - 1, k), told, unit)
        # nothing differs
        for kind, name in (("none", "no regularizer"), ("bn", "BN")):
            told = f"{words}: A/A, accuracy of {name} with other weights and another order, minus itself"
            state(f"{case}-again-{kind}", (arm[kind], arm[f"{kind}-again"]), more("accuracy"), told)
        # the variance shift, in the case that has dropout in other places too
        for kind, name in () if noise else SHIFTED.items():
            said = ARMS.get(arm[kind], "").split(": ")[-1]
            about = f"{words}, {said}: variance of BN's input in training over evaluation"
            state(f"{case}-start-{name}", (arm[kind],), of("shift_start"), f"{about}, at step 0", "x", **shifted)
            fixed = {**shifted, "fidelity": SAME, "threshold": (0.97, 1.03)}
            told = f"{about}, at step 0, divided by the formula"
            state(f"{case}-start-formula-{name}", (arm[kind],), over_formula, told, "x", **fixed)
            state(f"{case}-end-{name}", (arm[kind],), of("shift"), f"{about}, in the trained net", "x", **shifted)
            told = f"{about}, in the trained net, by the formula for random weights"
            state(f"{case}-end-formula-{name}", (arm[kind],), of("formula"), told, "x", **shifted)
        for kind, name in {"bn": "bn", **SHIFTED, "bn-last-0.5": "bn-last-50"}.items():
            said = ARMS.get(arm[kind], "").split(": ")[-1]
            told, again = (
                f"{words}, {said}{' (control)' * (kind == 'bn')}",
                "by taking BN's statistics again with dropout off",
            )
            gain = f"{told}: accuracy gained {again} (negative: lost)"
            state(f"{case}-repair-{name}", (arm[kind],), repair("repaired", "accuracy", 100), gain)
            loss = f"{told}: test loss added {again}"
            state(f"{case}-repair-{name}-loss", (arm[kind],), repair("repaired_loss", "test_loss", 1), loss, "nats")
        for place, told in (("last", "after the last BN layer only"), ("before", "directly before each BN layer")):
            pair = arm["bn-dropout-0.5"], arm[f"bn-{place}-0.5"]
            told = f"{words}: accuracy of BN with dropout 0.5 {told}, minus after each ReLU"
            state(f"{case}-{place}", pair, more("accuracy"), told)
    return measure(table, cells, "dropout", "ioffe2015")


def _noise_size(layer, which):
    """A measure: the shift (0) or the scale (1, in percent) of the noise in a BN layer."""
    factor = 100 if which else 1

    def of_cells(part):
        there = [sizes for sizes in part["noise_sizes"] if isinstance(sizes, list)]  # a run that diverged has none
        return difference([factor * sizes[layer][which] for sizes in there] or [np.nan], 0)

    return of_cells


# How `draw` shows the arms: grey without BN, green with dropout, blue with BN, vermilion where BN is changed.
KINDS = {
    "none": {"label": "no regularizer", **look("none")},
    "none-again": {"label": "no regularizer, again", **look("none"), "linestyle": (0, (1, 1))},
    "decay": {"label": "L2", **look("none"), "linestyle": "-."},
    "noise": {"label": "BN's noise, no BN", **look("none"), "linestyle": ":"},
    "dropout": {"label": "best dropout", **look("dropout"), "linestyle": "-"},
    "dropout-0.1": {"label": "dropout 0.1", **look("dropout"), "linestyle": "--"},
    "dropout-0.2": {"label": "dropout 0.2", **look("dropout"), "linestyle": "-."},
    "dropout-0.5": {"label": "dropout 0.5", **look("dropout")},
    "bn": {"label": "BN", **look("batchnorm")},
    "bn-again": {"label": "BN, again", **look("batchnorm"), "linestyle": (0, (5, 1))},
    "bn-decay": {"label": "BN and L2", **look("batchnorm"), "linestyle": "-."},
    "bn-dropout": {"label": "BN and best dropout", **look("batchnorm"), "linestyle": "--"},
    "bn-dropout-0.1": {"label": "BN and dropout 0.1", **look("batchnorm"), "linestyle": (0, (3, 1))},
    "bn-dropout-0.2": {"label": "BN and dropout 0.2", **look("batchnorm"), "linestyle": (0, (1, 1))},
    "bn-dropout-0.5": {"label": "BN and dropout 0.5", **look("batchnorm"), "linestyle": ":"},
    "bn-last-0.5": {"label": "BN, dropout 0.5 at the end", **look("batchnorm"), "linestyle": (0, (5, 1, 1, 1))},
    "bn-before-0.5": {"label": "dropout 0.5 before BN", **look("variant"), "linestyle": ":"},
    "quiet": {"label": "BN without its noise", **look("variant")},
}
LOOKS = {f"{case}-{kind}": style for case in CASES for kind, style in KINDS.items()}
