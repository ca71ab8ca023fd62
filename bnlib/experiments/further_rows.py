"""The claims of `further_claims`: its statements, section after section of Ioffe & Szegedy (2015)."""

import numpy as np

from .core import SAME, Measured, Statement
from .paired import difference, ratio

NETS = {"sigmoid": ("3 layers of sigmoids", "Xavier"), "relu": ("5 layers of ReLU", "He")}
SCALES, GROWTH_RATES = (0.3, 1.0, 3.0), (0.01, 0.03, 0.1, 0.3)  # of the arms "growth"
ROUNDING = (None, 1e-12)  # of what is equal but for rounding
MOST = 1000.0  # what a run that diverged is said to have grown by, at least
NEAR = 90.0  # % of the singular values that must be near 1
WHEN = ("start", "end")


def statements():
    """All of them, as a list of `Statement`; the thresholds were fixed before the full run."""
    return [*_exact(), *_saturation(), *_shape(), *_placement(), *_jacobians(), *_growth(), *_batches()]


# --- how a number is taken from the cells of one arm or of two


def mean(column, factor=1.0):
    """Mean of a column over the seeds; the interval is from the smallest to the largest."""

    def found(part):
        values = factor * part[column].to_numpy(float)
        return Measured(float(values.mean()), (float(values.min()), float(values.max())))

    return found


def largest(column):
    """The largest of a column over the seeds; the interval is from the smallest to the largest."""

    def found(part):
        return Measured(float(part[column].max()), (float(part[column].min()), float(part[column].max())))

    return found


def over(high, low=None):
    """Difference of a column of two arms, or of two columns of one arm, in percentage points."""

    def found(part, other=None):
        return difference(100 * part[high], 100 * (part if other is None else other)[low or high])

    return found


def times(high, low=None):
    """Ratio of a column of two arms, or of two columns of one arm."""

    def found(part, other=None):
        columns = part[high], (part if other is None else other)[low or high]
        return ratio(*([(float(value), True) for value in column] for column in columns))

    return found


def steps(level):
    """Ratio of two arms' steps to a level such as "80%"."""

    def reached(part):
        return list(zip(part[f"steps_{level}"], part[f"reached_{level}"], strict=True))

    return lambda slow, fast: ratio(reached(slow), reached(fast))


def grown(*parts):
    """Growth of the first half of the arms over that of the others; `MOST` is a bound, where a run diverged."""
    half = len(parts) // 2
    return ratio(
        *(
            [(min(v, MOST), not gone) for p in side for v, gone in zip(p["growth"], p["diverged"], strict=True)]
            for side in (parts[:half], parts[half:])
        )
    )


def grown_alone(part):
    """Growth in one arm, the geometric mean; a bound where a run diverged, at most `MOST`."""
    values = part["growth"].to_numpy(float).clip(max=MOST)
    bound = "≥" if part["diverged"].any() else ""
    return Measured(float(np.exp(np.log(values).mean())), (float(values.min()), float(values.max())), bound)


# --- sections 2 and 3: exact statements, and what constants in the backward pass do to a net


def _exact():
    constant = "Mean as a constant in the gradient, {steps} steps:"
    rows = (
        ("ignored-still", "still", f"{constant} largest relative change of the loss", "section 2"),
        ("ignored-linear", "linear", f"{constant} b at the end over twice b at half, minus 1", "section 2"),
        ("ignored-true", "true", "Gradient of b through the mean, over the one with a constant mean", "section 2"),
        (
            "identity",
            "identity",
            "gamma = std, beta = mean, eps = 0: BN returns its input, largest error",
            "section 3",
        ),
        ("moments", "moments", "Normalized values: mean 0, variance 1 but for eps, largest error", "section 3"),
        ("gradient", "staged", "The paper's gradients against the closed form: largest error", "section 3"),
        ("fold", "fold", "BN with fixed statistics is part of the linear layer: largest error", "section 3.1"),
    )
    about = {"unit": "error", "paper_value": "equal", "threshold": ROUNDING, "fidelity": SAME}
    yield from (Statement(name, ("exact",), largest(c), words, place=p, **about) for name, c, words, p in rows)
    yield Statement(
        *("unbiased", ("exact",), mean("unbiased")),
        "m/(m - 1) times the mean variance of batches of 4, over the variance of all",
        **{"place": "section 3.1", "paper_value": "1", "threshold": (0.98, 1.02), "fidelity": SAME},
    )
    yield Statement(
        *("rank", ("exact",), mean("rank"), "Rank of the covariance of 100 units over a mini-batch of 60"),
        **{"unit": "directions", "place": "section 3", "paper_value": "singular: below 100"},
        **{"threshold": (None, 99.0), "fidelity": SAME},
    )
    worse = "Standard deviation as a constant too: b goes this many times as far,"
    about = {"place": "section 2", "paper_value": "this issue can get worse", "fidelity": SAME}
    yield Statement(
        *("ignored-divide", ("exact",), mean("divided_half")),
        f"{worse} where the weight must shrink",
        **{**about, "threshold": 1.0},
    )
    yield Statement(
        *("ignored-divide-grow", ("exact",), mean("divided_more"), f"{worse} where the weight must grow"), **about
    )
    for kind, words in (
        ("outside", "BN with constant statistics"),
        ("centred", "centring alone with a constant mean"),
    ):
        yield Statement(
            *(f"ignored-net-{kind}", ("relu-before-high", f"relu-{kind}"), over("best")),
            f"5 layers of ReLU, each at its best rate, highest accuracy: BN minus {words}",
            **{"unit": "points", "place": "section 2", "paper_value": "the model blows up", "threshold": 0.5},
        )
    yield Statement(
        *("whiten-cost", ("clock",), times("whiten_ms", "bn_ms")),
        "Forward, 256 samples of 100 units: whitening takes this many times BN's milliseconds (our NumPy code)",
        **{"place": "section 2", "paper_value": "expensive"},
    )


# --- section 1: saturated sigmoids

SATURATION = {"place": "section 1", "paper_value": "no number"}
STARTS = {
    "sigmoid-none-high": "3 layers of sigmoids, Xavier",
    "sigmoid-dd-high": "3 layers of sigmoids, started from data",
    "sigmoid-before-high": "3 layers of sigmoids, BN",
    "deep-none": "6 layers of sigmoids, Xavier",
    "deep-dd": "6 layers of sigmoids, started from data",
    "deep-before": "6 layers of sigmoids, BN",
    "wide-none": "3 layers of sigmoids, N(0, 1), no BN",
    "wide-before": "3 layers of sigmoids, N(0, 1), BN",
}


def _saturation():
    share = {**SATURATION, "unit": "%"}
    for arm, words in STARTS.items():
        name = arm.removesuffix("-high")
        for when in WHEN:
            yield Statement(
                *(f"saturated-{name}-{when}", (arm,), mean(f"{when}_saturated_mean", 100)),
                f"{words}: saturated inputs at the {when}, mean over the layers",
                **share,
            )
        yield Statement(
            *(f"stuck-{name}", (arm,), mean("end_stuck", 100)),
            f"{words}: units saturated for 95 % of the images at the end",
            **{**share, "threshold": (None, 1.0) if arm.startswith(("sigmoid-before", "deep-before")) else None},
        )
    at_end = over("end_saturated_mean")
    three, six = "3 layers of sigmoids, saturated inputs at the end:", "saturated inputs at the end, 6 layers minus 3"
    rows = (
        ("moves", ("sigmoid-none-high",), over("end_saturated_mean", "start_saturated_mean"), 10.0,
         "3 layers of sigmoids, Xavier: saturated inputs at the end minus at the start"),
        ("depth", ("deep-none", "sigmoid-none-high"), at_end, 0.0, f"Xavier: {six}"),
        ("depth-dd", ("deep-dd", "sigmoid-dd-high"), at_end, 0.0, f"Started from data: {six}"),
        ("last", ("sigmoid-none-high",), over("end_last", "end_first"), 0.0,
         f"{three} Xavier, last layer minus first"),
        ("bn", ("sigmoid-none-high", "sigmoid-before-high"), at_end, 0.0, f"{three} Xavier minus BN"),
        ("bn-dd", ("sigmoid-dd-high", "sigmoid-before-high"), at_end, None, f"{three} started from data minus BN"),
        ("wide", ("wide-before", "wide-none"), over("best"), 1.0,
         "Weights N(0, 1), saturated at the start, each at its best rate: highest accuracy, BN minus none"),
        ("deep", ("deep-before", "deep-none"), over("best"), 1.0,
         "6 layers of sigmoids, each at its best rate: highest accuracy, BN minus Xavier without"),
        ("deep-dd", ("deep-before", "deep-dd"), over("best"), None,
         "6 layers of sigmoids, each at its best rate: highest accuracy, BN minus started from data"),
    )  # fmt: skip
    for name, arms, measured, limit, words in rows:
        yield Statement(f"saturation-{name}", arms, measured, words, **SATURATION, unit="points", threshold=limit)


# --- section 3.2: the shape of Wu, and the place of BN


def _shape():
    told = {"place": "section 3.2", "paper_value": "more symmetric, non-sparse, more Gaussian"}
    for family, (net, _) in NETS.items():
        for kind, words in (("none", "no BN"), ("before", "BN")):
            for when in WHEN:
                arm, name = (f"{family}-{kind}-high",), f"{family}-{kind}-{when}"
                for what, noun in (("skew", "skewness"), ("kurtosis", "excess kurtosis")):
                    yield Statement(
                        *(f"{what}-{name}", arm, times(f"{when}_u_{what}", f"{when}_wu_{what}")),
                        f"{net}, {words}, {when}: the {noun} of u is this many times that of Wu",
                        **{**told, "threshold": 1.0},
                    )
                yield Statement(
                    *(f"zeros-{name}", arm, over(f"{when}_u_zeros", f"{when}_wu_zeros")),
                    f"{net}, {words}, {when}: share of values near zero, u minus Wu",
                    **{**told, "unit": "points", "threshold": 0.0},
                )


def _placement():
    told = {"place": "section 3.2", "paper_value": "BN belongs before"}
    others = {"after": "BN after the nonlinearity", "none": "no BN", "dd": "a start from data without BN"}
    for family, (net, _) in NETS.items():
        before = f"{family}-before"
        for other, words in others.items():
            for level in ("80%", "85%"):
                yield Statement(
                    *(f"place-{family}-{other}-{level[:2]}", (f"{family}-{other}", before), steps(level)),
                    f"{net}: {words} takes this many times the steps of BN before it to {level[:2]} %",
                    **{**told, "threshold": 1.0 if (other, level) == ("after", "80%") else None},
                )
            yield Statement(
                *(f"place-{family}-{other}-high", (f"{before}-high", f"{family}-{other}-high"), over("best")),
                f"{net}, highest accuracy: BN before the nonlinearity minus {words}",
                **{**told, "unit": "points", "threshold": 0.0 if other == "after" else None},
            )
        yield Statement(
            *(f"place-{family}-again", (before, f"{before}-again"), steps("80%")),
            f"A/A: {net}, BN before the nonlinearity against itself with other seeds, ratio of steps to 80 %",
        )
        dim = {"place": "section 5", "unit": "points", "paper_value": "left as a question"}
        for name, columns, words in (
            ("lost", ("bright", "dim"), "accuracy lost on images at 40 % of their brightness"),
            ("again", ("dim_again", "dim"), "accuracy gained there by statistics taken again, from such images"),
        ):
            yield Statement(f"dim-{family}-{name}", (f"{before}-high",), over(*columns), f"{net}, BN: {words}", **dim)


# --- section 3.3: singular values, small changes, growing weights


def _jacobians():
    told = {"place": "section 3.3, the conjecture", "paper_value": "all near 1", "unit": "%"}
    linear, near = "Linear layer, white inputs,", "singular values from 1/2 to 2"
    about = {"unit": "error", "place": told["place"], "threshold": ROUNDING, "fidelity": SAME}
    yield Statement(
        *("jacobian-white", ("exact",), largest("both"), f"{linear} white outputs: farthest singular value from 1"),
        **{**about, "paper_value": "0"},
    )
    yield Statement(
        *("jacobian-rows", ("exact",), largest("rows_rms")),
        f"{linear} BN: root mean square of the singular values, minus 1",
        **{**about, "paper_value": "0, derived on the chapter's page"},
    )
    yield Statement(
        *("jacobian-random", ("exact",), mean("rows_near", 100), f"{linear} random weights, BN: {near}"),
        **{**told, "threshold": NEAR},
    )
    for family, (net, init) in NETS.items():
        for kind, words in (("none", init), ("dd", "started from data"), ("before", "BN")):
            arm, limit = (f"{family}-{kind}-high",), NEAR if kind == "before" else None
            for when in WHEN:
                name, start = f"{family}-{kind}-{when}", f"{net}, {words}, {when}:"
                yield Statement(
                    *(f"jacobian-{name}", arm, mean(f"{when}_near_one", 100), f"{start} {near}"),
                    **{**told, "threshold": limit},
                )
                yield Statement(
                    *(f"jacobian-rms-{name}", arm, mean(f"{when}_rms")),
                    f"{start} root mean square of the singular values",
                    **{"place": told["place"], "paper_value": "1"},
                )
                yield Statement(
                    *(f"amplified-{name}", arm, mean(f"{when}_amplified")),
                    f"{start} a change of the first weights moves the last layer this many times as far as the first",
                    **{"place": "sections 1 and 3.3", "paper_value": "no number"},
                )
                if kind == "before":
                    yield from _linearized(arm, name, start, when, told, near)
        for when in WHEN:
            yield Statement(
                *(f"amplified-{family}-{when}", (f"{family}-none-high", f"{family}-before-high")),
                *(times(f"{when}_amplified"), f"{net}, {when}: {init} amplifies this many times as much as BN"),
                **{"place": "sections 1 and 3.3", "paper_value": "BN prevents it", "threshold": 1.0},
            )


def _linearized(arm, name, start, when, told, near):
    yield Statement(
        *(f"linear-{name}", arm, mean(f"{when}_linear_near_one", 100), f"{start} {near} of the best linear map"),
        **{**told, "threshold": NEAR},
    )
    yield Statement(
        *(f"explained-{name}", arm, mean(f"{when}_explained", 100), f"{start} variance explained by that linear map"),
        **{**told, "paper_value": "assumed: all"},
    )
    yield Statement(
        *(f"correlation-{name}", arm, mean(f"{when}_correlation", 100)),
        f"{start} root mean square correlation of two units",
        **{**told, "paper_value": "assumed: 0"},
    )


def _growth():
    told = {"place": "section 3.3", "paper_value": "BN will stabilize it"}
    for scale in SCALES:
        arms = {kind: [f"growth-{kind}-{scale:g}-{lr:g}" for lr in GROWTH_RATES] for kind in ("none", "before")}
        yield Statement(
            *(f"growth-{scale:g}".replace(".", ""), (*arms["none"], *arms["before"]), grown),
            f"He's weights times {scale:g}, four rates: without BN they grow this many times as much as with it",
            **{**told, "threshold": 1.0},
        )
        for kind, words in (("none", "no BN"), ("before", "BN")):
            for arm, lr in zip(arms[kind], GROWTH_RATES, strict=True):
                yield Statement(
                    *(arm.replace(".", ""), (arm,), grown_alone),
                    f"He's weights times {scale:g}, rate {lr:g}, {words}: growth of the hidden weights' length",
                    **told,
                )


# --- large batches


def _batches():
    told = {"paper": "hoffer2017", "place": "the generalization gap", "paper_value": "other nets and data"}
    small, whole, longer = "batch-64-bn-800", "batch-1024-bn-50", "batch-1024-bn-800"
    for name, arms, words, limit in (
        ("passes", (small, whole), "10 passes, batch 64 minus batch 1,024", 0.5),
        ("updates", (small, longer), "800 steps, batch 64 minus batch 1,024", (None, 0.5)),
        ("longer", (longer, whole), "batch 1,024, 160 passes minus 10", None),
        ("ghost", ("batch-1024-ghost-50", whole), "batch 1,024, 10 passes, ghost batches of 64 minus the whole", 0.0),
        ("again", (small, "batch-64-again"), "A/A, batch 64 minus itself with other seeds", None),
    ):
        yield Statement(
            *(f"batch-{name}", arms, over("best"), f"BN, 5,120 images, highest accuracy: {words}", "points"),
            **{**told, "threshold": limit},
        )
