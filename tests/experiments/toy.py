"""An experiment without training, whose scores are known beforehand. It notes every cell that it computes."""

from bnlib.experiments.core import ANALOGUE, Claim, Config, Plan, grid
from bnlib.experiments.paired import difference

CALLS = []
ARMS = {"wide": "a grid", "fixed": "one setting", "again": "wide with other seeds", "timed": "alone"}
PRESETS = {
    "full": Config(
        {
            "timed": Plan("mnist5k", 300, grid(lr=7.0), alone=True),
            "wide": Plan("mnist5k", 50, grid(lr=[0.1, 1.0, 10.0], width=[1, 2, 3], word=["a", "b"])),
            "fixed": Plan("mnist5k", 100, grid(lr=1.0, width=2)),
            "again": Plan("mnist5k", 200, like="wide", seeds=(21, 22)),
        },
        seeds=(11, 12, 13),
        tuning_seeds=(1, 2),
        arrays={"units": 2},
        options={"gain": 1.0},
    )
}
PRESETS["lite"] = PRESETS["full"]


def run(config, arm, seed, *, lr=1.0, width=1, word="a"):
    """The best tuning score is at lr 1.0, width 3, word b; of the confirming cells that setting has the worst."""
    CALLS.append((arm, seed, {"lr": lr, "width": width, "word": word}))
    good = {1.0: 4.0, 10.0: 3.0}.get(lr, 0.0) + width + (word == "b")
    luck = {(10.0, 1): 30.0, (10.0, 2): -40.0}.get((lr, seed), 0.0)  # seed 1 alone would mislead
    score = good + luck if seed in config.tuning_seeds else -good
    steps = [*range(1, 21), *range(25, config.arms[arm].steps + 1, 5)]
    rows = [{"step": step, "loss": config.options["gain"] * seed / step, "units": [1.0, 2.0, 3.0]} for step in steps]
    rows[-1] |= {"score": score, "value": good + seed % 10 / 10}
    return rows


def summarize(rows):
    return {"score": rows[-1]["score"], "value": rows[-1]["value"]}


def draw(rows, ax):
    ax.plot(rows["step"], rows["loss"])


def claims(cells):
    arms = {arm: part for arm, part in cells.groupby("arm", sort=False)}
    if not {"wide", "fixed"} <= set(arms):
        return []
    wide, fixed = arms["wide"], arms["fixed"]
    more = difference(wide["value"], fixed["value"])
    about = ("ioffe2015", "section 0", "Wide is better by", "not in the paper", more, "points")
    rest = (ANALOGUE, "mnist5k", tuple(int(seed) for seed in wide["seed"]))
    return [Claim("toy-more", *about, 1.0, *rest), Claim("toy-told", *about, None, *rest)]
