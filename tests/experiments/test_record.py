"""A recorded run: what the file keeps of the live one, and that it appears whole or not at all."""

import datetime
import errno
import json
import math
import os
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal

from bnlib.experiments import core, ledger, record, runner, sigmoid_mlp
from bnlib.experiments.core import Config, Plan, grid

from .conftest import said


@pytest.fixture
def saved(live):
    return record.save(live)


@pytest.fixture
def loaded(saved):
    return record.load("sigmoid-mlp")


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def keys(rows):
    return [tuple(row) for row in rows[["arm", "seed", "tuning"]].drop_duplicates().itertuples(index=False)]


def test_a_recorded_run_has_the_same_config_and_choice(live, loaded):
    assert (loaded.name, loaded.scale) == ("sigmoid-mlp", "full")
    assert loaded.config == live.config
    assert loaded.config.hash() == loaded.about["hash"] == live.config.hash()
    assert loaded.chosen == live.chosen
    for arm, then in live.first.items():
        assert loaded.first[arm]["seed"] == then["seed"]
        assert_allclose(loaded.first[arm]["losses"], then["losses"], rtol=5e-5)  # five digits
    assert list(loaded.first) == list(live.first)
    assert loaded.left_out() == live.left_out() == 0


def test_a_recorded_run_makes_the_same_claims_up_to_rounding(live, loaded):
    assert len(said(live)) > 8
    for was, now in zip(said(live), said(loaded), strict=True):
        numbers = {"ours", "spread"}
        assert {k: v for k, v in was.items() if k not in numbers} == {
            k: v for k, v in now.items() if k not in numbers
        }
        assert (was["ours"] is None) == (now["ours"] is None)
        if was["ours"] is not None:
            assert now["ours"] == pytest.approx(was["ours"], rel=1e-3, abs=2e-3)
            assert now["spread"] == pytest.approx(was["spread"], rel=1e-3, abs=2e-3)


def test_a_recorded_run_keeps_every_cell(live, loaded):
    assert keys(loaded.cells[loaded.cells["tuning"]]) == keys(live.cells[live.cells["tuning"]])
    assert keys(loaded.results()) == keys(live.results())
    assert loaded.cells["tuning"].dtype == bool
    for column in ("dataset", "steps"):
        assert loaded.cells[column].tolist() == live.cells[column].tolist()
        assert loaded.cells[column].dtype == live.cells[column].dtype
    tried, was = (run.cells[run.cells["tuning"]] for run in (loaded, live))
    assert tried["setting"].tolist() == was["setting"].tolist()
    assert tried["lr"].tolist() == was["lr"].tolist()
    assert_allclose(tried["score"], was["score"], rtol=1e-4)
    now, was = loaded.results(), live.results()
    assert set(now) >= set(was) - {"score"}
    assert now["setting"].tolist() == was["setting"].tolist()
    for column in ("best", "final", "steps_80%", "reached_80%", "drift", "drift_whole", "plain_ms"):
        assert_allclose(now[column].astype(float), was[column].astype(float), rtol=1e-4, err_msg=column)
    assert_allclose(now["seconds"], was["seconds"], atol=0.051)  # to a tenth


def test_curves_are_thinned_to_40_points_with_both_ends(live, loaded):
    assert keys(loaded.rows) == keys(live.rows)
    long = 0
    for key, curve in live.rows.groupby(["arm", "seed", "tuning", "lr"]):
        arm, seed, tuning, lr = key
        now = loaded.rows.query("arm == @arm and seed == @seed and tuning == @tuning and lr == @lr")
        assert len(now) == min(len(curve), len(now))
        assert len(now) <= 40
        assert (now["step"].iloc[0], now["step"].iloc[-1]) == (curve["step"].iloc[0], curve["step"].iloc[-1])
        assert now["step"].is_monotonic_increasing
        if len(curve) <= 40:
            assert len(now) == len(curve)
        else:
            long += 1
        same = curve.set_index("step").loc[now["step"]]
        for column in ("loss", "accuracy", "plain_ms"):
            assert_allclose(now[column], same[column], rtol=1e-4)
    assert long == 6


def test_curves_of_all_settings_are_kept_where_the_plan_says_so(loaded):
    tuning = loaded.rows[loaded.rows["tuning"]]
    assert set(tuning["arm"]) == {"plain"}
    assert len(tuning.groupby(["seed", "lr"])) == 4


@pytest.mark.parametrize("count", [1, 2, 39, 40, 41, 137, 2_000])
def test_thinned_steps_are_spread_over_the_logarithmic_axis(count):
    steps = np.unique(np.geomspace(1, 50_000, 4 * count).round())[:count]
    kept = record.thin(steps)
    assert len(kept) <= 40
    assert kept[0] == 0
    assert kept[-1] == len(steps) - 1
    assert len(set(kept)) == len(kept)
    if count <= 40:
        assert len(kept) == count
    else:
        gaps = np.diff(np.log(steps[kept]))
        assert gaps.max() < 3 * np.log(steps[-1] / steps[0]) / 39 + np.diff(np.log(steps)).max()


def test_arrays_are_cut_as_the_config_says_for_the_first_seed(live, loaded):
    assert set(loaded.arrays) == {"mnist-plain", "mnist-bn"}
    for arm, columns in loaded.arrays.items():
        assert set(columns) == set(live.config.arrays)
        for name, (steps, values) in columns.items():
            all_steps, whole = live.arrays[arm][name]
            wanted = live.config.arrays[name]
            assert steps.tolist() == all_steps.tolist()
            assert values.shape == (len(steps), wanted)
            assert_allclose(values, whole[:, :wanted], rtol=1e-4)
    assert live.arrays["mnist-bn"]["p50"][1].shape[1] == 100  # and the live run has all of them


def test_the_file_is_json_without_nan_and_small(saved):
    content = strict(saved.read_text())
    assert set(content) == {
        *("experiment", "hash", "date", "environment", "seconds", "config"),
        *("chosen", "first", "tried", "results", "curves", "arrays"),
    }
    assert content["date"] == datetime.date.today().isoformat()
    assert content["experiment"] == "sigmoid-mlp"
    assert saved == record.RESULTS / "sigmoid-mlp.json"
    numbers = re.findall(r"-?\d+\.\d+(?:e-?\d+)?", json.dumps([content["curves"], content["arrays"]]))
    assert max(len(n.split("e")[0].replace(".", "").replace("-", "").lstrip("0")) for n in numbers) <= 5


def test_the_record_says_where_the_numbers_come_from(live, loaded):
    assert set(loaded.about) == {"hash", "date", "environment", "seconds"}
    assert loaded.about["seconds"] == round(live.cells["seconds"].sum())
    about = loaded.about["environment"]
    assert about["numpy"] == np.__version__
    assert {"python", "scipy", "libraries", "platform", "processor", "cores"} <= set(about)
    assert about["cores"] == os.cpu_count()


def test_a_run_has_what_its_docstring_names(live, loaded):
    attributes = re.findall(r"^    ([a-z, ]+) : ", record.Run.__doc__, re.MULTILINE)
    assert ", ".join(attributes).split(", ") == list(record.Run.__dataclass_fields__)
    for run in (live, loaded):
        setting = {"norm", "init", "optimizer", "lr"}
        assert {"arm", "seed", "tuning", "step", "loss"} | setting <= set(run.rows)
        assert {"arm", "seed", "tuning", "seconds", "score"} | setting <= set(run.cells)
        assert all({"setting", "edge"} <= set(choice) for choice in run.chosen.values())
        assert set(run.chosen) == set(run.config.arms)
        assert all(set(then) == {"seed", "losses"} and len(then["losses"]) == 20 for then in run.first.values())
        assert set(run.first) == set(run.config.arms) - {"clock"}
        for steps, values in (pair for columns in run.arrays.values() for pair in columns.values()):
            assert len(steps) == len(values)


def test_a_recorded_run_is_drawn_like_a_live_one(live, loaded):
    with mpl.rc_context():
        for run in (live, loaded):
            axes = Figure().subplots()
            sigmoid_mlp.draw(run.rows.query("arm in ['plain', 'bn', 'mnist-bn']"), axes)
            assert len(axes.lines) == 3
            assert len(axes.collections) == 3
            assert [line.get_label() for line in axes.lines] == ["no BN", "BN", "BN"]
            assert axes.get_xscale() == "log"
            assert axes.lines[0].get_xdata()[-1] == 60


def test_a_run_without_tuned_arms_is_recorded_too(monkeypatch):
    config = Config({"plain": Plan("mnist5k", 30, grid(norm="none", lr=0.1))}, (31,), (3,), {}, sigmoid_mlp.OPTIONS)
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", config)
    run = runner.run("sigmoid-mlp", "full")
    record.save(run)
    loaded = record.load("sigmoid-mlp")
    assert keys(loaded.results()) == keys(run.results()) == [("plain", 31, False)]
    assert loaded.chosen == run.chosen


def test_a_run_that_diverged_is_recorded_as_json(monkeypatch):
    plans = {"plain": Plan("mnist5k", 30, grid(norm="none", lr=[1e39, 1e40]), curves=True)}
    config = Config(plans, (31,), (3,), {}, sigmoid_mlp.OPTIONS)
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", config)
    run = runner.run("sigmoid-mlp", "full")
    assert math.isnan(run.first["plain"]["losses"][-1])
    strict(record.save(run).read_text())
    loaded = record.load("sigmoid-mlp")
    assert loaded.first["plain"]["losses"][-1] is None
    assert loaded.rows["step"].tolist() == run.rows["step"].tolist()
    assert np.isnan(loaded.rows["loss"].astype(float).iloc[-1])
    assert not ledger.stale("sigmoid-mlp")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("inf")])
def test_what_json_does_not_know_is_none(value):
    assert record.short(value) is None
    assert record.short([1.0, [value]]) == [1.0, [None]]


def test_curves_keep_what_the_experiment_names(live, saved, monkeypatch):
    whole = record.load("sigmoid-mlp").rows
    monkeypatch.setattr(sigmoid_mlp, "CURVES", {"accuracy": 2}, raising=False)
    named = record.load(record.save(live).stem).rows
    assert "loss" in whole
    assert set(whole) - set(named) >= {"loss"}
    for column in ("arm", "seed", "tuning", "step", "norm"):
        assert named[column].tolist() == whole[column].tolist()
    before, after = (rows["accuracy"].dropna().tolist() for rows in (whole, named))
    assert after == [float(f"{value:.2g}") for value in before] != before


def test_what_follows_from_the_plan_is_not_written_again(saved, loaded):
    content = strict(saved.read_text())
    assert not {"dataset", "steps", "tuning"} & set(content["results"])
    assert "like" not in content["config"]["arms"]["plain"]
    assert content["config"]["arms"]["plain-again"]["like"] == "plain"
    place = content["chosen"]["plain"]["setting"]
    assert loaded.config.arms["plain"].settings[place] == loaded.chosen["plain"]["setting"]
    assert {"dataset", "steps", "tuning"} <= set(loaded.cells)


@pytest.mark.parametrize("field", ["like", "seeds", "curves", "probed", "alone", "change", "times"])
def test_what_a_file_leaves_out_of_a_plan_is_its_default(field):
    plan = Plan("mnist5k", 1)
    assert getattr(plan, field) == record.PLAN[field]


def test_files_recorded_before_these_were_left_out_still_load(live, saved, loaded, monkeypatch):
    content = strict(saved.read_text())
    content["chosen"] = live.chosen
    results = live.results()
    for column in ("dataset", "steps", "tuning"):
        content["results"][column] = results[column].tolist()
    for curve in content["curves"]:
        curve.setdefault("tuning", False)
        curve.setdefault("setting", None)
    saved.write_text(json.dumps(content))
    again = record.load("sigmoid-mlp")
    assert again.chosen == loaded.chosen
    assert_frame_equal(again.cells, loaded.cells, check_like=True)
    assert_frame_equal(again.rows, loaded.rows, check_like=True)


def test_numbers_are_kept_to_five_digits():
    assert [record.short(v) for v in (0.123456, 123456.7, 1e-9, True, 3)] == [0.12346, 123460.0, 1e-9, True, 3]
    given = [record.short(v) for v in (np.int64(3), np.bool_(True), np.float32(0.1), "word", None)]
    assert given == [3, True, 0.1, "word", None]
    assert [type(v) for v in given[:3]] == [int, bool, float]


# --- the file


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_record_appears_whole_or_not_at_all(live, monkeypatch, step):
    def half(self, text, encoding):
        self.write_bytes(text.encode()[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    def no(*paths):
        raise OSError(errno.ENOSPC, "No space left on device", *map(str, paths))

    before = record.save(live).read_bytes()
    for there in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(*((Path, step, half) if step == "write_text" else (os, step, no)))
            if not there:
                record.path("sigmoid-mlp").unlink()
            with pytest.raises(OSError, match="No space left"):
                record.save(live)
        assert os.listdir(record.RESULTS) == (["sigmoid-mlp.json"] if there else [])
        assert not there or record.path("sigmoid-mlp").read_bytes() == before


def test_what_was_not_recorded_cannot_be_loaded():
    with pytest.raises(FileNotFoundError):
        record.load("sigmoid-mlp")
    with pytest.raises(core.Refused, match="there is no experiment 'sigmoid'"):
        record.load("sigmoid")


def test_records_lie_beside_the_package(monkeypatch):
    monkeypatch.undo()
    assert record.path("sigmoid-mlp") == Path(record.__file__).parents[1] / "results" / "sigmoid-mlp.json"
