"""Conditioning: the mean direction of the inputs, and outliers of the Hessian of a small net with and without BN.

LeCun, Kanter & Solla (1991) on 5,000 Fashion images; channel means (Bjorck et al. 2018), Hessian outliers (Ghorbani
et al. 2019) and BN in the last layer (Karakida et al. 2019) on small ReLU nets with He's weights and plain SGD, on
the images averaged to 7 x 7 pixels, in float64.
"""

import copy
from functools import cache, partial

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from bnlib.data import load
from bnlib.nets import inits, models, probes
from bnlib.nets.inference import population
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded
from bnlib.page.figures import bands, look
from bnlib.theory.conditioning import KINDS, descent, prepare, second_moments, with_bias

from . import paired
from .core import Config, Measured, Plan, Statement, grid, known, measure

DATA = "fashion-mnist"
LOOKED = (0, 50)  # steps before which the Hessian is taken, and after the last one
WIDTHS = (64, 128, 256)  # of untrained nets
TOP = 10  # eigenvectors whose part of the gradient is asked for
ENDS = ("error", "error_running", "area")
CURVES = {"loss": 5, "width": 3, "taken": 3, "top": 4, "share": 4}  # column -> digits that the record keeps
STIFFER = 3.0  # least raw over centred ratio of the two largest eigenvalues


class Part(BatchNorm):
    """BN in plain torch operations, in parts: without its mean, without its scale, or with constant statistics."""

    def __init__(self, channels, centre=True, scale=True, detach=False):
        super().__init__(channels)
        self.centre, self.scale, self.detach = centre, scale, detach

    def forward(self, x):
        if self.training:
            mean = x.mean(0)
            var = (x - mean).square().mean(0)
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(var.detach() * len(x) / (len(x) - 1), self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        if self.detach:
            mean, var = mean.detach(), var.detach()
        x = x - mean if self.centre else x
        return self.gamma * (x * torch.rsqrt(var + self.eps) if self.scale else x) + self.beta


class Held(BatchNorm):
    """BN with statistics that are constants, in training too: those of the batch that `hold` was called with."""

    taking = False

    def forward(self, x):
        if self.taking:
            self.running_mean.copy_(x.detach().mean(0))
            self.running_var.copy_(x.detach().var(0, correction=0))
        return self.gamma * (x - self.running_mean) * torch.rsqrt(self.running_var + self.eps) + self.beta


NORMS = {
    "none": None,
    "bn": BatchNorm,
    "centre": partial(Part, scale=False),
    "scale": partial(Part, centre=False),
    "detached": partial(Part, detach=True),
    "held": Held,
}
NETS = {  # name -> what differs from a plain net, and in words
    "none": ({}, "without BN"),
    "bn": ({"norm": "bn"}, "with BN"),
    "centre": ({"norm": "centre"}, "BN's mean alone"),
    "scale": ({"norm": "scale"}, "BN's scale alone"),
    "frozen": (
        {"norm": "bn", "look": "held"},
        "trained with BN; its statistics are constants where the Hessian is taken",
    ),
    "held": ({"norm": "held"}, "BN with the training set's statistics of step 0, for ever"),
    "renewed": ({"norm": "held", "renew": 50}, "BN with the training set's statistics, taken every 50 steps"),
    "detached": ({"norm": "detached"}, "BN whose statistics carry no gradient; the Hessian is that of BN"),
    "dd": ({"init": "dd"}, "without BN, data-dependent init"),
    "inputs": ({"centred": True}, "without BN, the mean image taken off the inputs"),
    "last": ({"last": True}, "BN after the last layer alone"),
}
DEEP = ("none", "dd", "bn", "centre", "scale", "held", "renewed", "detached")
FISHER = {
    "none": "no BN",
    "middle": "BN in the hidden layers",
    "last": "BN after the last layer",
    "both": "BN in the hidden layers and after the last",
    "mean": "the mean alone, after the last layer",
}
DRAWN = ("images", "gaussian")
ARMS = {
    **{f"inputs-{kind}": f"5,000 images, {kind}: least squares by gradient descent" for kind in KINDS},
    **{f"net-{name}": f"49-32-32-32-10: {told}" for name, (_, told) in NETS.items()},
    **{f"deep-{name}": f"ten hidden layers: {NETS[name][1]}" for name in DEEP},
    **{f"fisher-{place}-{data}": f"untrained, {data}: {told}" for data in DRAWN for place, told in FISHER.items()},
}
RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]


@cache
def images(part):
    """Images averaged to 7 x 7 and their labels; one shift and one scale for all pixels."""
    found = load(DATA)
    x, labels = {"train": found[:2], "val": found[2:4]}[part]
    small = x[:5_000].reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49) / 255
    return torch.from_numpy((small - 0.286) / 0.353), torch.tensor(labels[:5_000]).long()


def build(sizes, seed, x, norm="none", init="he", last=False):
    """The net, in float64, in training mode; statistics that are held or used once are those of ``x``."""
    if isinstance(norm, str):
        known(norm, NORMS, "norm")
        norm = NORMS[norm]
    with seeded(seed):
        net = models.MLP(sizes, norm)
        inits.he(net)
    if last:
        net.append(BatchNorm(sizes[-1]))
    net = net.double().train()
    if init == "dd":
        inits.data_dependent(net, x)
    hold(net, x)
    return net


def hold(net, x):
    """Take the statistics of ``x`` into every `Held`, layer after layer."""
    found = [module for module in net.modules() if isinstance(module, Held)]
    for module in found:
        module.taking = True
    if found:
        with torch.no_grad():
            net(x)
    for module in found:
        module.taking = False


def looked_at(net, x, how=None):
    """A copy of the net as its Hessian is taken: statistics made constants, or given their gradient back."""
    net = copy.deepcopy(net).train()
    for block in (module for module in net.modules() if isinstance(module, models.Block)):
        if how == "held" and block.norm is not None:
            held = Held(block.norm.channels).to(x.dtype)
            held.gamma, held.beta = block.norm.gamma, block.norm.beta
            block.norm = held
        elif isinstance(block.norm, Part):
            block.norm.detach = False
    if how == "held":
        hold(net, x)
    return net


def curvature(net, x, labels, whole=False):
    """Largest eigenvalues of the Hessian of a net's loss and the part of the gradient in their eigenvectors.

    Returns
    -------
    dict
        ``top, tenth, share, first`` (of one eigenvector alone), ``size`` of the gradient, ``whole_loss``; with
        ``whole`` also ``spectrum``, all eigenvalues, descending, and ``lowest``.
    """
    weights = list(net.parameters())
    loss = cross_entropy(net(x), labels)
    gradient, product = probes.products(loss, weights)
    values, vectors = probes.leading(product, gradient, TOP)
    found = {"top": float(values[0]), "tenth": float(values[-1]), "whole_loss": float(loss.detach())}
    found |= {"share": probes.share(gradient, vectors), "first": probes.share(gradient, vectors[:, :1])}
    found |= {"size": float(gradient.norm())}
    if whole:
        spectrum = torch.linalg.eigvalsh(probes.hessian(cross_entropy(net(x), labels), weights)).flip(0)
        found |= {"spectrum": spectrum.tolist(), "lowest": float(spectrum[-1])}
    return found


def run(
    config,
    arm,
    seed,
    *,
    task="net",
    norm="none",
    init="he",
    lr=0.1,
    renew=None,
    look=None,
    centred=False,
    last=False,
    kind="raw",
    place="none",
    data="images",
):
    """One cell: least squares on images, a net with its Hessian, a deep net, or the Fisher matrix of untrained nets.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the images that are drawn, the weights and the order of the images.
    task : {"inputs", "net", "deep", "fisher"}
    norm : str or callable
        A name of `NORMS`, or a function that makes a normalizer for a number of units.
    init : {"he", "dd"}
    lr : float
    renew : int, optional
        Steps after which `Held` takes its statistics again.
    look : {"held"}, optional
        Make the statistics constants where the Hessian is taken.
    centred : bool
        Take the mean image off.
    last : bool
        BN after the last layer.
    kind : str
        Task "inputs": see `bnlib.theory.conditioning.prepare`.
    place : str
        Task "fisher": a key of `FISHER`.
    data : {"images", "gaussian"}
        Task "fisher".

    Returns
    -------
    list of dict
        A row per evaluation. Task "inputs": ``loss`` is the share of the excess that is left. Task "fisher": a row
        per width, which is its ``step``; ``loss`` is the largest eigenvalue, for outputs of variance 1 on average.
    """
    options, plan = config.options, config.arms[arm]
    if task == "inputs":
        return _inputs(plan.steps, seed, kind, options)
    if task == "fisher":
        return _fisher(plan.steps, seed, place, data)
    (x, labels), (val, val_labels) = images("train"), images("val")
    if centred:
        x, val = x - x.mean(0), val - x.mean(0)
    depth, width = (options["depth"] if task == "deep" else 3), options[f"{task}_width"]
    net = build([49, *[width] * depth, 10], seed, x[:2_000], norm, init, last)
    probed = plan.probed and seed not in config.tuning_seeds
    few, named = x[: options["hessian"]], labels[: options["hessian"]]

    def take():
        if task == "deep":
            return _sides(net, few, named, norm)
        return curvature(looked_at(net, few, look), few, named, arm in options["whole"] and seed == config.seeds[0])

    rng, rows, area = np.random.default_rng([seed, 6]), [], []
    for step in range(1, plan.steps + 1):
        seen = {"taken": step - 1, **take()} if probed and step - 1 in LOOKED else {}
        if renew and step > 1 and (step - 1) % renew == 0:
            hold(net, x[:2_000])
        chosen = torch.from_numpy(rng.choice(len(x), options["batch"], replace=False))
        loss = cross_entropy(net(x[chosen]), labels[chosen])
        area.append(float(loss.detach()))
        if not np.isfinite(area[-1]):
            end = {"val_loss": 1e9, "error": 90.0, "error_running": 90.0, "area": 1e9}
            return [*rows, {"step": step, "loss": float("nan"), **end}]
        loss.backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= lr * p.grad
                p.grad = None
        if step <= 20 or step % 10 == 0 or step == plan.steps or seen:
            rows.append({"step": step, "loss": area[-1], **seen})
    whole = population(net, x[:2_000].split(options["batch"])[:-1])
    with torch.no_grad():
        answers, running = whole(val), net.eval()(val)
    found = float(cross_entropy(answers, val_labels).nan_to_num(nan=1e9, posinf=1e9))
    rows[-1] |= {"val_loss": min(found, 1e9), "area": float(np.mean(area))}
    rows[-1] |= {"error": wrong(answers, val_labels), "error_running": wrong(running, val_labels)}
    net.train()
    if probed:
        rows[-1] |= {"taken": plan.steps, **take()}
    return rows


def wrong(answers, labels):
    """Error in %."""
    return 100 * float((answers.argmax(1) != labels).double().mean())


def _inputs(steps, seed, kind, options):
    found = load(DATA)
    chosen = np.random.default_rng([seed, 7]).choice(len(found.x_train), options["images"], replace=False)
    x = prepare(found.x_train[chosen].reshape(len(chosen), -1) / 255, kind)
    values = np.linalg.eigvalsh(second_moments(x))[::-1]
    S, targets = with_bias(x), np.eye(10)[found.y_train[chosen]]
    whole = np.hstack([x, np.ones((len(x), 1))])
    best = np.linalg.pinv(S, rcond=1e-10, hermitian=True) @ (whole.T @ targets / len(x))
    seen = sorted({*range(1, 21), *np.geomspace(1, steps, 30).round().astype(int).tolist()})
    left = descent(S, best, 1 / np.linalg.eigvalsh(S)[-1], [0, *seen])
    rows = [{"step": int(step), "loss": float(share)} for step, share in zip(seen, left[1:] / left[0], strict=True)]
    rows[-1] |= {"top": float(values[0]), "second": float(values[1]), "hundredth": float(values[99])}
    return rows


def _sides(net, x, labels, norm):
    found = probes.sides(net, lambda outputs: cross_entropy(outputs, labels), x)[:-1]
    seen = {f"{key}_{where}": found[i][key] for key in ("mean",) for where, i in (("first", 0), ("deepest", -1))}
    seen |= {key: float(np.mean([layer[key] for layer in found[1:]])) for key in ("aligned", "along")}
    if norm == "detached":
        seen |= {f"cosine_{k}": value for k, value in enumerate(cosines(net, x, labels), 1)}
    return seen


def cosines(net, x, labels):
    """Cosine of what the net's weights are told and of the gradient of BN's loss, layer by layer."""
    told = []
    for one in (net, looked_at(net, x)):
        weights = [layer.weight for layer in inits.layers(one)]
        told.append(torch.autograd.grad(cross_entropy(one(x), labels), weights))
    return [float((a * b).sum() / (a.norm() * b.norm())) for a, b in zip(*told, strict=True)]


def _fisher(steps, seed, place, data):
    known(place, FISHER, "place")
    rows = []
    for step, width in enumerate(WIDTHS[:steps], 1):  # as many samples as units
        if data == "images":
            x = images("train")[0]
            x = x[np.random.default_rng([seed, 8]).choice(len(x), width, replace=False)]
        else:
            x = torch.from_numpy(np.random.default_rng([seed, 8]).normal(size=(width, 49)))
        net = build([49, width, width, width, 10], seed, x, "bn" if place in ("middle", "both") else "none")
        if place in ("last", "both", "mean"):
            net.append((Part(10, scale=False) if place == "mean" else BatchNorm(10)).double())
        weights = [layer.weight for layer in inits.layers(net)]
        outputs = net.train()(x)
        outputs = outputs / outputs.detach().var(0, correction=0).mean().sqrt()  # one number: all nets alike in scale
        product = probes.fisher(outputs, weights)
        like = torch.cat([w.detach().flatten() for w in weights])
        values, _ = probes.leading(product, like, 2)
        rows.append({"step": step, "width": width, "loss": float(values[0]), "second": float(values[1])})
    return rows


def summarize(rows):
    """The numbers of one cell; of a net at the start, early and at the end of training."""
    last = rows[-1]
    if "hundredth" in last:
        by_step = {row["step"]: row["loss"] for row in rows}
        found = {"score": -last["loss"], "left": last["loss"], "ratio": last["top"] / last["second"]}
        return found | {key: last[key] for key in ("top", "second", "hundredth")} | {"left_10": by_step[10]}
    if "width" in last:
        found = {"score": 0.0, "growth": last["loss"] / rows[0]["loss"]}
        return found | {"top": last["loss"], "gap": last["loss"] / last["second"]}
    found = {"score": -last["val_loss"], **{key: last[key] for key in ENDS}}
    for when, row in zip(("start", "early", "late"), (row for row in rows if "taken" in row), strict=False):
        keys = set(row) - {"step", "loss", "taken", "spectrum", "val_loss", *ENDS}
        found |= {f"{key}_{when}": row[key] for key in sorted(keys)}
    return found


def draw(rows, ax):
    """Part of the gradient in the ten leading eigenvectors, the mean over the seeds and their range."""
    rows = rows[~rows["tuning"] & (rows["arm"].isin(LOOKS) | ~rows["arm"].isin(ARMS))].dropna(subset="share")
    bands(ax, rows, "share", LOOKS, x="taken")
    ax.set(xlabel="step", ylabel="share of the gradient", ylim=(0, 1))


LOOKS = {
    "net-none": {"label": "without BN", **look("none")},
    "net-bn": {"label": "BN", **look("batchnorm")},
    "net-centre": {"label": "BN's mean alone", **look("variant")},
    "net-frozen": {"label": "BN, statistics held", **look("batchnorm"), "linestyle": ":"},
}


def ratio(column):
    """Geometric mean of the ratio of two arms, paired by seed."""

    def found(one, other):
        return paired.ratio(*([(v, True) for v in cells[column]] for cells in (one, other)))

    return found


def mean(column, factor=1.0):
    """Mean over the seeds; the interval is from the smallest to the largest."""

    def found(cells):
        values = factor * cells[column].to_numpy(float)
        return Measured(float(values.mean()), (float(values.min()), float(values.max())))

    return found


def claims(cells):
    """The stiffest direction of the inputs, outliers and the gradient's part in them, deep nets, the last layer."""
    stiff = {"place": "eigenvalues of the inputs' covariance", "paper_value": "a mean adds one large eigenvalue"}
    table = [
        Statement(
            *("stiffest", ("inputs-raw", "inputs-centred"), ratio("ratio")),
            "5,000 Fashion images: largest over second eigenvalue, raw over centred",
            **stiff | {"threshold": STIFFER, "paper": "lecun1991"},
        )
    ]
    lecun = {"paper": "lecun1991"}
    for kind in KINDS:
        arm = (f"inputs-{kind}",)
        table += [
            Statement(f"top-{kind}", arm, mean("top"), f"Images {kind}: largest eigenvalue", unit="", **lecun),
            Statement(f"ratio-{kind}", arm, mean("ratio"), f"Images {kind}: largest over second eigenvalue", **lecun),
            Statement(
                *(f"left-{kind}", arm, mean("left", 100)),
                f"Images {kind}: excess loss that is left after {{steps}} steps of rate 1 / largest eigenvalue",
                **lecun | {"unit": "%"},
            ),
        ]
    times = {"start": "before training", "early": "after 50 steps", "late": "after {steps} steps"}
    for name, (_, told) in NETS.items():
        for when, time in times.items():
            arm = (f"net-{name}",)
            told_by = {"place": "Hessian eigenvalue density"} if name in ("none", "bn", "frozen", "renewed") else {}
            table += [
                Statement(
                    *(f"top-{name}-{when}", arm, mean(f"top_{when}")),
                    f"Largest eigenvalue of the Hessian, {time}: {told}",
                    **told_by | {"unit": ""},
                ),
                Statement(
                    *(f"share-{name}-{when}", arm, mean(f"share_{when}", 100)),
                    f"The gradient's part in the ten leading eigenvectors, {time}: {told}",
                    **told_by | {"unit": "%"},
                ),
            ]
        table.append(
            Statement(
                f"net-area-{name}", (f"net-{name}",), mean("area"), f"Mean loss of {{steps}} steps: {told}", unit=""
            )
        )
    bjorck = {"paper": "bjorck2018", "place": "channel means and gradients"}
    for name in DEEP:
        told, arm = NETS[name][1], (f"deep-{name}",)
        table += [
            Statement(
                *(f"deep-error-{name}", arm, mean("error")),
                f"Ten hidden layers, validation error after {{steps}} steps at the best rate: {told}",
                unit="%",
            ),
            Statement(
                *(f"deep-area-{name}", arm, mean("area")),
                f"Ten hidden layers, mean loss of {{steps}} steps at the best rate: {told}",
                unit="",
            ),
        ]
        table += [
            Statement(
                *(f"{key}-{name}", arm, mean(f"{column}_start", factor)),
                f"Ten hidden layers before training, {words}: {told}",
                **bjorck | {"unit": unit},
            )
            for key, column, factor, unit, words in (
                ("means", "mean_deepest", 1, "", "means of the units over standard deviations, layer 10"),
                ("aligned", "aligned", 100, "%", "absolute gradient over its samples' absolute gradients"),
                ("along", "along", 1, "", "squared gradient from the mean input over the whole squared gradient"),
            )
        ]
    table += [
        Statement(
            *(f"deep-running-{name}", (f"deep-{name}",), mean("error_running")),
            f"The same error with running statistics: {NETS[name][1]}",
            unit="%",
        )
        for name in ("bn", "detached")
    ]
    table += [
        Statement(
            *(f"cosine-{k}", ("deep-detached",), mean(f"cosine_{k}_start")),
            f"Ten hidden layers before training, weights of layer {k}: cosine of the two gradients, without and "
            "with that of the statistics",
            **{"unit": "", "paper": "santurkar2018"},
        )
        for k in (1, 5, 10, 11)
    ]
    karakida = {"paper": "karakida2019", "place": "Fisher information of wide random nets"}
    for data in DRAWN:
        table += [
            Statement(
                *(f"fisher-{place}-{data}", (f"fisher-{place}-{data}", f"fisher-none-{data}"), ratio("top")),
                f"Largest eigenvalue of the Fisher matrix at the largest width, {data}: {told} over none",
                **karakida,
            )
            for place, told in FISHER.items()
            if place != "none"
        ]
        table += [
            Statement(
                *(f"growth-{place}-{data}", (f"fisher-{place}-{data}",), mean("growth")),
                f"The same eigenvalue, largest over smallest width (a factor of 4), {data}: {told}",
                **karakida,
            )
            for place, told in FISHER.items()
        ]
    return measure(table, cells, "conditioning", "ghorbani2019")


def _plans(scale, deep_rates):
    plans = {f"inputs-{kind}": Plan(DATA, scale["inputs"], grid(task="inputs", kind=kind)) for kind in KINDS}
    for name, (changed, _) in NETS.items():
        plans[f"net-{name}"] = Plan(DATA, scale["net"], grid(task="net", **changed, lr=0.1), probed=True)
    for name in DEEP:
        changed = grid(task="deep", **NETS[name][0], lr=deep_rates)
        plans[f"deep-{name}"] = Plan(DATA, scale["deep"], changed, probed=True)
    for data in DRAWN:
        for place in FISHER:
            settings = grid(task="fisher", place=place, data=data)
            plans[f"fisher-{place}-{data}"] = Plan(DATA, scale["widths"], settings)
    return plans


OPTIONS = {"batch": 128, "images": 5_000, "net_width": 32, "deep_width": 50, "depth": 10, "hessian": 500}
OPTIONS |= {"whole": ("net-none", "net-bn", "net-centre", "net-frozen")}  # arms whose whole spectrum is kept
LITE = {"deep_width": 24, "images": 2_000, "whole": ()}
PRESETS = {
    "lite": Config(
        _plans({"inputs": 300, "net": 60, "deep": 60, "widths": 1}, [0.03, 0.1, 0.3]),
        (11, 12, 13, 14, 15),
        (1, 2),
        options=OPTIONS | LITE,
    ),
    "full": Config(
        _plans({"inputs": 1_000, "net": 400, "deep": 200, "widths": 3}, RATES),
        (11, 12, 13, 14, 15),
        (1, 2),
        {"spectrum": 150},
        OPTIONS,
    ),
}
