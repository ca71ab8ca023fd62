"""Weights before BN: their length has no effect on the loss, their gradient is at right angles to them.

Section 3.3 of Ioffe & Szegedy (2015) and what later papers made of it, on a net in which every trained weight is
scale-invariant: 49-32-10 with ReLU, BN after both layers with ``eps = 0`` and fixed gamma = 1, beta = 0, digits
averaged to 7 x 7 pixels, float64, plain SGD with weight decay (the L2 form, ``lr * wd`` of the weights at each step).
"""

import copy
from functools import cache

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch.batchnorm import batchnorm_backward, batchnorm_forward
from bnlib.scratch.gradcheck import scaled_error
from bnlib.scratch.layers import BatchNorm, Linear, ReLU
from bnlib.scratch.network import Sequential, accuracy, softmax_cross_entropy
from bnlib.theory.scale_invariance import equilibrium_length, growing_rates, next_length, radial_part, rescaled

from .core import ANALOGUE, SAME, Config, Measured, Plan, Statement, grid, measure

# Learning rate and weight decay of the cells of the equilibrium: products from 3e-4 to 1e-2, most of them more than
# once. From a product below 3e-4 the equilibrium is not reached within the steps.
PAIRS = (
    *((0.03, 0.01), (0.03, 0.03), (0.03, 0.1)),
    *((0.1, 0.003), (0.1, 0.01), (0.1, 0.03), (0.1, 0.1)),
    *((0.3, 0.001), (0.3, 0.003), (0.3, 0.01), (0.3, 0.03)),
    *((1.0, 0.001), (1.0, 0.003), (1.0, 0.01)),
)
SCALES = (0.01, 0.1, 3.0, 10.0, 100.0)  # by which weights are multiplied for the invariances
FLIP = -3.0  # and beyond them
TWIN = 10.0  # and for a second run beside the first
BAND = (0.97, 1.03)  # of the ratios whose theory is 1
ROUNDING = (None, 1e-12)  # of what is equal but for rounding
DRIFTING = (None, 1e-9)  # of two runs that are equal but for rounding, which adds up
LAYERS = (0, 3)  # places of the weights in the net


def name(lr, wd):
    """The arm of a learning rate and a weight decay."""
    return f"lr{lr:g}-wd{wd:g}"


ARMS = {
    "twins": "four nets with the same batches: plain, weights times 10, weight decay, growing rate",
    **{name(lr, wd): f"learning rate {lr:g}, weight decay {wd:g}" for lr, wd in (*PAIRS, (1.0, 0.0))},
}


def _plans(steps, twin_steps, pairs):
    plans = {name(lr, wd): Plan("mnist5k", steps, grid(lr=lr, wd=wd)) for lr, wd in pairs}
    return {"twins": Plan("mnist5k", twin_steps, grid(lr=0.3, wd=0.01)), **plans}


OPTIONS = {"batch": 64, "hidden": 32, "window": 0.5}  # the last half of a run is the equilibrium
ARRAYS = {"rate": 2, "expected": 2, "ratio": 2, "unit_ratio": 42, "turn": 2}
REST = {"seeds": (11, 12, 13), "tuning_seeds": (1, 2), "arrays": ARRAYS, "options": OPTIONS}
PRESETS = {
    "lite": Config(_plans(2_000, 200, ((0.03, 0.1), (1.0, 0.003), (1.0, 0.0))), **REST),
    "full": Config(_plans(20_000, 1_000, (*PAIRS, (1.0, 0.0))), **REST),
}


def run(config, arm, seed, *, lr=0.1, wd=0.01, update=None):
    """Train one net and measure the lengths of its weights; the arm "twins" trains four beside each other.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights and of the order of the samples.
    lr, wd : float
    update : callable, optional
        ``update(w, grad, lr, wd, step)`` returns the new weights of a layer, in place of SGD with weight decay.

    Returns
    -------
    list of dict
        A row per evaluation: ``step, loss``, and for both layers the length of the weights, ``length_1, length_2``,
        and the mean squared gradient of weights of length 1 since the last row, ``square_1, square_2``. The last
        row also has what holds over the last half of the run: ``rate, expected, ratio, unit_ratio, turn``.
        Rows of "twins" hold relative errors.
    """
    steps = config.arms[arm].steps
    stream = batches(config.options["batch"], seed)
    if arm == "twins":
        return _twins(config, stream, steps, seed, lr, wd)
    net, first = build(config.options["hidden"], seed), int(config.options["window"] * steps)
    update, wanted, rows = update or sgd, frozenset(evaluations(steps)), []
    since, sums = [], []
    for step in range(1, steps + 1):
        loss = gradients(net, *next(stream))
        seen = []
        for layer in (net.layers[i] for i in LAYERS):
            w, grad = layer.params["weight"], layer.grads["weight"]
            new = update(w, grad, lr, wd, step - 1)
            seen.append(_squares(w, grad, new))
            layer.params["weight"] = new
        since.append([part["square"] for part in seen])
        if step > first:
            sums.append(seen)
        if step in wanted:
            lengths = [np.linalg.norm(net.layers[i].params["weight"]) for i in LAYERS]
            squares = np.mean(since, 0)
            values = zip(("length_1", "length_2", "square_1", "square_2"), (*lengths, *squares), strict=True)
            rows.append({"step": step, "loss": loss, **{key: float(value) for key, value in values}})
            since = []
    digits = load(config.arms[arm].dataset)
    rows[-1] |= _equilibrium(sums, lr, wd)
    rows[-1]["accuracy"] = accuracy(net, shrink(digits.x_test), digits.y_test)
    return rows


def sgd(w, grad, lr, wd, step):
    """One step of SGD with weight decay."""
    return (1 - lr * wd) * w - lr * grad


@cache
def training():
    """Training images as float64 vectors (N, 49), and labels."""
    digits = load("mnist5k")
    return shrink(digits.x_train), digits.y_train


def shrink(images):
    """Images (N, 28, 28) of bytes, averaged over squares of 4 x 4, shifted and scaled: float64 (N, 49)."""
    small = images.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49)
    return (small / 255 - 0.13) / 0.31


def batches(size, seed):
    """Mini-batches without end, ``(inputs, labels)``, every epoch in a new order."""
    (x, labels), rng = training(), np.random.default_rng([seed, 1])
    while True:
        order = rng.permutation(len(x))
        for start in range(0, len(x) - size + 1, size):
            chosen = order[start : start + size]
            yield x[chosen], labels[chosen]


def build(hidden, seed, eps=0.0):
    """The net, in float64, with Xavier's weights."""
    rng = np.random.default_rng(seed)
    layers = [Linear(49, hidden, rng), BatchNorm(hidden, eps), ReLU(), Linear(hidden, 10, rng), BatchNorm(10, eps)]
    for layer in layers:
        layer.params = {key: value.astype(float) for key, value in layer.params.items()}
    return Sequential(layers)


def gradients(net, x, labels):
    """Fill the gradients of a net; returns the loss."""
    loss, dlogits = softmax_cross_entropy(net.forward(x), labels)
    net.backward(dlogits, to_input=False)
    return loss


def evaluations(steps):
    """The first 20 steps, then about 4 % apart."""
    later = np.geomspace(20, max(steps, 21), 1 + round(np.log(max(steps, 21) / 20) / 0.04)).round().astype(int)
    return sorted(step for step in {*range(1, 21), *later.tolist(), steps} if step <= steps)


def _squares(w, grad, new):
    """Squared lengths of a layer's weights before a step, of their gradient at length 1, and the cosine of the turn.

    ``square`` belongs to the whole matrix, ``unit_squares`` to each of its rows.
    """
    rows, slopes = np.square(w).sum(1), np.square(grad).sum(1)
    whole, after = rows.sum(), np.square(new).sum()
    found = {"length": whole, "square": whole * slopes.sum(), "rows": rows, "unit_squares": rows * slopes}
    return found | {"cosine": (w * new).sum() / np.sqrt(whole * after)}


def _equilibrium(sums, lr, wd):
    """What `run` reports of the last half: rate, expected length, measured over expected ||w||^4, and turn."""
    layers = [{key: np.mean([part[i][key] for part in sums], 0) for key in sums[0][0]} for i in range(2)]
    found = {"rate": [float(lr / layer["length"]) for layer in layers]}
    if wd == 0:
        return found
    fourth = [
        [np.mean([np.square(part[i][key]) for part in sums], 0) for i in range(2)] for key in ("length", "rows")
    ]
    expected = [equilibrium_length(lr, wd, layer["square"]) ** 4 for layer in layers]
    units = [equilibrium_length(lr, wd, layer["unit_squares"]) ** 4 for layer in layers]
    return found | {
        "expected": [float(e) ** 0.25 for e in expected],
        "ratio": [float(r / e) for r, e in zip(fourth[0], expected, strict=True)],
        "unit_ratio": np.concatenate([r / e for r, e in zip(fourth[1], units, strict=True)]).tolist(),
        "turn": [float((1 - layer["cosine"]) / (lr * wd)) for layer in layers],
    }


def _twins(config, stream, steps, seed, lr, wd):
    """Four nets with the same batches. The rows compare them, and the plain one with itself at other scales."""
    plain = build(config.options["hidden"], seed)
    scaled, decayed, grown = (copy.deepcopy(plain) for _ in range(3))
    for i in LAYERS:
        scaled.layers[i].params["weight"] *= TWIN
    rates, (high, _) = growing_rates(lr, wd, steps), rescaled(TWIN, lr)
    wanted, rows, worst = frozenset(evaluations(steps)), [], {"scaled": 0.0, "schedule": 0.0, "growth": 0.0}
    rng = np.random.default_rng([seed, 2])
    for step in range(1, steps + 1):
        x, labels = next(stream)
        looks = invariances(plain, x, rng) if step in wanted else None
        losses = [gradients(net, x, labels) for net in (plain, scaled, decayed, grown)]
        for i in LAYERS:
            w, grad = (values["weight"] for values in (plain.layers[i].params, plain.layers[i].grads))
            after = np.linalg.norm(sgd(w, grad, lr, 0, 0))
            told = next_length(np.linalg.norm(w), np.linalg.norm(grad), lr)
            worst["growth"] = max(worst["growth"], float(abs(after / told - 1)))
        if looks:
            looks["radial"] = _radial(plain)
        rate = float(rates[step - 1])
        for net, (r, d) in zip(
            (plain, scaled, decayed, grown), ((lr, 0), (high, 0), (lr, wd), (rate, 0)), strict=True
        ):
            for layer in (net.layers[i] for i in LAYERS):
                layer.params["weight"] = sgd(layer.params["weight"], layer.grads["weight"], r, d, step)
        worst["scaled"] = max(worst["scaled"], abs(losses[1] / losses[0] - 1))
        worst["schedule"] = max(worst["schedule"], abs(losses[3] / losses[2] - 1))
        if looks:
            lengths = [float(np.linalg.norm(net.layers[0].params["weight"])) for net in (plain, decayed, grown)]
            told = dict(zip(("length_1", "length_decayed", "length_grown"), lengths, strict=True))
            rows.append({"step": step, "loss": losses[0], "loss_decayed": losses[2], **told, **looks, **worst})
    return rows


def invariances(net, x, rng):
    """Relative errors of BN(aWu) = BN(Wu) and of its gradients, for the first layer, the largest over `SCALES`.

    ``forward``: outputs; ``jacobian``: gradient with respect to u times 1; ``gradient``: with respect to the
    weights times a, both for a random gradient of the outputs; ``sign``: all three for a = -3, where outputs and
    gradient with respect to u change their sign; ``eps``: outputs for a = 0.01 and eps = 1e-5.
    """
    w = net.layers[0].params["weight"]
    dy = rng.normal(size=(len(x), len(w)))

    def all_three(a, eps=0.0):
        y, cache = batchnorm_forward(x @ (a * w).T, np.ones(len(w)), np.zeros(len(w)), eps)
        dx = batchnorm_backward(dy, cache)[0]
        return y, dx @ (a * w), dx.T @ x

    one = all_three(1.0)
    others = [[scaled_error(p, q * r) for p, q, r in zip(one, all_three(a), (1, 1, a), strict=True)] for a in SCALES]
    errors = dict(zip(("forward", "jacobian", "gradient"), np.max(others, 0).tolist(), strict=True))
    flipped = [scaled_error(p, q * r) for p, q, r in zip(one, all_three(FLIP), (-1, -1, -FLIP), strict=True)]
    small = scaled_error(all_three(0.01, 1e-5)[0], all_three(1.0, 1e-5)[0])
    return {**errors, "sign": float(max(flipped)), "eps": float(small)}


def _radial(net):
    """Largest cosine between weights and gradient, over the units of both layers."""
    layers = [net.layers[i] for i in LAYERS]
    pairs = [pair for layer in layers for pair in zip(layer.params["weight"], layer.grads["weight"], strict=True)]
    return max(abs(radial_part(w, grad)) for w, grad in pairs)


ERRORS = ("forward", "jacobian", "gradient", "sign", "radial", "growth", "scaled", "schedule")


def summarize(rows):
    """The numbers of one cell: for twins the largest errors, else ratios, turns and rates of the last half."""
    last = rows[-1]
    summary = {"score": -last["loss"]}
    if "forward" in last:
        summary |= {key: max(row[key] for row in rows) for key in ERRORS}
        return summary | {"eps_percent": 100 * max(row["eps"] for row in rows)}
    summary |= {f"rate_{i + 1}": rate for i, rate in enumerate(last["rate"])} | {"accuracy": last["accuracy"]}
    if "ratio" not in last:
        return summary
    pairs = {f"{key}_{i + 1}": value for key in ("expected", "ratio", "turn") for i, value in enumerate(last[key])}
    return summary | pairs | {"unit_low": min(last["unit_ratio"]), "unit_high": max(last["unit_ratio"])}


def draw(rows, ax):
    """Length of the first layer's weights against steps: a curve for each arm, its band the range over the seeds."""
    bands(ax, rows[rows["arm"] != "twins"], "length_1", LOOKS)
    ax.set(xscale="log", yscale="log", xlabel="training step (log axis)", ylabel="length of the weights (log axis)")


def largest(*columns):
    """The largest of these columns over the seeds; the interval is from the smallest seed to the largest."""

    def found(cells):
        values = cells[list(columns)].max(axis=1)
        return Measured(float(values.max()), (float(values.min()), float(values.max())))

    return found


def farthest(*columns):
    """The number farthest from 1 among all cells; the interval is from the smallest to the largest."""

    def found(*parts):
        values = np.concatenate([part[list(columns)].to_numpy(float).ravel() for part in parts])
        return Measured(float(values[np.abs(np.log(values)).argmax()]), (float(values.min()), float(values.max())))

    return found


def same_product(*parts):
    """The same for the effective rates of cells with equal lr * wd and equal seed, each over their geometric mean."""
    groups = {}
    for part in parts:
        for cell in part.to_dict("records"):
            key = f"{cell['lr'] * cell['wd']:.6g}", cell["seed"]
            groups.setdefault(key, []).append([cell["rate_1"], cell["rate_2"]])
    logs = [np.log(rates) - np.log(rates).mean(0) for rates in groups.values() if len(rates) > 1]
    values = np.exp(np.concatenate(logs).ravel())
    return Measured(float(values[np.abs(np.log(values)).argmax()]), (float(values.min()), float(values.max())))


def claims(cells):
    """Invariances and schedules from the twins, the equilibrium from all cells with weight decay."""
    decayed = tuple(name(lr, wd) for lr, wd in PAIRS if name(lr, wd) in set(cells["arm"])) or ("none",)
    told = {"unit": "error", "fidelity": SAME}
    exact = {**told, "place": "section 3.3", "paper_value": "equal", "threshold": ROUNDING}
    arora = {**exact, "paper": "arora2019", "place": "Lemma 2.4"}
    laarhoven = {"paper": "vanlaarhoven2017", "fidelity": ANALOGUE, "place": "weight decay sets the effective rate"}
    ours = "1, derived on the chapter's page"
    about = "eps = 0, a from 0.01 to 100: largest error"
    table = [
        Statement("forward", ("twins",), largest("forward"), f"BN(aWu) = BN(Wu); {about}", **exact),
        Statement(
            *("jacobian", ("twins",), largest("jacobian")),
            f"The gradient of u does not depend on a; {about}",
            **exact,
        ),
        Statement(
            *("gradient", ("twins",), largest("gradient")),
            f"The gradient of aW is 1/a of that of W; {about}",
            **exact,
        ),
        Statement(
            *("sign", ("twins",), largest("sign")),
            "a = -3: outputs and gradient of u change their sign, the gradient of aW is 1/3: largest error",
            **told,
        ),
        Statement(
            *("eps", ("twins",), largest("eps_percent")),
            "With eps = 1e-5 multiplying the weights by 0.01 changes the outputs by, at most",
            **told | {"unit": "%"},
        ),
        Statement(
            *("orthogonal", ("twins",), largest("radial")),
            "Gradient and weights are at right angles: largest cosine of a unit",
            **arora | {"paper_value": "0"},
        ),
        Statement(
            *("growth", ("twins",), largest("growth")),
            "A step of SGD adds lr² times the squared gradient to the squared length: largest error",
            **arora,
        ),
        Statement(
            *("rescaled", ("twins",), largest("scaled")),
            "Weights times 10 with 100 times the rate: largest difference of the loss over {steps} steps",
            **exact | {"paper_value": "follows from section 3.3", "threshold": DRIFTING},
        ),
        Statement(
            *("schedule", ("twins",), largest("schedule")),
            "Weight decay against a growing rate without decay: largest difference of the loss over {steps} steps",
            **exact | {"paper": "li2020", "place": "equivalence of the schedules", "threshold": DRIFTING},
        ),
        Statement(
            *("equilibrium", decayed, farthest("ratio_1", "ratio_2")),
            "||w||⁴ divided by (lr E||g||² / (2 wd)), g at length 1, last half of {steps} steps: worst layer of all",
            **laarhoven | {"paper_value": "a balance; the 1 is derived on the chapter's page", "threshold": BAND},
        ),
        Statement(
            *("units", decayed, farthest("unit_low", "unit_high")),
            "||w||⁴ divided by (lr E||g||² / (2 wd)), for each unit's own weights: the worst unit of all cells",
            **laarhoven | {"paper_value": ours},
        ),
        Statement(
            *("turn", decayed, farthest("turn_1", "turn_2")),
            "1 - cosine of a step's turn at equilibrium, over lr wd: the worst layer of all cells",
            **laarhoven | {"paper_value": ours, "threshold": BAND},
        ),
        Statement(
            *("product", decayed, same_product),
            "Cells with equal lr wd end with equal effective rate lr / ||w||²: the worst cell over its group's mean",
            **laarhoven | {"paper_value": ours, "threshold": BAND},
        ),
    ]
    return measure(table, cells, "scale-invariance", "ioffe2015")


LOOKS = {
    name(0.03, 0.1): {"label": "rate 0.03, decay 0.1", **look("batchnorm")},
    name(1.0, 0.003): {"label": "rate 1, decay 0.003", **look("batchnorm"), "linestyle": "-."},
    name(1.0, 0.0): {"label": "rate 1, no decay", **look("variant")},
}
