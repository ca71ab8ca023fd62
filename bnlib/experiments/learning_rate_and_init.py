"""Which learning rates train a net at which scale of its initial weights: none, a start from data, or BN.

Ioffe & Szegedy (2015) say that BN allows higher learning rates and less careful initialization; they give no number.
Here a cell trains one net once at each rate of a grid, and its measure is the band of rates that end at 85 % or more.
"""

import math
from functools import cache

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch import inits
from bnlib.scratch.layers import BatchNorm, ReLU
from bnlib.scratch.network import accuracy, fit, mlp, pixels
from bnlib.scratch.optimizers import SGD, Adam

from .core import Config, Measured, Plan, Statement, grid, known, measure, named
from .paired import WINDOW, difference, longest_band

METHODS = {"plain": ("none", "he"), "dd": ("none", "dd"), "bn": ("bn", "he")}  # norm and init
SCALES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FEW = (0.01, 0.1, 1.0, 10.0, 100.0)
LEVEL = 0.85  # a rate is usable if the net ends at this accuracy or above
CHANCE = 0.1
FIRST = 20  # steps whose loss is kept
REST = 0.1  # the rate of what is not a hidden weight, under "split"


class Split:
    """SGD in which ``lr`` is the rate of the hidden layers' weights only; all else has the rate `REST`."""

    def __init__(self, lr):
        self.lr = lr

    def step(self, net):
        hidden = inits.linears(net)[:-1]
        for layer in net.layers:
            for key, param in layer.params.items():
                param -= (self.lr if key == "weight" and layer in hidden else REST) * layer.grads[key]


NORMS = {"none": None, "bn": BatchNorm}
INITS = {
    "he": lambda net, images, rng: None,  # as `build` makes it
    "dd": lambda net, images, rng: inits.data_dependent(net, images[rng.choice(len(images), 512, replace=False)]),
}
OPTIMIZERS = {"sgd": SGD, "adam": Adam, "split": Split}
LAYERS = ("hidden", "all")


def name(method, optimizer, scale):
    """The arm of a method, an optimizer and a scale; "sgd-all" scales the output layer too."""
    return f"{method}-{optimizer}-{scale:g}"


def _arms():
    """Arm -> its setting, of the full scale."""
    plans = [(m, o, s, "hidden") for o in ("sgd", "adam") for m in METHODS for s in SCALES]
    plans += [("bn", "split", s, "hidden") for s in FEW]
    plans += [(m, "sgd", s, "all") for m in METHODS for s in FEW if s != 1]  # at 1 nothing differs
    for method, optimizer, scale, layers in plans:
        norm, init = METHODS[method]
        setting = {"norm": norm, "init": init, "optimizer": optimizer, "scale": scale, "layers": layers}
        yield name(method, optimizer + "-all" * (layers == "all"), scale), setting


def rates(low, high, per_decade=2):
    """Learning rates from ``10**low`` to ``10**high``, evenly spaced on a logarithmic axis."""
    exponents = np.arange(per_decade * low, per_decade * high + 1) / per_decade
    return [float(f"{10**e:.3g}") for e in exponents]


ARMS = {
    arm: " ".join(
        (
            {"plain": "no normalization,", "dd": "no normalization, started from data,", "bn": "BN,"}[
                arm.split("-")[0]
            ],
            {"sgd": "SGD,", "adam": "Adam,", "split": f"SGD with rate {REST} for all but the hidden weights,"}[
                setting["optimizer"]
            ],
            f"{setting['layers']} weights times {setting['scale']:g}",
        )
    )
    for arm, setting in _arms()
}
FULL = {arm: Plan("mnist5k", 400, grid(**setting)) for arm, setting in _arms()}
LITE = {arm: FULL[arm] for arm in (name(m, "sgd", s) for m in METHODS for s in (0.1, 1.0, 10.0))}
OPTIONS = {
    "batch": 64,
    "evaluations": [25, 50, 100, 150, 200, 250, 300, 380, 390, 400],
    "rates": {"sgd": rates(-7, 2), "adam": rates(-7, 1), "split": rates(-8, 8)},
}
ARRAYS = {"accuracies": 40, "rates": 40}
PRESETS = {
    "lite": Config(
        LITE,
        seeds=(31,),
        tuning_seeds=(3, 4),
        arrays=ARRAYS,
        options=OPTIONS | {"rates": dict.fromkeys(OPTIONS["rates"], rates(-4, 1, 1))},
    ),
    "full": Config(FULL, seeds=(11, 12, 13), tuning_seeds=(1, 2), arrays=ARRAYS, options=OPTIONS),
}


def run(config, arm, seed, *, norm="none", init="he", optimizer="sgd", scale=1.0, layers="hidden"):
    """Train one net at each learning rate of the grid and measure all of them on the way.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights and of the order of the samples: the same for all rates and all arms. A tuning seed is
        measured on validation images, a confirming seed on test images.
    norm : {"none", "bn"} or callable
        ``norm(channels)`` gives a layer.
    init : {"he", "dd"} or callable
        ``init(net, images, rng)`` changes, in place, a net whose weights are scaled already.
    optimizer : {"sgd", "adam", "split"} or callable
        ``optimizer(lr)`` gives an object with a method ``step(net)``. A function has the rates of "sgd".
    scale : float
        He's weights are multiplied by it.
    layers : {"hidden", "all"}
        Whose weights are: those of the hidden layers, or those of the output layer too.

    Returns
    -------
    list of dict
        Rows for steps 1 to 20 and for each evaluation. ``step``; ``loss``, the median over the rates of the
        mini-batch's loss, NaN where half of them have diverged. Evaluations also have ``accuracies``, a
        list over the rates, with 0.1 for a run that has diverged, and ``width``, that of `band`. The last row has
        ``rates``.
    """
    steps, options = config.arms[arm].steps, config.options
    train, validation, test = images(config.arms[arm].dataset)
    held_out = validation if seed in config.tuning_seeds else test
    norm, start, step_of = (named(*pair) for pair in ((NORMS, norm), (INITS, init), (OPTIMIZERS, optimizer)))
    known(layers, LAYERS, "value")
    wanted = {step for step in options["evaluations"] if step <= steps} | {steps}
    grid_ = options["rates"]["sgd" if callable(optimizer) else optimizer]
    losses, accuracies = [], []
    for lr in grid_:
        net = build(seed, norm, scale, layers)
        start(net, train[0], np.random.default_rng([seed, 2]))
        with np.errstate(all="ignore"):  # a run that diverges is a result
            found = fit(
                *(net, *train),
                lr=lr,
                steps=steps,
                validation=(train[0][:1], train[1][:1]),  # next to nothing: the probe takes the accuracy, less often
                batch=options["batch"],
                every={*range(1, FIRST + 1), *wanted},
                seed=seed,
                optimizer=step_of,
                probe=lambda net, step: {"held_out": accuracy(net, *held_out)} if step in wanted else {},
                progress=False,
            )
        losses.append({row["step"]: row["loss"] for row in found if np.isfinite(row["loss"])})
        accuracies.append({row["step"]: row["held_out"] for row in found if "held_out" in row})
    rows = []
    for step in sorted({s for s in range(1, FIRST + 1) if s <= steps} | wanted):
        middle = sorted(loss.get(step, np.inf) for loss in losses)[len(losses) // 2]
        rows.append({"step": step, "loss": middle if np.isfinite(middle) else float("nan")})
        if step in wanted:
            now = [accuracy.get(step, CHANCE) for accuracy in accuracies]
            rows[-1] |= {"accuracies": now, "width": band(grid_, now)["width"]}
    rows[-1]["rates"] = grid_
    return rows


@cache
def images(dataset):
    """Inputs (N, 784), float32, and labels, for training, validation and test."""
    return load(dataset).pairs(pixels)


def build(seed, norm=None, scale=1.0, layers="hidden"):
    """784-100-100-100-100-100-10 with ReLU, He's normal weights times ``scale``, and biases zero.

    The weights of the output layer are multiplied only if ``layers`` is "all".
    """
    net = mlp([784, *[100] * 5, 10], seed=seed, activation=ReLU, norm=norm)
    rng, linears = np.random.default_rng([seed, 1]), inits.linears(net)
    for layer in linears:
        weight = layer.params["weight"]
        factor = scale if layers == "all" or layer is not linears[-1] else 1.0
        weight[:] = factor * np.sqrt(2 / weight.shape[1]) * rng.standard_normal(weight.shape)
    return net


def band(rates, accuracies, level=LEVEL):
    """The band of usable rates, `longest_band`: those that end with an accuracy of ``level`` or above.

    Parameters
    ----------
    rates : list of float
        Ascending, evenly spaced on a logarithmic axis.
    accuracies : list of float
        Of equally long runs.

    Returns
    -------
    dict
        ``width`` in decades; ``low, high, center``, log10 of its ends and of the middle, NaN without a band;
        ``edge``, whether the band touches an end of the grid, so that it may be wider.
    """
    found = longest_band([value >= level for value in accuracies], rates)
    low, high = (round(math.log10(rate), 2) for rate in (found.low, found.high))
    center = round((low + high) / 2, 3)
    return {"width": round(found.decades, 2), "low": low, "high": high, "center": center, "edge": not found.inside}


def summarize(rows):
    """The numbers of one cell: ``final``, a list over the rates, the mean of the last three evaluations; its `band`.

    The score is the width.
    """
    measured = [row["accuracies"] for row in rows if "accuracies" in row]
    final = np.mean(measured[-WINDOW:], axis=0).round(4).tolist()
    found = band(rows[-1]["rates"], final)
    return {"score": found["width"], **found, "final": final}


def draw(rows, ax):
    """Width of the band against steps: what it would be, had training ended there."""
    bands(ax, rows[~rows["tuning"]].dropna(subset="width"), "width", LOOKS)
    ax.set(xlabel="training step", ylabel="usable rates, decades")


def claims(cells):
    """What BN adds to the width of the band, how the band moves with the scale, and where the rescaling holds."""
    stated = {"place": "abstract and section 3.3", "paper_value": "stated, no number"}
    derived = {"place": "follows from section 3.3", "paper_value": "2 (derived)"}
    others, table = {"plain": "none", "dd": "a start from data"}, []

    def wider(*parts):
        """Mean width of the first half of the arms minus that of the second; a bound where a band touches an end."""
        first, second = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        widths = (np.mean([part["width"].to_numpy() for part in half], axis=0) for half in (first, second))
        value, spread, _ = difference(*widths)
        ends = tuple(any(part["edge"].any() for part in half) for half in (first, second))
        if all(ends):
            value, spread = np.nan, (np.nan, np.nan)
        return Measured(value, spread, {(True, False): "≥", (False, True): "≤"}.get(ends, ""))

    def higher(first, second):
        """Upper end of the first arm's band minus that of the second's, in decades."""
        ends = first["high"].to_numpy(float), second["high"].to_numpy(float)
        return Measured(np.nan, (np.nan, np.nan)) if np.isnan(ends).any() else difference(*ends)

    def usable(*parts):
        """How many of the arms have a band."""
        return difference(np.sum([part["width"].to_numpy() > 0 for part in parts], axis=0), 0)

    def slope(end):
        """A measure: slope of the line through log10 of an end of the band over log10 of the scale, of each seed.

        A band that touches an end of the grid has an end that is not known, and is left out.
        """

        def fitted(*parts):
            scales = np.log10([part["scale"].iloc[0] for part in parts])
            slopes = []
            inside = [part[end].where(~part["edge"].astype(bool)).to_numpy(float) for part in parts]
            for ends in np.transpose(inside):
                there = ~np.isnan(ends)
                slopes.append(np.polyfit(scales[there], ends[there], 1)[0] if there.sum() > 1 else np.nan)
            return Measured(np.nan, (np.nan, np.nan)) if np.isnan(slopes).any() else difference(slopes, 0)

        return fitted

    def add(label, arms, measured, words, unit="decades", **more):
        if set(cells["arm"]).issuperset(arms):
            table.append(Statement(label, tuple(arms), measured, words, unit, **more))

    for optimizer, said in (("sgd", "SGD"), ("adam", "Adam")):
        after = "" if optimizer == "sgd" else "-adam"
        arms = {method: [name(method, optimizer, scale) for scale in SCALES] for method in METHODS}
        at_he = {method: [name(method, optimizer, 1)] for method in METHODS}
        for other, words in others.items():
            more = stated if other == "plain" else {}
            fixed = {"threshold": 0.5} if (other, optimizer) == ("plain", "sgd") else {}
            told = f"of the usable learning rates, {said}, BN minus {words}"
            pair = at_he["bn"] + at_he[other]
            add(f"width-{other}{after}", pair, wider, f"Width at He's scale {told}", **more, **fixed)
            told = f"Highest usable learning rate at He's scale, {said}, BN minus {words}, as logarithms"
            add(f"high-{other}{after}", pair, higher, told, **more)
            told = f"of the usable learning rates, {said}, BN minus {words}"
            pair = arms["bn"] + arms[other]
            add(f"mean-{other}{after}", pair, wider, f"Mean width over the nine scales {told}", **more)
        for method, words in (*others.items(), ("bn", "BN")):
            told = f"Scales of the hidden weights, of nine, that have a usable rate, {said}, {words}"
            add(f"scales-{method}{after}", arms[method], usable, told, "scales")
        for end in ("low", "high"):
            told = f"Slope of the {end} end of BN's band against the scale, both as logarithms, {said}"
            add(f"slope-{end}{after}", arms["bn"], slope(end), told, "decades per decade")
    for size, scale in (("small", 0.01), ("large", 100)):
        pair = [name(method, "sgd", scale) for method in ("bn", "dd")]
        told = f"Width at {scale:g} times He's scale of the usable learning rates, SGD, BN minus a start from data"
        add(f"width-dd-{size}", pair, wider, told)
    told = "Slope of the middle of BN's band where the rate is that of the hidden weights alone, SGD"
    split = [name("bn", "split", scale) for scale in FEW]
    add("slope-split", split, slope("center"), told, "decades per decade", **derived, threshold=(1.9, 2.1))
    for other, words in others.items():
        few = [name(method, "sgd" if s == 1 else "sgd-all", s) for method in ("bn", other) for s in FEW]
        told = f"Mean width over five scales of all weights, the output layer's too, SGD, BN minus {words}"
        add(f"all-{other}", few, wider, told)
    return measure(table, cells, "learning-rate-and-init", "ioffe2015")


# How `draw` shows the arms: grey without BN, blue with it, dashed only where nothing is done.
LOOKS = {
    arm: {"label": arm, **look("batchnorm" if arm.startswith("bn") else "none")}
    | ({"linestyle": "-"} if arm.startswith("dd") else {})
    for arm in ARMS
}
