"""Length and direction: least squares and halfspaces as BN sees them, and the coupling of layers.

Kohler et al. (2019) and Cai, Li & Shen (2019) rerun on problems that fulfil their assumptions: second moments and
Gaussian expectations are exact, no mini-batches. Arms named skewed break the assumption of Gaussian inputs.
"""

import numpy as np

from bnlib.page.figures import bands, look
from bnlib.theory.halfspaces import LOSSES, METHODS, Gaussian, Sample
from bnlib.theory.length_direction import (
    accelerated_momentum,
    best_length,
    bound,
    direction_step,
    effective_weights,
    gap,
    joint_gradients,
    norm,
    optimum,
    ray_spectrum,
    rayleigh,
    sharp_start,
)

from .core import SAME, Config, Measured, Plan, Statement, grid, measure
from .paired import difference, longest_band, ratio
from .scale_invariance import farthest

DATA = "generated"
KAPPAS = (2, 10, 100, 1000)
STEPS = {2: 60, 10: 300, 100: 2_000, 1000: 9_000}  # more than the bound asks for a millionth of the gap
LEVEL = 1e-6  # of the gap at the start: what counts as converged
RATES = tuple(10.0 ** np.arange(-4, 4.1, 0.5))  # times 1/L: eight decades
HUGE = 1e12  # a gap that is called diverged
AT = 20  # steps after which methods are compared
WORDS = {
    "gdnp": "GDNP: a step on the direction, then bisection for the length; nothing is tuned",
    "gdnp-tuned": "GDNP whose step is multiplied by a tuned factor",
    "gd": "gradient descent at rate 1/L of the loss",
    "gd-tuned": "gradient descent, rate tuned",
    "gd-length": "gradient descent at rate 1/L, with bisection for the length",
    "gd-length-tuned": "gradient descent, rate tuned, with bisection for the length",
    "gd-curvature": "gradient descent at rate 1/(L times the mean of phi''), without bisection",
    "agd": "Nesterov's accelerated gradient descent at rate 1/L",
    "agd-tuned": "Nesterov's accelerated gradient descent, rate tuned",
    "adagrad-tuned": "Adagrad, rate tuned",
    "ngd-tuned": "normalized gradient descent, rate tuned",
    "gdnp-direction": "GDNP without the bisection: the length stays at its start",
    "gdnp-length": "the bisection alone: the direction stays at its start",
}
ARMS = {
    **{
        f"kappa{k}": f"least squares, condition number {k}: steps on the direction, GD, accelerated GD"
        for k in KAPPAS
    },
    "rates": "least squares, weights and length together: GD, BN and weight normalization at 17 rates",
    **WORDS,
    **{f"{name}-skewed": f"{WORDS[name]}; skewed inputs, a finite sample" for name in ("gdnp", "gd")},
    "line-gaussian": "where three losses have their minimum, Gaussian inputs, a finite sample",
    "line-skewed": "the same, skewed inputs",
}


def _powers(low, high):
    return [2.0**k for k in range(low, high + 1)]


# Twelve settings for each tuned method; numbers multiply what the theory names, 1/L or the step of GDNP.
GRIDS = {
    "gdnp-tuned": _powers(-5, 6),
    "gd-tuned": _powers(-3, 8),
    "gd-length-tuned": _powers(-3, 8),
    "agd-tuned": _powers(-4, 7),
    "adagrad-tuned": _powers(-8, 3),
    "ngd-tuned": _powers(-8, 3),
}


def plans(steps, sweep, halfspace, seeds=None):
    """The arms with these numbers of steps; halfspaces, which cost little, may have more ``seeds``."""
    made = {f"kappa{k}": Plan(DATA, steps[k], grid(kappa=k)) for k in KAPPAS}
    made["rates"] = Plan(DATA, sweep, grid(kappa=100))
    for name in WORDS:
        settings = grid(method=name.removesuffix("-tuned"), factor=GRIDS.get(name, [1.0]))
        made[name] = Plan(DATA, halfspace, settings, seeds=seeds)
    for name in ("gdnp", "gd"):
        settings = grid(method=name, factor=1.0, data="skewed")
        made[f"{name}-skewed"] = Plan(DATA, 5 * halfspace, settings, seeds=seeds)
    for data in ("gaussian", "skewed"):
        made[f"line-{data}"] = Plan(DATA, 30, grid(data=data))
    return made


ARRAYS = {"plain": 17, "bn": 17, "wn": 17, "reached_plain": 17, "reached_bn": 17, "reached_wn": 17}
REST = {"seeds": (11, 12, 13, 14, 15), "tuning_seeds": (1, 2, 3, 4, 5), "arrays": ARRAYS}
CURVES = dict.fromkeys(("loss", "direction", "gd", "agd", "sub"), 5)
FULL = {"d": 20, "problems": 8, "starts": 20, "sample": 20_000}
LITE = {"d": 20, "problems": 2, "starts": 20, "sample": 4_000}
PRESETS = {
    "lite": Config(plans({2: 40, 10: 150, 100: 700, 1000: 700}, 3_000, 40), options=LITE, **REST),
    "full": Config(plans(STEPS, 100_000, 40, tuple(range(11, 21))), options=FULL, **REST),
}


def run(config, arm, seed, *, kappa=None, method=None, factor=1.0, data="gaussian", move=None):
    """Run one cell: a set of least-squares problems, a halfspace, or a search for minima.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the problem and of the start.
    kappa : float, optional
        Condition number of a least-squares problem.
    method : str, optional
        A name of `bnlib.theory.halfspaces.METHODS`.
    factor : float
        Multiplies the method's step.
    data : {"gaussian", "skewed"}
    move : callable, optional
        ``move(weights, halfspace, t)`` returns new weights (d,), in place of the method; ``halfspace`` has ``S``,
        ``u``, ``means(weights)``, ``gradient(weights)`` and ``slope(weights)``.

    Returns
    -------
    list of dict
        A row per evaluation: ``step, loss``, and what the arm measures.
    """
    steps, rng = config.arms[arm].steps, np.random.default_rng([seed, 5])
    if arm.startswith("line"):
        return _minima(config, rng, data, steps)
    if method is not None:
        return _halfspace(config, rng, method, factor, data, move, steps)
    return _sweep(config, rng, kappa, steps) if arm == "rates" else _least_squares(config, rng, kappa, steps)


def evaluations(steps):
    """The first 20 steps, then about 15 % apart."""
    later = np.geomspace(20, max(steps, 21), 1 + round(np.log(max(steps, 21) / 20) / 0.15)).round().astype(int)
    return {step for step in {*range(1, 21), *later.tolist(), steps} if step <= steps}


def problem(rng, d, kappa, share=None):
    """Second moments with eigenvalues from 1/kappa to 1 in random directions, and ``u`` of a random optimum.

    With ``share`` the optimum is made so long that ``u S^-1 u`` is that: below 1, S - u u^T is a covariance.
    """
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    S = turn @ np.diag(np.geomspace(1 / kappa, 1, d)) @ turn.T
    S = (S + S.T) / 2
    u = S @ rng.normal(size=d)
    return S, u if share is None else u * np.sqrt(share / (u @ np.linalg.solve(S, u)))


# --- least squares


def _least_squares(config, rng, kappa, steps):
    """Steps on the direction from many starts and from one near the optimum; GD and accelerated GD beside them."""
    found = [_one_problem(config, rng, kappa, steps) for _ in range(config.options["problems"])]
    rows = []
    for at, step in enumerate(sorted(evaluations(steps))):
        gaps = {key: float(np.exp(np.mean([f[key][at] for f in found]))) for key in ("direction", "gd", "agd")}
        rows.append({"step": step, "loss": float(np.mean([f["loss"][at] for f in found])), **gaps})
    ends = ("worst", "near", "generic", "away", "stayed", "direction_steps", "gd_steps", "agd_steps")
    rows[-1] |= {key: [float(f[key]) for f in found] for key in ends}
    return rows


def _one_problem(config, rng, kappa, steps):
    S, u = problem(rng, config.options["d"], kappa)
    values, vectors = np.linalg.eigh(S)
    best, L, limit = optimum(S, u), values[-1], np.log(bound(S))
    w = rng.normal(size=(config.options["starts"], len(u)))
    side, first = np.sign(w @ u), gap(w, S, u)
    plain = fast = before = effective_weights(w, best_length(w, S, u), S)
    momentum = accelerated_momentum(S)
    gaps, worst, wanted = {"direction": first, "gd": first, "agd": first}, np.inf, evaluations(steps)
    rows = {key: [] for key in ("loss", *gaps)}
    reached = {key: np.full(len(w), np.inf) for key in gaps}
    for step in range(1, steps + 1):
        w = direction_step(w, S, u, L)
        plain = plain - (u + plain @ S) / L
        ahead = fast + momentum * (fast - before)
        before, fast = fast, ahead - (u + ahead @ S) / L
        after = {"direction": gap(w, S, u), "gd": _from(plain, best, S), "agd": _from(fast, best, S)}
        large = gaps["direction"] > 1e-10 * first  # below, rounding moves the logarithm of a factor near 1
        if large.any():
            worst = min(worst, (np.log(after["direction"][large] / gaps["direction"][large]) / limit).min())
        gaps = after
        for key in gaps:
            reached[key] = np.minimum(reached[key], np.where(gaps[key] <= LEVEL * first, step, np.inf))
        if step in wanted:
            rows["loss"].append((rayleigh(w, S, u) / np.square(norm(best, S))).mean())
            for key in gaps:
                rows[key].append(np.log(np.maximum(gaps[key] / first, 1e-30)).mean())
    starts = {"near": sharp_start(S, u), "generic": best + 1e-3 * np.linalg.norm(best) * vectors[:, 0]}
    one = {key: np.log(gap(direction_step(v, S, u, L), S, u) / gap(v, S, u)) / limit for key, v in starts.items()}
    sides = {"away": np.mean(side > 0), "stayed": np.mean(np.sign(w @ u) == side)}
    steps_to = {f"{key}_steps": np.minimum(r, steps).mean() for key, r in reached.items()}
    return rows | steps_to | sides | one | {"worst": worst}


def _from(weights, best, S):
    return np.square(norm(weights - best, S))


def _sweep(config, rng, kappa, steps):
    """GD on the weights; BN and weight normalization by GD on weights and length together; all rates side by side."""
    S, u = problem(rng, config.options["d"], kappa)
    best, rates = optimum(S, u), np.array(RATES)
    w = np.tile(rng.normal(size=len(u)), (len(rates), 1))
    names, metrics = ("plain", "bn", "wn"), {"bn": S, "wn": np.eye(len(u))}
    state = {name: [w, norm(w, metric)] for name, metric in metrics.items()}
    plain, first, worst = w, _from(w[0], best, S), 0.0
    reached = {name: np.full(len(rates), np.inf) for name in names}
    wanted, rows = evaluations(steps), []
    for step in range(1, steps + 1):
        dead = _from(plain, best, S) > HUGE * first
        plain = np.where(dead[:, None], plain, plain - rates[:, None] * (u + plain @ S))
        gaps = {"plain": _from(plain, best, S)}
        for name, metric in metrics.items():
            w, g = state[name]
            dw, dg = joint_gradients(w, g, S, u, metric)
            new = w - rates[:, None] * dw
            told = np.square(w).sum(1) + np.square(rates) * np.square(dw).sum(1)
            worst = max(worst, np.abs(np.square(new).sum(1) / told - 1).max())
            state[name] = [new, g - 0.5 * dg]
            gaps[name] = _from(effective_weights(*state[name], metric), best, S)
        for name in names:
            reached[name] = np.minimum(reached[name], np.where(gaps[name] <= LEVEL * first, step, np.inf))
        if step in wanted:
            shown = {name: np.minimum(gaps[name] / first, HUGE).tolist() for name in names}
            rows.append({"step": step, "loss": 1 + shown["bn"][8], **shown})
    spectrum = ray_spectrum(S, best)
    rows[-1] |= {f"reached_{name}": np.where(np.isinf(r), -1, r).tolist() for name, r in reached.items()}
    rows[-1] |= {"growth": float(worst), "condition": float(spectrum[-1] / spectrum[0] / kappa)}
    return rows


# --- halfspaces


def sample(rng, S, u, n, data):
    """``z`` (n, d) with mean ``u`` and second moments ``S`` in expectation, Gaussian or skewed."""
    values, vectors = np.linalg.eigh(S - np.outer(u, u))
    noise = rng.normal(size=(n, len(u))) if data == "gaussian" else rng.exponential(size=(n, len(u))) - 1
    return u + noise @ (vectors * np.sqrt(values)) @ vectors.T


def _halfspace(config, rng, method, factor, data, move, steps):
    """One method on one halfspace: suboptimality, and the gap of its direction as least squares sees it."""
    S, u = problem(rng, config.options["d"], 30, share=0.5)
    start = rng.normal(size=len(u))
    start /= norm(start, S)
    half, low = Gaussian(S, u), None
    if data == "skewed":
        half = Sample(sample(rng, S, u, config.options["sample"], data))
        low = half.minimum(30)[1][-1]
    S, u = half.S, half.u
    low = half.means(half.best)[0] if low is None else low
    move = move or METHODS[method](half, start, factor)
    weights, told, wanted, rows = start, start, evaluations(steps), []
    worst, limit = np.inf, np.log(bound(S))
    for t in range(1, steps + 1):
        before, weights = gap(weights, S, u), move(weights, half, t)
        told = direction_step(told, S, u)
        after = gap(weights, S, u)
        if before > 1e-10:
            worst = min(worst, np.log(after / before) / limit)
        if t in wanted:
            loss = float(half.means(weights)[0])
            off = 1 - abs(_cosine(weights, told, S))
            rows.append({"step": t, "loss": loss, "sub": max(loss - low, 1e-16), "off": float(max(off, 0))})
    rows[-1] |= {"worst": float(worst), "slope": float(np.linalg.norm(half.gradient(weights)))}
    return rows


def _cosine(a, b, S):
    return a @ S @ b / (norm(a, S) * norm(b, S))


def _minima(config, rng, data, steps):
    """Minima of three losses on one sample, and their cosine with the line of least squares."""
    S, u = problem(rng, config.options["d"], 30, share=0.5)
    z = sample(rng, S, u, config.options["sample"], data)
    rows, found = [{"step": k + 1} for k in range(steps)], {}
    for name in LOSSES:
        half = Sample(z, name)
        found[name], losses = half.minimum(steps)
        for row, loss in zip(rows, losses, strict=True):
            row["loss"] = row.get("loss", 0.0) + float(loss)
    line = optimum(half.S, half.u)
    rows[-1] |= {f"angle_{name}": _angle(w, line, half.S) for name, w in found.items()}
    return rows


def _angle(a, b, S):
    return float(np.degrees(np.arccos(min(1, abs(_cosine(a, b, S))))))


# --- what is told


def summarize(rows):
    """The numbers of one cell, by the kind of its arm."""
    last = rows[-1]
    if "near" in last:
        extremes = {"worst": min(last["worst"]), "near_low": min(last["near"]), "near_high": max(last["near"])}
        shares = {key: 100 * float(np.mean(last[key])) for key in ("away", "stayed")}
        steps = {key: float(np.mean(last[key])) for key in ("direction_steps", "gd_steps", "agd_steps")}
        return {"score": 0.0, **extremes, "generic": max(last["generic"]), **shares, **steps}
    if "growth" in last:
        return {"score": 0.0, "growth": last["growth"], "condition": last["condition"], **_by_rate(last)}
    if "sub" in last:
        at = next(row for row in rows if row["step"] == min(AT, last["step"]))
        found = {"score": -np.log10(at["sub"]), "sub_at": at["sub"], "sub_last": last["sub"]}
        off = max(row["off"] for row in rows)
        return found | {"worst": last["worst"], "slope": last["slope"], "off": off}
    return {"score": 0.0} | {key: value for key, value in last.items() if key.startswith("angle")}


def _by_rate(last):
    """Of a sweep: decades of rates that converged, fewest steps, and the worst gap at the end."""
    found = {}
    for name in ("plain", "bn", "wn"):
        reached = np.array(last[f"reached_{name}"])
        found[f"band_{name}"] = longest_band((reached > 0).tolist(), RATES).decades
        found[f"fewest_{name}"] = float(reached[reached > 0].min()) if (reached > 0).any() else float("nan")
        found[f"final_{name}"] = float(max(last[name]))
        found[f"diverged_{name}"] = int(np.sum(np.array(last[name]) > 1))
    return found


def draw(rows, ax):
    """Suboptimality on halfspaces against steps, the mean over the problems and their range."""
    bands(ax, rows[rows["arm"].isin(LOOKS)], "sub", LOOKS)
    ax.set(yscale="log", xlabel="step", ylabel="loss above its minimum (log axis)")


def least(*columns):
    """The smallest of these columns over all cells; the interval is that of the cells."""

    def found(*parts):
        values = np.concatenate([part[list(columns)].to_numpy(float).ravel() for part in parts])
        return Measured(float(values.min()), (float(values.min()), float(values.max())))

    return found


def most(*columns):
    """The largest of these columns over all cells; the interval is that of the cells."""

    def found(*parts):
        value, spread, _ = least(*columns)(*parts)
        return Measured(spread[1], spread)

    return found


def mean_of(column):
    """The mean of a column over the cells; the interval is their range."""

    def found(cells):
        values = cells[column].to_numpy(float)
        return Measured(float(values.mean()), (float(values.min()), float(values.max())))

    return found


def between(high, low):
    """Ratio of a column of one arm to a column of another one: geometric mean of pairs, with its interval."""

    def found(one, other):
        return ratio([(v, True) for v in one[high]], [(v, True) for v in other[low]])

    return found


def inside(high, low):
    """The same for two columns of one arm."""
    return lambda cells: between(high, low)(cells, cells)


ABOVE = (1 - 1e-6, None)  # log(factor) / log(bound) is at least 1, up to rounding
SHARP = (1 - 1e-6, 1.1)
TEXT = "loss above its minimum after 20 steps, over that of GDNP"


def claims(cells):
    """Least squares and halfspaces under the theorems' assumptions, the broken assumption."""
    theorem = {"fidelity": SAME, "place": "least squares: the rate of gradient descent on the direction"}
    halves = {"fidelity": SAME, "place": "learning halfspaces: GDNP"}
    cai = {"fidelity": SAME, "paper": "cai2019", "place": "least squares, gradient descent with BN"}
    kappas = tuple(f"kappa{k}" for k in KAPPAS if f"kappa{k}" in set(cells["arm"])) or ("none",)
    others = [name for name in WORDS if name not in ("gdnp", "gdnp-direction", "gdnp-length", "gd")]
    table = [
        Statement(
            *("rate", kappas, least("worst")),
            "log(measured factor of the gap per step) / log((1 - mu/L)\u00b2), the slowest step of all starts",
            **theorem | {"paper_value": "at least 1", "threshold": ABOVE},
        ),
        *(
            Statement(
                *(f"sharp-{k}", (f"kappa{k}",), farthest("near_low", "near_high")),
                f"The same from the start that the page derives, condition number {k}: the farthest of all problems",
                **theorem | {"paper_value": "1: the bound is sharp (derived on the page)", "threshold": SHARP},
            )
            for k in KAPPAS
        ),
        Statement(
            *("generic", kappas, most("generic")),
            "The same from the optimum plus a little of the smallest eigenvector: the farthest of all problems",
            **theorem,
        ),
        Statement(
            *("sides", kappas, least("stayed")),
            "Starts that end at the optimum's line on the side they started on",
            **theorem | {"unit": "%", "paper_value": "all (derived on the page)", "threshold": (100.0, None)},
        ),
        Statement(
            *("same-order", ("kappa1000",), inside("direction_steps", "gd_steps")),
            "Steps on the direction to a millionth of the gap over those of gradient descent, condition number 1000",
            **theorem | {"paper_value": "the same order: no acceleration", "threshold": (0.5, 2.0)},
        ),
        *(
            Statement(
                *(f"accelerated-{k}", (f"kappa{k}",), inside("direction_steps", "agd_steps")),
                f"Steps on the direction over those of accelerated gradient descent, condition number {k}",
                **theorem | {"place": "a control of ours"},
            )
            for k in (100, 1000)
        ),
        Statement(
            *("any-rate", ("rates",), most("final_bn")),
            "BN, rates of the weights over eight decades: the largest error left after {steps} steps, start = 1",
            **cai | {"unit": "error", "paper_value": "converges for any rate", "threshold": (None, 1.0)},
        ),
        Statement(
            *("band-difference", ("rates",), _wider),
            "Decades of rates that come to a millionth in {steps} steps: BN's less those of gradient descent",
            **cai | {"unit": "decades", "paper_value": "a wide range of good rates", "threshold": 1.0},
        ),
        *(
            Statement(
                *(f"band-{name}", ("rates",), mean_of(f"band_{name}")),
                f"Decades of rates that come to a millionth in {{steps}} steps: {words}",
                **cai | {"unit": "decades of rates"},
            )
            for name, words in (("bn", "BN"), ("plain", "gradient descent"), ("wn", "weight normalization"))
        ),
        Statement(
            *("diverged", ("rates",), mean_of("diverged_plain")),
            "Of 17 rates over eight decades, those at which gradient descent ends above its start",
            **cai | {"unit": "rates"},
        ),
        Statement(
            *("best", ("rates",), inside("fewest_plain", "fewest_bn")),
            "Steps to a millionth at the best rate of the 17: gradient descent over BN",
            **cai,
        ),
        Statement(
            *("condition", ("rates",), most("condition")),
            "Condition number that the direction sees at the optimum, over that of the inputs: the largest",
            **cai | {"paper_value": "better", "threshold": (None, 1.0)},
        ),
        Statement(
            *("growth", ("rates",), most("growth")),
            "||w||\u00b2 grows by lr\u00b2 ||grad||\u00b2: largest error, BN and weight normalization",
            **cai
            | {"paper": "arora2019", "place": "Lemma 2.4", "unit": "error", "paper_value": "equal"}
            | {"threshold": (None, 1e-12)},
        ),
        Statement(
            *("gdnp-rate", ("gdnp",), least("worst")),
            "GDNP: log(factor of the direction's gap) / log((1 - mu/L)\u00b2), the slowest step",
            **halves | {"paper_value": "at least 1", "threshold": ABOVE},
        ),
        Statement(
            *("gdnp-path", ("gdnp",), most("off")),
            "GDNP takes the path of least squares: 1 - cosine of the two directions, at most",
            **halves | {"unit": "error", "paper_value": "0 (derived on the page)", "threshold": (None, 1e-9)},
        ),
        Statement(
            *("gdnp-gd", ("gd", "gdnp"), between("sub_at", "sub_at")),
            f"Gradient descent at rate 1/L: {TEXT}",
            **halves | {"paper_value": "GDNP is faster", "threshold": 5.0},
        ),
        *(
            Statement(*(f"gdnp-{name}", (name, "gdnp"), between("sub_at", "sub_at")), _told(name), **halves)
            for name in others
        ),
        *(
            Statement(
                *(f"without-{part}", (arm, "gdnp"), between("sub_at", "sub_at")),
                _told(arm),
                threshold=5.0,
                fidelity=SAME,
            )
            for part, arm in (("length", "gdnp-direction"), ("direction", "gdnp-length"))
        ),
        *(
            Statement(
                *(f"line-{data}", (f"line-{data}",), most(*(f"angle_{name}" for name in LOSSES))),
                f"Largest angle between the minimum of three losses and the line of least squares, {words}",
                **halves | {"unit": "degrees", "paper_value": value, "threshold": limit},
            )
            for data, words, value, limit in (
                ("gaussian", "20,000 Gaussian inputs", "0 for infinitely many", (None, 3.0)),
                ("skewed", "20,000 skewed inputs", "not covered: the assumption is broken", None),
            )
        ),
        Statement(
            *("skewed-gd", ("gd-skewed", "gdnp-skewed"), between("sub_at", "sub_at")),
            f"Skewed inputs, gradient descent at rate 1/L: {TEXT}",
            **halves,
        ),
        Statement(
            *("skewed-rate", ("gdnp-skewed",), least("worst")),
            "Skewed inputs, GDNP: log(factor of the direction's gap) / log((1 - mu/L)\u00b2), the slowest step",
            **halves | {"paper_value": "not covered: the assumption is broken"},
        ),
    ]
    return measure(table, cells, "length-direction", "kohler2019")


def _told(name):
    return f"{WORDS[name][0].upper()}{WORDS[name][1:]}: {TEXT}"


def _wider(cells):
    return difference(cells["band_bn"], cells["band_plain"])


LOOKS = {
    "gdnp": {"label": "GDNP", **look("batchnorm")},
    "gd": {"label": "GD, rate 1/L", **look("none")},
    "gd-tuned": {"label": "GD, tuned", **look("none"), "linestyle": ":"},
    "agd-tuned": {"label": "accelerated GD, tuned", **look("dropout")},
    "gd-length-tuned": {"label": "GD tuned + length", **look("variant")},
}
