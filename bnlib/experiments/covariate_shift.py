"""Internal covariate shift put to the test: noise behind BN, shift measured on gradients, images that really shift.

Santurkar et al. (2018) on small nets. ``noise``: 784-100 x 10-10 with ReLU and He's weights on 3,500 digits, 200
steps with batches of 128. ``linear``: 25 linear layers of 10 units, full batch, 200 steps, Definition 2.1, layer 13.
``real``: a net of three hidden layers whose test images change contrast or get noise (Schneider et al. 2020).
"""

import copy

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch.inits import data_dependent, he
from bnlib.scratch.layers import BatchNorm, Layer, ReLU
from bnlib.scratch.network import fit, mlp, pixels, softmax_cross_entropy
from bnlib.scratch.optimizers import SGD, Adam, Momentum
from bnlib.theory.covariate_shift import cosine, loss_and_gradients, relative_shift, shifted_gradient

from . import paired
from .core import Config, Measured, Plan, Statement, grid, known, measure

OPTIMIZERS = {"sgd": SGD, "momentum": Momentum, "adam": Adam}
RATES = {
    "sgd": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "momentum": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0],
    "adam": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
}
LINEAR_RATES = {
    "sgd": [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0],
    "adam": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3],
}
REAL_RATES = [0.01, 0.03, 0.1, 0.3, 1.0]
SIGMA, R = 1.25, 0.1  # the paper's n_sigma, and its r_mu and r_sigma
STRENGTH = 0.5  # the paper's n_mu
KINDS = {  # norm, init, noise: (n_mu, where)
    "none": ("none", "he", None),
    "dd": ("none", "dd", None),
    "bn": ("bn", "he", None),
    "noisy": ("bn", "he", (STRENGTH, "all")),
    "noisy-0.25": ("bn", "he", (0.25, "all")),
    "noisy-1": ("bn", "he", (1.0, "all")),
    "noisy-2": ("bn", "he", (2.0, "all")),
    "noisy-last": ("bn", "he", (STRENGTH, "last")),
    "none-noise": ("none", "he", (STRENGTH, "all")),
}
TOLD = {
    "none": "no normalization",
    "dd": "no normalization, started from data",
    "bn": "BN",
    "noisy": "BN with the paper's noise behind every layer",
    "noisy-0.25": "the same, the shift half as large",
    "noisy-1": "the same, the shift twice as large",
    "noisy-2": "the same, the shift four times as large",
    "noisy-last": "BN with the paper's noise behind the last hidden layer only",
    "none-noise": "no normalization, the paper's noise in units of each unit's standard deviation",
    "none-slow": "no normalization at a tenth of its rate",
}
LINEAR = {
    f"linear-{init}-{optimizer}-{norm}": (init, optimizer, norm)
    for init in ("gaussian", "orthogonal")
    for optimizer in LINEAR_RATES
    for norm in ("none", "bn")
}
CONTROLS = ("noisy-0.25", "noisy-1", "noisy-2", "noisy-last", "none-noise")  # under SGD only
FEWER = (11, 12, 13, 14, 15)  # confirming seeds where no threshold hangs on them
CHANGES = {"contrast": "contrast 0.3", "noise": "noise of 0.3"}  # of the test images
LEVELS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)  # of the target's mean square
DEPTH, WIDTH, MIDDLE = 25, 10, 12  # of the linear net; the layer that is looked at, from 0
LOOKED = ((45, 50), (95, 100), (145, 150), (195, 200))  # steps between which units are compared
STEPS = 200  # of all but ``real``
CURVES = {"loss": 3, "relative": 3}


class Shaken(Layer):
    """Noise that moves and stretches each unit anew at every step: {eq}`eq-cs-noise`.

    In training each unit draws a shift, uniform up to ``n_mu`` either way, and a factor, uniform from 1 to `SIGMA`;
    each sample then draws its own within `R` of these. In evaluation nothing happens.

    Parameters
    ----------
    n_mu : float
    rng : numpy.random.Generator
    own_units : bool
        Shift by multiples of the unit's standard deviation over the batch, and stretch about its mean; both are
        constants to the gradient. For a net without BN.
    """

    def __init__(self, n_mu, rng, own_units=False):
        super().__init__()
        self.n_mu, self.rng, self.own_units = n_mu, rng, own_units

    def forward(self, x, training=True):
        self.factor = None
        if not training:
            return x
        units = x.shape[1]
        shift = self.rng.uniform(-self.n_mu, self.n_mu, units) + self.rng.uniform(-R, R, x.shape)
        self.factor = (self.rng.uniform(1, SIGMA, units) + R * self.rng.standard_normal(x.shape)).astype(x.dtype)
        if self.own_units:
            mean, std = x.mean(0), x.std(0)
            return mean + self.factor * (x - mean) + (shift * std).astype(x.dtype)
        return self.factor * x + shift.astype(x.dtype)

    def backward(self, dy):
        return dy if self.factor is None else dy * self.factor


def build(kind, seed, images, hidden=10):
    """The net of an arm of `KINDS`: the same weights for all but *dd*.

    Parameters
    ----------
    kind : str
        A name of `KINDS`.
    seed : int
    images : array (N, 784)
        Training images, of which *dd* takes 512.
    hidden : int
        Layers.

    Returns
    -------
    Sequential
    """
    known(kind, KINDS, "arm")
    norm, init, noise = KINDS[kind]
    net = mlp([784, *[100] * hidden, 10], activation=ReLU, norm=BatchNorm if norm == "bn" else None)
    he(net, np.random.default_rng([seed, 0]))
    if init == "dd":
        rows = np.random.default_rng([seed, 1]).choice(len(images), 512, replace=False)
        data_dependent(net, images[rows])
    if noise:
        strength, where = noise
        rng, layers, seen = np.random.default_rng([seed, 2]), [], 0
        for layer in net.layers:
            if isinstance(layer, ReLU):
                seen += 1
                if where == "all" or seen == hidden:
                    layers.append(Shaken(strength, rng, own_units=norm == "none"))
            layers.append(layer)
        net.layers = layers
    return net


def run(config, arm, seed, *, kind=None, optimizer="sgd", init=None, norm="none", lr=0.1):
    """Train one net.

    Parameters
    ----------
    config : Config
    arm : str
        Its first word says which of the three nets is trained.
    seed : int
        Of the data, the weights, the order of the samples and the noise.
    kind : str
        For ``noise``: a name of `KINDS`.
    optimizer : {"sgd", "momentum", "adam"}
    init : {"gaussian", "orthogonal"}
        For ``linear``: of the weights.
    norm : {"none", "bn"}
        For ``linear`` and ``real``.
    lr : float

    Returns
    -------
    list of dict
        A row per step for ``noise`` and ``linear``, a row per evaluation for ``real``.
    """
    known(optimizer, OPTIMIZERS, "optimizer")
    known(norm, ("none", "bn"), "norm")
    part, plan = arm.split("-")[0], config.arms[arm]
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is a result
        if init is not None:
            return _linear(plan.steps, seed, init, optimizer, norm == "bn", lr)
        if part == "real":
            return _real(config, arm, seed, norm, lr)
        return _noise(config, arm, seed, kind, optimizer, lr)


def _noise(config, arm, seed, kind, optimizer, lr):
    (images, labels), _, _ = load(config.arms[arm].dataset).pairs(pixels)
    net, update = build(kind, seed, images, config.options["hidden"]), OPTIMIZERS[optimizer](lr)
    rng, steps, batch = np.random.default_rng([seed, 3]), config.arms[arm].steps, config.options["batch"]
    noise = np.random.default_rng([seed, 4])
    confirming, taken, rows = seed not in config.tuning_seeds, {}, []
    middle = config.options["hidden"] // 2
    for step in range(1, steps + 1):
        chosen = rng.choice(len(images), batch, replace=False)
        loss, dlogits = softmax_cross_entropy(net.forward(images[chosen]), labels[chosen])
        if not np.isfinite(loss):
            rows.append({"step": step, "loss": float("nan")})
            break
        net.backward(dlogits, to_input=False)
        update.step(net)
        rows.append({"step": step, "loss": loss})
        if confirming and any(step in pair for pair in LOOKED):
            taken[step] = units_of(net, images[:512], middle, noise)
    pairs = [moves(taken[a], taken[b]) for a, b in LOOKED if b in taken]
    if pairs and np.isfinite(rows[-1]["loss"]):
        rows[-1] |= {key: float(np.mean([pair[key] for pair in pairs])) for key in pairs[0]}
        twice = [units_of(net, images[:512], middle, noise) for _ in range(2)]
        rows[-1] |= {"drawn": moves(*twice)["moved"]}
    return rows


def units_of(net, images, layer, rng):
    """What the ReLU of a hidden layer gets in training mode, and the next layer's pre-activations, standardized.

    Parameters
    ----------
    net : Sequential
        Left as it is.
    images : array (N, 784)
    layer : int
        Number of the hidden layer, from 1; not the last one.
    rng : numpy.random.Generator
        Of the net's noise.

    Returns
    -------
    a, u : array (N, units)
    """
    net, x, inputs = copy.deepcopy(net), images, []
    for one in net.layers:
        if isinstance(one, Shaken):
            one.rng = rng
        inputs.append(x)
        x = one.forward(x)
    place = [i for i, one in enumerate(net.layers) if isinstance(one, ReLU)][layer - 1]
    z = inputs[place + 2]  # behind the next linear layer
    return inputs[place], (z - z.mean(0)) / np.maximum(z.std(0), 1e-12)


def moves(before, after):
    """How the units of two times differ, as `units_of` gives them, a mean over the units.

    Returns
    -------
    dict
        ``moved``: absolute change of a unit's mean. ``std``: the same in units of the unit's standard deviation
        before. ``left``: root mean square change of the next layer's standardized pre-activations.
    """
    (a, u), (b, v) = before, after
    change = np.abs(b.mean(0) - a.mean(0))
    alive = a.std(0) > 0
    return {
        "moved": float(change.mean()),
        "std": float((change[alive] / a.std(0)[alive]).mean()),
        "left": float(np.sqrt(np.square(v - u).mean())),
    }


def linear_problem(seed, init, samples=256):
    """Weights, inputs and target of the deep linear net: ``target = x @ A.T`` with Gaussian x and A.

    Parameters
    ----------
    seed : int
    init : {"gaussian", "orthogonal"}
        Normal entries of variance 1 / width, or an orthogonal matrix for each layer.
    samples : int
    """
    known(init, ("gaussian", "orthogonal"), "init")
    rng = np.random.default_rng([seed, 5])
    x, matrix = rng.standard_normal((samples, WIDTH)), rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
    weights = [rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH) for _ in range(DEPTH)]
    if init == "orthogonal":
        weights = [np.linalg.qr(w)[0] for w in weights]
    return weights, x, x @ matrix.T


def _linear(steps, seed, init, optimizer, norm, lr):
    weights, x, target = linear_problem(seed, init)
    whole, eps = float(np.square(target).mean()), 1e-5
    first, second, rows = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights], []
    for step in range(1, steps + 1):
        loss, gradients = loss_and_gradients(weights, x, target, norm, eps)
        if not loss < 1e6 * whole:  # NaN too
            rows.append({"step": step, "loss": float("nan")})
            break
        if optimizer == "sgd":
            later = [w - lr * g for w, g in zip(weights, gradients, strict=True)]
        else:
            first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
            second = [0.999 * v + 0.001 * g * g for v, g in zip(second, gradients, strict=True)]
            kept, rate = zip(first, second, strict=True), lr / (1 - 0.9**step)
            moved = [rate * m / (np.sqrt(v / (1 - 0.999**step)) + 1e-8) for m, v in kept]
            later = [w - d for w, d in zip(weights, moved, strict=True)]
        row = {"step": step, "loss": loss / whole}
        before = gradients[MIDDLE]
        after = shifted_gradient(weights, later, MIDDLE, x, target, norm, eps)
        if np.isfinite(after).all() and np.linalg.norm(before) > 0 and np.linalg.norm(after) > 0:
            row |= {"relative": relative_shift(before, after), "cosine": cosine(before, after)}
        rows.append(row)
        weights = later
    return rows


def changed(images, how, rng):
    """Images of grey values from 0 to 1 with their contrast at 0.3 of what it was, or with normal noise of 0.3."""
    known(how, CHANGES, "change")
    if how == "contrast":
        return 0.5 + 0.3 * (images - 0.5)
    return np.clip(images + 0.3 * rng.standard_normal(images.shape), 0, 1)


def _real(config, arm, seed, norm, lr):
    data = load(config.arms[arm].dataset)
    train, validation, _ = data.pairs(pixels)
    net = mlp([784, 100, 100, 100, 10], activation=ReLU, norm=BatchNorm if norm == "bn" else None)
    he(net, np.random.default_rng([seed, 0]))
    steps = config.arms[arm].steps
    rows = fit(
        *(net, *train),
        **{"lr": lr, "steps": steps, "validation": validation, "batch": 64, "seed": seed, "progress": False},
        every=sorted({*range(1, min(20, steps) + 1), *range(20, steps + 1, 20)}),
    )
    if seed in config.tuning_seeds or not np.isfinite(rows[-1]["loss"]):
        return rows
    rng = np.random.default_rng([seed, 6])
    grey = data.x_test.reshape(len(data.x_test), -1) / 255
    places = {"clean": grey} | {how: changed(grey, how, rng) for how in CHANGES}
    mean, std = train[0].mean(), train[0].std()
    for how, values in places.items():
        x = ((values - 0.13) / 0.31).astype(np.float32)
        rows[-1][f"error_{how}"] = errors(net, x, data.y_test)
        if norm == "bn":
            rows[-1][f"again_{how}"] = errors(estimated(net, x), x, data.y_test)
        rows[-1][f"inputs_{how}"] = errors(net, (x - x.mean()) / x.std() * std + mean, data.y_test)
    return rows


def errors(net, x, labels):
    """Share of the images that a net has wrong in evaluation mode, in %."""
    return 100 * float((net.forward(x, training=False).argmax(1) != labels).mean())


def estimated(net, x):
    """A copy of a net whose running statistics are those of ``x``, layer after layer; nothing else changes."""
    net = copy.deepcopy(net)
    for layer in net.layers:
        if isinstance(layer, BatchNorm):
            layer.running.mean, layer.running.var = x.mean(0), x.var(0)
        x = layer.forward(x, training=False)
    return net


def summarize(rows):
    """The numbers of one cell. The score is minus the mean or (``linear``) the last loss, or the accuracy."""
    last, losses = rows[-1], np.array([row["loss"] for row in rows])
    if "accuracy" in last:
        return {"score": last["accuracy"], **{key: v for key, v in last.items() if "_" in key}}
    whole = bool(np.isfinite(losses[-1]))
    if any("relative" in row for row in rows):
        found = {"score": -float(losses[-1]) if whole else -1e9, "last": float(losses[-1])}
        relative, angle = (np.array([row.get(key, np.nan) for row in rows]) for key in ("relative", "cosine"))
        found |= {"relative": float(np.nanmean(relative)), "cosine": float(np.nanmean(angle))}
        for level in LEVELS:
            at = int((losses <= level).argmax())
            found[f"at_{level:g}"] = float(np.nanmean(relative[max(0, at - 9) : at + 1])) if at else float("nan")
        return found
    kept = {key: last[key] for key in ("moved", "std", "left", "drawn") if key in last}
    if not whole:  # diverged: the loss of a guess to the end
        losses = np.append(losses[:-1], np.full(STEPS - len(losses) + 1, np.log(10)))
    return {"score": -float(losses.mean()), "area": float(losses.mean()), "end": float(losses[-50:].mean()), **kept}


def draw(rows, ax):
    """Training loss against steps under SGD: without BN, with it, with noise behind it."""
    bands(ax, rows[rows["arm"].isin(LOOKS) & ~rows["tuning"]], "loss", LOOKS)
    ax.set(xlabel="training step", ylabel="loss of the mini-batch", ylim=(0, 2.6))


LOOKS = {
    "noise-sgd-none": {"label": "no BN", **look("none")},
    "noise-sgd-noisy": {"label": "BN and noise", **look("variant")},
    "noise-sgd-bn": {"label": "BN", **look("batchnorm")},
}


def ratio(column):
    """Geometric mean of the first arm's number over the second's, paired by seed.

    Over the seeds in which both have a number, at least three; nan otherwise.
    """

    def found(one, other):
        both = one[column].notna().to_numpy() & other[column].notna().to_numpy()
        if not both.all() and both.sum() < 3:
            return Measured(float("nan"), (float("nan"), float("nan")))
        return paired.ratio(*([(v, True) for v in part[column][both]] for part in (one, other)))

    return found


def wins(column, factor):
    """How many seeds of 10 have the first arm's number at most ``factor`` times the second's."""

    def found(one, other):
        count = int((one[column].to_numpy(float) <= factor * other[column].to_numpy(float)).sum())
        return Measured(10 * count / len(one), (10 * count / len(one),) * 2)

    return found


def mean(column, factor=1.0):
    """Mean over the seeds; the interval is from the smallest to the largest."""

    def found(part):
        values = factor * part[column].to_numpy(float)
        return Measured(float(values.mean()), (float(values.min()), float(values.max())))

    return found


def equal_loss(one, other):
    """Ratio of the relative shifts at the lowest loss that both arms reach in at least three seeds, over these."""
    for level in reversed([f"at_{level:g}" for level in LEVELS]):
        found = ratio(level)(one, other)
        if np.isfinite(found.value):
            return found
    return found


def recovered(how):
    """Share of the errors added by a change of the images that goes away with statistics taken again, in %."""

    def found(part):
        clean, bad, again = (
            part[f"{key}"].to_numpy(float) for key in ("error_clean", f"error_{how}", f"again_{how}")
        )
        share = 100 * (bad - again) / (bad - clean)
        return Measured(float(share.mean()), (float(share.min()), float(share.max())))

    return found


def claims(cells):
    """Loss under noise, how far units move, Definition 2.1 at one rate and at equal loss, images that shift."""
    told = {"place": "noise behind BN (appendix A)", "paper_value": "nearly as fast as BN"}
    control = {"place": "a control of ours"}
    table = [
        Statement(
            *("noisy-wins", ("noise-sgd-noisy", "noise-sgd-none"), wins("area", 0.75)),
            "SGD: seeds of 10 in which the mean loss over {steps} steps with BN and noise is at most 0.75 of that "
            "without BN",
            **told | {"unit": "seeds", "threshold": 9.0},
        )
    ]
    names = {"sgd": "SGD", "momentum": "Momentum", "adam": "Adam"}
    for optimizer, name in names.items():
        for column, words in (("area", "mean loss over {steps} steps"), ("end", "mean loss of the last 50 steps")):
            for one, other in (("noisy", "none"), ("bn", "none"), ("noisy", "bn"), ("noisy", "dd"), ("dd", "none")):
                table.append(
                    Statement(
                        *(
                            f"{column}-{optimizer}-{one}-{other}",
                            (f"noise-{optimizer}-{one}", f"noise-{optimizer}-{other}"),
                        ),
                        *(ratio(column), f"{name}: {words}, {TOLD[one]} over {TOLD[other]}"),
                        **told if {one, other} == {"noisy", "none"} else control,
                    )
                )
    table += [
        Statement(
            *(f"area-{kind}".replace(".", "-"), (f"noise-sgd-{kind}", f"noise-sgd-{other}"), ratio("area")),
            f"SGD: mean loss over {{steps}} steps, {TOLD[kind]} over {TOLD[other]}",
            **how,
        )
        for kind, other, how in (
            ("noisy-0.25", "none", control),
            ("noisy-1", "none", control),
            ("noisy-2", "none", control),
            ("noisy-last", "bn", control),
            (
                "none-noise",
                "none",
                {"place": "noise behind BN (appendix A)", "paper_value": "the noise stops the net without BN"},
            ),
            ("none-slow", "none", control),
        )
    ]
    units = {
        "moved": "absolute move of a unit's mean in 5 steps, layer 5",
        "std": "the same in units of the unit's standard deviation",
        "left": "change of the next layer's standardized pre-activations in 5 steps",
    }
    for column, words in units.items():
        for kind in ("none", "none-slow", "bn", "noisy"):
            table.append(
                Statement(
                    *(f"{column}-{kind}", (f"noise-sgd-{kind}",), mean(column), f"SGD, {TOLD[kind]}: {words}"),
                    unit="",
                )
            )
    table.append(
        Statement(
            *("drawn", ("noise-sgd-noisy",), mean("drawn")),
            "BN and noise, the same weights: absolute move of a unit's mean between two draws of the noise",
            unit="",
        )
    )
    shift = {"place": "Definition 2.1", "paper_value": "not smaller with BN"}
    for init in ("gaussian", "orthogonal"):
        fixed = [f"linear-{init}-fixed-{norm}" for norm in ("bn", "none")]
        for column, words in (("relative", "relative shift of the gradient"), ("last", "loss after {steps} steps")):
            table.append(
                Statement(
                    *(f"{column}-{init}-fixed", fixed, ratio(column)),
                    f"25 linear layers, {init} weights, SGD, learning rate 0.001: {words}, BN over none",
                    **shift if column == "relative" else control,
                )
            )
        for optimizer in LINEAR_RATES:
            arms = [f"linear-{init}-{optimizer}-{norm}" for norm in ("bn", "none")]
            words = f"25 linear layers, {init} weights, {names[optimizer]}, rates tuned"
            table += [
                Statement(
                    *(f"equal-{init}-{optimizer}", arms, equal_loss),
                    f"{words}: relative shift at the lowest loss that both reach in three seeds, BN over none",
                    **shift,
                ),
                Statement(
                    *(f"last-{init}-{optimizer}", arms, ratio("last")),
                    f"{words}: loss after {{steps}} steps where neither diverges, BN over none",
                ),
            ]
    for how, words in CHANGES.items():
        for key, norm, told in (
            ("error", "none", "no normalization"),
            ("error", "bn", "BN"),
            ("again", "bn", "BN, statistics taken again from the changed images"),
            ("inputs", "none", "no normalization, mean and deviation of all inputs set back"),
            ("inputs", "bn", "BN, mean and deviation of all inputs set back"),
        ):
            table.append(
                Statement(
                    *(f"{key}-{norm}-{how}", (f"real-{norm}",), mean(f"{key}_{how}")),
                    f"Test images with {words}: errors, {told}",
                    **{"unit": "%", "paper": "schneider2020"},
                )
            )
        table.append(
            Statement(
                *(f"recovered-{how}", ("real-bn",), recovered(how)),
                f"Test images with {words}: share of the added errors that goes with statistics taken again",
                **{"unit": "%", "paper": "schneider2020", "place": "abstract", "paper_value": "much, other images"},
            )
        )
    table += [
        Statement(
            *(
                f"error-{norm}-clean",
                (f"real-{norm}",),
                mean("error_clean"),
                f"Test images as they are: errors, {told}",
            ),
            **{"unit": "%", "paper": "schneider2020"},
        )
        for norm, told in (("none", "no normalization"), ("bn", "BN"))
    ]
    return measure(table, cells, "covariate-shift", "santurkar2018")


def _plans(steps, linear_steps, real_steps, rates, linear_rates, real_rates, optimizers=tuple(OPTIMIZERS)):
    found = {}
    for optimizer in optimizers:
        for kind in KINDS:
            if optimizer == "sgd" or kind not in CONTROLS:
                setting = grid(kind=kind, optimizer=optimizer, lr=rates[optimizer])
                seeds = None if optimizer == "sgd" else FEWER
                found[f"noise-{optimizer}-{kind}"] = Plan("mnist5k", steps, setting, seeds=seeds)
    found["noise-sgd-none-slow"] = Plan("mnist5k", steps, like="noise-sgd-none", times={"lr": 0.1})
    for arm, (init, optimizer, norm) in LINEAR.items():
        setting = grid(init=init, optimizer=optimizer, norm=norm, lr=linear_rates[optimizer])
        found[arm] = Plan("generated", linear_steps, setting, seeds=FEWER)
        if optimizer == "sgd":
            setting = grid(init=init, optimizer=optimizer, norm=norm, lr=0.001)
            found[f"linear-{init}-fixed-{norm}"] = Plan("generated", linear_steps, setting, seeds=FEWER)
    for norm in ("none", "bn"):
        found[f"real-{norm}"] = Plan("mnist5k", real_steps, grid(norm=norm, lr=real_rates))
    return found


FULL = _plans(STEPS, STEPS, 400, RATES, LINEAR_RATES, REAL_RATES)
LITE = _plans(
    *(60, 60, 100, {"sgd": [0.1, 0.3]}, {"sgd": [3e-3, 0.1], "adam": [3e-3, 1e-2]}, [0.1]), optimizers=("sgd",)
)
SEEDS = {"seeds": tuple(range(11, 21)), "tuning_seeds": (1, 2)}
PRESETS = {
    "lite": Config(LITE, options={"batch": 128, "hidden": 10}, **SEEDS),
    "full": Config(FULL, options={"batch": 128, "hidden": 10}, **SEEDS),
}


def _line(arm):
    part, *rest = arm.split("-")
    if part == "noise":
        return f"{rest[0]}: {TOLD['-'.join(rest[1:])]}"
    if part == "linear":
        rate = "SGD at rate 0.001" if rest[1] == "fixed" else f"{rest[1]}, rate tuned"
        return f"25 linear layers, {rest[0]} weights, {rate}: {'BN' if rest[2] == 'bn' else 'no normalization'}"
    return f"three hidden layers, tested on changed images: {'BN' if rest[0] == 'bn' else 'no normalization'}"


ARMS = {arm: _line(arm) for arm in FULL}
