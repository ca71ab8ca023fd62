"""Six nets that vote: an ensemble of nets with BN beside one of nets without, and beside one net trained as long.

Section 4.2 of Ioffe & Szegedy (2015) averages the probabilities of six nets that differ in more than their seeds; it
has no ensemble without BN and no test. Here the members of a family differ in their first weights and in the order of
the images. A confirming cell trains a whole ensemble, because its claims need the answers of all members to each
image; a tuning cell trains one net.
"""

import base64
import itertools

import numpy as np
import torch
from scipy import stats

from bnlib.nets import inits
from bnlib.nets.images import images
from bnlib.nets.inference import probabilities
from bnlib.nets.models import SmallCNN
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import fit, seeded
from bnlib.page.figures import bands, look

from .core import Config, Measured, Plan, Statement, grid, measure, named
from .paired import difference, ratio

ARMS = {
    "plain": "six nets without normalization, rate tuned",
    "bn": "six nets with BN, rate tuned",
    "plain-long": "one net without normalization, six times the steps, rate tuned",
    "bn-long": "one net with BN, six times the steps, rate tuned",
}
MEMBERS = 6
NORMS = {"none": None, "bn": BatchNorm}
RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


def plans(dataset="fashion-mnist", steps=1_000, rates=RATES):
    """The plans of all arms."""

    def tuned(norm, members, steps):
        return Plan(dataset, steps, grid(norm=norm, members=members, horizon=steps, lr=rates), probed=True)

    norms = {"plain": "none", "bn": "bn"}
    found = {arm: tuned(norm, MEMBERS, steps) for arm, norm in norms.items()}
    return found | {f"{arm}-long": tuned(norm, 1, MEMBERS * steps) for arm, norm in norms.items()}


LITE = {arm: plan for arm, plan in plans("mnist5k", 120, [0.03, 0.1, 0.3]).items() if arm in ("plain", "bn")}
OPTIONS = {"batch": 64, "few": 500}  # ``few``: images of a cell that is not probed
CURVES = {"size": 1, "error": 4, "errors": 4}
PRESETS = {
    "lite": Config(LITE, seeds=(31,), tuning_seeds=(3,), options=OPTIONS),
    "full": Config(plans(), seeds=(11, 12, 13, 14, 15), tuning_seeds=(1, 2), options=OPTIONS),
}


def run(config, arm, seed, *, norm="bn", members=MEMBERS, horizon=1_000, lr=0.1):
    """Train the members one after the other and let every subset of them vote.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Member k has the seed ``100 * seed + k``, of its weights and of the order of its images, in all arms. A tuning
        seed trains the first member only and scores it on validation images; a confirming seed uses test images.
    norm : {"none", "bn"} or callable
        ``norm(channels)`` gives a module.
    members : int
    horizon : int
        Steps in which the rate falls to zero.
    lr : float
        Of the first step, with momentum 0.9; it falls linearly to zero.

    Returns
    -------
    list of dict
        Rows for steps 1 to 20 of the first member, with ``step`` and ``loss``; the last row of a tuning cell has the
        ``score``. A confirming cell adds a row for each size of an ensemble: ``size``; ``errors`` of the mean of the
        probabilities, one for each subset of this size, as `itertools.combinations` has them; ``error``, their mean.
        The last row has ``single``, the error of the member that is best on validation images; ``disagree``, the
        share of images to which two members give different classes, mean over the pairs; and ``right, right_single,
        right_first, right_second``: which images the ensemble, that member and the first two have right (`packed`).
    """
    plan, options, tuning = config.arms[arm], config.options, seed in config.tuning_seeds
    train, validation, test = images(plan.dataset)
    if not plan.probed:
        members, validation, test = (
            1,
            *(tuple(part[: options["few"]] for part in pair) for pair in (validation, test)),
        )
    rows, on_validation, answers = [], [], []
    for member in range(1 if tuning else members):
        one = 100 * seed + member
        with seeded(one):
            model = SmallCNN(named(NORMS, norm))
        with seeded(one):  # the same weights with and without BN
            inits.he(model)
        history = fit(
            *(model, *train),
            lr=lr,
            steps=plan.steps,
            validation=(train[0][:1], train[1][:1]),  # next to nothing: nothing is looked at on the way
            batch=options["batch"],
            every=range(1, 21) if member == 0 else (),
            seed=one,
            schedule=lambda step: 1 - (step - 1) / horizon,
            progress=False,
        )
        if member == 0:
            rows = [{"step": row["step"], "loss": row["loss"]} for row in history]
        found = [probabilities(model, x).nan_to_num(0.1) for x, _ in (validation, test)[: 1 + (not tuning)]]
        on_validation.append(float((found[0].argmax(1) == validation[1]).double().mean()))
        answers += found[1:]
    if tuning:
        return [*rows[:-1], rows[-1] | {"score": on_validation[0]}]
    return rows[:-1] + _sizes(rows[-1], torch.stack(answers).double().numpy(), test[1].numpy(), on_validation)


def _sizes(row, answers, labels, on_validation):
    """The last rows of a cell, from the members' probabilities (members, N, classes) and validation accuracies."""
    every, found = range(len(answers)), []
    for size in range(1, len(answers) + 1):
        chosen = itertools.combinations(every, size)
        errors = [float((answers[list(part)].mean(0).argmax(1) != labels).mean()) for part in chosen]
        found.append({**row, "size": size, "error": float(np.mean(errors)), "errors": errors})
    classes = answers.argmax(2)
    right = classes == labels
    best = int(np.argmax(on_validation))
    pairs = list(itertools.combinations(every, 2))
    found[-1] |= {
        "single": float(1 - right[best].mean()),
        "disagree": float(np.mean([classes[a] != classes[b] for a, b in pairs])) if pairs else 0.0,
        "right": packed(answers.mean(0).argmax(1) == labels),
        "right_single": packed(right[best]),
        "right_first": packed(right[0]),
        "right_second": packed(right[min(1, len(right) - 1)]),
    }
    return found


def packed(right):
    """Right or wrong for each image, bool (N,), as a text of N / 6 characters."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text):
    """What `packed` packed, bool, filled up with False to a multiple of 8."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(bool)


def mcnemar(right, other):
    """McNemar's test of two nets on the same images.

    Implements z = (b - c) / sqrt(b + c), without a correction for continuity.

    Parameters
    ----------
    right, other : array (N,), bool
        Which images each net has right.

    Returns
    -------
    b, c : int
        Images that only the first, only the second has right.
    z : float
        0 where the nets are right on the same images.
    p : float
        Exact and two-sided: each of the b + c images is the toss of a coin.
    """
    b, c = int((right & ~other).sum()), int((other & ~right).sum())
    if b + c == 0:
        return 0, 0, 0.0, 1.0
    return b, c, (b - c) / (b + c) ** 0.5, float(stats.binomtest(b, b + c).pvalue)


def summarize(rows):
    """The numbers of one cell: the score; or errors by size, ``ensemble``, and what the last row holds."""
    last, sizes = rows[-1], [row for row in rows if "size" in row]
    if not sizes:
        return {"score": last["score"]}
    kept = {key: last[key] for key in last if key.startswith(("right", "single", "disagree"))}
    return {"ensemble": last["error"], "by_size": [row["error"] for row in sizes], "score": -last["single"], **kept}


def draw(rows, ax):
    """Error against the number of members, mean over all subsets of a size; the band is the range over the seeds."""
    rows = rows[~rows["tuning"]].dropna(subset="size")
    several = rows.groupby("arm")["size"].transform("max") > 1
    bands(ax, rows[several].assign(error=100 * rows["error"]), "error", LOOKS, x="size")
    ax.set(xlabel="nets in the ensemble", ylabel="error, %")


def claims(cells):
    """What an ensemble gains, with BN and without, whether chance explains it, and what one longer run gives."""

    def tests(part, one, other):
        return [mcnemar(unpacked(a), unpacked(b))[2] for a, b in zip(part[one], part[other], strict=True)]

    def z(part):
        return difference(tests(part, "right", "right_single"), 0)

    def lowest(part):
        found = tests(part, "right", "right_single")
        return Measured(min(found), (min(found), max(found)))

    def nothing(part):
        return difference(np.abs(tests(part, "right_first", "right_second")), 0)

    def families(plain, bn):
        return difference(tests(plain.assign(bn=bn["right"].to_numpy()), "bn", "right"), 0)

    def gain(part, column="single"):
        return 100 * (part[column] - part["ensemble"]).to_numpy(float)

    def mean_gain(part):
        return np.array([100 * (sizes[0] - sizes[-1]) for sizes in part["by_size"]])

    def times(part):
        return ratio(*([(sizes[place], True) for sizes in part["by_size"]] for place in (0, -1)))

    def share(size):
        """Of the gain of all members, the part that ``size`` members have."""
        return lambda part: difference(
            [100 * (sizes[0] - sizes[size - 1]) / (sizes[0] - sizes[-1]) for sizes in part["by_size"]], 0
        )

    def errors(high, low, of_high="ensemble", of_low="ensemble"):
        return difference(100 * high[of_high], 100 * low[of_low])

    paper = {
        "place": "section 4.2, ensemble of six",
        "paper_value": "21.99 to 20.1 % (top-1), 5.82 to 4.9 % (top-5, ImageNet), no test",
    }
    names = {"bn": "With BN", "plain": "Without BN"}
    table, deviations = [], "standard deviations"

    def state(name, arms, measured, words, unit="points", **others):
        table.append(Statement(name, arms, measured, words, unit, **others))

    for arm, words in names.items():
        told, fixed = (paper, {"threshold": 2.0}) if arm == "bn" else ({}, {})
        best = "six nets against the one that is best on validation images"
        state(
            f"{arm}-z",
            (arm,),
            z,
            f"{words}: {best}, McNemar's z (positive: the six are right more often)",
            deviations,
            **told,
            **fixed,
        )
        state(f"{arm}-z-lowest", (arm,), lowest, f"{words}: {best}, the lowest z of the seeds", deviations)
        state(
            f"{arm}-gain",
            (arm,),
            lambda part: difference(gain(part), 0),
            f"{words}: error of the best single net minus that of the six",
            **told,
        )
        average = f"{words}: error of the average net minus that of the six"
        state(f"{arm}-gain-average", (arm,), lambda part: difference(mean_gain(part), 0), average)
        state(f"{arm}-times", (arm,), times, f"{words}: the average net has this many times the errors of six", "x")
        for size in (2, 3):
            part = f"{words}: share of the gain of six nets that {('two', 'three')[size - 2]} bring"
            state(f"{arm}-share-{size}", (arm,), share(size), part, "%")
        two = f"{words}: share of images to which two nets give different answers"
        state(f"{arm}-disagree", (arm,), lambda part: difference(100 * part["disagree"], 0), two, "%")
        longer = f"{words}: error of one net with six times the steps, minus that of the six nets"
        state(f"{arm}-long", (f"{arm}-long", arm), errors, longer)
        state(
            f"{arm}-nothing",
            (arm,),
            nothing,
            f"A/A: {words[0].lower()}{words[1:]}, a net against another, |z| (0.8 where only luck differs)",
            deviations,
        )
    both = ("plain", "bn")
    difference_of_gains = "Gain of six nets over the best single one, with BN minus without"
    state("gains", both, lambda plain, bn: difference(gain(bn), gain(plain)), difference_of_gains)
    on_average = "Gain of six nets over the average one, with BN minus without"
    state("gains-average", both, lambda plain, bn: difference(mean_gain(bn), mean_gain(plain)), on_average)
    state("families", both, errors, "Error of six nets without BN minus that of six with BN")
    state(
        "families-z",
        both,
        families,
        "Six nets with BN against six without, McNemar's z (positive: BN is right more often)",
        deviations,
    )
    one = "Error of six nets without BN minus that of the best single net with BN"
    state("six-against-one", both, lambda plain, bn: errors(plain, bn, of_low="single"), one)
    return measure(table, cells, "ensemble", "ioffe2015")


# How `draw` shows the arms: grey without BN, blue with it.
LOOKS = {
    "plain": {"label": "no BN", **look("none")},
    "bn": {"label": "BN", **look("batchnorm")},
    "plain-long": {"label": "no BN, one net, six times the steps", **look("none"), "linestyle": ":"},
    "bn-long": {"label": "BN, one net, six times the steps", **look("batchnorm"), "linestyle": ":"},
}
