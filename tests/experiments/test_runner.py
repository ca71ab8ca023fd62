"""The runner: it chooses on validation data alone, loses no finished cell, and ends with the same table however often
it was killed.
"""

import contextlib
import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

from bnlib import data
from bnlib.experiments import cells, core, ledger, runner, sigmoid_mlp
from bnlib.experiments.core import Config, Plan, grid
from bnlib.scratch.layers import BatchNorm

from ..conftest import ROOT
from .conftest import assert_same_run, said, tiny

BEST = {"lr": 1.0, "width": 3, "word": "b"}


def run_tiny(monkeypatch, config=None, **options):
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", config or tiny())
    return runner.run("sigmoid-mlp", "full", **options)


def kept():
    """The files of finished cells, with the moment each was written."""
    return {file: file.stat().st_mtime_ns for file in sorted(cells.folder().rglob("*.json"))}


# --- what is chosen, and by what


RATES = [0.1, 0.3, 1.0, 3.0, 10.0]


def race(toy, monkeypatch, steps, least, best=0.5):
    """Of a race over `RATES`: the limits in the order in which the cells ran, for each tuning seed, and the choice.

    ``steps`` to the goal for each rate, those of a second seed 1 more; None where the goal is never reached and the
    score says that ``best`` was.
    """
    seen, needed = [], dict(zip(RATES, steps, strict=True))

    def one(config, arm, seed, *, lr):
        limit = config.options.get("limit", 100)
        seen.append((lr, seed, limit))
        done = needed[lr] is not None and needed[lr] + seed - 1 <= limit
        return [{"step": 1, "loss": 1.0, "score": -float(needed[lr] + seed - 1) if done else -100 * (2 - best)}]

    rules = least if least is None else {"least": least, "hopeless": 1.8}
    config = Config(
        {"a": Plan("mnist5k", 100, grid(lr=RATES))}, seeds=(11,), tuning_seeds=(1, 2), arrays={}, race=rules
    )
    monkeypatch.setattr(toy, "run", one)
    monkeypatch.setattr(toy, "summarize", lambda rows: {"score": rows[-1]["score"]})
    monkeypatch.setitem(toy.PRESETS, "full", config)
    chosen = runner.run("toy", "full", arms={"a": {"lr": RATES}}).chosen["a"]["setting"]["lr"]
    assert [limit for _, seed, limit in seen if seed == 11] == [100]  # what counts has all its steps
    order = RATES if least is None else [1.0, 0.3, 3.0, 0.1, 10.0]
    assert all([lr for lr, seed, _ in seen if seed == which] == order for which in (1, 2))
    return *([limit for _, seed, limit in seen if seed == which] for which in (1, 2)), chosen


def test_in_a_race_a_setting_is_given_up_where_the_fastest_so_far_was_done(toy, monkeypatch):
    steps = (90, 60, 30, 20, None)
    assert race(toy, monkeypatch, steps, None) == ([100] * 5, [100] * 5, 3.0)
    # 0.1 and 10 missed the goal with the first seed, and others reached it: given up at once with the second
    assert race(toy, monkeypatch, steps, 70) == ([100, 70, 70, 70, 70], [100, 70, 70, 1, 1], 3.0)
    # 0.3 missed it and lies between 0.1 and the fastest so far: 0.1 is given up at once
    assert race(toy, monkeypatch, steps, 0) == ([100, 30, 30, 1, 20], [100, 1, 31, 1, 1], 3.0)


def test_in_a_race_that_nobody_finishes_only_hopeless_settings_are_given_up(toy, monkeypatch):
    steps = (None,) * 5
    # 0.3 missed it and lies between 0.1 and the fastest so far: 0.1 is given up at once
    assert race(toy, monkeypatch, steps, 0) == ([100] * 5, [100] * 5, 0.1)
    assert race(toy, monkeypatch, steps, 0, best=0.1) == ([100] * 5, [1] * 5, 0.1)
    steps = (None, None, None, 100, None)  # with the first seed only
    assert race(toy, monkeypatch, steps, 0)[:2] == ([100, 100, 100, 1, 100], [1, 1, 100, 1, 1])


def test_the_setting_with_the_best_mean_tuning_score_is_confirmed_with_other_seeds(toy):
    run = runner.run("toy", "full")
    assert run.chosen["wide"] == {"setting": BEST, "edge": ["width"]}
    calls = [(seed, setting) for arm, seed, setting in toy.CALLS if arm == "wide"]
    settings = toy.PRESETS["full"].arms["wide"].settings
    assert len(calls) == len(settings) * 2 + 3
    assert all((seed, setting) in calls[:-3] for seed in (1, 2) for setting in settings)
    assert calls[-3:] == [(seed, BEST) for seed in (11, 12, 13)]
    results = run.results()
    assert set(results["seed"]) == {11, 12, 13, 21, 22}
    assert results.query("arm == 'wide'")["setting"].tolist() == [BEST] * 3


def test_scores_of_confirming_cells_never_choose():
    plan = Plan("mnist5k", 10, grid(lr=[0.1, 1.0, 10.0]))

    def cell(lr, score, tuning, arm="a"):
        return {"arm": arm, "tuning": tuning, "setting": {"lr": lr}, "score": score}

    tuned = [cell(lr, score, True) for lr, score in ((0.1, 1.0), (1.0, 2.0), (10.0, 0.0))]
    others = [cell(0.1, 1e9, False), cell(1.0, -1e9, False), cell(10.0, 1e9, True, arm="b")]
    assert runner._choose(plan, "a", [*tuned, *others]) == {"setting": {"lr": 1.0}, "edge": []}


def test_numbers_at_the_end_of_their_grid_are_reported():
    def edge(chosen, settings):
        scores = [{"arm": "a", "tuning": True, "setting": s, "score": float(s == chosen)} for s in settings]
        choice = runner._choose(Plan("mnist5k", 10, settings), "a", scores)
        assert choice["setting"] == chosen
        return choice["edge"]

    square = grid(lr=[0.1, 1.0, 10.0], width=[1, 2, 3], word=["a", "b"])
    assert edge({"lr": 1.0, "width": 2, "word": "a"}, square) == []
    assert edge({"lr": 0.1, "width": 2, "word": "a"}, square) == ["lr"]
    assert edge({"lr": 10.0, "width": 1, "word": "b"}, square) == ["lr", "width"]
    rates = (*grid(by="sgd", lr=[0.1, 1.0, 10.0]), *grid(by="adam", lr=[0.001, 0.01, 0.1]))
    assert edge({"by": "sgd", "lr": 0.1}, rates) == ["lr"]  # inner among all rates, not among its own
    assert edge({"by": "adam", "lr": 0.01}, rates) == []
    assert edge({"lr": 1.0, "width": 2}, grid(lr=[0.1, 1.0, 10.0], width=2)) == []  # a single value is no grid


def with_arms(toy, monkeypatch, **plans):
    config = toy.PRESETS["full"]
    monkeypatch.setitem(toy.PRESETS, "full", dataclasses.replace(config, arms=config.arms | plans))


def test_an_arm_may_change_and_multiply_what_it_takes_from_another(toy, monkeypatch):
    five = Plan("mnist5k", 50, like="wide", change={"word": "a"}, times={"lr": 10})
    with_arms(toy, monkeypatch, five=five)
    run = runner.run("toy", "full")
    assert run.chosen["five"]["setting"] == {**BEST, "word": "a", "lr": 10 * BEST["lr"]}
    assert run.chosen["wide"]["setting"] == BEST
    assert [seed for arm, seed, _ in toy.CALLS if arm == "five"] == [11, 12, 13]
    own = runner.run("toy", "full", arms={"wide": None, "mine": {"base": "five", "width": 2}})
    assert {s["width"] for s in own.cells.query("arm == 'mine'")["setting"]} == {2}
    assert {s["word"] for s in own.cells.query("arm == 'mine'")["setting"]} == {"a"}


def test_an_arm_like_several_takes_the_setting_that_scored_best_on_validation_data(toy, monkeypatch):
    # narrow scores lower in tuning and higher in the confirming cells
    narrow = Plan("mnist5k", 50, grid(lr=[0.1, 10.0], width=[1, 2]))
    with_arms(toy, monkeypatch, narrow=narrow, best=Plan("mnist5k", 50, like=("narrow", "wide")))
    run = runner.run("toy", "full")
    assert run.chosen["best"] == {"setting": BEST, "edge": ["width"], "like": "wide"}
    results = run.results().groupby("arm")["value"].mean()
    assert results["best"] == results["wide"]
    with pytest.raises(core.Refused, match="the arm best takes the setting of wide: name that arm too"):
        runner.run("toy", "full", arms=["best", "narrow"])


def test_an_arm_like_another_takes_its_setting_and_tries_none(toy):
    run = runner.run("toy", "full")
    assert run.chosen["again"] == {"setting": BEST, "edge": ["width"], "like": "wide"}
    assert [call for call in toy.CALLS if call[0] == "again"] == [("again", 21, BEST), ("again", 22, BEST)]


def test_an_arm_that_measures_time_runs_last_and_one_cell_at_a_time(toy, monkeypatch):
    pools, Pool = [], runner.joblib.Parallel

    def spy(n_jobs, **options):
        pools.append((n_jobs, len(toy.CALLS)))
        return Pool(n_jobs=1, **options)

    monkeypatch.setattr(runner.joblib, "Parallel", spy)
    runner.run("toy", "full", jobs=2)
    assert [arm for arm, *_ in toy.CALLS[-3:]] == ["timed"] * 3
    assert "timed" not in [arm for arm, *_ in toy.CALLS[:-3]]
    assert pools[-1] == (1, len(toy.CALLS) - 3)
    assert [jobs for jobs, _ in pools[:-1]] == [2, 2]


def test_test_images_choose_nothing(monkeypatch, unbroken):
    train, validation, (x, labels) = sigmoid_mlp.images("mnist5k")
    monkeypatch.setattr(sigmoid_mlp, "images", lambda name: (train, validation, (x, (labels + 1) % 10)))
    run = run_tiny(monkeypatch, arms=["bn"])
    assert run.chosen == {"bn": unbroken.chosen["bn"]}
    scores, before = (r.cells.query("arm == 'bn' and tuning")["score"].tolist() for r in (run, unbroken))
    assert scores == before
    best, before = (r.results().query("arm == 'bn'")["best"] for r in (run, unbroken))
    assert best.max() < before.min()  # the confirming cells did see them


def test_a_tuning_cell_does_not_even_touch_the_test_images(monkeypatch):
    class Untouchable:
        def __getattribute__(self, name):
            raise AssertionError("touched")

        def __len__(self):
            raise AssertionError("touched")

    train, validation, _ = sigmoid_mlp.images("mnist5k")
    monkeypatch.setattr(sigmoid_mlp, "images", lambda name: (train, validation, (Untouchable(), Untouchable())))
    config = tiny()
    for arm, plan in config.arms.items():
        rows = runner.one_cell("sigmoid-mlp", config, arm, 3, plan.settings[0])["rows"]
        assert rows[-1]["step"] == 40
    with pytest.raises(AssertionError, match="touched"):
        runner.one_cell("sigmoid-mlp", config, "plain", 31, config.arms["plain"].settings[0])


def test_one_seed_gives_all_arms_the_same_weights_and_the_same_batches(monkeypatch):
    seen, build = [], sigmoid_mlp.mlp

    def spied(*arguments, **options):
        net = build(*arguments, **options)
        linear = [layer for layer in net.layers if "weight" in layer.params]
        start, batches, forward = [layer.params["weight"].copy() for layer in linear], [], net.forward

        def watched(x, training=True):
            if training:
                batches.append(x.tobytes())
            return forward(x, training)

        net.forward = watched
        seen.append((start, batches))
        return net

    monkeypatch.setattr(sigmoid_mlp, "mlp", spied)
    config = tiny()
    for arm, seed in (("plain", 31), ("bn", 31), ("dd", 31), ("bn", 32)):
        runner.one_cell("sigmoid-mlp", config, arm, seed, config.arms[arm].settings[0])
    (start, batches), *same, (other_start, other_batches) = seen
    assert len(batches) == len(set(batches)) == 40
    for weights, order in same:
        assert order == batches
        for one, other in zip(start, weights, strict=True):
            assert_array_equal(one, other)
    assert not set(batches) & set(other_batches)
    assert not np.array_equal(start[0], other_start[0])


# --- the finished run


def test_the_tables_hold_a_row_for_every_cell_and_evaluation(toy):
    run = runner.run("toy", "full")
    assert (run.name, run.scale, run.config) == ("toy", "full", toy.PRESETS["full"])
    assert run.about == {}
    assert len(run.cells) == 18 * 2 + 3 + 3 + 2 + 3
    for table in (run.cells, run.rows):
        assert list(table["arm"].unique()) == ["timed", "wide", "fixed", "again"]  # as in the config
    assert set(run.cells) >= {"arm", "seed", "tuning", "dataset", "steps", "setting", "lr", "score", "seconds"}
    assert not run.rows["tuning"].any()  # the plans keep no curves
    assert list(run.rows.query("arm == 'fixed' and seed == 12")["step"]) == [*range(1, 21), *range(25, 101, 5)]
    assert "units" not in run.rows
    assert set(run.arrays) == {"timed", "wide", "fixed", "again"}
    steps, units = run.arrays["wide"]["units"]
    assert steps.tolist() == [*range(1, 21), *range(25, 51, 5)]
    assert units.shape == (26, 3)
    assert run.first["fixed"] == {"seed": 11, "losses": [11 / step for step in range(1, 21)]}
    assert run.first["again"]["seed"] == 21
    assert "timed" not in run.first  # its numbers differ from run to run
    assert run.left_out() == 0


def test_curves_are_kept_of_all_settings_where_the_plan_says_so(toy, monkeypatch):
    config = toy.PRESETS["full"]
    arms = config.arms | {"wide": dataclasses.replace(config.arms["wide"], curves=True)}
    monkeypatch.setitem(toy.PRESETS, "full", dataclasses.replace(config, arms=arms))
    rows = runner.run("toy", "full").rows
    assert len(rows.query("tuning and arm == 'wide'").groupby(["lr", "width", "word", "seed"])) == 36
    assert not rows.query("arm != 'wide'")["tuning"].any()


def test_the_first_seeds_may_be_run_alone(toy):
    run = runner.run("toy", "full", seeds=2)
    assert set(run.results().query("arm != 'again'")["seed"]) == {11, 12}
    assert run.left_out() == 3
    assert run.chosen["wide"]["setting"] == BEST
    assert len(toy.CALLS) == 36 + 2 * 4
    runner.run("toy", "full")
    assert len(toy.CALLS) == 36 + 2 * 4 + 3  # and the others added to them


def test_some_arms_may_be_run_alone(toy):
    run = runner.run("toy", "full", arms=["fixed", "wide"])
    assert list(run.config.arms) == list(run.chosen) == ["fixed", "wide"]
    assert {arm for arm, *_ in toy.CALLS} == {"fixed", "wide"}
    with pytest.raises(core.Refused, match="the arm again takes the setting of wide: name that arm too"):
        runner.run("toy", "full", arms=["again"])


def test_the_same_config_gives_the_same_numbers_again_and_with_two_jobs(monkeypatch, unbroken):
    config = unbroken.config
    for arm, rows in unbroken.rows.groupby("arm"):
        setting = unbroken.chosen[arm]["setting"]
        again = pd.DataFrame(runner.one_cell("sigmoid-mlp", config, arm, 31, setting)["rows"])
        assert_frame_equal(again, rows.query("seed == 31")[list(again)].reset_index(drop=True), check_exact=True)
    assert_same_run(run_tiny(monkeypatch, jobs=2), unbroken)
    assert len(kept()) == 21


def test_a_progress_line_shows_but_not_on_built_pages(toy, monkeypatch, capsys):
    def shown(**options):
        runner.run("toy", "full", **options)
        out, err = capsys.readouterr()
        assert out == ""
        return "toy: 47 of 47 cells 100%" in err

    assert not shown()
    assert shown(progress=True)
    monkeypatch.delenv("BNLIB_BUILD")
    assert shown()
    assert not shown(progress=False)


def test_a_cell_runs_on_one_thread(monkeypatch, toy):
    limits = []
    monkeypatch.setattr(toy, "run", lambda *_, **__: limits.append(runner.threadpoolctl.threadpool_info()) or [])
    with runner.threadpoolctl.threadpool_limits(2):
        runner.one_cell("toy", toy.PRESETS["full"], "fixed", 11, {"lr": 1.0})
    assert {pool["num_threads"] for pool in limits[0]} == {1}


# --- cells that survive


def test_finished_cells_are_not_computed_again(toy, monkeypatch):
    first = runner.run("toy", "full")
    files, calls = kept(), len(toy.CALLS)
    assert len(files) == calls == len(first.cells)
    again = runner.run("toy", "full")
    assert len(toy.CALLS) == calls
    assert kept() == files
    assert_same_run(first, again)
    assert first.cells["seconds"].equals(again.cells["seconds"])
    config = toy.PRESETS["full"]
    monkeypatch.setitem(toy.PRESETS, "full", dataclasses.replace(config, options={"gain": 2.0}))
    runner.run("toy", "full", arms=["fixed"])
    assert len(toy.CALLS) == calls + 3  # what decides them has changed


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_cell_is_reported_in_one_line_and_computed_again(toy, capsys, damage):
    first = runner.run("toy", "full")
    files = kept()
    file = random.Random(damage).choice(list(files))
    sound = file.read_bytes()
    flipped = sound[:-9] + bytes([sound[-9] ^ 4]) + sound[-8:]
    file.write_bytes({"cut": sound[: len(sound) // 2], "flipped": flipped, "emptied": b""}[damage])
    toy.CALLS.clear()
    again = runner.run("toy", "full")
    assert capsys.readouterr().err == f"the finished cell {file} is damaged: it is computed again\n"
    assert len(toy.CALLS) == 1
    assert {f for f, when in kept().items() if when != files[f]} == {file}
    assert_same_run(first, again)
    runner.run("toy", "full")
    assert len(toy.CALLS) == 1
    assert capsys.readouterr().err == ""


def test_a_full_disk_keeps_the_finished_cells(toy, monkeypatch):
    write, written = Path.write_text, []

    def limited(self, text, **options):
        if len(written) == 7:
            self.write_bytes(text.encode()[:50])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(self)
        return write(self, text, **options)

    monkeypatch.setattr(Path, "write_text", limited)
    with pytest.raises(OSError, match="No space left"):
        runner.run("toy", "full")
    assert len(kept()) == 7
    assert len([file for file in cells.folder().rglob("*") if file.is_file()]) == 7  # nothing half written is left
    monkeypatch.setattr(Path, "write_text", write)
    toy.CALLS.clear()
    runner.run("toy", "full")
    assert len(toy.CALLS) == 47 - 7


KILLED = """
import os, random, signal, time
from bnlib.experiments import cells, runner, sigmoid_mlp
from tests.experiments.conftest import tiny
sigmoid_mlp.PRESETS["full"] = tiny()
sigmoid_mlp.images("mnist5k")  # loaded once for all
rng = random.Random()
count = lambda: len(list(cells.folder().rglob("*.json")))
for _ in range(4):
    wanted = count() + rng.randint(1, 2)
    child = os.fork()
    if not child:
        runner.run("sigmoid-mlp", "full", progress=False)
        os._exit(0)
    while count() < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_run_killed_at_random_moments_ends_like_an_unbroken_one(monkeypatch, unbroken):
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.split() == [str(-signal.SIGKILL)] * 4
    before = kept()
    assert 4 <= len(before) < 21
    assert_same_run(run_tiny(monkeypatch), unbroken)
    after = kept()
    assert len(after) == 21
    assert before.items() <= after.items()  # none of them was computed again


TWO_JOBS = """
from bnlib.experiments import runner, sigmoid_mlp
from tests.experiments.conftest import tiny
sigmoid_mlp.PRESETS["full"] = tiny()
runner.run("sigmoid-mlp", "full", jobs=2, progress=False)
"""


def test_a_run_of_two_jobs_killed_with_its_workers_ends_like_an_unbroken_one(monkeypatch, unbroken):
    command, until = [sys.executable, "-c", TWO_JOBS], time.monotonic() + 120
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while len(kept()) < 3 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        time.sleep(random.uniform(0, 0.2))  # its workers are orphans now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    before = kept()
    assert 3 <= len(before) < 21
    assert_same_run(run_tiny(monkeypatch), unbroken)
    assert before.items() <= kept().items()


# --- arms of one's own


def test_an_own_arm_changes_only_what_it_names_and_its_cells_are_written_nowhere(toy, monkeypatch):
    run = runner.run("toy", "full", arms={"wide": None, "mine": {"base": "wide", "lr": [0.1, 10.0]}})
    assert {tuple(sorted(s)) for s in run.cells["setting"]} == {("lr", "width", "word")}
    mine = run.config.arms["mine"]
    assert len(mine.settings) == 12
    assert {setting["lr"] for setting in mine.settings} == {0.1, 10.0}
    assert run.chosen["mine"] == {"setting": {"lr": 0.1, "width": 3, "word": "b"}, "edge": ["width", "lr"]}
    assert run.chosen["wide"]["setting"] == BEST
    assert len(kept()) == 39  # those of wide
    assert all(file.name.startswith("wide-") for file in kept())


def test_an_own_arm_may_take_the_name_of_another_and_does_not_touch_its_cells(toy):
    runner.run("toy", "full", arms=["fixed"])
    before = kept()
    run = runner.run("toy", "full", arms={"fixed": {"lr": 10.0}})
    assert run.chosen["fixed"]["setting"] == {"lr": 10.0, "width": 2}
    assert kept() == before


def test_an_arm_like_an_own_one_is_not_kept_either(toy):
    run = runner.run("toy", "full", arms={"wide": {"lr": 7.0}, "again": None})
    assert run.chosen["again"]["setting"]["lr"] == 7.0
    assert not kept()


def test_an_own_arm_may_start_from_one_that_is_like_another(toy):
    run = runner.run("toy", "full", arms={"mine": {"base": "again", "lr": 7.0}})
    assert run.chosen["mine"]["setting"] == {"lr": 7.0, "width": 3, "word": "b"}
    assert set(run.results()["seed"]) == {21, 22}


@pytest.mark.parametrize("jobs", [1, 2])
def test_functions_of_ones_own_are_tuned_like_all_others(monkeypatch, tmp_path, jobs):
    inits = []

    def shrunk(net, images, rng):
        if jobs == 1:
            inits.append((images.shape, rng.standard_normal()))
        for layer in net.layers:
            if "weight" in layer.params:
                layer.params["weight"] *= 0.5

    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", tiny())
    own = {"base": "bn", "init": shrunk, "norm": lambda channels: BatchNorm(channels), "lr": [0.01, 0.3, 3.0]}
    run = runner.run("sigmoid-mlp", "full", arms={"mine": own}, jobs=jobs)
    tried = run.cells[run.cells["tuning"]].groupby("lr")["score"].mean()
    assert run.chosen["mine"]["setting"]["lr"] == tried.idxmax() != 0.01
    assert run.chosen["mine"]["setting"]["init"] is shrunk
    assert list(run.cells["lr"][:6]) == [0.01, 0.01, 0.3, 0.3, 3.0, 3.0]
    assert list(run.cells["seed"][:4]) == [3, 4, 3, 4]
    assert run.results()["best"].min() > 0.3
    assert not kept()
    assert not any(path.suffix == ".json" for path in tmp_path.rglob("*"))
    if jobs == 1:
        assert {shape for shape, _ in inits} == {(3500, 784)}
        assert len({draw for _, draw in inits}) == 5  # one for each seed, the same for all rates


def test_own_values_and_functions_may_be_tried_beside_each_other(monkeypatch):
    def silent(net, images, rng):
        for layer in net.layers:
            for param in layer.params.values():
                param[:] = 0

    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", tiny(seeds=(31,)))
    own = {"base": "plain", "init": [silent, "dd"], "lr": 1.0}
    run = runner.run("sigmoid-mlp", "full", arms={"mine": own, "plain": None})
    assert run.chosen["mine"] == {
        "setting": {"norm": "none", "init": "dd", "optimizer": "sgd", "lr": 1.0},
        "edge": [],
    }


# --- orders that cannot be carried out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "toys"}, "there is no experiment 'toys': choose from .*; did you mean toy?"),
        ({"scale": "fulll"}, "there is no scale of toy 'fulll': choose from full, lite; did you mean full?"),
        ({"arms": ["wides"]}, "there is no arm of toy 'wides': choose from .*; did you mean wide?"),
        ({"arms": {"mine": {"base": "x"}}}, "there is no arm of toy 'x': choose from timed, wide, fixed, again"),
        ({"arms": {"mine": None}}, "there is no arm of toy 'mine': choose from timed, wide, fixed, again"),
        ({"arms": {"wide": {"rl": 1}}}, "there is no setting of toy 'rl': choose from lr, width, word"),
        ({"arms": {"wide": {"seed": 1}}}, "there is no setting of toy 'seed': choose from lr, width, word"),
        ({"arms": {"wide": {"lr": []}}}, "the arm wide has a setting with no values"),
        ({"arms": []}, "name at least one arm of toy: timed, wide, fixed, again"),
        ({"seeds": 0}, "seeds must be from 1 to 3, the seeds that the config names; got 0"),
        ({"seeds": -1}, "seeds must be from 1 to 3, the seeds that the config names; got -1"),
        ({"seeds": 4}, "seeds must be from 1 to 3, the seeds that the config names; got 4"),
        ({"seeds": 1.5}, "seeds must be from 1 to 3, the seeds that the config names; got 1.5"),
        ({"seeds": (11, 12)}, r"seeds must be from 1 to 3, the seeds that the config names; got \(11, 12\)"),
        ({"jobs": 0}, "jobs must be 1 or more; got 0"),
        ({"jobs": -1}, "jobs must be 1 or more; got -1"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_before_any_cell(toy, options, message):
    with pytest.raises(core.Refused) as refused:
        runner.run(**({"name": "toy", "scale": "full"} | options))
    assert "\n" not in str(refused.value)
    assert str(refused.value) == str(refused.value).strip()
    with pytest.raises(core.Refused, match=f"^{message.replace('?', '[?]')}$"):
        runner.run(**({"name": "toy", "scale": "full"} | options))
    assert toy.CALLS == []


def test_an_unknown_value_of_a_setting_is_refused(monkeypatch):
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", tiny())
    for setting, value, hint in (("norm", "batchnorm", "none, bn"), ("optimizer", "sdg", "did you mean sgd?")):
        with pytest.raises(core.Refused, match=f"there is no value {value!r}") as refused:
            runner.run("sigmoid-mlp", "full", arms={"mine": {"base": "plain", setting: value}})
        assert hint in str(refused.value)


def test_a_data_set_that_no_source_has_stops_the_run(monkeypatch):
    def gone(name):
        raise data.DataUnavailable(name, ["here: nothing"])

    monkeypatch.setattr(sigmoid_mlp, "images", gone)
    with pytest.raises(data.DataUnavailable):
        run_tiny(monkeypatch)
    assert not kept()


def test_a_run_that_diverges_is_a_result_at_chance(monkeypatch):
    config = Config(
        {"plain": Plan("mnist5k", 60, grid(norm="none", init="gaussian", optimizer="sgd", lr=[1.0, 1e39]))},
        seeds=(31, 32),
        tuning_seeds=(3, 4),
        options=sigmoid_mlp.OPTIONS,
    )
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", config)
    run = runner.run("sigmoid-mlp", "full", arms={"plain": None, "wild": {"base": "plain", "lr": 1e39}})
    assert run.chosen["plain"]["setting"]["lr"] == 1.0
    wild = run.results().query("arm == 'wild'")
    assert (wild["steps_80%"] == 60).all()
    assert not wild["reached_80%"].any()
    assert (wild["best"] <= 0.2).all()
    for _, rows in run.rows.query("arm == 'wild'").groupby("seed"):
        assert rows["step"].iloc[-1] == 60
        assert rows["step"].iloc[-2] < 20  # where it diverged
        assert rows["accuracy"].iloc[-2:].tolist() == [0.1, 0.1]
        assert rows["loss"].iloc[-2:].isna().all()
    tuning = run.cells.query("tuning and lr == 1e39")
    assert len(tuning) == 2
    assert (tuning["score"] < -60).all()  # worse than any run that reached the goal
    assert said(run) == said(runner.run("sigmoid-mlp", "full", arms=["plain"]))
    assert ledger.table(ledger.entries(run)) == ""


def test_a_measure_with_the_name_of_a_setting_is_refused(monkeypatch):
    real = sigmoid_mlp.summarize
    monkeypatch.setattr(sigmoid_mlp, "summarize", lambda rows: real(rows) | {"lr": 1.0})
    with pytest.raises(ValueError, match="measures what is also a setting or a label: lr"):
        run_tiny(monkeypatch)
