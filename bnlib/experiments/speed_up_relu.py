"""The speed-up map for nets that are not of sigmoids: tanh and ReLU MLPs over depth, init and optimizer."""

from .core import Config, Statement, measure
from .paired import difference, ratio
from .speed_up_map import OPTIONS, RACE, draw, lines, plans, run, summarize

__all__ = ["ARMS", "PRESETS", "claims", "draw", "run", "summarize"]

DEPTHS = (5, 10, 20)
INITS = {"relu": ("he", "dd"), "tanh": ("xavier", "dd")}
RATES = {"sgd": [0.01, 0.03, 0.1, 0.3, 1.0, 3.0], "adam": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]}
LOWER = {20: {"sgd": [0.001, 0.003]}}  # as in `speed_up_map`
FULL = {
    arm: plan
    for activation, starts in INITS.items()
    for arm, plan in plans(
        activation, DEPTHS, starts, tuple(RATES), RATES, again=("plain", "bn"), lower=LOWER
    ).items()
}
LITE = plans("relu", (5,), ("he", "dd"), ("sgd",), {"sgd": [0.03, 0.1, 0.3]}, "mnist5k", lambda depth: 400)
ARMS = lines(FULL)
CURVES = {"accuracy": 3}  # what a recorded curve keeps, to so many digits
PRESETS = {
    "lite": Config(LITE, seeds=(31, 32, 33), tuning_seeds=(3, 4), options=OPTIONS),
    "full": Config(FULL, seeds=(11, 12, 13), tuning_seeds=(1, 2), options=OPTIONS, race=RACE),
}


def claims(cells):
    """The ratios of steps over the depths, naive and tuned. Arms that were not run give none."""

    def steps(level):
        def reached(part):
            return list(zip(part[f"steps_{level}"], part[f"reached_{level}"], strict=True))

        return lambda slow, fast: ratio(reached(slow), reached(fast))

    def points(plain, bn):
        return difference(100 * bn["best"], 100 * plain["best"])

    table = []
    for activation, (start, _) in INITS.items():
        for depth in DEPTHS:
            net, words = f"{activation}-{depth}", f"{depth} layers of {activation.replace('relu', 'ReLU')}"
            naive = [f"{net}-{start}-sgd-{norm}" for norm in ("plain", "bn")]
            tuned = (f"{net}-plain", f"{net}-bn")
            fixed = {"threshold": (None, 3.0)} if activation == "relu" and depth <= 10 else {}
            many = f"without BN this many times BN's steps to 80 %, {words}"
            start_words = f"{start.title()}'s start and SGD on both sides"
            table += [
                Statement(f"naive-{net}", naive, steps("80%"), f"{start_words}: {many}", **fixed),
                Statement(
                    f"tuned-{net}", tuned, steps("80%"), f"Init, optimizer and rate tuned on both sides: {many}"
                ),
                Statement(
                    f"tuned-85-{net}",
                    tuned,
                    steps("85%"),
                    f"Init, optimizer and rate tuned on both sides: {many.replace('80', '85')}",
                ),
                Statement(
                    f"dd-{net}",
                    (f"{net}-dd", tuned[1]),
                    steps("80%"),
                    f"No BN and started from data, optimizer and rate tuned on both sides: {many}",
                ),
                Statement(
                    *(f"end-{net}", tuned, points),
                    *(f"Highest accuracy within {{steps}} steps, BN minus none, tuned for speed, {words}", "points"),
                ),
            ]
            for norm in ("plain", "bn"):
                told = f"A/A: {norm} tuned against itself with other seeds, ratio of steps to 80 %, {words}"
                table.append(
                    Statement(f"again-{net}-{norm}", (f"{net}-{norm}", f"{net}-{norm}-again"), steps("80%"), told)
                )
    return measure(table, cells, "speed-up-relu", "ioffe2015")
