"""How small a batch may be: BN, GroupNorm and none at batches from 2 to 256, an MLP and a small CNN, one pass each.

Wu & He (2018) compare BN and GroupNorm with ResNet-50 on ImageNet at 32 to 2 images on each GPU; Wu & Johnson (2021)
ask with which statistics a net is used. Here every arm has its learning rate chosen for its own batch. The nets see
the same images in the same order at every batch, and plain SGD whose rate falls linearly to zero.
"""

from functools import partial

import numpy as np
import torch

from bnlib.nets import inits
from bnlib.nets.images import images
from bnlib.nets.inference import by_batch, population, probabilities
from bnlib.nets.models import MLP, SmallCNN
from bnlib.nets.norms import BatchNorm, GhostBatchNorm, GroupNorm, Normalize
from bnlib.nets.training import accuracy, fit, seeded, sgd
from bnlib.page.figures import bands, look

from .core import SAME, Config, Measured, Plan, Statement, grid, measure, named
from .paired import difference

BATCHES = (2, 4, 8, 16, 32, 64, 128, 256)
LARGE, GHOSTS = 1024, (16, 64, 256)
PASS = 12_800  # images that a net sees
EPS = (1e-5, 1e-3, 0.1)
AGAIN = (21, 22, 23)
NETS = {"mlp": lambda norm: MLP([784, 128, 128, 128, 10], norm), "cnn": SmallCNN}
NORMS = {"none": None, "bn": BatchNorm, "gn": GroupNorm, "ghost": GhostBatchNorm}
WORDS = {"mlp": "MLP", "cnn": "CNN", "none": "no normalization", "bn": "BN", "gn": "GroupNorm"}
# Times 0.1 * batch / 64. So wide because the best rate of a net with BN falls more slowly than the batch.
RATES = {"mlp": (0.03, 0.1, 0.3, 1, 3, 10, 30, 100), "cnn": (0.3, 1, 3, 10, 30, 100, 300, 1000)}


def plans(dataset="fashion-mnist", seen=PASS, rates=RATES):
    """The plans of all arms."""

    def tuned(net, norm, batch, times=1, **setting):
        lr = [float(f"{0.1 * min(batch, 256) / 64 * factor:.3g}") for factor in rates[net]]
        steps = times * seen // batch
        return Plan(
            dataset, steps, grid(net=net, norm=norm, batch=batch, horizon=steps, **setting, lr=lr), probed=True
        )

    found = {f"{net}-{norm}-{b}": tuned(net, norm, b) for net in NETS for norm in list(NORMS)[:3] for b in BATCHES}
    found["mlp-bn-3"] = tuned("mlp", "bn", 3)
    found |= {f"mlp-bn-{b}-eps{eps:g}": tuned("mlp", "bn", b, eps=eps) for b in (2, 3) for eps in EPS[1:]}
    found["mlp-bn-64-eps0.1"] = tuned("mlp", "bn", 64, eps=0.1)
    found["mlp-bn-64-again"] = Plan(dataset, seen // 64, like="mlp-bn-64", seeds=AGAIN, probed=True)
    found[f"mlp-bn-{LARGE}"] = tuned("mlp", "bn", LARGE, times=8)
    found |= {f"mlp-ghost-{LARGE}-{g}": tuned("mlp", "ghost", LARGE, times=8, ghost=g) for g in GHOSTS}
    found["pairs"] = Plan(dataset, 1, grid(net="mlp", norm="bn", batch=2))
    return found


def lines(arms):
    """What each of these arms changes, in words."""
    words = {"pairs": "what BN passes back to pairs of values, no training"}
    for arm in arms:
        if arm not in words:
            net, norm, batch, *more = arm.split("-", 3)
            extra = f", statistics of parts of {more[0]}" if norm == "ghost" else ""
            if norm != "ghost" and more:
                extra = ", other seeds" if more == ["again"] else f", eps {float(more[0][3:]):g}"
            words[arm] = f"{WORDS[net]}, {WORDS.get(norm, 'BN')}, batch {batch}{extra}, rate tuned"
    return words


FULL = plans()
ARMS = lines(FULL)
LITE = {
    arm: plan
    for arm, plan in plans("mnist5k", 1_600, {"mlp": (0.1, 1, 10), "cnn": (1, 3, 10)}).items()
    if arm in {f"mlp-{norm}-{b}" for norm in ("bn", "gn") for b in (2, 4, 16, 64)} | {"mlp-bn-2-eps0.1"}
}
# ``few``: images on which a tuning cell is scored, and a confirming one looked at on the way; ``calibration``:
# training images for the population statistics; ``pairs``: pairs of images that the arm of that name takes.
OPTIONS = {"few": 2_000, "calibration": 4_096, "pairs": 1_000}
CURVES = {"accuracy": 4}
PRESETS = {
    "lite": Config(LITE, seeds=(31,), tuning_seeds=(3,), options=OPTIONS | {"few": 500, "calibration": 1_024}),
    "full": Config(FULL, seeds=(11, 12, 13), tuning_seeds=(1, 2), options=OPTIONS),
}


def run(config, arm, seed, *, net="mlp", norm="bn", batch=64, horizon=200, eps=1e-5, ghost=None, lr=0.1):
    """Train one net on one pass of images and measure it on the way.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights and of the order of the images, the same in all arms. A tuning seed is measured on validation
        images, a confirming seed on test images.
    net : {"mlp", "cnn"} or callable
        ``net(norm)`` gives a model for images (N, 1, 28, 28).
    norm : {"none", "bn", "gn", "ghost"} or callable
        ``norm(channels)`` gives a module; a function of your own brings its own ``eps``.
    batch : int
    horizon : int
        Steps in which the rate falls to zero.
    eps : float
    ghost : int, optional
        Samples in a part of the batch, for "ghost".
    lr : float
        Of the first step; it falls linearly to zero.

    Returns
    -------
    list of dict
        Rows for steps 1 to 20, with ``step`` and ``loss``, and after every tenth of the steps and at 96 %, 98 % and
        the end, with ``accuracy``. The last row has ``end``, the mean of the last three accuracies, and in a
        confirming cell of a net with BN what `_at_test` gives.
    """
    plan, options, tuning = config.arms[arm], config.options, seed in config.tuning_seeds
    train, validation, test = images(plan.dataset)
    if arm == "pairs":
        return [_pairs(train[0], options["pairs"], seed)]
    make = named(NORMS, norm)
    if norm in ("bn", "gn", "ghost"):
        make = partial(make, eps=eps, **({"ghost": ghost} if norm == "ghost" else {}))
    with seeded(seed):
        model = named(NETS, net)(make)
    with seeded(seed):  # the same weights with and without a norm, whose layers have no biases and drew fewer numbers
        inits.he(model)
    few = tuple(part[: options["few"]] for part in (validation if tuning else test))
    whole = few if tuning or not plan.probed else test
    last = {max(1, plan.steps * share // 100) for share in (96, 98, 100)}
    way = {plan.steps * tenth // 10 for tenth in range(1, 10)} - last if not tuning else set()

    def look_at(model, step):
        held_out = whole if step in last else few if step in way else None
        return {} if held_out is None else {"accuracy": accuracy(model, *held_out)}

    rows = fit(
        *(model, *train),
        lr=lr,
        steps=plan.steps,
        validation=(few[0][:1], few[1][:1]),  # next to nothing: the probe takes the accuracy, less often
        batch=batch,
        every={*range(1, 21), *way, *last},
        seed=seed,
        optimizer=partial(sgd, momentum=0.0),
        schedule=lambda step: 1 - (step - 1) / horizon,
        probe=look_at,
        progress=False,
    )
    diverged = not np.isfinite(rows[-1]["loss"])
    rows = [row if row["step"] in way | last else {k: row[k] for k in ("step", "loss")} for row in rows]
    if diverged:  # at chance to the end
        rows[-1] = {"step": plan.steps, "loss": float("nan"), "accuracy": 0.1, "end": 0.1}
        return rows
    rows[-1]["end"] = float(np.mean([row["accuracy"] for row in rows if row["step"] in last]))
    if plan.probed and not tuning and any(isinstance(module, BatchNorm) for module in model.modules()):
        rows[-1] |= _at_test(model, train[0], test, batch, options["calibration"], np.random.default_rng([seed, 1]))
    return rows


def _at_test(model, train, test, batch, calibration, rng):
    """The net in use with three kinds of statistics: running, of the population, of test batches of training's size.

    Accuracies ``running, population, test_batch``, and how far the probabilities of the last two are from those with
    running statistics: ``far_population, far_test_batch``, half the sum of the absolute differences, mean over the
    images.
    """
    batches = train[torch.from_numpy(rng.permutation(len(train)))[: max(calibration, batch)]].split(batch)
    x, labels = test
    answers = {
        "running": probabilities(model, x),
        "population": probabilities(population(model, [part for part in batches if len(part) == batch]), x),
        "test_batch": by_batch(model, x, batch, rng),
    }
    found = {name: float((p.argmax(1) == labels).float().mean()) for name, p in answers.items()}
    for name in ("population", "test_batch"):
        found[f"far_{name}"] = float((answers[name] - answers["running"]).abs().sum(1).mean() / 2)
    return found


def _pairs(train, count, seed):
    """What BN passes back to pairs of values: pre-activations of layer 1 of an untrained MLP, in double precision.

    ``zero``: the largest gradient at eps = 0, as a share of what a fixed scale 1 / std would pass back.
    ``share_<eps>``: which share of the squared gradients the hundredth of the pairs with the largest ones has.
    """
    with seeded(seed):
        layer = MLP([784, 128, 128, 128, 10], BatchNorm)[1].layer
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(train))[: 2 * count])
    with torch.no_grad():
        values = layer(train[order].flatten(1)).double().view(2, -1)  # (2, pairs of images * units)
    with seeded(seed):
        dy = torch.randn(values.shape, dtype=torch.float64)
    one, found = torch.ones(values.shape[1], dtype=torch.float64), {}
    for eps in (0.0, *EPS):
        x = values.clone().requires_grad_()
        (dx,) = torch.autograd.grad(Normalize.apply(x, one, 0 * one, eps), x, dy)
        if eps:
            squares = dx.square().sum(0).sort(descending=True).values
            found[f"share_{eps:g}"] = float(squares[: len(squares) // 100].sum() / squares.sum())
        else:
            found["zero"] = float((dx.abs() * values.std(0, correction=0)).max() / dy.abs().max())
    return {"step": 1, "loss": float(values.square().mean())} | found


def summarize(rows):
    """The numbers of one cell: those of its last row; the score is ``end``."""
    found = {key: value for key, value in rows[-1].items() if key not in ("step", "loss", "accuracy")}
    return {"score": found["end"], **found} if "end" in found else found


def draw(rows, ax):
    """Accuracy against images seen: one curve for each arm, its band the range over the confirming seeds."""
    rows = rows[~rows["tuning"]].dropna(subset="accuracy")
    bands(ax, rows.assign(images=rows["step"] * rows["batch"]), "accuracy", LOOKS, x="images")
    ax.set(xlabel="images seen", ylabel="accuracy")


def claims(cells):
    """What a small batch costs each net, what eps has to do with it, and the three kinds of statistics."""

    def points(high, low):
        return difference(100 * high["end"], 100 * low["end"])

    def worst(reference, *others):
        """How much the worst of the others, by its mean, stays behind the reference."""
        return points(reference, min(others, key=lambda part: part["end"].mean()))

    def weights_alone(high, low):
        return difference(100 * high["population"], 100 * low["population"])

    def of(column, high=None):
        """A column as a percentage, or the difference of two columns in points."""
        return lambda part: difference(100 * part[high or column], 100 * part[column] if high else 0)

    def error(column):
        return lambda part: Measured(*(f(part[column]) for f in (np.max, lambda v: (float(v.min()), float(v.max())))))

    table = []

    def state(name, arms, measured, words, unit="points", **others):
        table.append(Statement(name, tuple(arms), measured, words, unit, **others))

    he = {"place": "error against images per GPU", "paper": "wu2018"}
    told = {
        "bn": {**he, "paper_value": "11.1 points from 32 to 2 (ResNet-50, ImageNet)"},
        "gn": {**he, "paper_value": "0.1 points at most (ResNet-50, ImageNet)"},
        "none": {},
    }
    fixed = {("mlp", "bn"): 20.0, ("cnn", "bn"): (None, 2.0)}
    for net in NETS:
        for norm in list(NORMS)[:3]:
            arm, words = partial("{}-{}-{}".format, net, norm), f"{WORDS[net]}, {WORDS[norm]}"
            limit = {"threshold": fixed[net, norm]} if (net, norm) in fixed else {}
            lost = f"{words}: accuracy lost from batch"
            state(f"{arm(2)}", (arm(64), arm(2)), points, f"{lost} 64 to 2 (negative: gained)", **limit)
            state(f"{arm(2)}-from-32", (arm(32), arm(2)), points, f"{lost} 32 to 2 (negative: gained)", **told[norm])
            limit = {"threshold": (None, 2.0)} if (net, norm) == ("mlp", "gn") else {}
            for name, most in (("small", 32), ("worst", 256)):
                others = [arm(b) for b in BATCHES if b != 64 and b <= most]
                behind = f"{words}: accuracy at batch 64 minus that of the worst batch from 2 to {most}"
                state(f"{net}-{norm}-{name}", (arm(64), *others), worst, behind, **limit)
                limit = {}  # beyond 64 all nets lose, because steps are few
            state(f"{net}-{norm}-256", (arm(64), arm(256)), points, f"{words}: accuracy lost from batch 64 to 256")
        for b in (4, 8, 16):
            pair = [f"{net}-bn-{size}" for size in (64, b)]
            state(
                f"{net}-bn-{b}",
                pair,
                points,
                f"{WORDS[net]}, BN: accuracy lost from batch 64 to {b} (negative: gained)",
            )
        for b in (2, 32, 64):
            pair = [f"{net}-{norm}-{b}" for norm in ("bn", "gn")]
            more = {**he, "paper_value": "+0.5 points (ResNet-50, ImageNet)"} if b == 32 else {}
            state(
                f"{net}-bn-gn-{b}", pair, points, f"{WORDS[net]}, batch {b}: accuracy of BN minus GroupNorm", **more
            )
    for net in ("mlp", "cnn"):
        pair = (f"{net}-bn-64", f"{net}-bn-2")
        weights = f"{WORDS[net]}, BN: accuracy lost from batch 64 to 2, with population statistics at both"
        state(f"{net}-bn-2-population", pair, weights_alone, weights)
    # the collapse at 2 and eps
    state("three", ("mlp-bn-64", "mlp-bn-3"), points, "MLP, BN: accuracy lost from batch 64 to 3")
    for b in (2, 3, 64):
        for eps in EPS[1:] if b < 64 else EPS[2:]:
            pair = (f"mlp-bn-{b}-eps{eps:g}", f"mlp-bn-{b}")
            state(
                f"eps-{b}-{eps:.0e}",
                pair,
                points,
                f"MLP, BN, batch {b}: accuracy gained by eps {eps:g} instead of 1e-05",
            )
    for b in (2, 3):
        left = ("mlp-bn-64", f"mlp-bn-{b}-eps0.1")
        state(f"eps-{b}-left", left, points, f"MLP, BN: accuracy lost from batch 64 (eps 1e-05) to {b} (eps 0.1)")
    derived = {
        "place": "follows from Algorithm 1",
        "paper_value": "0 (derived)",
        "fidelity": SAME,
        "paper": "ioffe2015",
    }
    zero = "Batch of two values, eps 0: largest gradient of the input, as a share of that with a fixed scale"
    state("pairs-zero", ("pairs",), error("zero"), zero, "error", threshold=(None, 1e-12), **derived)
    for eps in EPS:
        most = f"Batch of two values, eps {eps:g}: the largest hundredth of the squared gradients, share of all"
        state(f"pairs-{eps:.0e}", ("pairs",), of(f"share_{eps:g}"), most, "%")
    # in use
    johnson = {
        "place": "population statistics, train and test",
        "paper_value": "compared, other nets",
        "paper": "wu2021",
    }
    for net in NETS:
        for b in (2, 8, 64):
            arm, words = f"{net}-bn-{b}", f"{WORDS[net]}, BN, batch {b}"
            for name, said in (("population", "population"), ("test_batch", "test-batch")):
                far = f"{words}: distance of the probabilities with {said} statistics from those with running ones"
                state(f"{net}-far-{said}-{b}", (arm,), of(f"far_{name}"), far, "%", **johnson)
                gain = f"{words}: accuracy with {said} statistics minus that with running ones"
                state(f"{net}-{said}-{b}", (arm,), of("running", name), gain, **johnson)
    # large batches
    parts = {"place": "ghost batches", "paper_value": "other nets", "paper": "hoffer2017"}
    for g in GHOSTS:
        pair, words = (
            (f"mlp-ghost-{LARGE}-{g}", f"mlp-bn-{LARGE}"),
            f"MLP, batch {LARGE}: accuracy with ghost batches of {g} minus BN over the whole batch",
        )
        state(f"ghost-{g}", pair, points, words, **parts)
    state(
        "again",
        ("mlp-bn-64-again", "mlp-bn-64"),
        points,
        "A/A: MLP, BN, batch 64 against itself, other seeds, accuracy",
    )
    return measure(table, cells, "batch-size", "wu2018")


# How `draw` shows the arms: the colour says the norm, the line style the batch.
LOOKS = {
    arm: {
        "label": words.removesuffix(", rate tuned"),
        **look("none" if "-none-" in arm else "other" if "-gn-" in arm else "batchnorm"),
        "linestyle": {"2": ":", "4": "-.", "16": "--"}.get(arm.split("-eps")[0].rpartition("-")[2], "-"),
    }
    for arm, words in ARMS.items()
}
