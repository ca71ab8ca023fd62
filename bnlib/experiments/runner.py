"""Runs an experiment: tries the settings of every arm on validation data, chooses, confirms with other seeds.

The runner alone chooses. Every finished cell is kept at once (`cells`), so a killed run goes on where it stopped.
Who computes them, this machine or a cluster, is joblib's affair (`machines`).
"""

import contextlib
import dataclasses
import inspect
import itertools
import math
import os
import pickle
import sys
import time
from numbers import Integral, Real

import joblib
import numpy as np
import pandas as pd
import threadpoolctl
from tqdm.auto import tqdm

from . import cells, core, machines
from .record import FIRST, Run


def run(
    name, scale="lite", *, arms=None, seeds=None, jobs=None, engine="loky", scheduler=None, progress=None, each=None
):
    """Run an experiment, or arms of your own in it.

    Parameters
    ----------
    name : str
        Of the experiment, such as "sigmoid-mlp".
    scale : {"lite", "full"}
    arms : list of str or dict, optional
        Which arms to run; by default all. In a dict, None runs an arm as it is, and a dict makes an arm of your own:
        ``{"mine": {"base": "plain", "lr": [0.1, 1.0], "init": my_init}}`` is the arm "plain" with these values in
        place of its own. Of several values the runner chooses one on validation data, as for every arm. The cells of
        such an arm are not kept.
    seeds : int, optional
        Use the first so many confirming seeds of the config; by default all.
    jobs : int, optional
        Cells run at the same time on this machine, by default one.
    engine : {"loky", "dask"}
        Processes of this machine, or the workers of a dask cluster, each of which runs one cell at a time. Arms that
        measure time run on this machine in any case.
    scheduler : str, optional
        Address of the cluster's scheduler, such as "tcp://192.168.0.7:8786".
    progress : bool, optional
        Show a progress line. By default yes, but not on the pages of the built book.
    each : callable, optional
        Called with ``(arm, seed, setting, seconds, kept)`` for every cell that was computed, or was ``kept`` on disk.

    Returns
    -------
    Run

    Raises
    ------
    Refused
        If there is no such experiment, scale, arm, setting or engine, or ``seeds`` or ``jobs`` is out of range.
    ClusterError
        If the cluster cannot be reached or used, or fails on the way; finished cells are kept.
    """
    config = _with_arms(name, core.preset(name, scale), arms)
    _check_counts(config, seeds, jobs)
    quiet = bool(os.environ.get("BNLIB_BUILD")) if progress is None else not progress
    own = {arm for arm, spec in arms.items() if spec} if isinstance(arms, dict) else set()
    own |= {arm for arm, plan in config.arms.items() if own & set(plan.others)}
    with machines.chosen(engine, scheduler, jobs, name, config) as who:
        work = _Work(name, config, seeds, who, quiet, own, each)
        with work.bar:
            fixed = [arm for arm, plan in config.arms.items() if len(plan.settings) == 1]
            free = [arm for arm, plan in config.arms.items() if len(plan.settings) > 1]
            confirm = {arm: config.arms[arm].settings[0] for arm in fixed}
            first, *later = work.tuning(free)
            work.do([*first, *work.confirming({a: s for a, s in confirm.items() if not config.arms[a].alone})])
            for heat in later:
                work.do(heat)
            chosen = {arm: {"setting": setting, "edge": []} for arm, setting in confirm.items()}
            chosen |= {arm: _choose(config.arms[arm], arm, work.summaries) for arm in free}
            copies = {
                arm: _best(plan.others, config, work.summaries) for arm, plan in config.arms.items() if plan.like
            }
            for arm, other in copies.items():
                setting = config.arms[arm].changed(chosen[other]["setting"])
                chosen[arm] = dict(chosen[other], like=other, setting=setting)
            work.do(work.confirming({arm: chosen[arm]["setting"] for arm in [*free, *copies]}))
            work.do(work.confirming({a: s for a, s in confirm.items() if config.arms[a].alone}), machines.HERE)
    return work.finished(scale, {arm: chosen[arm] for arm in config.arms})


def one_cell(name, config, arm, seed, setting, file=None):
    """Run one cell on one thread and keep it; returns ``{"rows", "seconds"}``."""
    module = core.module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        start = time.process_time()
        rows = module.run(config, arm, seed, **setting)
        cell = {"rows": rows, "seconds": time.process_time() - start}
    if file is not None:
        cells.write(file, cell)
    return cell


class _Work:
    """The cells of one run: what is done, what is to do, and the progress line."""

    def __init__(self, name, config, seeds, who, quiet, own, each):
        self.name, self.config, self.who, self.own, self.each = name, config, who, own, each
        self.seeds = {arm: config.confirming(arm)[:seeds] for arm in config.arms}
        self.summaries, self.rows, self.arrays, self.first = [], [], {}, {}
        tried = {
            a: len(p.settings) * len(config.tuning_seeds) * (len(p.settings) > 1) for a, p in config.arms.items()
        }
        count = {arm: tried[arm] + len(self.seeds[arm]) for arm in config.arms}
        self.all = sum(count.values())
        self.bar = tqdm(
            total=sum(config.arms[arm].steps * count[arm] for arm in config.arms),
            disable=quiet,
            mininterval=0.5,
            bar_format="{desc} {percentage:3.0f}% |{bar:20}| {elapsed} gone, about {remaining} left",
        )
        self._tell()

    def tuning(self, arms):
        """Cells that choose, in heats: every setting of these arms with every tuning seed.

        One heat holds them all. Where the settings race, each holds one setting of every arm, with one seed.
        """
        settings = {arm: self.config.arms[arm].settings for arm in arms}
        seeds = self.config.tuning_seeds
        if self.config.race is None:
            return [[(arm, seed, s) for arm in arms for s in settings[arm] for seed in seeds]]
        columns = [[(arm, s) for s in from_the_middle(settings[arm])] for arm in arms]
        heats = [list(filter(None, heat)) for heat in itertools.zip_longest(*columns)] or [[]]
        return [[(arm, seed, s) for arm, s in heat] for seed in seeds for heat in heats]

    def confirming(self, settings):
        """Cells that count: one setting for each arm, with every confirming seed."""
        return [(arm, seed, setting) for arm, setting in settings.items() for seed in self.seeds[arm]]

    def do(self, todo, who=None):
        """Run these cells, or take them from disk, the longest first."""
        left = []
        for arm, seed, setting in sorted(todo, key=lambda cell: -self.config.arms[cell[0]].steps):
            config = self._config_of(arm, seed, setting)
            file = None if arm in self.own else cells.path(self.name, config, arm, seed, setting)
            done = None
            try:
                done = cells.read(file) if file else None
            except ValueError as error:
                tqdm.write(f"{error}: it is computed again", file=sys.stderr)
            if done is None:
                left.append((config, arm, seed, setting, file))
            else:
                if not self.bar.disable:
                    self.bar.initial += self.config.arms[arm].steps  # took no time: says nothing of what is left
                self._take(arm, seed, setting, done, kept=True)
        self._compute(left, who or self.who)

    def _compute(self, left, who):
        """Compute cells and keep each at once: its worker does, and for a worker elsewhere this process too."""
        with joblib.parallel_config(who.backend):
            # A cluster gets all cells at once: other workers may join later.
            pool = joblib.Parallel(
                n_jobs=who.jobs, return_as="generator_unordered", pre_dispatch="all" if who.needed else "2 * n_jobs"
            )
            # They tell a cell's number, not its setting: what comes back is a copy, and copies of functions differ.
            finished = pool(
                joblib.delayed(_numbered)(i, *self._order(who.needed, *cell)) for i, cell in enumerate(left)
            )
            try:
                for i, cell in finished:
                    _, *what, file = left[i]
                    if who.needed and file:
                        cells.write(file, cell)
                    self._take(*what, cell)
            except BaseException as error:
                finished.throw(error)  # so joblib stops the others; a generator left to itself would warn, too

    def _config_of(self, arm, seed, setting):
        """What a cell sees of the config: in a race also the step at which it is given up."""
        race, steps = self.config.race, self.config.arms[arm].steps
        if race is None or seed not in self.config.tuning_seeds:
            return self.config
        order = self.config.arms[arm].settings.index
        told = [s for s in self.summaries if s["arm"] == arm and s["tuning"]]
        needed = {(s["seed"], order(s["setting"])): -s["score"] for s in told}
        rivals = {place: n for (other, place), n in needed.items() if other == seed}
        here, fastest = order(setting), min(rivals, key=rivals.get, default=None)
        limit = max(race["least"], rivals.get(fastest, math.inf))
        if rivals.get(fastest, math.inf) <= steps:
            between = range(min(here, fastest) + 1, max(here, fastest))
            if any(rivals.get(place, 0) > steps for place in between):
                limit = 1
        bar = steps if any(n <= steps for n in needed.values()) else race["hopeless"] * steps
        if any(n > bar for (_, place), n in needed.items() if place == here):
            limit = 1
        if limit >= steps:
            return self.config
        return dataclasses.replace(self.config, options={**self.config.options, "limit": int(limit)})

    def _order(self, needed, config, arm, seed, setting, file):
        """What computes a cell, and what it is given. A worker elsewhere sees no other arm and names the file."""
        if needed is None:
            return one_cell, self.name, config, arm, seed, setting, file
        plan = dataclasses.replace(config.arms[arm], settings=())
        config = dataclasses.replace(config, arms={arm: plan})
        return _cell_elsewhere, needed, file is not None, machines.packed(self.name, config, arm, seed, setting)

    def _take(self, arm, seed, setting, cell, kept=False):
        tuning = seed in self.config.tuning_seeds
        plan, arrays = self.config.arms[arm], self.config.arrays
        label = {"arm": arm, "seed": seed, "tuning": tuning}
        about = {
            "dataset": plan.dataset,
            "steps": plan.steps,
            "setting": setting,
            **setting,
            "seconds": cell["seconds"],
        }
        found = core.module(self.name).summarize(cell["rows"])
        if taken := {*label, *about} & {*found, *(name for row in cell["rows"] for name in row)}:
            raise ValueError(f"{self.name} measures what is also a setting or a label: {', '.join(sorted(taken))}")
        self.summaries.append({**label, **about, **found})
        if not tuning or plan.curves:
            key = len(self.summaries)  # one for each cell: settings may hold what cannot be compared
            plain = ({k: v for k, v in row.items() if k not in arrays} for row in cell["rows"])
            self.rows += [{**label, "key": key, **setting, **row} for row in plain]
        if not tuning and seed == self.seeds[arm][0]:
            found = {name: [(r["step"], r[name]) for r in cell["rows"] if name in r] for name in arrays}
            pairs = {name: tuple(map(np.array, zip(*pair, strict=True))) for name, pair in found.items() if pair}
            self.arrays |= {arm: pairs} if pairs else {}
            if not plan.alone:
                losses = [row["loss"] for row in cell["rows"] if row["step"] <= FIRST]
                self.first[arm] = {"seed": seed, "losses": losses}
        self.bar.update(plan.steps)
        self._tell()
        if self.each:
            self.each(arm, seed, setting, cell["seconds"], kept)

    def _tell(self):
        self.bar.set_description_str(f"{self.name}: {len(self.summaries)} of {self.all} cells")

    def finished(self, scale, chosen):
        """Everything in an order that does not depend on which cell was ready first."""
        place = {arm: i for i, arm in enumerate(self.config.arms)}
        settings = {arm: plan.settings for arm, plan in self.config.arms.items()}

        def order(cell):
            arm, setting = cell["arm"], cell["setting"]
            return (
                place[arm],
                not cell["tuning"],
                setting in settings[arm] and settings[arm].index(setting),
                cell["seed"],
            )

        keys = [s["key"] for s in sorted(({**s, "key": i + 1} for i, s in enumerate(self.summaries)), key=order)]
        summaries = pd.DataFrame([self.summaries[key - 1] for key in keys])
        rows = pd.DataFrame(self.rows)
        rows["key"] = rows["key"].map({key: i for i, key in enumerate(keys)})
        rows = rows.sort_values("key", kind="stable", ignore_index=True)
        ordered = {arm: self.arrays[arm] for arm in chosen if arm in self.arrays}
        first = {arm: self.first[arm] for arm in chosen if arm in self.first}
        return Run(self.name, scale, self.config, rows, summaries, chosen, ordered, first, {})


def from_the_middle(settings):
    """Settings in the order in which they race: the middle of the grid first, its ends last."""
    middle = (len(settings) - 1) / 2
    return sorted(settings, key=lambda s: abs(settings.index(s) - middle))


def _numbered(number, compute, *order):
    return number, compute(*order)


def _cell_elsewhere(needed, keep, packed):
    """One cell on a worker, which keeps it in its own folder too: it is not computed again if the way back is cut."""
    machines.check(needed)
    cell = pickle.loads(packed)
    file = cells.path(*cell) if keep else None
    with contextlib.suppress(OSError, ValueError):
        if file and (kept := cells.read(file)):
            return kept
    found = one_cell(*cell)
    with contextlib.suppress(OSError):
        if file:
            cells.write(file, found)
    return found


def _scores(arm, settings, summaries):
    """Mean score over the tuning seeds of each of these settings."""
    tried = [s for s in summaries if s["arm"] == arm and s["tuning"]]
    return [np.mean([s["score"] for s in tried if s["setting"] == setting]) for setting in settings]


def _best(arms, config, summaries):
    """Of several arms the one whose best setting scored highest."""
    return max(arms, key=lambda arm: len(arms) > 1 and max(_scores(arm, config.arms[arm].settings, summaries)))


def _choose(plan, arm, summaries):
    """The setting with the highest mean score over the tuning seeds, and which of its numbers end their grid."""
    best = plan.settings[int(np.argmax(_scores(arm, plan.settings, summaries)))]
    edge = []
    for key, value in best.items():
        rest = {k: v for k, v in best.items() if k != key}
        beside = [s[key] for s in plan.settings if {k: v for k, v in s.items() if k != key} == rest]
        if isinstance(value, Real) and len(beside) > 1 and value in (min(beside), max(beside)):
            edge.append(key)
    return {"setting": best, "edge": edge}


def _with_arms(name, config, arms):
    """The config with these arms in place of all."""
    if arms is None:
        return config
    if not arms:
        raise core.Refused(f"name at least one arm of {name}: {', '.join(config.arms)}")
    plans = {}
    for arm, spec in arms.items() if isinstance(arms, dict) else dict.fromkeys(arms).items():
        spec = dict(spec or {})
        base = spec.pop("base", arm)
        core.known(base, config.arms, f"arm of {name}")
        plan = config.arms[base]
        if spec:
            allowed = [p.name for p in inspect.signature(core.module(name).run).parameters.values()][3:]
            for key in spec:
                core.known(key, allowed, f"setting of {name}")
            settings = plan.settings or [plan.changed(s) for o in plan.others for s in config.arms[o].settings]
            kept = [{k: v for k, v in s.items() if k not in spec} for s in settings]
            kept = [s for i, s in enumerate(kept) if s not in kept[:i]]
            settings = tuple({**a, **b} for a, b in itertools.product(kept, core.grid(**spec)))
            if not settings:
                raise core.Refused(f"the arm {arm} has a setting with no values")
            plan = dataclasses.replace(plan, settings=settings, like=None, change={}, times={})
        plans[arm] = plan
    for arm, plan in plans.items():
        for other in plan.others:
            if other not in plans:
                raise core.Refused(f"the arm {arm} takes the setting of {other}: name that arm too")
    return dataclasses.replace(config, arms=plans)


def _check_counts(config, seeds, jobs):
    for name, value, most in (("seeds", seeds, len(config.seeds)), ("jobs", jobs, None)):
        if value is None:
            continue
        if not isinstance(value, Integral) or value < 1 or (most and value > most):
            limit = f"from 1 to {most}, the seeds that the config names" if most else "1 or more"
            raise core.Refused(f"{name} must be {limit}; got {value!r}")
