"""What the runner adds to a cell: many tiny cells computed bare, in one process, in two, and by two dask workers."""

import contextlib
import itertools
import os
import tempfile
from unittest import mock

from .experiments import runner, sigmoid_mlp
from .experiments.core import Config, Plan, grid

COUNT = 1000  # cells
CASE = f"{COUNT:,} tiny cells"
BARE, ONE, TWO, DASK = "bare", "one process", "two processes", "two dask workers"
WORKERS = {BARE: 1, ONE: 1, TWO: 2, DASK: 2}
TURNS = 5


def config(count, turn):
    """An experiment of this many cells, one step each. No cell of one turn is a cell of another."""
    plan = Plan("mnist5k", 1, grid(norm="none", lr=[0.1, 0.3]))
    tuning = tuple(range(2, count // 2 + 1))  # each with both rates; seeds 0 and 1 confirm
    options = {**sigmoid_mlp.OPTIONS, "validation_images": 10, "turn": turn}
    return Config({"tiny": plan}, seeds=(0, 1), tuning_seeds=tuning, options=options)


@contextlib.contextmanager
def variants(count=COUNT):
    """Functions without arguments that compute so many cells in the ways of `WORKERS`: a dict.

    Processes and workers are started before and stay. Finished cells are kept in a folder that is removed at the end.
    """
    from distributed import LocalCluster

    turns = itertools.count()

    def bare():
        tiny = config(count, next(turns))
        plan = tiny.arms["tiny"]
        seeds = [(seed, setting) for seed in tiny.tuning_seeds for setting in plan.settings]
        for seed, setting in [*seeds, *((seed, plan.settings[0]) for seed in tiny.seeds)]:
            runner.one_cell("sigmoid-mlp", tiny, "tiny", seed, setting)

    def by(**machines):
        def run():
            with mock.patch.dict(sigmoid_mlp.PRESETS, tiny=config(count, next(turns))):
                runner.run("sigmoid-mlp", "tiny", progress=False, **machines)

        return run

    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.dict(os.environ, BNLIB_CELLS=kept))
        cluster = stack.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0"))
        far = by(engine="dask", scheduler=cluster.scheduler_address)
        yield {BARE: bare, ONE: by(jobs=1), TWO: by(jobs=2), DASK: far}


def overhead(rows):
    """Milliseconds that each variant adds to a bare cell on every one of its workers, from rows of the recorded file.

    ``workers * wall - bare wall``: what a cell costs one worker, less what it costs without the runner.
    """
    wall = {row["variant"]: row["wall_ms_median"] for row in rows if row["case"] == CASE}
    return {name: WORKERS[name] * ms - wall[BARE] for name, ms in wall.items() if name != BARE}
