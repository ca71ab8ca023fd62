"""What an experiment is made of: its arms and their settings, its claims, and how one is found by its name.

Every module of this package but those in `SHARED` is an experiment. It holds

- ``ARMS``: name -> one line that says what this arm changes;
- ``PRESETS``: scale -> `Config`;
- ``run(config, arm, seed, **setting) -> list[dict]``: one cell, a row per evaluation, with ``step`` and ``loss``, the
  first 20 steps among them; all randomness from the seed, no file written;
- ``summarize(rows) -> dict``: the rows of one cell reduced to numbers. ``score`` is one of them, the higher the
  better: by it the runner chooses an arm's setting;
- ``draw(rows, ax)``, and ``claims(cells) -> list[Claim]`` from the summaries of the confirming cells.
"""

import dataclasses
import difflib
import hashlib
import importlib
import itertools
import json
import math
import pkgutil
from pathlib import Path
from typing import NamedTuple

PAPERS = {  # key in the bibliography: how the ledger names it
    "ioffe2015": "Ioffe & Szegedy 2015",
    "vanlaarhoven2017": "van Laarhoven 2017",
    "arora2019": "Arora, Li & Lyu 2019",
    "li2020": "Li & Arora 2020",
    "li2019": "Li et al. 2019",
    "wu2018": "Wu & He 2018",
    "wu2021": "Wu & Johnson 2021",
    "hoffer2017": "Hoffer, Hubara & Soudry 2017",
    "balestriero2022": "Balestriero & Baraniuk 2022",
    "kohler2019": "Kohler et al. 2019",
    "cai2019": "Cai, Li & Shen 2019",
    "santurkar2018": "Santurkar et al. 2018",
    "schneider2020": "Schneider et al. 2020",
    "lecun1991": "LeCun, Kanter & Solla 1991",
    "bjorck2018": "Bjorck et al. 2018",
    "ghorbani2019": "Ghorbani et al. 2019",
    "karakida2019": "Karakida et al. 2019",
    "daneshmand2020": "Daneshmand et al. 2020",
    "yang2019": "Yang et al. 2019",
    "desmith2020": "De & Smith 2020",
    "cohen2021": "Cohen et al. 2021",
}
SAME, ANALOGUE = "same setting", "analogue"
VERDICTS = {SAME: ("reproduced", "partly", "not reproduced"), ANALOGUE: ("agrees", "mixed", "disagrees")}
REPORT = "report only"
# Modules that are no experiments.
SHARED = ("cells", "core", "further_rows", "ledger", "machines", "paired", "record", "runner")


class Refused(ValueError):
    """An order that cannot be carried out; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one arm is run.

    Parameters
    ----------
    dataset : str
        A name of `bnlib.data`, or "generated" where the experiment makes its data from the seed.
    steps : int
    settings : tuple of dict
        Keyword arguments for the experiment's ``run``. Of several the runner chooses one, on validation data.
    like : str or tuple of str, optional
        Take the setting that was chosen for this other arm; of several arms, for the one that scored best on
        validation data. `settings` is then empty.
    change, times : dict
        With ``like``: values that take the place of the chosen setting's, and factors on its numbers, such as
        ``{"lr": 5}``.
    seeds : tuple of int, optional
        Confirming seeds of this arm alone, where they differ from the experiment's.
    curves : bool
        Keep the curves of all settings, because a figure shows them.
    probed : bool
        Measure lists of numbers too, such as percentiles, in the confirming cells.
    alone : bool
        Run its cells one at a time after all others: it measures time.
    """

    dataset: str
    steps: int
    settings: tuple = ()
    like: str | tuple | None = None
    seeds: tuple | None = None
    curves: bool = False
    probed: bool = False
    alone: bool = False
    change: dict = dataclasses.field(default_factory=dict)
    times: dict = dataclasses.field(default_factory=dict)

    @property
    def others(self):
        """The arms that ``like`` names, as a tuple."""
        return (self.like,) if isinstance(self.like, str) else self.like or ()

    def changed(self, setting):
        """A setting chosen for one of the `others`, as this arm takes it."""
        changed = {**setting, **self.change}
        return changed | {key: factor * changed[key] for key, factor in self.times.items()}


@dataclasses.dataclass(frozen=True)
class Config:
    """All that decides the numbers of an experiment at one scale.

    Parameters
    ----------
    arms : dict of Plan
    seeds : tuple of int
        Confirming seeds: their cells are measured on test data and are the result.
    tuning_seeds : tuple of int
        Seeds of the cells that choose a setting, on validation data. Never also confirming seeds.
    arrays : dict
        Columns that hold a list, and how many of its entries the recorded file keeps, for the first seed.
    options : dict
        Whatever else the module's ``run`` looks at, such as the batch size.
    race : dict, optional
        For a score that is minus the steps to a goal, and worse than minus the arm's steps where it was missed.
        Settings then race: one tuning seed after the other, those in the middle of the grid first. A cell is given up
        at the step at which the fastest of its arm with the same seed reached the goal, but not before step
        ``race["least"]``. It is given up at once if a setting between it and that fastest one missed the goal; and,
        with a later seed, if its setting missed the goal while another of its arm reached it, or with a score worse
        than minus ``race["hopeless"]`` times the arm's steps. The module's ``run`` finds the step as the option
        "limit".
    """

    arms: dict
    seeds: tuple
    tuning_seeds: tuple
    arrays: dict = dataclasses.field(default_factory=dict)
    options: dict = dataclasses.field(default_factory=dict)
    race: dict | None = None

    def __post_init__(self):
        confirming = {*self.seeds, *itertools.chain(*(plan.seeds or () for plan in self.arms.values()))}
        if confirming & set(self.tuning_seeds):
            raise ValueError(f"seeds {sorted(confirming & set(self.tuning_seeds))} would tune and confirm")

    def hash(self):
        """SHA-256 of everything in the config, the first 16 digits."""
        content = dataclasses.asdict(self)
        # fields that came later: files recorded before them keep their hash
        for part, later in (
            (content, ("race",)),
            *((plan, ("change", "times")) for plan in content["arms"].values()),
        ):
            for key in later:
                if part[key] in (None, {}):
                    del part[key]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def confirming(self, arm):
        """The confirming seeds of an arm."""
        return self.arms[arm].seeds or self.seeds


def grid(**values):
    """All combinations of lists of values, as a tuple of settings; a single value stands for a list of one.

    >>> grid(norm="none", lr=[0.1, 1.0])
    ({'norm': 'none', 'lr': 0.1}, {'norm': 'none', 'lr': 1.0})
    """
    lists = [v if isinstance(v, list | tuple) else [v] for v in values.values()]
    return tuple(dict(zip(values, combination, strict=True)) for combination in itertools.product(*lists))


class Measured(NamedTuple):
    """A number with its interval, and "≥" or "≤" before it where runs ended before they reached a level."""

    value: float
    spread: tuple
    bound: str = ""


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement of a paper, our number for it, and whether it held.

    Parameters
    ----------
    id : str
        Starts with the name of the experiment.
    paper : str
        A key of `PAPERS`.
    place : str
        Section, figure, table or theorem.
    statement : str
    paper_value : str
        The paper's number, or why there is none.
    measured : Measured
    unit : str
        Printed after the number: "x" for a ratio, "points", ...; "error" prints a relative error as 1.2e-15.
    threshold : float, pair of float or None
        Fixed before the run. A number is the least value at which the claim holds, a pair ``(low, high)`` the range
        in which it does; an end that is None is open. None: report only.
    fidelity : {"same setting", "analogue"}
    dataset : str
    seeds : tuple of int
    """

    id: str
    paper: str
    place: str
    statement: str
    paper_value: str
    measured: Measured
    unit: str
    threshold: float | tuple | None
    fidelity: str
    dataset: str
    seeds: tuple

    def __post_init__(self):
        low, high = self.limits
        if not low <= high:
            raise ValueError(f"claim {self.id}: no number is from {low} to {high}")
        if self.paper not in PAPERS:
            raise ValueError(f"claim {self.id}: paper must be one of {', '.join(PAPERS)}, got {self.paper!r}")
        if self.fidelity not in VERDICTS:
            raise ValueError(f"claim {self.id}: fidelity must be one of {', '.join(VERDICTS)}, got {self.fidelity!r}")

    @property
    def limits(self):
        """Least and largest value at which the claim holds; an open end is infinite."""
        low, high = self.threshold if isinstance(self.threshold, tuple) else (self.threshold, None)
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def verdict(self):
        """Held: the number is within the limits. In part: only some of its interval is, or the number is a bound.

        A "≤" before the number says that it may be below the lower limit, a "≥" that it may be above the upper one.
        """
        if self.threshold is None:
            return REPORT
        held, partly, missed = VERDICTS[self.fidelity]
        value, spread, bound = self.measured
        low, high = self.limits
        if math.isnan(value):
            return missed
        if low <= value <= high:
            open_ended = {"": False, "≤": low > -math.inf, "≥": high < math.inf}[bound]
            return partly if open_ended else held
        return partly if spread[0] <= high and spread[1] >= low else missed


class Statement(NamedTuple):
    """A claim before it is measured; the fields are those of `Claim`.

    ``name`` follows the experiment's name in the id. ``measure`` gets the cells of each of ``arms``, sorted by seed,
    and returns a `Measured`. ``statement`` may hold ``{steps}``, the steps of the first arm. ``paper`` is for
    statements of another paper than the experiment's.
    """

    name: str
    arms: tuple
    measure: object
    statement: str
    unit: str = "x"
    place: str = "a control of ours"
    paper_value: str = "not in the paper"
    threshold: float | tuple | None = None
    fidelity: str = ANALOGUE
    paper: str | None = None


def measure(statements, cells, experiment, paper):
    """The claims of an experiment from its confirming cells; statements about arms that were not run are left out."""
    arms = {arm: part.sort_values("seed") for arm, part in cells.groupby("arm", sort=False)}
    found = []
    for s in statements:
        if all(arm in arms for arm in s.arms):
            parts = [arms[arm] for arm in s.arms]
            dataset, steps = parts[0][["dataset", "steps"]].iloc[0]
            words = (
                f"{experiment}-{s.name}",
                s.paper or paper,
                s.place,
                s.statement.format(steps=f"{steps:,}"),
                s.paper_value,
            )
            seeds = tuple(int(seed) for seed in parts[0]["seed"])
            found.append(Claim(*words, s.measure(*parts), s.unit, s.threshold, s.fidelity, dataset, seeds))
    return found


def names():
    """Names of all experiments, such as ``sigmoid-mlp``."""
    modules = (info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return tuple(name.replace("_", "-") for name in modules if name not in SHARED)


def module(name):
    """The module of an experiment; `Refused` if there is none of this name."""
    known(name, names(), "experiment")
    return importlib.import_module(f"{__package__}.{name.replace('-', '_')}")


def preset(name, scale):
    """The `Config` of an experiment at a scale."""
    presets = module(name).PRESETS
    known(scale, presets, f"scale of {name}")
    return presets[scale]


def known(name, choices, kind):
    """Refuse a name that is not among the choices, with the nearest one."""
    if name not in choices:
        near = difflib.get_close_matches(str(name), list(choices), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Refused(f"there is no {kind} {name!r}: choose from {', '.join(choices)}{hint}")


def named(choices, value, kind="value"):
    """What a name stands for among the choices; a learner's own function passes as it is."""
    if callable(value):
        return value
    known(value, choices, kind)
    return choices[value]
