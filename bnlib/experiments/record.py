"""A finished run, and the file that records it."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import threadpoolctl

from . import cells, core

RESULTS = Path(__file__).parents[1] / "results"
POINTS = 40  # of a recorded curve
FIRST = 20  # steps whose losses tell whether a recorded run is still what the code computes
LABELS = ("arm", "seed", "tuning")
PLAN = {"like": None, "seeds": None, "curves": False, "probed": False, "alone": False, "change": {}, "times": {}}


@dataclasses.dataclass(eq=False)
class Run:
    """A finished run, live or recorded.

    Attributes
    ----------
    name, scale : str
    config : Config
    rows : pandas.DataFrame
        One row per arm, seed and evaluation, of the chosen settings: ``arm, seed, tuning``, the setting, ``step``,
        ``loss`` and what else the experiment measures. Also the tuning cells of arms whose plan says ``curves``.
    cells : pandas.DataFrame
        One row per cell, tuning cells included: the same labels, the summary, and ``seconds`` of processor time.
    chosen : dict
        arm -> ``{"setting": dict, "edge": names of the values at the edge of their grid}``.
    arrays : dict
        arm -> column -> ``(steps, array)`` of the first confirming seed: what was measured as a list of numbers.
    first : dict
        arm -> ``{"seed": int, "losses": the first 20}``.
    about : dict
        Recorded only: ``hash``, ``date``, ``environment``, ``seconds``.
    """

    name: str
    scale: str
    config: core.Config
    rows: pd.DataFrame
    cells: pd.DataFrame
    chosen: dict
    arrays: dict
    first: dict
    about: dict

    def results(self):
        """The confirming cells: what claims are made from."""
        return self.cells[~self.cells["tuning"]]

    def seconds(self):
        """Processor time of all cells."""
        return self.about.get("seconds") or round(float(self.cells["seconds"].sum()))

    def left_out(self):
        """How many of the config's confirming cells were not run."""
        return sum(len(self.config.confirming(arm)) for arm in self.config.arms) - len(self.results())


def path(name):
    """The file that records an experiment's full run."""
    return RESULTS / f"{name}.json"


def environment():
    """What the numbers may depend on, as a dict."""
    pools = {
        f"{p['internal_api']} {p['version']} {p.get('architecture', '')}" for p in threadpoolctl.threadpool_info()
    }
    packages = [name for name in ("numpy", "scipy", "torch") if name in sys.modules]
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "libraries": sorted(pool.strip() for pool in pools),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def save(run):
    """Write a run, whole or not at all, to its file in `RESULTS`; of curves what the module's ``CURVES`` says."""
    tuning, results = run.cells[run.cells["tuning"]], run.results().round({"seconds": 1})
    config = dataclasses.asdict(run.config)
    for arm, plan in config["arms"].items():
        said = {key: value for key, value in plan.items() if key not in PLAN or value != PLAN[key]}
        config["arms"][arm] = {**said, "settings": _pack(plan["settings"])}
    content = {
        "experiment": run.name,
        "hash": run.config.hash(),
        "date": datetime.date.today().isoformat(),
        "environment": environment(),
        "seconds": run.seconds(),
        "config": config,
        "chosen": {arm: _place(run.config.arms[arm], choice) for arm, choice in run.chosen.items()},
        "first": {arm: dict(then, losses=[_digits(v, 5) for v in then["losses"]]) for arm, then in run.first.items()},
        # arm -> a list of scores for each setting, one score for each tuning seed
        "tried": {
            arm: np.reshape([short(v) for v in part["score"]], (-1, len(run.config.tuning_seeds))).tolist()
            for arm, part in tuning.groupby("arm", sort=False)
        },
        "results": _table(results.drop(columns=[*_setting_columns(run), "setting", "dataset", "steps", "tuning"])),
        "curves": [_curve(run, *key, part) for key, part in run.rows.groupby([*LABELS, "key"], sort=False)],
        "arrays": {
            arm: {name: _thin_array(run, name, *pair) for name, pair in columns.items()}
            for arm, columns in run.arrays.items()
        },
    }
    cells.put(path(run.name), json.dumps(content, separators=(",", ":")) + "\n")
    return path(run.name)


def load(name):
    """Read a recorded run; FileNotFoundError where there is none yet, `Refused` where the file is damaged."""
    core.module(name)
    try:
        content = json.loads(path(name).read_text(encoding="utf8"))
    except ValueError as error:
        raise core.Refused(f"the recorded file {path(name)} is damaged: {error}") from None
    arms = content["config"].pop("arms")
    plans = {arm: core.Plan(**_tuples({**p, "settings": _unpack(p["settings"])})) for arm, p in arms.items()}
    config = core.Config(arms=plans, **_tuples(content["config"]))
    chosen = {arm: _at_place(plans[arm], choice) for arm, choice in content["chosen"].items()}
    tried = [
        {"arm": arm, "seed": seed, "tuning": True, "setting": setting, "score": score}
        for arm, table in content["tried"].items()
        for setting, scores in zip(plans[arm].settings, table, strict=True)
        for seed, score in zip(config.tuning_seeds, scores, strict=True)
    ]
    results = pd.DataFrame(content["results"]).assign(tuning=False)
    results["setting"] = [chosen[arm]["setting"] for arm in results["arm"]]
    both = pd.concat([pd.DataFrame(tried), results] if tried else [results], ignore_index=True)
    of = [plans[arm] for arm in both["arm"]]
    both = both.assign(dataset=[plan.dataset for plan in of], steps=[plan.steps for plan in of])
    both = both.join(pd.DataFrame(list(both["setting"]), index=both.index))
    curves = []
    for curve in content["curves"]:
        curve = {"tuning": False, **curve}
        arm, place = curve["arm"], curve.pop("setting", None)
        setting = chosen[arm]["setting"] if place is None else plans[arm].settings[place]
        curves.append(pd.DataFrame(curve.pop("rows")).assign(**setting, **curve))
    arrays = {
        arm: {column: (np.array(pair["step"]), np.array(pair["values"])) for column, pair in columns.items()}
        for arm, columns in content["arrays"].items()
    }
    about = {key: content[key] for key in ("hash", "date", "environment", "seconds")}
    rows = pd.concat(curves, ignore_index=True)
    return Run(name, "full", config, rows, both, chosen, arrays, content["first"], about)


def thin(steps, points=POINTS):
    """Positions of at most ``points`` steps, about evenly spaced on a logarithmic axis, both ends among them."""
    steps = np.asarray(steps, float)
    if len(steps) <= points:
        return np.arange(len(steps))
    wanted = np.geomspace(steps[0], steps[-1], points)
    return np.unique(np.abs(steps[:, None] - wanted).argmin(0))


def _pack(settings):
    """Settings with the same names as one dict: a value that all share, or the list of their values."""
    if not settings or any(list(s) != list(settings[0]) for s in settings):
        return list(settings)
    columns = {name: [s[name] for s in settings] for name in settings[0]}
    return {name: c if any(v != c[0] for v in c) else c[0] for name, c in columns.items()}


def _unpack(packed):
    if isinstance(packed, list):
        return packed
    count = max((len(v) for v in packed.values() if isinstance(v, list)), default=1)
    return [{name: v[i] if isinstance(v, list) else v for name, v in packed.items()} for i in range(count)]


def _place(plan, choice):
    """A choice with the place of its setting among those of its arm, where it is one of them."""
    settings = list(plan.settings)
    return dict(choice, setting=settings.index(choice["setting"])) if choice["setting"] in settings else choice


def _at_place(plan, choice):
    place = choice["setting"]
    return dict(choice, setting=plan.settings[place]) if isinstance(place, int) else choice


def _curve(run, arm, seed, tuning, key, part):
    known = [*LABELS, "key", *_setting_columns(run), "score"]
    digits = getattr(core.module(run.name), "CURVES", None)  # column -> significant digits; without it all columns
    kept = [c for c in part if c not in known and (digits is None or c in ("step", *digits))]
    plain = part[kept].dropna(axis=1, how="all")
    rows = plain.iloc[thin(plain["step"], run.config.options.get("points", POINTS))]
    # the place of a tuning cell's setting among those of its arm; None is the chosen one
    settings = list(run.config.arms[arm].settings)
    place = settings.index(run.cells["setting"].iloc[key]) if tuning else None
    columns = {name: [short(v, (digits or {}).get(name, 5)) for v in rows[name]] for name in rows}
    of = {"tuning": True, "setting": place} if tuning else {}
    return {"arm": arm, "seed": int(seed), **of, "rows": columns}


def _thin_array(run, name, steps, values):
    kept = thin(steps)
    entries = values[kept][:, : run.config.arrays[name]]
    return {"step": [int(s) for s in steps[kept]], "values": [short(v) for v in entries.tolist()]}


def _setting_columns(run):
    return sorted({key for setting in run.cells["setting"] for key in setting})


def _table(frame):
    frame = frame.dropna(axis=1, how="all")
    return {name: [short(v) for v in frame[name]] for name in frame}


def short(value, digits=5):
    """Numbers rounded to significant digits, inside lists too."""
    if isinstance(value, list):
        return [short(v, digits) for v in value]
    if isinstance(value, float | np.floating):
        return _digits(value, digits)
    return value.item() if isinstance(value, np.generic) else value


def _digits(value, digits):
    """Rounded to significant digits; NaN and infinity as None: the file is JSON."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _tuples(content):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
