"""The command line of the experiments: run, list, ledger; what it records, and one line for each thing that fails."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from joblib.externals.loky.process_executor import TerminatedWorkerError

from bnlib import __main__ as command_line
from bnlib import data
from bnlib.experiments import cells, ledger, machines, record, runner, sigmoid_mlp
from bnlib.experiments.core import Plan

from .experiments import conftest as shared
from .experiments.conftest import tiny

folders, toy = shared.folders, shared.toy

ENTRY = (
    "toy-more: Wide is better by\n    +2.00 points (+2.00 to +2.00 points; 3 seeds), threshold ≥ 1.00 points: agrees"
)


def call(capsys, *words):
    """Exit status, stdout and stderr of one command line."""
    status = command_line.main([*words])
    return status, *capsys.readouterr()


def run(capsys, *words, name="toy", jobs="1"):
    return call(capsys, "run", name, "--jobs", jobs, *words)


def is_one_line(err):
    return err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1


# --- what is run and recorded


def test_a_full_run_with_all_seeds_prints_its_claims_and_is_recorded(toy, capsys):
    status, out, err = run(capsys, "--scale", "full")
    assert (status, err) == (0, "")
    assert out.startswith(f"{ENTRY} [analogue, mnist5k]\n")
    assert "note: the best width of wide is at the edge of its grid: no optimum\n" in out
    assert "note: the best width of again is at the edge" in out
    assert "of fixed is at the edge" not in out
    assert out.endswith(f"recorded in {record.path('toy')}\n")
    assert record.load("toy").left_out() == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "scale lite"),
        (["--scale", "lite"], "scale lite"),
        (["--scale", "full", "--seeds", "2"], "3 confirming cells of the config were left out"),
        (["--scale", "full", "--seeds", "1"], "7 confirming cells of the config were left out"),
    ],
)
def test_nothing_else_is_recorded(toy, capsys, words, reason):
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert out.startswith("toy-more: Wide is better by\n")
    assert out.endswith(f"not recorded: {reason}\n")
    assert list(record.RESULTS.iterdir()) == []


def test_a_partial_run_does_not_replace_a_record(toy, capsys):
    run(capsys, "--scale", "full")
    before = record.path("toy").read_bytes()
    run(capsys, "--scale", "full", "--seeds", "2")
    run(capsys)
    assert record.path("toy").read_bytes() == before


def test_a_finished_run_is_recorded_again_without_computing_a_cell(toy, capsys):
    first = run(capsys, "--scale", "full", "--seeds", "2")
    toy.CALLS.clear()
    second = run(capsys, "--scale", "full")
    assert len(toy.CALLS) == 3
    assert first[0] == second[0] == 0
    run(capsys, "--scale", "full")
    assert len(toy.CALLS) == 3


def test_a_rerun_runs_what_is_recorded_and_nothing_else(toy, capsys):
    assert call(capsys, "rerun", "--jobs", "1") == (0, "", "")
    run(capsys, "--scale", "full")
    before = record.load("toy").results()
    cells_kept = sorted(cells.folder().rglob("*.json"))
    toy.CALLS.clear()
    status, out, err = call(capsys, "rerun", "--jobs", "1")
    assert (status, err, toy.CALLS) == (0, "", [])
    assert out.startswith("toy, then 0 more: about 0:00:00 in all, as recorded\n")
    assert out.endswith(f"recorded in {record.path('toy')}\n")
    assert out.count("\n") == 2 + len(cells_kept)  # a line for each cell
    assert out.count(": kept  ") == len(cells_kept)
    assert "    fixed, seed 11: kept  lr=1.0 width=2\n" in out
    cells_kept[0].unlink()
    _, out, _ = call(capsys, "rerun", "--jobs", "1")
    assert len(toy.CALLS) == 1
    assert out.count(": kept  ") == len(cells_kept) - 1
    assert ": 0.0 s  " in out
    assert record.load("toy").results().drop(columns="seconds").equals(before.drop(columns="seconds"))


def test_a_rerun_refuses_what_a_run_refuses(toy, capsys):
    run(capsys, "--scale", "full")
    status, out, err = call(capsys, "rerun", "--jobs", "0")
    assert status == 2
    assert is_one_line(err)


# --- the ledger and the list


def test_the_ledger_prints_all_recorded_claims(toy, capsys):
    assert call(capsys, "ledger") == (0, "\n", "")
    _, printed, _ = run(capsys, "--scale", "full")
    status, out, err = call(capsys, "ledger")
    assert (status, err) == (0, "")
    assert out.startswith(f"{ENTRY} [analogue, mnist5k]\n")
    assert len(out.splitlines()) == 4
    assert printed.startswith(out)


def test_the_ledger_is_printed_as_json_too(toy, capsys):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    def printed():
        status, out, err = call(capsys, "ledger", "--format", "json")
        assert (status, err) == (0, "")
        return json.loads(out, parse_constant=refuse)

    assert printed() == []
    run(capsys, "--scale", "full")
    assert printed() == ledger.claims()
    assert [entry["id"] for entry in printed()] == ["toy-more", "toy-told"]
    with pytest.raises(SystemExit) as left:
        call(capsys, "ledger", "--format", "html")
    assert left.value.code == 2


def test_the_list_names_every_experiment_and_what_is_recorded(toy, capsys):
    status, out, err = call(capsys, "list")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert f"toy: {toy.__doc__.splitlines()[0]}" in lines
    assert f"sigmoid-mlp: {sigmoid_mlp.__doc__.splitlines()[0]}" in lines
    assert "    full    4 arms, 3 seeds, mnist5k" in lines
    assert "    full    18 arms, 5 seeds, fashion-mnist, mnist" in lines
    assert f"    arm {'mnist-bn':17} {sigmoid_mlp.ARMS['mnist-bn']}" in lines
    assert "    recorded  yes" not in lines
    run(capsys, "--scale", "full")
    assert call(capsys, "list")[1].count("    recorded  yes") == 1


# --- what fails


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toys"], "there is no experiment 'toys': choose from "),
        (["toy", "--scale", "ful"], "there is no scale of toy 'ful': choose from full, lite; did you mean full?"),
        (["toy", "--seeds", "0"], "seeds must be from 1 to 3, the seeds that the config names; got 0"),
        (["toy", "--seeds", "-1"], "seeds must be from 1 to 3, the seeds that the config names; got -1"),
        (["toy", "--seeds", "9"], "seeds must be from 1 to 3, the seeds that the config names; got 9"),
        (["toy", "--jobs", "0"], "jobs must be 1 or more; got 0"),
        (["toy", "--engine", "dsk"], "there is no engine 'dsk': choose from loky, dask; did you mean dask?"),
        (
            ["toy", "--engine", "dask"],
            "the engine dask needs a scheduler: --scheduler tcp://HOST:8786; dask scheduler",
        ),
        (["toy", "--scheduler", "tcp://h:1"], "a scheduler belongs to a dask cluster: add --engine dask"),
        (["toy", "--engine", "dask", "--scheduler", "h"], "'h' is no address such as tcp://192.168.0.7:8786: "),
        (["toy", "--engine", "dask", "--scheduler", "tcp://h:1", "--jobs", "2"], "jobs are for one machine: "),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_one_line_and_status_2(toy, capsys, words, message):
    status, out, err = call(capsys, "run", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert is_one_line(err)
    assert toy.CALLS == []


def test_without_dask_its_engine_is_refused(toy, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    status, out, err = call(capsys, "run", "toy", "--engine", "dask", "--scheduler", "tcp://h:1")
    assert (status, out, toy.CALLS) == (2, "", [])
    assert is_one_line(err)
    assert err.startswith("error: the engine dask needs dask: pip install -r requirements.txt")


@pytest.mark.parametrize("word", ["run", "rerun"])
def test_a_scheduler_that_does_not_answer_is_one_line(toy, capsys, monkeypatch, word):
    monkeypatch.setattr(machines, "WAIT", 0.5)
    run(capsys, "--scale", "full")
    toy.CALLS.clear()
    words = [word, "toy", "--scale", "full"] if word == "run" else [word]
    status, out, err = call(capsys, *words, "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert (status, toy.CALLS) == (1, [])
    assert out in ("", "toy, then 0 more: about 0:00:00 of one worker in all, as recorded\n")
    assert is_one_line(err)
    assert err.startswith("error: no scheduler answers at tcp://127.0.0.1:1: ")
    assert err.endswith("; finished cells are kept\n")


def test_an_order_for_a_cluster_reaches_the_runner(capsys, monkeypatch):
    monkeypatch.setattr(runner, "run", Mock(side_effect=machines.ClusterError("a worker has no mnist")))
    monkeypatch.setattr(ledger, "recorded", lambda: ("sigmoid-mlp",))
    monkeypatch.setattr(record, "load", lambda name: Mock(seconds=lambda: 7200))
    far = ["--engine", "dask", "--scheduler", "tcp://h:1"]
    for words in (["run", "sigmoid-mlp"], ["rerun"]):
        assert call(capsys, *words, *far)[::2] == (1, "error: a worker has no mnist; finished cells are kept\n")
        options = runner.run.call_args.kwargs
        assert [options[name] for name in ("jobs", "engine", "scheduler")] == [None, "dask", "tcp://h:1"]
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    for words, jobs in ((["run", "sigmoid-mlp"], 3), (["rerun"], 3), (["rerun", "--jobs", "2"], 2)):
        call(capsys, *words)
        options = runner.run.call_args.kwargs
        assert [options[name] for name in ("jobs", "engine", "scheduler")] == [jobs, "loky", None]


def test_a_word_that_is_no_number_is_refused_by_the_parser(toy, capsys):
    for words in (["toy", "--seeds", "two"], ["toy", "--jobs", "1.5"], []):
        with pytest.raises(SystemExit) as left:
            call(capsys, "run", *words)
        assert left.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_keeps_the_finished_cells(toy, capsys, monkeypatch):
    write, written = Path.write_text, []

    def limited(self, text, **options):
        if len(written) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        written.append(self)
        return write(self, text, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", limited)
        status, out, err = run(capsys, "--scale", "full")
    assert (status, out) == (1, "")
    assert is_one_line(err)
    assert "cannot be written: No space left on device; finished cells are kept" in err
    assert str(cells.folder()) in err
    toy.CALLS.clear()
    assert run(capsys, "--scale", "full")[0] == 0
    assert len(toy.CALLS) == 47 - 5


def test_a_record_that_cannot_be_written_is_one_line(toy, capsys, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", record.RESULTS / "not" / "there")
    status, out, err = run(capsys, "--scale", "full")
    assert status == 1
    assert out.startswith(ENTRY)
    assert is_one_line(err)
    assert "toy.json" in err
    assert "cannot be written: No such file or directory" in err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_cell_folder_that_cannot_be_made_is_one_line_from_workers_too(capsys, monkeypatch, tmp_path, jobs):
    (tmp_path / "file").write_text("a folder cannot be made below a file")
    monkeypatch.setenv("BNLIB_CELLS", str(tmp_path / "file" / "cells"))
    plan = Plan("mnist5k", 2, ({"lr": 0.1},))
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "lite", tiny(arms={"plain": plan}))
    status, out, err = run(capsys, name="sigmoid-mlp", jobs=jobs)
    assert (status, out) == (1, "")
    assert is_one_line(err)
    assert str(tmp_path / "file") in err


def test_a_damaged_cell_is_one_line_and_does_no_harm(toy, capsys):
    first = run(capsys, "--scale", "full")
    file = sorted(cells.folder().rglob("*.json"))[7]
    file.write_bytes(file.read_bytes()[:-1])
    assert run(capsys, "--scale", "full") == (
        0,
        first[1],
        f"the finished cell {file} is damaged: it is computed again\n",
    )


def test_a_data_set_that_no_source_has_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(data, "SYSTEM", tmp_path / "system")
    monkeypatch.setitem(data.ADDRESSES, "mnist", [])
    monkeypatch.setitem(data.PACKAGES, "mnist", ("no-data", "no-such-manager get", "no-such-tool {}", "."))
    sigmoid_mlp.images.cache_clear()
    arms = {arm: dataclasses.replace(plan, dataset="mnist") for arm, plan in tiny().arms.items()}
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "lite", tiny(arms=arms))
    status, out, err = run(capsys, name="sigmoid-mlp")
    assert (status, out) == (1, "")
    assert err == "error: no source of mnist answered: python -m bnlib data fetch mnist says more\n"


# --- whole processes

TINY = """
import sys
from bnlib import __main__ as command_line
from bnlib.experiments import sigmoid_mlp
from bnlib.experiments.core import Config, Plan, grid
arms = {"plain": Plan("mnist5k", 20, grid(norm="none", lr=[0.3, 3.0])), "bn": Plan("mnist5k", 20, grid(norm="bn"))}
sigmoid_mlp.PRESETS["tiny"] = Config(arms, (31, 32), (3, 4), {}, sigmoid_mlp.OPTIONS)
sys.exit(command_line.main(sys.argv[1:]))
"""


def test_a_process_of_its_own_prints_claims_and_progress_and_exits_0(tmp_path):
    words = ["run", "sigmoid-mlp", "--scale", "tiny", "--jobs", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "BNLIB_BUILD"}
    done = subprocess.run(
        [sys.executable, "-c", TINY, *words], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout.startswith("sigmoid-mlp-speed: ")
    assert done.stdout.endswith("not recorded: scale tiny\n")
    assert "sigmoid-mlp: 8 of 8 cells 100%" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert len(list((tmp_path / "cells").rglob("*.json"))) == 8


def test_help_imports_nothing_heavy():
    code = "import sys; from bnlib.__main__ import main\ntry: main(['run', '--help'])\n"
    code += "except SystemExit: print([m for m in ('numpy', 'pandas', 'joblib', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "the first N confirming seeds only; never recorded" in " ".join(done.stdout.split())
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("raised", "told"), [(KeyboardInterrupt(), "stopped"), (TerminatedWorkerError("killed"), "a worker was killed")]
)
def test_a_run_that_is_stopped_says_that_its_cells_are_kept(monkeypatch, capsys, raised, told):
    monkeypatch.setattr(runner, "run", Mock(side_effect=raised))
    status, out, err = call(capsys, "run", "sigmoid-mlp")
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {told}")
    assert is_one_line(err)
    assert "finished cells are kept" in err


def test_a_damaged_recorded_file_is_named(toy, capsys):
    run(capsys, "--scale", "full")
    file = record.path("toy")
    file.write_text(file.read_text()[:100])
    status, out, err = call(capsys, "ledger")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: the recorded file {file} is damaged")
    assert is_one_line(err)
