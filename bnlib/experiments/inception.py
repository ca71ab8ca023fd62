"""Section 4.2 of Ioffe & Szegedy (2015) on a small Inception: every arm of its table, and the controls it lacked.

The paper trained 13.6 million weights on ImageNet. Here a net of 38,000 weights and 12 layers learns Fashion-MNIST
for 1,000 steps with batches of 32: an analogue, which can agree or disagree and reproduces no number of the paper.
"""

import itertools
import time

import numpy as np
import torch

from bnlib.nets import inits, probes
from bnlib.nets.images import images
from bnlib.nets.models import MiniInception
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import Schedule, accuracy, adam, fit, seeded, sgd
from bnlib.page.figures import bands, look

from .core import Config, Plan, Statement, grid, measure, named
from .paired import difference, ratio, smooth, steps_to

LINES = {
    # the paper's table; its baseline without and with the recipe of its time
    "inception": "no normalization, Xavier's weights, momentum 0.9, rate tuned: the naive baseline",
    "inception-dropout": "the same with dropout 0.4 and L2, rate tuned",
    "bn-baseline": "inception with BN, nothing else changed",
    "bn-x5": "the same at 5 times the rate",
    "bn-x30": "the same at 30 times the rate",
    "bn-x5-sigmoid": "sigmoids and BN at 5 times the rate",
    "inception-x5": "inception at 5 times the rate",
    "inception-x30": "inception at 30 times the rate",
    "plain-fast": "inception at rate 0.25",
    "plain-fast-clip": "the same with clipped gradients",
    "plain-fast-warm": "the same with a warm-up and no clipping",
    "plain-fast-he": "the same with He's weights and clipped gradients",
    "bn-fast": "inception with BN at rate 0.25",
    "inception-sigmoid": "inception with sigmoids, rate tuned",
    # controls
    "bn": "BN, rate tuned",
    "dd": "no normalization, started from data, rate tuned",
    "he-clip": "no normalization, He's weights, clipped gradients, rate tuned",
    "sigmoid-dd": "sigmoids without BN, started from data, rate tuned",
    "dd-warm": "no normalization, started from data, warm-up, clipped gradients, rate and schedule tuned",
    "dd-adam": "the same with Adam",
    "bn-warm": "BN, warm-up, clipped gradients, rate and schedule tuned",
    "bn-adam": "the same with Adam",
    "plain-tuned": "the better of dd-warm and dd-adam",
    "bn-tuned": "the better of bn-warm and bn-adam",
    "inception-again": "inception once more with other seeds",
    "plain-again": "plain-tuned once more with other seeds",
    "bn-again": "bn-tuned once more with other seeds",
    "clock": "milliseconds of a step without BN, with ours and with PyTorch's, in turns",
}
CHANGES = {  # what came with x5: the line, and the setting that changes
    "rate": ("5 times the rate", {}),
    "dropout": ("no dropout", {"dropout": 0.0}),
    "l2": ("a fifth of the L2", {"l2": 2e-5}),
    "decay": ("the rate falls 6 times as often", {"halvings": 6}),
    "response": ("no local response normalization", {"response": False}),
    "shuffle": ("samples shuffled anew in each epoch", {"shuffle": True}),
    "distort": ("weaker distortions of the images", {"distort": 0.1}),
}
RECIPE = {
    "dropout": 0.4,
    "l2": 1e-4,
    "halvings": 1,
    "response": True,
    "shuffle": False,
    "distort": 0.4,
    "samples": 8_000,
}
DROPOUT = {"dropout": 0.4, "l2": 1e-4}
SEARCH = list(itertools.product((5, 9), (0.9, 0.0), (False, True)))  # modules, momentum, dropout and L2
NORMS = {"none": None, "bn": BatchNorm}
ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid}
OPTIMIZERS = {"sgd": sgd, "adam": adam}
INITS = {
    "xavier": lambda model, images: None,
    "he": lambda model, images: inits.he(model),
    "dd": lambda model, images: inits.data_dependent(model, images[torch.randperm(len(images))[:512]]),
}
HORIZON = 1_000  # steps over which the rate is halved
SHORT = 600  # the same in the search for a setting in which 5 times the rate is faster
WARMUP = 200
LEVELS = (0.7, 0.8, 0.85)
RATES = {
    "naive": [0.0125, 0.025, 0.05, 0.1, 0.2],
    "short": [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4],  # of the search: with half the steps 0.2 was an optimum
    "slow": [0.125, 0.25, 0.5, 1.0, 2.0],  # momentum 0 wants about ten times the rate
    "warm": [0.05, 0.1, 0.2, 0.4, 0.8],
    "adam": [1e-3, 2e-3, 4e-3, 8e-3, 16e-3],
    "sigmoid": [0.05, 0.2, 0.8, 3.2],
}
SCHEDULES = [2, 5]  # halvings
AGAIN = (21, 22, 23)


def search_name(modules, momentum, dropout):
    """The name of one setting of the search, such as d20-m0-drop."""
    return f"d{2 * modules + 2}-m{momentum:g}{'-drop' if dropout else ''}".replace(".", "")


def plans(dataset="fashion-mnist", steps=HORIZON, rates=RATES):
    """The plans of all arms."""

    def tuned(lr="naive", **setting):
        return Plan(dataset, steps, grid(**setting, lr=rates[lr]))

    def like(other, times=None, **change):
        return Plan(dataset, steps, like=other, change=change, times={"lr": times} if times else {})

    warm = {"warmup": WARMUP, "clip": 1.0, "halvings": SCHEDULES}
    found = {
        "inception": tuned(),
        "inception-dropout": tuned(**DROPOUT),
        "bn-baseline": like("inception", norm="bn"),
        "bn-x5": like("inception", 5, norm="bn"),
        "bn-x30": like("inception", 30, norm="bn"),
        "bn-x5-sigmoid": like("inception", 5, norm="bn", activation="sigmoid"),
        "inception-x5": like("inception", 5),
        "inception-x30": like("inception", 30),
        "plain-fast": Plan(dataset, steps, grid(lr=0.25)),
        "plain-fast-clip": Plan(dataset, steps, grid(lr=0.25, clip=1.0)),
        "plain-fast-warm": Plan(dataset, steps, grid(lr=0.25, warmup=WARMUP)),
        "plain-fast-he": Plan(dataset, steps, grid(lr=0.25, init="he", clip=1.0)),
        "bn-fast": Plan(dataset, steps, grid(norm="bn", lr=0.25)),
        "inception-sigmoid": tuned("sigmoid", activation="sigmoid"),
        "bn": tuned(norm="bn"),
        "dd": tuned(init="dd"),
        "he-clip": tuned("warm", init="he", clip=1.0),
        "sigmoid-dd": tuned("sigmoid", activation="sigmoid", init="dd"),
        "dd-warm": tuned("warm", init="dd", **warm),
        "dd-adam": tuned("adam", init="dd", optimizer="adam", **warm),
        "bn-warm": tuned("warm", norm="bn", **warm),
        "bn-adam": tuned("adam", norm="bn", optimizer="adam", **warm),
        "plain-tuned": like(("dd-warm", "dd-adam")),
        "bn-tuned": like(("bn-warm", "bn-adam")),
        "inception-again": Plan(dataset, steps, like="inception", seeds=AGAIN),
        "plain-again": Plan(dataset, steps, like=("dd-warm", "dd-adam"), seeds=AGAIN),
        "bn-again": Plan(dataset, steps, like=("bn-warm", "bn-adam"), seeds=AGAIN),
        "clock": Plan(dataset, 400, grid(lr=0.05), alone=True),
        "recipe": tuned(**RECIPE),
        "recipe-bn": like("recipe", norm="bn"),
        "recipe-rate": like("recipe", 5, norm="bn"),
        **{f"recipe-{name}": like("recipe", norm="bn", **change) for name, (_, change) in CHANGES.items() if change},
    }
    everything = {key: value for _, change in CHANGES.values() for key, value in change.items()}
    found["recipe-all"] = like("recipe", 5, norm="bn", **everything)
    steps = min(steps, SHORT)
    for modules, momentum, dropout in SEARCH:
        name = search_name(modules, momentum, dropout)
        about = {"modules": modules, "momentum": momentum, "horizon": SHORT, **(DROPOUT if dropout else {})}
        found[name] = tuned("short" if momentum else "slow", **about)
        # from x5 on the paper dropped dropout and four fifths of the L2
        lighter = {"dropout": 0.0, "l2": 2e-5} if dropout else {}
        found[f"{name}-bn"] = like(name, norm="bn")
        found[f"{name}-bn-x5"] = like(name, 5, norm="bn", **lighter)
        found[f"{name}-bn-x30"] = like(name, 30, norm="bn", **lighter)
    return found


def lines(arms):
    """What each of these arms changes, in words."""
    words = {}
    for arm in arms:
        base, bn, rate = arm.partition("-bn")
        if arm in LINES:
            words[arm] = LINES[arm]
        elif arm.startswith("recipe-") and arm[7:] in CHANGES:
            words[arm] = f"recipe with BN and of the other changes one: {CHANGES[arm[7:]][0]}"
        elif arm == "recipe-all":
            words[arm] = "recipe with BN and all seven changes"
        elif arm == "recipe":
            words[arm] = "inception with all that x5 took away: dropout, L2, slow decay, distortions, ..., rate tuned"
        elif bn:
            words[arm] = f"{base} with BN{f' at {rate[2:]} times the rate' if rate else ''}"
        else:
            depth, momentum, *dropout = arm.split("-")
            momentum = {"m0": "no momentum", "m09": "momentum 0.9"}[momentum]
            words[arm] = (
                f"inception with {depth[1:]} layers, {momentum}{', dropout and L2' * bool(dropout)}, rate tuned"
            )
    return words


FULL = plans()
ARMS = lines(FULL)
LITE = {
    arm: plan
    for arm, plan in plans("mnist5k", 200, {**RATES, "naive": [0.05]}).items()
    if arm in ("inception", "bn-baseline", "bn-x5", "inception-x5", "dd")
}
WORTH = 100  # steps after which a net is worth all test images: fewer only ask whether the code is still the same
# ``images``: on how many a tuning and a confirming cell is evaluated on the way.
OPTIONS = {"batch": 32, "goal": 0.85, "images": (500, 1_000), "points": 20}
PRESETS = {
    "lite": Config(LITE, seeds=(31,), tuning_seeds=(3, 4), options=OPTIONS),
    "full": Config(FULL, seeds=(11, 12, 13), tuning_seeds=(1, 2), options=OPTIONS),
}


def run(
    config,
    arm,
    seed,
    *,
    norm="none",
    activation="relu",
    modules=5,
    init="xavier",
    optimizer="sgd",
    lr=0.05,
    momentum=0.9,
    halvings=5,
    horizon=HORIZON,
    warmup=0,
    clip=None,
    dropout=0.0,
    l2=0.0,
    response=False,
    shuffle=True,
    distort=0.0,
    samples=None,
):
    """Train one net and measure it on the way.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights, the order of the samples, dropout and distortions, so that arms are paired. A tuning seed is
        measured on validation images, a confirming seed on test images.
    norm : {"none", "bn"} or callable
        ``norm(channels)`` gives a module.
    activation : {"relu", "sigmoid"} or callable
    modules : int
        5 modules make 12 layers, 9 make 20.
    init : {"xavier", "he", "dd"} or callable
        ``init(model, images)`` changes a model with Xavier's weights in place.
    optimizer : {"sgd", "adam"} or callable
        ``optimizer(model, lr)``.
    lr : float
    momentum : float
        Of SGD.
    halvings, horizon, warmup : int
        Of `Schedule`; ``horizon`` is its ``steps``.
    clip : float or None
    dropout, l2 : float
        Rate before the last layer; weight of the sum of squares in the loss, halved.
    response, shuffle : bool
        Local response normalization; new mini-batches in every epoch.
    distort : float
        Contrast and brightness of each image are changed by up to this share.
    samples : int or None
        Train on the first so many images: few enough for more than one epoch.

    Returns
    -------
    list of dict
        A row per evaluation: ``step, loss, accuracy`` and ``gradient``, the norm after clipping. The last one has
        ``score`` too, and in a confirming cell ``end``, the accuracy on all test images (on the few
        where the plan has less than `WORTH` steps), and ``dead`` (`probes`).
    """
    plan, options, tuning = config.arms[arm], config.options, seed in config.tuning_seeds
    train, validation, test = images(plan.dataset)
    train = tuple(part[:samples] for part in train)
    if plan.alone:
        return _clock(train, plan.steps, options["batch"], seed)
    held_out = validation if tuning else test
    few = tuple(part[: options["images"][not tuning]] for part in held_out)
    with seeded(seed):
        model = MiniInception(named(NORMS, norm), named(ACTIVATIONS, activation), modules, dropout, response)
    with seeded(seed):  # the same weights with and without BN, whose layers have no biases and drew fewer numbers
        inits.xavier(model)
        named(INITS, init)(model, train[0])
    others = {"momentum": momentum} if optimizer == "sgd" else {}
    others |= {"weight_decay": l2} if l2 else {}
    make = named(OPTIMIZERS, optimizer)
    watch = Watch(options["goal"])
    rows = fit(
        *(model, *train),
        lr=lr,
        steps=plan.steps,
        validation=few,
        batch=options["batch"],
        every=watch,
        seed=seed,
        optimizer=lambda model, lr: make(model, lr, **others),
        schedule=Schedule(horizon, halvings, warmup),
        clip=clip,
        shuffle=shuffle,
        change=Distortion(distort) if distort else None,
        probe=lambda model, step: {"gradient": probes.gradient_norm(model)},
        progress=False,
    )
    end = None if tuning else accuracy(model, *(test if plan.steps >= WORTH else few))
    if not tuning:
        rows[-1]["dead"] = probes.dead(model, few[0])
    if rows[-1]["step"] < plan.steps:  # diverged: at chance to the end
        rows.append(dict(rows[-1], step=plan.steps))
        end = rows[-1]["accuracy"]
    step, reached = steps_to(options["goal"], [r["step"] for r in rows], [r["accuracy"] for r in rows])
    best = float(smooth([r["accuracy"] for r in rows]).max())
    # the higher the better: minus the steps to the goal, worse than all of them where it was missed
    rows[-1] |= {"end": end, "score": -step if reached else -plan.steps * (2 - best)}
    return rows


class Watch:
    """When to evaluate: every 30 steps, every 15 from an accuracy of .7 on until the goal is reached.

    The three first steps and steps 10 and 20 too, which tell whether the code still does the same.
    """

    def __init__(self, goal):
        self.goal, self.reached = goal, False

    def __call__(self, step, history):
        recent = [row["accuracy"] for row in history[-3:]]
        self.reached = self.reached or (len(recent) == 3 and np.mean(recent) >= self.goal)
        close = bool(recent) and recent[-1] >= 0.7 and not self.reached
        return step <= 3 or step in (10, 20) or step % (15 if close else 30) == 0


class Distortion:
    """Contrast and brightness of each image, each changed by a random share of up to ``strength``."""

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, x):
        contrast, brightness = (self.strength * (2 * torch.rand(2, len(x), 1, 1, 1) - 1)).unbind()
        return x * (1 + contrast) + brightness


def summarize(rows):
    """The numbers of one cell: steps to `LEVELS` and whether they were reached, accuracies, score, and its rise."""
    if "none_ms" in rows[0]:
        return {name: float(np.median([row[name] for row in rows])) for name in ("none_ms", "bn_ms", "torch_ms")}
    steps, values = np.array([row["step"] for row in rows]), [row["accuracy"] for row in rows]
    means = smooth(values)
    summary = {"score": rows[-1]["score"], "end": rows[-1]["end"], "best": float(means.max())}
    for level in LEVELS:
        summary[f"steps_{level:.0%}"], summary[f"reached_{level:.0%}"] = steps_to(level, steps, values)
    summary["dead"] = rows[-1].get("dead")
    summary["gradient"] = max((row["gradient"] for row in rows if "gradient" in row), default=None)
    # at which steps the mean of three evaluations was higher than ever before: gives the steps to any level
    high = np.flatnonzero(means > np.maximum.accumulate(np.concatenate([[0], means[:-1]])))
    summary["rise"] = [[int(steps[min(i + 2, len(steps) - 1)]) for i in high], means[high].round(4).tolist()]
    return summary


def _clock(train, steps, batch, seed):
    """Time nets without BN, with ours and with PyTorch's in turns of ten steps, in milliseconds a step."""
    norms = {"none": None, "bn": BatchNorm, "torch": torch.nn.BatchNorm2d}
    few = tuple(part[:batch] for part in train)
    with seeded(seed):
        nets = {name: MiniInception(norm) for name, norm in norms.items()}
    rows = []
    for turn in range(steps // 10):
        row = {"step": 10 * (turn + 1)}
        for name, net in nets.items():
            start = time.perf_counter()
            history = fit(net, *train, lr=0.05, steps=10, validation=few, batch=batch, seed=turn, progress=False)
            row |= {f"{name}_ms": 100 * (time.perf_counter() - start), "loss": history[-1]["loss"]}
        rows.append(row)
    return rows


def draw(rows, ax, x="step"):
    """Accuracy against steps, or ``x``: one curve for each arm, its band the range over the confirming seeds.

    Seeds are evaluated at steps of their own; between two evaluations a straight line stands for the curve.
    """
    columns, tables = ["arm", "seed", x, "accuracy"], []
    for _, arm in rows[~rows["tuning"]].groupby("arm", sort=False):
        curves = arm.pivot_table(index=x, columns="seed", values="accuracy").interpolate("index", limit_area="inside")
        tables.append(
            curves.melt(ignore_index=False, value_name="accuracy").reset_index().assign(arm=arm["arm"].iloc[0])
        )
    for table in tables:
        bands(ax, table[columns], "accuracy", LOOKS, x=x)
    ax.set(xlabel="training step" if x == "step" else x, ylabel="accuracy")


def claims(cells):
    """The statements of section 4.2, and the same numbers for the controls. Arms that were not run give none."""

    def reached(part, level):
        return list(zip(part[f"steps_{level}"], part[f"reached_{level}"], strict=True))

    def steps(level):
        return lambda slow, fast: ratio(reached(slow, level), reached(fast, level))

    def seconds(milliseconds):
        def measured(slow, fast, clock):
            without, with_bn = clock["none_ms"].median(), clock[milliseconds].median()
            return ratio(
                [(step * without, done) for step, done in reached(slow, "80%")],
                [(step * with_bn, done) for step, done in reached(fast, "80%")],
            )

        return measured

    def to_maximum(slow, fast):
        """Steps to the highest accuracy of the slow run of the same seed."""
        pairs = []
        for own, own_last, other, other_last in zip(*runs(slow), *runs(fast), strict=True):
            best = max(own[1])
            pairs.append((rise_to(best, own, own_last), rise_to(best, other, other_last)))
        return ratio(*zip(*pairs, strict=True))

    def runs(part):
        return part["rise"], part["steps"]

    def rise_to(level, rise, last):
        at = [step for step, value in zip(*rise, strict=True) if value >= level]
        return (at[0], True) if at else (last, False)

    def points(low, high, column="end"):
        return difference(100 * high[column], 100 * low[column])

    def highest(low, high):
        return points(low, high, "best")

    def accuracy_of(part):
        return difference(100 * part["end"].to_numpy(float), 0)

    def dead(part):
        return difference(100 * part["dead"].to_numpy(float), 0)

    def best_rate(plain, bn):
        return ratio(*([(lr, True) for lr in part["lr"]] for part in (bn, plain)))

    def cost(milliseconds):
        return lambda clock: ratio(*([(ms, True) for ms in clock[name]] for name in (milliseconds, "none_ms")))

    figure = {"place": "section 4.2, Figure 3"}
    table = []

    def state(name, arms, measured, statement, unit="x", **others):
        table.append(Statement(name, arms, measured, statement, unit, **others))

    naive, tuned = ("inception", "bn"), ("plain-tuned", "bn-tuned")
    many = "the net without BN needs this many times BN's steps to"
    recipe = "Against the recipe of 2015 (Xavier, no clipping), each at its best rate"
    # against the recipe of the time
    one_rate = {**figure, "paper_value": "one rate, not tuned"}
    state("speed-80", naive, steps("80%"), f"{recipe}: {many} 80 %", threshold=2.0, **one_rate)
    state("speed-85", naive, steps("85%"), f"{recipe}: {many} 85 %", **one_rate)
    state("end", naive, points, f"{recipe}: BN's accuracy at the end is higher by", "points", **one_rate)
    state("best-rate", naive, best_rate, f"{recipe}: BN's best rate is this many times the baseline's")
    others = " with six other changes"
    told = {"baseline": "2.3 times", "x5": f"14.8 times{others}", "x30": f"11.5 times{others}"}
    for arm in ("baseline", "x5", "x30"):
        words = f"BN at {'' if arm == 'baseline' else f'{arm[1:]} times '}the baseline's rate"
        pair = ("inception", f"bn-{arm}")
        state(f"{arm}-80", pair, steps("80%"), f"{words}: the baseline takes this many times its steps to 80 %")
        to = f"{words}: the baseline takes this many times its steps to the baseline's own maximum"
        state(f"{arm}-maximum", pair, to_maximum, to, paper_value=told[arm], **figure)
        gains = {"baseline": "+0.5 points", "x5": f"+0.8 points{others}", "x30": f"+2.6 points{others}"}
        end = f"{words}: accuracy at the end, minus the baseline's"
        state(f"{arm}-end", pair, points, end, "points")
        best = f"{words}: highest accuracy, minus the baseline's"
        state(f"{arm}-best", pair, highest, best, "points", paper_value=gains[arm], **figure)
    more = "BN at 30 times the baseline's rate: highest accuracy, minus that at 5 times the rate"
    state("x30-x5-best", ("bn-x5", "bn-x30"), highest, more, "points", paper_value="+1.8 points", **figure)
    units = "BN at 5 times the baseline's rate: highest accuracy with sigmoids, minus that with ReLU"
    gap = {**figure, "paper_value": "-3.2 points"}
    state("sigmoid-relu-best", ("bn-x5", "bn-x5-sigmoid"), highest, units, "points", **gap)
    fast = "rate 0.25, Xavier: accuracy at the end"
    state("fast-plain", ("plain-fast",), accuracy_of, f"Without BN, {fast}", "%", threshold=(None, 20.0))
    state("fast-bn", ("bn-fast",), accuracy_of, f"With BN, {fast}", "%", threshold=80.0)
    for name, words in (
        ("clip", "clipped gradients"),
        ("warm", "warm-up"),
        ("he", "He's weights and clipped gradients"),
    ):
        arm = f"plain-fast-{name}"
        state(f"fast-{name}", (arm,), accuracy_of, f"Without BN, rate 0.25, {words}: accuracy at the end", "%")
    for arm in ("plain-fast", "bn-fast"):
        told = "never positive on 1,000 test images at the end"
        state(f"dead-{arm}", (arm,), dead, f"{ARMS[arm]}: share of the ReLU channels that are {told}", "%")
    infinite = {"place": "section 4.2.2", "paper_value": "parameters became infinite"}
    five = "Without BN at 5 times its best rate: accuracy at the end"
    state("x5-plain", ("inception-x5",), accuracy_of, five, "%", **infinite)
    state(
        "x30-plain", ("inception-x30",), accuracy_of, "Without BN at 30 times its best rate: accuracy at the end", "%"
    )
    state(
        *("sigmoid-plain", ("inception-sigmoid",), accuracy_of),
        *("Sigmoids without BN, rate tuned: accuracy at the end", "%"),
        **{**figure, "paper_value": "chance", "threshold": (None, 15.0)},
    )
    state(
        *("sigmoid-bn", ("bn-x5-sigmoid",), accuracy_of),
        *("Sigmoids with BN at 5 times the baseline's rate: accuracy at the end", "%"),
        **{**figure, "paper_value": "69.8 %, of ReLU's 73.0 %", "threshold": 70.0},
    )
    state(
        "sigmoid-dd", ("sigmoid-dd",), accuracy_of, "Sigmoids without BN, started from data: accuracy at the end", "%"
    )
    # against baselines that are tuned as hard
    hard = "Optimizer, rate and schedule tuned on both sides, both with warm-up and clipping"
    state("tuned-85", tuned, steps("85%"), f"{hard}: {many} 85 %", threshold=1.2)
    state("tuned-80", tuned, steps("80%"), f"{hard}: {many} 80 %")
    state("tuned-end", tuned, points, f"{hard}: BN's accuracy at the end is higher by", "points", threshold=1.0)
    state("tuned-maximum", tuned, to_maximum, f"{hard}: {many} the plain net's own maximum")
    gain = "Without BN, the recipe of 2015 takes this many times the steps of the tuned net to 80 %"
    state("plain-gain", ("inception", "plain-tuned"), steps("80%"), gain)
    controls = {  # each beside the arm of BN that was tuned in as many cells
        "dropout": ("inception-dropout", "bn", "Dropout and L2"),
        "dd": ("dd", "bn", "Started from data"),
        "he-clip": ("he-clip", "bn", "He's weights and clipping"),
        "dd-warm": ("dd-warm", "bn-warm", "Started from data, warm-up and clipping"),
        "dd-adam": ("dd-adam", "bn-adam", "Started from data, warm-up and clipping, Adam"),
    }
    for name, (plain, bn, words) in controls.items():
        for level in ("80", "85"):
            equal = f"{words}, rate tuned: {many} {level} % (arm {bn}, tuned in as many cells)"
            state(f"{name}-{level}", (plain, bn), steps(f"{level}%"), equal)
        state(
            f"{name}-end",
            (plain, bn),
            points,
            f"{words}, no BN, rate tuned: the accuracy of {bn} at the end is higher by",
            "points",
        )
    for name, arm, again in (("naive", "inception", "inception-again"), ("plain", "plain-tuned", "plain-again")):
        state(f"again-{name}", (arm, again), steps("80%"), f"A/A: {arm} against itself, other seeds, to 80 %")
    slow = "A/A: inception against itself, other seeds, to 70 %"
    state("again-naive-70", ("inception", "inception-again"), steps("70%"), slow)
    state("again-bn", ("bn-tuned", "bn-again"), steps("80%"), "A/A: bn-tuned against itself, other seeds, to 80 %")
    state("again-85", ("bn-tuned", "bn-again"), steps("85%"), "A/A: bn-tuned against itself, other seeds, to 85 %")
    # seconds
    for name, words in (("bn", "our BN"), ("torch", "PyTorch's BN")):
        ending = "" if name == "bn" else f"-{name}"
        many_ms = f"A step with {words} takes this many times the milliseconds of one without"
        state(f"step-cost{ending}", ("clock",), cost(f"{name}_ms"), many_ms)
        clocked = f"ratio of seconds to 80 %, {words}"
        state(f"seconds-naive{ending}", (*naive, "clock"), seconds(f"{name}_ms"), f"{recipe}: {clocked}")
        state(f"seconds-tuned{ending}", (*tuned, "clock"), seconds(f"{name}_ms"), f"{hard}: {clocked}")
    # what else came with x5
    base = "In the recipe of the time (dropout, L2, slow decay, response normalization, distortions)"
    both = {"": ("recipe-bn", "BN", "2.3 times", "+0.5 points")}
    both["-all"] = ("recipe-all", "BN with all seven changes", "14.8 times; the text says 14", "+0.8 points")
    for name, (arm, words, times, gain) in both.items():
        pair, more = ("recipe", arm), f"{base}: {words},"
        state(f"recipe{name}-80", pair, steps("80%"), f"{more} the baseline takes this many times its steps to 80 %")
        to = f"{more} the baseline takes this many times its steps to the baseline's own maximum"
        state(f"recipe{name}-maximum", pair, to_maximum, to, paper_value=times, **figure)
        end = f"{more} accuracy at the end, minus the baseline's"
        state(f"recipe{name}-end", pair, points, end, "points", paper_value=gain, **figure)
    for name, (words, _) in CHANGES.items():
        pair, change = ("recipe-bn", f"recipe-{name}"), f"BN in the recipe of the time, one change, {words}"
        fewer = f"{change}: BN without it needs this many times the steps of BN with it, to 80 %"
        state(f"change-{name}", pair, steps("80%"), fewer)
        told = {"place": "section 4.2.1", "paper_value": "about +1 point"} if name == "shuffle" else {}
        state(f"change-{name}-best", pair, highest, f"{change}: highest accuracy is higher by", "points", **told)
    # the search for a setting in which 5 times the rate is faster
    for name, slow, fast, times, words in (
        ("x5", "bn-baseline", "bn-x5", "6.3 times to 72.2 %, with six other changes", "the baseline's rate"),
        ("x30", "bn-x5", "bn-x30", "0.78 times to 72.2 %", "5 times the baseline's rate"),
    ):
        order = (
            f"BN at {words} takes this many times the steps of BN at {name[1:]} times the baseline's rate, to 80 %"
        )
        state(f"order-{name}", (slow, fast), steps("80%"), order, paper_value=times, **figure)
    for setting in SEARCH:
        name = search_name(*setting)
        for rate, slow, fast in (("x5", "bn", "bn-x5"), ("x30", "bn-x5", "bn-x30")):
            first = "the baseline's rate" if rate == "x5" else "5 times the baseline's rate"
            words = f"{ARMS[name]}: BN at {first} takes this many times the steps of BN at {rate[1:]} times it"
            for level in ("70", "80"):
                pair = f"{name}-{slow}", f"{name}-{fast}"
                state(f"search-{name}-{rate}-{level}", pair, steps(f"{level}%"), f"{words}, to {level} %")
    return measure(table, cells, "inception", "ioffe2015")


# How `draw` shows the arms: grey without BN, blue with it; the line style says the rest. A single expression, because
# other code here would decide the keys of finished cells.
LOOKS = {
    arm: {"label": arm, **look("batchnorm" if "bn" in arm.split("-") or arm.startswith("recipe-") else "none")}
    | dict(
        zip(
            ("label", "linestyle"),
            {
                "inception": ("no BN, 2015", "--"),
                "inception-dropout": ("no BN, dropout and L2", ":"),
                "inception-x5": ("no BN, 5 times the rate", ":"),
                "inception-x30": ("no BN, 30 times the rate", "-."),
                "plain-fast": ("no BN, rate 0.25", "--"),
                "plain-fast-clip": ("no BN, rate 0.25, clipped", "-."),
                "plain-fast-warm": ("no BN, rate 0.25, warm-up", ":"),
                "plain-fast-he": ("no BN, rate 0.25, He, clipped", "-"),
                "inception-sigmoid": ("no BN, sigmoids", "--"),
                "sigmoid-dd": ("no BN, sigmoids, from data", "-"),
                "dd": ("no BN, from data", "-."),
                "he-clip": ("no BN, He, clipped", ":"),
                "dd-warm": ("no BN, from data, warm-up", "-"),
                "dd-adam": ("no BN, from data, Adam", ":"),
                "plain-tuned": ("no BN, tuned", "-"),
                "bn-baseline": ("BN, the baseline's rate", "-"),
                "bn": ("BN, its best rate", "-"),
                "bn-x5": ("BN, 5 times the rate", "--"),
                "bn-x30": ("BN, 30 times the rate", ":"),
                "bn-fast": ("BN, rate 0.25", "-"),
                "bn-x5-sigmoid": ("BN, sigmoids", "-."),
                "bn-tuned": ("BN, tuned", "--"),
            }.get(arm, ()),
            strict=False,
        )
    )
    for arm in ARMS
}
