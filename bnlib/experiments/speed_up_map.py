"""What "14 times fewer steps" depends on: sigmoid MLPs over depth, init and optimizer, without and with BN.

The step is counted at which a net of width 100 reaches 80 % on Fashion-MNIST with batches of 64. Every arm chooses
its learning rate on validation images; the tuned arms choose init and optimizer too.
"""

import itertools
from functools import cache

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch import inits
from bnlib.scratch.layers import BatchNorm, ReLU, Sigmoid, Tanh
from bnlib.scratch.network import fit, mlp
from bnlib.scratch.optimizers import SGD, Adam, Momentum

from .core import Config, Plan, Statement, grid, measure, named
from .paired import difference, longest_band, ratio, smooth, steps_to

DEPTHS = (3, 4, 5, 6, 10, 20)
ACTIVATIONS = {"sigmoid": Sigmoid, "tanh": Tanh, "relu": ReLU}
NORMS = {"plain": None, "bn": BatchNorm}
INITS = {
    "gaussian": lambda net, images, rng: inits.gaussian(net, 0.05, rng),
    "xavier": lambda net, images, rng: None,  # as `mlp` makes it
    "he": lambda net, images, rng: inits.he(net, rng),
    "gain4": lambda net, images, rng: inits.sigmoid_gain(net),
    "dd": lambda net, images, rng: inits.data_dependent(net, images[rng.choice(len(images), 512, replace=False)]),
}
STARTS = {
    "gaussian": "weights N(0, 0.05²)",
    "xavier": "Xavier's weights",
    "he": "He's weights",
    "gain4": "Xavier's weights times 4 and centred biases",
    "dd": "weights and biases set from one batch before step 0",
}
OPTIMIZERS = {"sgd": SGD, "momentum": Momentum, "adam": Adam}
RATES = {
    "sgd": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "momentum": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "adam": [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
}
# Deeper nets want lower rates: added where the best of these was the lowest, for all arms of that depth.
LOWER = {
    6: {"momentum": [0.003]},
    10: {"momentum": [0.003]},
    20: {"sgd": [0.01], "momentum": [0.003], "adam": [1e-4]},
}
BAND = [0.003, 0.01, *RATES["sgd"], 100.0]  # wider, to find both ends
LEVELS = (0.8, 0.85)
TUNED = {  # of several arms the best: their inits (None: all), norm, and the line that says so
    "plain": (None, "plain", "no normalization, the best init and optimizer"),
    "dd": (("dd",), "plain", "no normalization, started from data, the best optimizer"),
    "bn": (None, "bn", "BN, the best init and optimizer"),
}
SIGMOID_INITS = ("gaussian", "xavier", "gain4", "dd")
WIDTHS = (3, 4, 5, 6)  # depths at which the band of usable rates is measured
ENOUGH = 1_000  # steps within which a usable rate reaches the goal


def arm_of(activation, depth, init, optimizer, norm):
    """The name of an arm, such as sigmoid-5-dd-adam-bn."""
    return f"{activation}-{depth}-{init}-{optimizer}-{norm}"


def limit(depth):
    """Steps after which a net that has not reached the goal is given up."""
    return 3_000 if depth < 10 else 2_500


def plans(
    activation, depths, starts, optimizers, rates=RATES, dataset="fashion-mnist", steps=limit, again=(), lower=LOWER
):
    """The plans of all combinations and of the tuned arms, some of these ``again`` with other seeds."""
    found = {}
    for depth in depths:
        about = {"dataset": dataset, "steps": steps(depth)}
        for init, optimizer, norm in itertools.product(starts, optimizers, NORMS):
            setting = {"activation": activation, "depth": depth, "init": init, "optimizer": optimizer, "norm": norm}
            arm = arm_of(activation, depth, init, optimizer, norm)
            tried = [*lower.get(depth, {}).get(optimizer, []), *rates[optimizer]]
            found[arm] = Plan(settings=grid(**setting, lr=tried), **about)
        for name, (some, norm, _) in TUNED.items():
            like = tuple(arm_of(activation, depth, i, o, norm) for i in some or starts for o in optimizers)
            found[f"{activation}-{depth}-{name}"] = Plan(like=like, **about)
            if name in again:
                found[f"{activation}-{depth}-{name}-again"] = Plan(like=like, seeds=AGAIN, **about)
    return found


def lines(arms):
    """What each of these arms changes, in words."""
    words = {}
    for arm in arms:
        activation, depth, *rest = arm.split("-")
        net = f"{depth} layers of 100 {activation} units"
        if rest[0] == "width":
            words[arm] = f"{net}, SGD at every rate, {STARTS[rest[1]]}, {rest[2]}"
        elif len(rest) == 3:
            words[arm] = f"{net}, {STARTS[rest[0]]}, {rest[1]}, {rest[2]}"
        else:
            words[arm] = f"{net}, {TUNED[rest[0]][2]}{', other seeds' * (rest[-1] == 'again')}"
    return words


AGAIN = (21, 22, 23)
BANDS = {
    f"sigmoid-{depth}-width-{init}-{norm}": Plan(
        "fashion-mnist",
        ENOUGH,
        grid(activation="sigmoid", depth=depth, init=init, optimizer="sgd", norm=norm, lr=None),
    )
    for depth, init, norm in itertools.product(WIDTHS, SIGMOID_INITS, NORMS)
}
FULL = plans("sigmoid", DEPTHS, SIGMOID_INITS, OPTIMIZERS, again=("plain", "bn")) | BANDS
LITE = plans(
    *("sigmoid", (3, 5), ("xavier", "dd"), ("sgd",), {"sgd": [0.1, 0.3, 1.0, 3.0, 10.0]}, "mnist5k"), lambda _: 400
)
ARMS = lines(FULL)
CURVES = {"accuracy": 3}  # what a recorded curve keeps, to so many digits
# ``images``: on how many a tuning and a confirming cell is evaluated. ``points``: of a recorded curve.
RACE = {"least": 700, "hopeless": 1.8}  # hopeless: never above 20 %
OPTIONS = {"batch": 64, "images": (1_000, 2_000), "goal": 0.8, "rates": BAND, "points": 14}
PRESETS = {
    "lite": Config(LITE, seeds=(31, 32, 33), tuning_seeds=(3, 4), options=OPTIONS),
    "full": Config(
        FULL, seeds=(11, 12, 13), tuning_seeds=(1, 2), arrays={"steps_at": len(BAND)}, options=OPTIONS, race=RACE
    ),
}


def run(config, arm, seed, *, activation="sigmoid", depth=3, init="xavier", optimizer="sgd", norm="plain", lr=0.1):
    """Train one net until it has reached the goal, or one net at each rate of ``options["rates"]``.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights and of the order of the samples, so that arms are paired. A tuning seed is measured on
        validation images, a confirming seed on test images.
    activation : {"sigmoid", "tanh", "relu"} or class of Layer
    depth : int
        Number of hidden layers.
    init : {"gaussian", "xavier", "he", "gain4", "dd"} or callable
        ``init(net, images, rng)`` changes a net with Xavier's weights in place.
    optimizer : {"sgd", "momentum", "adam"} or callable
        ``optimizer(lr)`` gives an object with a method ``step(net)``.
    norm : {"plain", "bn"} or callable
        ``norm(channels)`` gives a layer.
    lr : float or None
        None trains at all rates, each up to the goal, and gives one row.

    Returns
    -------
    list of dict
        A row per evaluation: ``step, loss, accuracy``; the last one has ``score`` too. At all rates: ``steps_at``,
        the step at which each rate reached the goal, None where it did not.
    """
    plan, options, tuning = config.arms[arm], config.options, seed in config.tuning_seeds
    first = not tuning and seed == config.confirming(arm)[0]
    train, validation, test = images(plan.dataset)
    few = tuning or lr is None  # whether a rate reaches the goal is a coarser question than when
    held_out = [part[: options["images"][not few]] for part in (validation if tuning else test)]

    def train_at(rate, watch):
        net = mlp([784, *[100] * depth, 10], seed, named(ACTIVATIONS, activation), named(NORMS, norm))
        named(INITS, init)(net, train[0], np.random.default_rng([seed, 1]))
        with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is a result
            return fit(
                *(net, *train),
                lr=rate,
                steps=options.get("limit", plan.steps),
                validation=held_out,
                batch=options["batch"],
                every=watch.every,
                until=watch.until,
                seed=seed,
                optimizer=named(OPTIMIZERS, optimizer),
                progress=False,
            )

    if lr is None:
        return _at_all_rates(train_at, options, first)
    to_the_end = bool(plan.like) and arm.endswith(("-plain", "-bn"))  # their highest accuracy counts
    watch = Watch(options["goal"], *((1, 0) if tuning else (400, 200)), to_the_end, first=first)
    rows = train_at(lr, watch)
    if np.isnan(rows[-1]["loss"]):  # diverged: at chance to the end
        rows.append(dict(rows[-1], step=plan.steps))
    step, reached = steps_to(options["goal"], [r["step"] for r in rows], [r["accuracy"] for r in rows])
    best = float(smooth([r["accuracy"] for r in rows]).max())
    # the higher the better: minus the steps to the goal, worse than all of them where it was missed
    rows[-1]["score"] = -step if reached else -plan.steps * (2 - best)
    return rows


@cache
def images(dataset):
    """Inputs (N, 784), float32, and labels, for training, validation and test: grey values, mean 0, variance 1."""
    mean, sd = (0.286, 0.353) if dataset == "fashion-mnist" else (0.13, 0.31)

    def flat(part):
        return ((part.reshape(len(part), -1) / np.float32(255) - np.float32(mean)) / np.float32(sd)).astype("f4")

    return load(dataset).pairs(flat)


class Watch:
    """When to evaluate a net and when to stop it.

    Evaluates every ``often`` steps until the goal is reached, but only every 25 after step 100 while the accuracy is
    below .6, and every 50 steps after the goal.

    Parameters
    ----------
    goal : float
        Accuracy, as the mean of three evaluations.
    least, more : int
        Training ends ``more`` steps after the goal was reached, but not before step ``least``.
    to_the_end : bool
        Never stop.
    often : int
    first : bool
        Evaluate at each of the first 20 steps, whose losses tell whether the code still does the same.
    """

    def __init__(self, goal, least, more, to_the_end=False, often=5, first=False):
        self.goal, self.least, self.more, self.to_the_end = goal, least, more, to_the_end
        self.often, self.first = often, first
        self.reached = None

    def every(self, step, history):
        if step == 1 or (self.first and step <= 20):
            return True
        if self.reached is not None:
            return step % 50 == 0
        return step % (self.often if step <= 100 or history[-1]["accuracy"] >= 0.6 else 25) == 0

    def until(self, history):
        step, reached = steps_to(self.goal, *zip(*((r["step"], r["accuracy"]) for r in history[-3:]), strict=True))
        if self.reached is None and reached and len(history) >= 3:
            self.reached = step
        done = self.reached is not None and history[-1]["step"] >= max(self.reached + self.more, self.least)
        return done and not self.to_the_end


def _at_all_rates(train_at, options, first):
    """One row for a net trained at every rate: at which step each reached the goal."""
    steps_at, rows = [], []
    for rate in options["rates"]:
        watch = Watch(options["goal"], 1, 0, often=20, first=first)
        rows.append(train_at(rate, watch))
        steps_at.append(watch.reached)
    slowest = [dict(row) for row in rows[0] if row["step"] <= 20]
    band = longest_band([step is not None for step in steps_at], options["rates"])
    last = {"step": max(row[-1]["step"] for row in rows), "loss": rows[0][-1]["loss"]}
    return [*slowest, {**last, "steps_at": steps_at, "width": band.decades, "inside": band.inside}]


def summarize(rows):
    """The numbers of one cell: steps to `LEVELS`, whether they were reached, accuracies, score; or the width."""
    if "steps_at" in rows[-1]:
        return {name: rows[-1][name] for name in ("width", "inside")}
    steps, accuracy = [row["step"] for row in rows], [row["accuracy"] for row in rows]
    summary = {
        "score": rows[-1]["score"],
        "best": float(smooth(accuracy).max()),
        "final": float(smooth(accuracy)[-1]),
    }
    for level in LEVELS:
        summary[f"steps_{level:.0%}"], summary[f"reached_{level:.0%}"] = steps_to(level, steps, accuracy)
    return summary


def draw(rows, ax):
    """Accuracy against steps: one curve for each arm, its band the range over the confirming seeds."""
    looks = {}
    for arm in rows["arm"].unique():
        parts = arm.removesuffix("-again").split("-")
        norm = parts[-1]
        if parts[0] in ACTIVATIONS:  # else it is a learner's own
            name, kind, line = ("BN", "batchnorm", ":") if norm == "bn" else ("no BN", "none", "-")
            looks[arm] = {"label": name, **look(kind)}
            if norm == "dd" or "-dd-" in arm:
                looks[arm] |= {"label": f"{name}, started from data", "linestyle": line}
    bands(ax, rows[~rows["tuning"]], "accuracy", looks)
    ax.set(xscale="log", xlabel="training step (log axis)", ylabel="accuracy")


def claims(cells):
    """The ratios of steps over the depths, naive and tuned, and what BN bears. Arms that were not run give none."""

    def decades(*parts):
        """How much wider BN's band is, a mean over the depths; a bound where a band touches an end of the grid."""
        plain, bn = parts[::2], parts[1::2]
        means = (np.mean([part["width"].to_numpy(float) for part in arms], axis=0) for arms in (bn, plain))
        cut = tuple(not all(part["inside"].all() for part in arms) for arms in (bn, plain))
        if all(cut):  # either may be the wider one
            return difference([np.nan], [np.nan])
        return difference(*means)._replace(bound={(True, False): "≥", (False, True): "≤"}.get(cut, ""))

    def arms_of(init, depth):
        return [arm_of("sigmoid", depth, init, "sgd", norm) for norm in NORMS]

    def reach(level="80%"):
        return lambda slow, fast: ratio(reached(slow, level), reached(fast, level))

    def reached(part, level):
        return list(zip(part[f"steps_{level}"], part[f"reached_{level}"], strict=True))

    def rise(deep, deep_bn, flat, flat_bn):
        """Ratio of two ratios, paired by seed."""
        parts = [reached(part, "80%") for part in (deep, deep_bn, flat, flat_bn)]
        pairs = list(zip(*parts, strict=True))
        over = [(a[0] * d[0], a[1] and d[1]) for a, _, _, d in pairs]
        under = [(b[0] * c[0], b[1] and c[1]) for _, b, c, _ in pairs]
        return ratio(over, under)

    paper = {"place": "abstract", "paper_value": "14 times fewer steps, for another net on ImageNet"}
    table = []
    for depth in DEPTHS:
        net = f"sigmoid-{depth}"
        tuned, words = (f"{net}-plain", f"{net}-bn"), f"depth {depth}"
        low = {"threshold": 2.0} if depth == 3 else {}
        band = {"threshold": (0.8, 3.0)} if depth in WIDTHS else {}
        many = f"without BN this many times BN's steps to 80 %, {words}"
        table += [
            Statement(
                f"naive-{depth}", arms_of("xavier", depth), reach(), f"Xavier's start and SGD on both sides: {many}"
            )._replace(**paper, **low),
            Statement(
                f"gaussian-{depth}", arms_of("gaussian", depth), reach(), f"N(0, 0.05²) and SGD on both sides: {many}"
            ),
            Statement(
                f"tuned-{depth}", tuned, reach(), f"Init, optimizer and rate tuned on both sides: {many}"
            )._replace(**band),
            Statement(
                f"dd-{depth}",
                (f"{net}-dd", f"{net}-bn"),
                reach(),
                f"No BN and started from data, optimizer and rate tuned on both sides: {many}",
            ),
            *(
                Statement(
                    *(f"again-{depth}-{norm}", (f"{net}-{norm}", f"{net}-{norm}-again"), reach()),
                    f"A/A: {name} tuned against itself with other seeds, ratio of steps to 80 %, {words}",
                )
                for norm, name in (("plain", "the net without BN"), ("bn", "BN"))
            ),
            *(
                Statement(
                    *(f"{name}-{depth}", [arm_of("sigmoid", depth, init, "sgd", norm) for init in ("xavier", "dd")]),
                    *(
                        reach(),
                        f"{side}, SGD: Xavier's start takes this many times the steps of a start from data to 80 %, "
                        + words,
                    ),
                )
                for name, norm, side in (("start", "plain", "Without BN"), ("start-bn", "bn", "With BN"))
            ),
            Statement(
                *(f"end-{depth}", tuned, lambda plain, bn: difference(100 * bn["best"], 100 * plain["best"])),
                *(f"Highest accuracy within {{steps}} steps, BN minus none, both tuned for speed, {words}", "points"),
            ),
        ]
    table.append(
        Statement(
            *("rise", (*arms_of("xavier", 5), *arms_of("xavier", 3)), rise),
            "The naive ratio at depth 5 is this many times the one at depth 3",
            threshold=1.0,
        )
    )
    for init in SIGMOID_INITS:
        bands_of = [f"sigmoid-{d}-width-{init}-{norm}" for d in WIDTHS for norm in NORMS]
        table.append(
            Statement(
                *(f"width-{init}", bands_of, decades),
                f"Learning rates of SGD that reach 80 % within {{steps}} steps, {STARTS[init]}, depths 3 to 6: BN's "
                "band is wider by",
                *("decades", "section 3.3"),
            )
        )
    return measure(table, cells, "speed-up-map", "ioffe2015")
