"""Section 4.1 of Ioffe & Szegedy (2015): a sigmoid MLP with and without BN, beside baselines tuned as hard as BN.

The paper's net is 784-100-100-100-10 on binary MNIST with batches of 60, 50,000 steps and "small random Gaussian"
weights. It gives no learning rate, no standard deviation of the weights and no eps: here they are a grid, 0.1, 1e-5.
"""

import time
from functools import cache

import numpy as np

from bnlib.data import load
from bnlib.page.figures import bands, look
from bnlib.scratch import inits
from bnlib.scratch.layers import BatchNorm, Sigmoid
from bnlib.scratch.network import fit, mlp
from bnlib.scratch.optimizers import SGD, Adam, Momentum

from .core import ANALOGUE, SAME, Config, Plan, Statement, grid, measure, named
from .paired import difference, ratio, smooth, steps_to

ARMS = {
    "plain": "no normalization, weights N(0, 0.1²), SGD",
    "bn": "the same with BN",
    "gain4": "no normalization, Xavier weights times 4 and centred biases, SGD",
    "dd": "no normalization, weights and biases set from one batch before step 0, SGD",
    "bn-gain4": "BN, Xavier weights times 4 and centred biases, SGD",
    "plain-tuned": "no normalization, the best of three inits and three optimizers",
    "bn-tuned": "BN, the best of three inits and three optimizers",
    "plain-again": "plain once more with other seeds",
    "bn-again": "bn once more with other seeds",
    "plain-long": "plain for 50,000 steps",
    "bn-long": "bn for 50,000 steps",
    "mnist-plain": "the paper's setting without BN, learning rate 0.1",
    "mnist-bn": "the paper's setting with BN, learning rate 0.1",
    "mnist-dd": "the paper's setting without BN, started from data, learning rate 0.1",
    "mnist-gain4": "the paper's net without BN, gain 4, learning rate 0.1, 3,000 steps",
    "mnist-plain-best": "the paper's net without BN at its best learning rate, 15,000 steps",
    "mnist-bn-best": "the paper's net with BN at its best learning rate, 15,000 steps",
    "clock": "milliseconds of a step without and with BN, in turns",
}
NORMS = {"none": None, "bn": BatchNorm}
INITS = {
    "gaussian": lambda net, images, rng: inits.gaussian(net, 0.1, rng),
    "xavier": lambda net, images, rng: None,  # as `mlp` makes it
    "gain4": lambda net, images, rng: inits.sigmoid_gain(net),
    "dd": lambda net, images, rng: inits.data_dependent(net, images[rng.choice(len(images), 512, replace=False)]),
}
OPTIMIZERS = {"sgd": SGD, "momentum": Momentum, "adam": Adam}
RATES = {
    "sgd": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "momentum": [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0],
    "adam": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
}
LEVELS = (0.8, 0.9, 0.95)
HORIZON = 3_000  # steps, of the Fashion-MNIST runs and of the drift
DRIFTS = 200  # step from which the drift is measured


def _sgd(norm, init, rates=RATES["sgd"]):
    return grid(norm=norm, init=init, optimizer="sgd", lr=rates)


def _tuned(norm, starts):
    return tuple(s for name, rates in RATES.items() for s in grid(norm=norm, init=starts, optimizer=name, lr=rates))


def _fashion(*settings, **others):
    return Plan("fashion-mnist", **{"steps": HORIZON, "settings": sum(settings, ()), **others})


AGAIN = (21, 22, 23, 24, 25)
MIDDLE = [0.1, 0.3, 1.0, 3.0, 10.0]  # a shorter grid for longer runs
FULL = {
    "plain": _fashion(_sgd("none", "gaussian"), curves=True),
    "bn": _fashion(_sgd("bn", "gaussian"), curves=True),
    "gain4": _fashion(_sgd("none", "gain4"), curves=True),
    "dd": _fashion(_sgd("none", "dd"), curves=True),
    "bn-gain4": _fashion(_sgd("bn", "gain4"), curves=True),
    "plain-tuned": _fashion(_tuned("none", ["gaussian", "gain4", "dd"])),
    "bn-tuned": _fashion(_tuned("bn", ["gaussian", "gain4", "xavier"])),
    "plain-again": _fashion(like="plain", seeds=AGAIN),
    "bn-again": _fashion(like="bn", seeds=AGAIN),
    "plain-long": _fashion(like="plain", steps=50_000),
    "bn-long": _fashion(like="bn", steps=50_000),
    "mnist-plain": Plan("mnist", 50_000, _sgd("none", "gaussian", 0.1), probed=True),
    "mnist-bn": Plan("mnist", 50_000, _sgd("bn", "gaussian", 0.1), probed=True),
    "mnist-dd": Plan("mnist", 50_000, _sgd("none", "dd", 0.1), probed=True),
    "mnist-gain4": Plan("mnist", HORIZON, _sgd("none", "gain4", 0.1), probed=True),
    "mnist-plain-best": Plan("mnist", 15_000, _sgd("none", "gaussian", MIDDLE)),
    "mnist-bn-best": Plan("mnist", 15_000, _sgd("bn", "gaussian", MIDDLE)),
    "clock": Plan("mnist", 2_000, _sgd("none", "gaussian", 0.1), alone=True),
}
SHORT = [0.1, 0.3, 1.0, 3.0, 10.0]
LITE = {
    "plain": Plan("mnist5k", 1_000, _sgd("none", "gaussian", SHORT)),
    "bn": Plan("mnist5k", 1_000, _sgd("bn", "gaussian", SHORT)),
    "dd": Plan("mnist5k", 1_000, _sgd("none", "dd", SHORT)),
    "mnist-plain": Plan("mnist5k", 1_500, _sgd("none", "gaussian", 0.1), probed=True),
    "mnist-bn": Plan("mnist5k", 1_500, _sgd("bn", "gaussian", 0.1), probed=True),
}
# What a recorded file keeps of the lists measured in a cell: the percentiles of twelve units, all of the others.
ARRAYS = {"p15": 12, "p50": 12, "p85": 12, "saturated": 3, "histogram": 30, "unit_drift": 100}
# ``goal``: the accuracy to which a cell's score counts the steps; on other data the score is the final accuracy.
OPTIONS = {"batch": 60, "validation_images": 2_000, "goal": {"fashion-mnist": 0.8, "mnist5k": 0.8}}
PRESETS = {
    "lite": Config(LITE, seeds=(31, 32, 33), tuning_seeds=(3, 4), arrays=ARRAYS, options=OPTIONS),
    "full": Config(FULL, seeds=(11, 12, 13, 14, 15), tuning_seeds=(1, 2), arrays=ARRAYS, options=OPTIONS),
}


def run(config, arm, seed, *, norm="none", init="gaussian", optimizer="sgd", lr=0.1):
    """Train one net and measure it on the way.

    Parameters
    ----------
    config : Config
    arm : str
    seed : int
        Of the weights and of the order of the samples, so that arms are paired. A tuning seed is measured on
        validation images, a confirming seed on test images.
    norm : {"none", "bn"} or callable
        ``norm(channels)`` gives a layer.
    init : {"gaussian", "xavier", "gain4", "dd"} or callable
        ``init(net, images, rng)`` changes a net with Xavier's weights in place.
    optimizer : {"sgd", "momentum", "adam"} or callable
        ``optimizer(lr)`` gives an object with a method ``step(net)``.
    lr : float

    Returns
    -------
    list of dict
        A row per evaluation: ``step, loss, accuracy``, and what `Probe` measures. The last one has ``score`` too.
    """
    plan, options = config.arms[arm], config.options
    train, validation, test = images(plan.dataset)
    if plan.alone:
        return _clock(train, plan.steps, options["batch"], lr, seed)
    net = mlp([784, 100, 100, 100, 10], seed=seed, norm=named(NORMS, norm))
    named(INITS, init)(net, train[0], np.random.default_rng([seed, 1]))
    tuning = seed in config.tuning_seeds
    held_out = tuple(part[: options["validation_images"]] for part in validation) if tuning else test
    probe = Probe(held_out[0][:1000], plan.steps) if plan.probed and not tuning else None
    with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is a result
        rows = fit(
            *(net, *train),
            lr=lr,
            steps=plan.steps,
            validation=held_out,
            batch=options["batch"],
            every=evaluations(plan.steps),
            seed=seed,
            optimizer=named(OPTIMIZERS, optimizer),
            probe=probe,
            progress=False,
        )
    if rows[-1]["step"] < plan.steps:  # diverged: at chance to the end
        rows.append(dict(rows[-1], step=plan.steps))
    probed = [row for row in rows if "p50" in row]
    if probed and probed[-1]["step"] >= DRIFTS:
        rows[-1]["unit_drift"] = drift(probed, HORIZON).tolist()
    rows[-1]["score"] = _score(rows, options["goal"].get(plan.dataset))
    return rows


@cache
def images(dataset):
    """Inputs (N, 784), float32, and labels, for training, validation and test: MNIST binary, Fashion-MNIST grey."""

    def flat(part):
        part = part.reshape(len(part), -1)
        return (part / np.float32(255)) if dataset == "fashion-mnist" else (part > 127).astype(np.float32)

    return load(dataset).pairs(flat)


def evaluations(steps):
    """Steps to evaluate at: the first 20, every 5 to 165, then 3 % apart, and every 100 to `HORIZON`."""
    apart = np.geomspace(165, max(steps, 166), 1 + round(np.log(max(steps, 166) / 165) / 0.03)).round().astype(int)
    chosen = {*range(1, 21), *range(25, 166, 5), *apart.tolist(), *range(200, HORIZON + 1, 100)}
    return sorted(step for step in chosen if step <= steps)


class Probe:
    """Looks into a net in evaluation mode, on held-out inputs (N, 784), every 100 steps, later at steps 15 % apart.

    Gives lists: the percentiles ``p15, p50, p85`` of the input of the last sigmoid, unit by unit; of the output of
    each hidden layer, the share ``saturated``, nearer than 0.05 to 0 or 1, and a ``histogram`` of ten bins.
    """

    def __init__(self, inputs, steps):
        self.inputs = inputs
        late = np.geomspace(HORIZON, max(steps, HORIZON), 22)
        every = np.array(evaluations(steps))
        self.steps = {1, *range(100, HORIZON + 1, 100), *(int(every[np.abs(every - step).argmin()]) for step in late)}

    def __call__(self, net, step):
        if step not in self.steps:
            return {}
        values = net.activations(self.inputs)
        sigmoids = [i for i, layer in enumerate(net.layers) if isinstance(layer, Sigmoid)]
        hidden = [values[i + 1] for i in sigmoids]
        percentiles = np.percentile(values[sigmoids[-1]], [15, 50, 85], axis=0)
        shares = [np.histogram(h, 10, (0, 1))[0] / h.size for h in hidden]
        return {
            **{name: row.tolist() for name, row in zip(("p15", "p50", "p85"), percentiles, strict=True)},
            "saturated": [float(((h < 0.05) | (h > 0.95)).mean()) for h in hidden],
            "histogram": np.concatenate(shares).tolist(),
        }


def drift(rows, last):
    """How far the median of each unit's sigmoid input moves, in units of its own spread, as array (units,).

    (Highest - lowest 50th percentile) / (mean of 85th - 15th percentile), over the probes from `DRIFTS` to ``last``.
    """
    p15, p50, p85 = (np.array([r[p] for r in rows if DRIFTS <= r["step"] <= last]) for p in ("p15", "p50", "p85"))
    return np.ptp(p50, 0) / (p85 - p15).mean(0)


def summarize(rows):
    """The numbers of one cell: steps to each of `LEVELS` and whether it was reached, accuracies, drift, score."""
    if "plain_ms" in rows[0]:
        return {name: float(np.median([row[name] for row in rows])) for name in ("plain_ms", "bn_ms")}
    steps, accuracy = [row["step"] for row in rows], [row["accuracy"] for row in rows]
    summary = {
        "score": rows[-1]["score"],
        "best": float(smooth(accuracy).max()),
        "final": float(smooth(accuracy)[-1]),
    }
    for level in LEVELS:
        summary[f"steps_{level:.0%}"], summary[f"reached_{level:.0%}"] = steps_to(level, steps, accuracy)
    probed = [row for row in rows if "p50" in row]
    if probed and probed[-1]["step"] >= DRIFTS:
        summary |= {"drift": float(np.median(drift(probed, HORIZON)))}
        summary |= {"drift_whole": float(np.median(drift(probed, steps[-1])))}
    return summary


def draw(rows, ax):
    """Accuracy against steps: one curve for each arm, its band the range over the confirming seeds."""
    bands(ax, rows[~rows["tuning"]], "accuracy", LOOKS)
    ax.set(xscale="log", xlabel="training step (log axis)", ylabel="accuracy")


def claims(cells):
    """The statements of section 4.1, and the same numbers for the controls. Arms that were not run give none."""

    def steps(level):
        def reached(part):
            return list(zip(part[f"steps_{level}"], part[f"reached_{level}"], strict=True))

        return lambda slow, fast: ratio(reached(slow), reached(fast))

    def of(column):
        return lambda high, low: ratio([(v, True) for v in high[column]], [(v, True) for v in low[column]])

    def points(column):
        return lambda low, high: difference(100 * high[column], 100 * low[column])

    def cost(clock):
        return ratio(*([(ms, True) for ms in clock[name]] for name in ("bn_ms", "plain_ms")))

    def seconds(slow, fast, clock):
        slow = slow.assign(**{"steps_80%": slow["steps_80%"] * clock["plain_ms"].median()})
        return steps("80%")(slow, fast.assign(**{"steps_80%": fast["steps_80%"] * clock["bn_ms"].median()}))

    curve = {"place": "section 4.1, Fig. 1a", "paper_value": "drawn, no number"}
    fan = {"place": "section 4.1, Fig. 1b and 1c", "paper_value": "drawn, no number"}
    # the paper's own data, net and steps; the lite scale has other data, and can only agree or disagree
    same = {"fidelity": SAME if "mnist" in set(cells["dataset"]) else ANALOGUE}
    plain, mnist, tuned = ("plain", "bn"), ("mnist-plain", "mnist-bn"), ("plain-tuned", "bn-tuned")
    start = "Without BN, started from data"
    gain = "Without BN, weights times 4 and centred biases"
    many = "it takes this many times the steps to"
    table = [
        # what the paper shows
        Statement(
            *("speed", plain, steps("80%")),
            f"Without BN {many} 80 % (weights N(0, 0.1²), SGD, each at its best rate)",
            **{**curve, "threshold": 2.0},
        ),
        Statement(
            *(
                "max",
                plain,
                points("best"),
                "Highest accuracy within {steps} steps, BN minus none",
                "points",
            ),
            **{**curve, "threshold": 0.0},
        ),
        Statement(
            *("accuracy", mnist, points("final")),
            *("With BN the accuracy after {steps} steps is higher by (learning rate 0.1)", "points"),
            **{**curve, **same, "threshold": 0.0},
        ),
        Statement(
            *("drift", mnist, of("drift")),
            "Without BN the sigmoid's input drifts this many times as far (steps 200 to 3,000, learning rate 0.1)",
            **{**fan, **same, "threshold": 2.0},
        ),
        *(
            Statement(
                f"steps-mnist-{level[:2]}",
                *(mnist, steps(level), f"Without BN {many} {level[:2]} % on MNIST (learning rate 0.1)"),
                **{**curve, **same},
            )
            for level in ("80%", "90%", "95%")
        ),
        Statement(
            *("drift-long", mnist, of("drift_whole")),
            "Without BN the sigmoid's input drifts this many times as far over all {steps} steps",
            **{**fan, **same},
        ),
        # steps where something else was tuned, and where nothing differs
        Statement("speed-gain4", ("gain4", "bn"), steps("80%"), f"{gain}: this many times BN's steps to 80 %"),
        Statement("speed-dd", ("dd", "bn"), steps("80%"), f"{start}: this many times BN's steps to 80 %"),
        Statement(
            *("speed-tuned", tuned, steps("80%")),
            "Best net without BN against best net with it, init, optimizer and rate tuned: ratio of steps to 80 %",
        ),
        Statement(
            *("speed-again", ("plain", "plain-again"), steps("80%")),
            "A/A: the net without BN against itself with other seeds, ratio of steps to 80 %",
        ),
        Statement(
            *("speed-again-bn", ("bn", "bn-again"), steps("80%")),
            "A/A: the net with BN against itself with other seeds, ratio of steps to 80 %",
        ),
        Statement(
            *("steps-mnist-dd", ("mnist-dd", "mnist-bn"), steps("95%")),
            f"{start}: this many times BN's steps to 95 % on MNIST (learning rate 0.1)",
        ),
        Statement(
            *("steps-mnist-best", ("mnist-plain-best", "mnist-bn-best"), steps("95%")),
            f"Without BN {many} 95 % on MNIST, each at its best rate",
        ),
        # seconds, in our NumPy code
        Statement(
            *("step-cost", ("clock",), cost),
            "A step with BN takes this many times the milliseconds of a step without (our NumPy code)",
        ),
        Statement(
            *("seconds-plain", (*plain, "clock"), seconds),
            "Without BN it takes this many times the seconds to 80 % (weights N(0, 0.1²), SGD; our NumPy code)",
        ),
        Statement(
            *("seconds-dd", ("dd", "bn", "clock"), seconds),
            f"{start}: this many times BN's seconds to 80 % (our NumPy code)",
        ),
        Statement(
            *("seconds-tuned", (*tuned, "clock"), seconds),
            "Best net without BN against best net with it: ratio of seconds to 80 % (our NumPy code)",
        ),
        # accuracy, BN minus the other
        *(
            Statement(
                f"max-{name}",
                arms,
                points("best"),
                f"Highest accuracy within {{steps}} steps, BN minus {other}",
                "points",
            )
            for name, arms, other in (
                ("gain4", ("gain4", "bn"), "weights times 4 and centred biases, without BN"),
                ("dd", ("dd", "bn"), "a start from data without BN"),
                ("tuned", tuned, "none, everything tuned for speed on both sides"),
                ("long", ("plain-long", "bn-long"), "none, each at its best rate of the shorter run"),
            )
        ),
        Statement(
            *("accuracy-dd", ("mnist-dd", "mnist-bn"), points("final")),
            *(
                "Accuracy on MNIST after {steps} steps, BN minus a start from data without BN (learning rate 0.1)",
                "points",
            ),
        ),
        Statement(
            *("accuracy-best", ("mnist-plain-best", "mnist-bn-best"), points("final")),
            *("Accuracy on MNIST after {steps} steps, BN minus none, each at its best rate", "points"),
        ),
        # drift
        Statement("drift-gain4", ("mnist-gain4", "mnist-bn"), of("drift"), f"{gain}: this many times BN's drift"),
        Statement("drift-dd", ("mnist-dd", "mnist-bn"), of("drift"), f"{start}: this many times BN's drift"),
    ]
    return measure(table, cells, "sigmoid-mlp", "ioffe2015")


# How `draw` shows the arms: grey without BN, blue with it, the line style says the rest.
LOOKS = {
    "plain": {"label": "no BN", **look("none")},
    "untuned": {"label": "no BN, rate 0.1", **look("none")},
    "adam": {"label": "no BN, Adam", **look("none"), "linestyle": "-."},
    "bn-again": {"label": "BN again", **look("batchnorm"), "linestyle": ":"},
    "mnist-plain": {"label": "no BN", **look("none")},
    "mnist-plain-best": {"label": "no BN, best rate", **look("none"), "linestyle": ":"},
    "plain-long": {"label": "no BN", **look("none")},
    "plain-tuned": {"label": "no BN, all tuned", **look("none"), "linestyle": (0, (1, 1))},
    "gain4": {"label": "no BN, gain 4", **look("none"), "linestyle": "-."},
    "mnist-gain4": {"label": "no BN, gain 4", **look("none"), "linestyle": "-."},
    "dd": {"label": "no BN, started from data", **look("none"), "linestyle": "-"},
    "mnist-dd": {"label": "no BN, started from data", **look("none"), "linestyle": "-"},
    "bn": {"label": "BN", **look("batchnorm")},
    "mnist-bn": {"label": "BN", **look("batchnorm")},
    "mnist-bn-best": {"label": "BN, best rate", **look("batchnorm"), "linestyle": ":"},
    "bn-long": {"label": "BN", **look("batchnorm")},
    "bn-tuned": {"label": "BN, all tuned", **look("batchnorm"), "linestyle": (0, (1, 1))},
    "bn-gain4": {"label": "BN, gain 4", **look("batchnorm"), "linestyle": "-."},
}


def _score(rows, goal):
    """Higher is better: minus the steps to the goal, worse than all of them where it was missed; or the accuracy."""
    accuracy = [row["accuracy"] for row in rows]
    if goal is None:
        return float(smooth(accuracy)[-1])
    step, reached = steps_to(goal, [row["step"] for row in rows], accuracy)
    return -step if reached else -step * (2 - float(smooth(accuracy).max()))


def _clock(train, steps, batch, lr, seed):
    """Time nets without and with BN in turns of a hundred steps, in milliseconds a step."""
    nets = {name: mlp([784, 100, 100, 100, 10], seed, norm=norm) for name, norm in NORMS.items()}
    rows, few = [], tuple(part[:60] for part in train)
    for turn in range(steps // 100):
        row = {"step": 100 * (turn + 1)}
        for name, net in nets.items():
            start = time.perf_counter()
            options = {"steps": 100, "validation": few, "batch": batch, "every": 100, "seed": seed + turn}
            fit(net, *train, lr=lr, progress=False, **options)
            row["bn_ms" if name == "bn" else "plain_ms"] = 10 * (time.perf_counter() - start)
        rows.append(row)
    return rows
