"""How gradients grow in deep nets with BN, before training, and how deep such nets train.

Yang et al. (2019), De & Smith (2020). Before training: width 512, float32, random gradients at the top. Training:
ReLU nets of width 100 on 5,000 digits, batches of 64, 200 steps of plain SGD, He's weights.
Rates are chosen by validation accuracy. The question is what trains: the result is the accuracy on training images.
"""

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch.checks import NotFinite
from bnlib.scratch.deep import LeanBatchNorm, deep_net, meters
from bnlib.scratch.inits import data_dependent
from bnlib.scratch.network import accuracy, pixels, softmax_cross_entropy
from bnlib.scratch.optimizers import SGD
from bnlib.theory.gradient_explosion import linear_rate, rate, relu_rate, residual_growth, with_eps

from . import paired
from .core import SAME, Config, Measured, Plan, Statement, grid, measure, named

ACTIVATIONS = {
    "linear": (lambda y: y, np.ones_like),
    "relu": (lambda y: np.maximum(y, 0), lambda y: (y > 0).astype(y.dtype)),
    "tanh": (np.tanh, lambda y: 1 - np.tanh(y) ** 2),
}
SIZES = (8, 32, 128)
DEPTHS = (10, 25, 50, 100)
EXACT = (0.98, 1.02)  # of a measured rate over its theory
STILL = (0.97, 1.03)  # of He's rate
SLOPE = (-1.12, -0.88)  # of the branch's share on two logarithmic axes
PRODUCT = (0.9, 1.1)  # of the gradient's growth on a stream over its theory
BATCH = 64  # in training
KINDS = {
    "bn": "BN",
    "he": "no BN",
    "dd": "no BN, each pre-activation at mean 0 and variance 1 on 500 training images before step 1 (dd)",
    "bn-flat": "BN, the gradient's norm set to be the same in all layers",
    "bn-beta": "BN, beta starts at 2",
    "bn-eps": "BN with eps = 1",
    "he-grown": "no BN, the gradient's norm set to grow as theory says for BN",
    "res-bn": "BN, blocks h + W relu(BN(h))",
    "skipinit": "no BN, blocks h + alpha W relu(h), a trained alpha from 1 / sqrt(blocks)",
    "res-none": "no BN, blocks h + W relu(h)",
}
NETS = {
    "bn": {},
    "he": {"norm": None},
    "dd": {"norm": None, "init": "dd"},
    "bn-flat": {"growth": 1.0},
    "bn-beta": {"beta": 2.0},
    "bn-eps": {"eps": 1.0},
    "he-grown": {"norm": None, "growth": round(relu_rate(BATCH), 4)},
    "res-bn": {"skip": "plain"},
    "skipinit": {"norm": None, "skip": "alpha"},
    "res-none": {"norm": None, "skip": "plain"},
}
DEEPEST = ("bn", "he", "res-bn")  # also at depth 100
SHALLOW = ("bn", "he", "dd", "bn-flat", "bn-beta", "he-grown", "res-bn", "skipinit")  # also at depth 10
MOMENTUM = ("res-bn", "res-none")  # at depth 20
GROWING = {
    **{f"grow-{kind}-{batch}": {"kind": kind, "batch": batch} for kind in ACTIVATIONS for batch in SIZES},
    "grow-he-32": {"kind": "relu", "batch": 32, "norm": None},
    "grow-relu-4": {"kind": "relu", "batch": 4},
    **{f"width-{width}": {"kind": "relu", "batch": 32, "width": width} for width in (16, 64, 128)},
    **{f"eps-{eps:g}": {"kind": "relu", "batch": 128, "eps": eps} for eps in (0.3, 0.6, 0.8, 1.0)},
    **{f"digits-{kind}-128": {"kind": kind, "batch": 128, "digits": True} for kind in ("linear", "relu")},
}
TRAINED = {
    f"{kind}-{depth}": {"depth": depth, **how}
    for kind, how in NETS.items()
    for depth in DEPTHS
    if kind != "res-none" and kind in {10: SHALLOW, 100: DEEPEST}.get(depth, NETS)
}
TRAINED |= {f"{kind}-momentum": {"depth": 20, "momentum": 0.9, **NETS[kind]} for kind in MOMENTUM}
ARMS = {
    **{arm: "untrained: growth of the squared gradient per layer" for arm in GROWING},
    "stream": "untrained, blocks h + W relu(BN(h)), batch 128: growth on the stream, share of each branch",
    **{
        arm: f"trained, depth {how['depth']}{', momentum 0.9' if 'momentum' in how else ''}: "
        f"{KINDS[arm.rpartition('-')[0]]}"
        for arm, how in TRAINED.items()
    },
}
CURVES = {"loss": 4, "grows": 4, "share": 4}
PROFILES = (1, 2, 5, 20, 200)  # steps whose gradients an explore figure shows


def run(
    config,
    arm,
    seed,
    *,
    task="grow",
    kind="relu",
    batch=32,
    width=512,
    depth=30,
    norm="bn",
    eps=None,
    beta=0.0,
    digits=False,
    init="he",
    growth=None,
    skip=None,
    momentum=0.0,
    lr=None,
):
    """Look at the gradients of untrained nets, or train one net.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights, the inputs or the order of the samples, and the gradient at the top.
    task : {"grow", "stream", "train"}
    kind : str
        A name of `ACTIVATIONS`.
    batch, width, depth : int
    norm : {"bn", None} or callable
        In training also ``norm(channels) -> Layer``.
    eps : float, optional
        Of BN; by default 0 before training and 1e-5 in it.
    beta : float
        In training: where BN's beta starts.
    digits : bool
        Inputs are digits and not random numbers.
    init : {"he", "dd"} or callable
        ``init(net, images)`` changes a net in place.
    growth : float, optional
        As in `deep_net`.
    skip : {None, "plain", "alpha"}
    momentum, lr : float

    Returns
    -------
    list of dict
        Task "grow" and "stream": a row for each layer, which is its ``step``, from the first; ``loss`` is the
        logarithm of the squared norm of the gradient over that of the top. Task "train": a row for each step.
    """
    options = config.options
    if task == "train":
        how = {"norm": norm, "eps": eps or 1e-5, "beta": beta, "init": init, "growth": growth, "skip": skip}
        return _train(config, arm, seed, depth, how, momentum, lr)
    logs = []
    for draw in range(options["nets"]):
        rng = np.random.default_rng([seed, draw])
        if task == "stream":
            logs.append(stream(rng, batch, width, depth))
        else:
            x = rng.standard_normal((batch, width), dtype=np.float32)
            if digits:
                images = pixels(load("mnist5k").x_train)
                x = images[rng.choice(len(images), batch, replace=False)]
            logs.append((squares(rng, x, kind, width, depth, norm, eps or 0.0), [0.0] * depth))
    grown, share = (np.mean(part, 0) for part in zip(*((np.log(g), s) for g, s in logs), strict=True))
    rows = [{"step": 1 + i, "loss": float(v)} for i, v in enumerate(grown)]
    return [row | {"share": float(s)} if s else row for row, s in zip(rows, share, strict=True)]


def squares(rng, x, kind, width, depth, norm="bn", eps=0.0):
    """Squared gradients at the pre-activations of an untrained net over that at the top, from the first layer on."""
    phi, slope = ACTIVATIONS[kind]
    h, kept, found = x, [], []
    for _ in range(depth):
        weight = np.float32(np.sqrt(2 / h.shape[1])) * rng.standard_normal((h.shape[1], width), dtype=np.float32)
        z = h @ weight
        y, scale = z, None
        if norm:
            z -= z.mean(0)
            scale = 1 / np.sqrt((z * z).mean(0) + np.float32(eps))
            y = z * scale
        kept.append((weight, y, scale))
        h = phi(y)
    dh = rng.standard_normal(h.shape, dtype=np.float32)
    top = np.square(dh, dtype=float).sum()
    for weight, y, scale in reversed(kept):
        dz = dh * slope(y)
        if norm:
            dz = (dz - dz.mean(0) - y * (dz * y).mean(0)) * scale
        found.append(float(np.square(dz, dtype=float).sum() / top))
        dh = dz @ weight.T
    return np.array(found[::-1])


def stream(rng, batch, width, depth):
    """Blocks ``h + W relu(BN(h))``: squared gradient on the stream before each block, and each branch's share.

    The gradient at the top has the mean 0 over the batch, as behind a BN layer.
    """
    h, kept, found, share = rng.standard_normal((batch, width), dtype=np.float32), [], [], []
    for _ in range(depth):
        weight = np.float32(np.sqrt(2 / width)) * rng.standard_normal((width, width), dtype=np.float32)
        xc = h - h.mean(0)
        scale = 1 / np.sqrt((xc * xc).mean(0))
        y = xc * scale
        branch = np.maximum(y, 0) @ weight
        h = h + branch
        share.append(float(np.square(branch, dtype=float).mean() / np.square(h, dtype=float).mean()))
        kept.append((weight, y, scale))
    dh = rng.standard_normal(h.shape, dtype=np.float32)
    dh -= dh.mean(0)
    top = np.square(dh, dtype=float).sum()
    for weight, y, scale in reversed(kept):
        dy = (dh @ weight.T) * (y > 0)
        dh = dh + (dy - dy.mean(0) - y * (dy * y).mean(0)) * scale
        found.append(float(np.square(dh, dtype=float).sum() / top))
    return np.array(found[::-1]), share


def build(seed, depth, width, *, norm=None, eps=1e-5, beta=0.0, init="he", growth=None, skip=None, images):
    """The net that an arm trains."""
    make = norm if callable(norm) else (lambda units: LeanBatchNorm(units, eps)) if norm == "bn" else None
    alpha = depth**-0.5 if skip == "alpha" else None
    how = {"norm": make, "residual": skip is not None, "alpha": alpha, "growth": growth}
    net = deep_net(depth, width, np.random.default_rng([seed, 0]), **how)
    for layer in net.layers:
        if "beta" in layer.params:
            layer.params["beta"] += np.float32(beta)
    starts = {"he": lambda *_: None, "dd": data_dependent}
    named(starts, init, "init")(net, images[:500])
    return net


def _train(config, arm, seed, depth, how, momentum, lr):
    sets, options = load(config.arms[arm].dataset).pairs(pixels), config.options
    (x, labels), validation, test = sets
    net = build(seed, depth, options["width"], **how, images=x)
    confirming, steps = seed not in config.tuning_seeds, config.arms[arm].steps
    update, rng, rows, order = SGD(lr, momentum), np.random.default_rng([seed, 1]), [], np.empty(0, int)
    readout = probe(net, x[:1_000], labels[:1_000], *test) if confirming else None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for step in range(1, steps + 1):
            if len(order) < BATCH:
                order = rng.permutation(len(x))
            chosen, order = order[:BATCH], order[BATCH:]
            try:
                loss, dlogits = softmax_cross_entropy(net.forward(x[chosen]), labels[chosen])
                if not np.isfinite(loss):
                    raise NotFinite(f"the loss is {loss}")
                net.backward(dlogits, to_input=False)
            except NotFinite:
                rows.append({"step": step, "loss": float("nan"), "accuracy": 0.1})
                break
            row = {"step": step, "loss": loss}
            if confirming and (step in PROFILES or step == steps):
                row |= _profile(net)
            update.step(net)
            rows.append(row)
        else:
            net.forward(x[:1_000])  # statistics for the evaluation
            rows[-1]["accuracy"] = accuracy(net, *((x, labels) if confirming else validation))
            if confirming:
                rows[-1]["test"] = accuracy(net, *test)
    if confirming:
        rows[-1] |= {"readout": readout}
    return rows


def _profile(net):
    """Logarithms (base 10) of the gradients' norms, and the growth of their squares per layer."""
    logs = np.log10(np.maximum([meter.arrived for meter in meters(net)], 1e-30))
    slope = np.polyfit(np.arange(len(logs)), logs, 1)[0]
    return {"grows": float(10 ** (-2 * slope)), "profile": [round(float(v), 3) for v in logs]}


def probe(net, x, labels, points, answers):
    """Share of test samples that a linear readout of the last hidden layer gets right: least squares, as it is."""
    inside = net.layers[:-1]
    hidden = []
    for part, training in ((x, True), (points, False)):
        h = part
        for layer in inside:
            h = layer.forward(h, training)
        hidden.append(h.astype(float))
    mean, spread = hidden[0].mean(0), hidden[0].std() or 1.0
    a, b = ((h - mean) / spread for h in hidden)
    wanted = np.eye(10)[labels] - 0.1
    weight = np.linalg.solve(a.T @ a + 1e-3 * len(a) * np.eye(a.shape[1]), a.T @ wanted)
    return float(((b @ weight).argmax(1) == answers).mean())


def per_layer(rows, first):
    """Growth of the squared gradient per layer: the slope of its logarithm from layer ``first`` on."""
    kept = [(row["step"], row["loss"]) for row in rows if row["step"] >= first]
    return float(np.exp(-np.polyfit(*zip(*kept, strict=True), 1)[0]))


def summarize(rows):
    """The rate; on a stream growth over 30 and all blocks and the share's slope; in training what is left."""
    last = rows[-1]
    if "share" in last:
        blocks = np.array([row["step"] for row in rows])
        slope = np.polyfit(np.log(blocks + 1), np.log([row["share"] for row in rows]), 1)[0]
        found = {"score": 0.0, "slope": float(slope), "all": float(np.exp(rows[0]["loss"]))}
        return found | {"thirty": float(np.exp(rows[0]["loss"] - rows[30]["loss"]))}
    if "accuracy" not in last:
        return {"score": 0.0, "rate": per_layer(rows, 6)}
    found = {"score": last["accuracy"], "accuracy": 100 * last["accuracy"]}
    losses = [row["loss"] for row in rows[-20:]]
    found["late"] = float(np.mean(losses))
    found |= {key: 100 * last[key] for key in ("readout", "test") if key in last}
    grown = {row["step"]: row["grows"] for row in rows if "grows" in row}
    return (
        found
        | {f"growth_{step}": value for step, value in grown.items() if step in (1, 2, 20)}
        | ({"growth_end": last["grows"]} if "grows" in last else {})
    )


def draw(rows, ax):
    """Squared gradient before training against the layer, one curve for each activation at batch 32."""
    bands(ax, rows[rows["arm"].isin(LOOKS)].assign(log=lambda r: r["loss"] / np.log(10)), "log", LOOKS)
    ax.set(xlabel="layer", ylabel="squared gradient, power of 10")


def mean(column, over=1.0):
    """Mean over the seeds, divided by ``over``; the interval is from the smallest to the largest."""

    def found(cells):
        values = cells.get(column, cells["score"] * np.nan).to_numpy(float) / over  # NaN where a run ended before
        return Measured(float(values.mean()), (float(values.min()), float(values.max())))

    return found


def difference(column):
    """Mean of the first arm less the second, paired by seed."""
    return lambda one, other: paired.difference(one[column], other[column])


def claims(cells):
    """Rates over their theory; the stream; accuracies and their differences; the gradient while training."""
    yang, stated = "before training", "(B-2)/(B-3) for linear, pi/(pi-1) for ReLU at a large batch"
    exact = {"fidelity": SAME, "threshold": EXACT, "place": f"{yang}: growth per layer", "paper_value": stated}
    table = []
    for kind, theory in (("linear", linear_rate), ("relu", relu_rate)):
        for batch in SIZES:
            table.append(
                Statement(
                    *(f"rate-{kind}-{batch}", (f"grow-{kind}-{batch}",), mean("rate", theory(batch))),
                    f"Growth of the squared gradient per layer over its theory, {kind}, batch {batch}",
                    **exact,
                )
            )
            table.append(
                Statement(
                    *(f"measured-{kind}-{batch}", (f"grow-{kind}-{batch}",), mean("rate")),
                    f"Growth of the squared gradient per layer, {kind}, batch {batch}",
                    **{"place": exact["place"], "paper_value": f"{theory(batch):.3f}"},
                )
            )
    table += [
        Statement(
            *(f"measured-tanh-{batch}", (f"grow-tanh-{batch}",), mean("rate")),
            f"Growth of the squared gradient per layer, tanh, batch {batch}",
            **{"place": exact["place"], "paper_value": "above 1"},
        )
        for batch in SIZES
    ]
    table += [
        Statement(
            *(f"rate-tanh-{batch}", (f"grow-tanh-{batch}",), mean("rate", rate(*ACTIVATIONS["tanh"], batch))),
            f"The same over our quadrature of the theory, tanh, batch {batch}",
        )
        for batch in SIZES
    ]
    ours = {"place": "a control of ours"}
    table += [
        Statement(
            *("rate-he", ("grow-he-32",), mean("rate")),
            "Growth of the squared gradient per layer, ReLU without BN, He's weights",
            **{"fidelity": SAME, "threshold": STILL, "paper_value": "1"},
        ),
        Statement(
            *("rate-4", ("grow-relu-4",), mean("rate", relu_rate(4))),
            "Growth per layer over its theory, ReLU, batch 4, where 1 / variance has no variance",
            **ours,
        ),
        *(
            Statement(
                *(f"width-{width}", (f"width-{width}",), mean("rate", relu_rate(32))),
                f"Growth per layer over its theory, ReLU, batch 32, width {width}",
                **ours,
            )
            for width in (16, 64, 128)
        ),
        *(
            Statement(
                *(f"eps-{eps:g}".replace(".", "-"), (f"eps-{eps:g}",), mean("rate", with_eps(eps)[0])),
                f"Growth per layer over its theory at a large batch, ReLU, batch 128, eps {eps:g}",
                **ours,
            )
            for eps in (0.3, 0.6, 0.8, 1.0)
        ),
        Statement(
            *("eps-one", ("eps-1",), mean("rate")),
            "Growth of the squared gradient per layer, ReLU, batch 128, eps 1",
            **{"paper_value": "no growth from about eps = 1 on", "place": "remedies"},
        ),
        *(
            Statement(
                *(f"digits-{kind}", (f"digits-{kind}-128",), mean("rate", theory(128))),
                f"Growth per layer over its theory, {kind}, batch 128, inputs are digits",
                **ours,
            )
            for kind, theory in (("linear", linear_rate), ("relu", relu_rate))
        ),
    ]
    start, power = np.pi / (np.pi - 1), relu_rate(128)  # the stream's variance in units of a branch's
    power_at = {"fidelity": SAME, "threshold": PRODUCT, "paper_value": "no number"}
    de = {"paper": "desmith2020"}
    table += [
        *(
            Statement(
                *(f"stream-{blocks}", ("stream",), mean(column, residual_growth(blocks, power, start))),
                f"Blocks h + W relu(BN(h)), batch 128: squared gradient, growth over {blocks} blocks, over theory",
                **power_at,
            )
            for blocks, column in ((30, "thirty"), (100, "all"))
        ),
        *(
            Statement(
                *(f"stream-times-{blocks}", ("stream",), mean(column)),
                f"Blocks h + W relu(BN(h)), batch 128: growth of the squared gradient over {blocks} blocks",
                **ours,
            )
            for blocks, column in ((30, "thirty"), (100, "all"))
        ),
        Statement(
            *("share", ("stream",), mean("slope")),
            "Share of branch l in the stream's second moment: slope on logarithmic axes against l + 1",
            **{"unit": "", "fidelity": SAME, "threshold": SLOPE, "place": "variance of a residual block"},
            **{"paper_value": "-1", **de},
        ),
    ]
    for arm, how in TRAINED.items():
        kind, _, where = arm.rpartition("-")
        told = f"{KINDS[kind]}, depth {how['depth']}" + (", momentum .9" if "momentum" in how else "")
        extra = {"place": "deep residual nets train", "paper_value": "trains", **de} if "res" in kind else {}
        if kind == "skipinit":
            extra = {"place": "SkipInit", "paper_value": "trains", **de}
        if kind == "bn":
            extra = {"place": "figure 2", "paper_value": "not beyond about 50 layers"}
        if arm == "res-bn-50":
            extra["threshold"] = 95.0
        table.append(
            Statement(
                *(f"accuracy-{arm}", (arm,), mean("accuracy")),
                f"Training accuracy after {{steps}} steps: {told}",
                unit="%",
                **extra,
            )
        )
        table.append(
            Statement(
                *(f"readout-{arm}", (arm,), mean("readout")),
                f"Before training, linear readout of the last hidden layer: {told}",
                unit="%",
            )
        )
        for step in ("1", "2", "20", "end"):
            if kind in ("bn", "he", "dd", "bn-beta", "bn-eps", "res-bn") and where in ("10", "25", "50"):
                table.append(
                    Statement(
                        *(f"growth-{step}-{arm}", (arm,), mean(f"growth_{step}")),
                        f"Growth of the squared gradient per layer, "
                        f"{'at the last step' if step == 'end' else f'at step {step}'}: {told}",
                    )
                )
    pairs = [
        ("he-bn", "he", "bn", "no BN less BN"),
        ("res-bn", "res-bn", "bn", "BN, with skip connections less without"),
        ("flat-bn", "bn-flat", "bn", "BN, growth removed from the gradient less as it is"),
        ("beta-bn", "bn-beta", "bn", "BN with beta from 2 less BN"),
        ("eps-bn", "bn-eps", "bn", "BN with eps = 1 less BN"),
        ("dd-bn", "dd", "bn", "dd less BN"),
        ("grown-he", "he-grown", "he", "no BN, gradient made to grow less as it is"),
        ("skipinit-res", "skipinit", "res-bn", "SkipInit less BN with skip connections"),
    ]
    table += [
        Statement(
            *(f"{name}-{depth}", (f"{one}-{depth}", f"{other}-{depth}"), difference("accuracy")),
            f"Depth {depth}: training accuracy after {{steps}} steps, {told}",
            unit="points",
        )
        for name, one, other, told in pairs
        for depth in DEPTHS
    ]
    table.append(
        Statement(
            *("momentum-bn-none", ("res-bn-momentum", "res-none-momentum"), difference("late")),
            "Depth 20, momentum .9: training loss of the last 20 steps, blocks with BN less blocks without",
            **{"unit": "nats", "paper_value": "no number", **de},
        )
    )
    return measure(table, cells, "gradient-explosion", "yang2019")


LOOKS = {
    "grow-he-32": {"label": "ReLU, no BN", **look("none")},
    "grow-linear-32": {"label": "linear, BN", **look("variant")},
    "grow-tanh-32": {"label": "tanh, BN", **look("other")},
    "grow-relu-32": {"label": "ReLU, BN", **look("batchnorm")},
}


def _plans(steps, rates, growing, trained):
    plans = {arm: Plan("mnist5k" if "digits" in arm else "generated", 30, grid(**GROWING[arm])) for arm in growing}
    plans["stream"] = Plan("generated", 100, grid(task="stream", batch=128, depth=100))
    for arm in trained:
        plans[arm] = Plan("mnist5k", steps, grid(task="train", **TRAINED[arm], lr=rates), probed=True)
    return plans


RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
LOWER = {  # as many, for nets whose gradient or signal grows and nothing rescales it: with RATES they only diverge
    "res-none-momentum": [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 0.001],
    "dd-25": [3e-5, 1e-4, 3e-4, 0.001, 0.003, 0.01, 0.03],
    "dd-50": [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 0.001],
}
OPTIONS = {"nets": 4, "width": 100}
REST = {"arrays": {"profile": 100}}
LITE = ("grow-relu-8", "grow-relu-32", "grow-linear-32", "grow-tanh-32", "grow-he-32")
QUICK = ("bn-25", "he-25", "res-bn-25", "bn-flat-25", "bn-beta-25")
PRESETS = {
    "lite": Config(_plans(60, [0.03, 0.3, 1.0], LITE, QUICK), (11, 12), (1,), options=OPTIONS | {"nets": 1}, **REST),
    "full": Config(
        {
            **_plans(200, [], GROWING, ()),
            **{
                arm: Plan("mnist5k", 200, grid(task="train", **how, lr=LOWER.get(arm, RATES)), probed=True)
                for arm, how in TRAINED.items()
            },
        },
        (11, 12, 13, 14),
        (1, 2),
        options=OPTIONS,
        **REST,
    ),
}
