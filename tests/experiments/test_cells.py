"""Finished cells on disk: whole or absent, found again by all that decides them and by nothing else."""

import dataclasses
import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bnlib.experiments import cells
from bnlib.experiments.core import Config, Plan, grid

from ..conftest import ROOT

CELL = {"rows": [{"step": 1, "loss": 2.5, "p50": [0.1, -0.2]}, {"step": 7, "loss": float("nan")}], "seconds": 0.125}


def config(options=None, **plan):
    settings = {"dataset": "mnist5k", "steps": 10, "settings": grid(lr=[0.1, 1.0])} | plan
    return Config({"plain": Plan(**settings)}, (11, 12), (1, 2), options=options or {"batch": 60})


def path(name="sigmoid-mlp", of=None, arm="plain", seed=11, setting=None):
    return cells.path(name, of or config(), arm, seed, setting or {"lr": 0.1})


# --- files


def test_a_cell_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "new" / "folder" / "cell.json"
    assert cells.read(file) is None
    cells.write(file, CELL)
    assert os.listdir(file.parent) == ["cell.json"]
    again = cells.read(file)
    assert math.isnan(again["rows"][1].pop("loss"))
    assert again == {"rows": [CELL["rows"][0], {"step": 7}], "seconds": 0.125}


def test_every_flipped_bit_is_found(tmp_path):
    file = tmp_path / "cell.json"
    cells.write(file, CELL)
    sound, rng = file.read_bytes(), random.Random(0)
    for place in range(len(sound)):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << rng.randrange(8)
        file.write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged"):
            cells.read(file)
    file.write_bytes(sound)
    assert cells.read(file)["seconds"] == 0.125


def test_every_truncated_file_is_found_and_named_in_one_line(tmp_path):
    file = tmp_path / "cell.json"
    cells.write(file, CELL)
    sound = file.read_bytes()
    for length in range(len(sound)):
        file.write_bytes(sound[:length])
        with pytest.raises(ValueError, match="damaged") as error:
            cells.read(file)
        assert str(error.value) == f"the finished cell {file} is damaged"


@pytest.mark.parametrize("step", ["write_text", "replace"])
def test_a_file_that_cannot_be_finished_does_not_appear(tmp_path, monkeypatch, step):
    tmp_path = tmp_path / "cells"

    def half(self, text, encoding):
        self.write_bytes(text.encode()[: len(text) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    def no(*paths):
        raise OSError(errno.ENOSPC, "No space left on device", *map(str, paths))

    file = tmp_path / "cell.json"
    cells.write(file, CELL)
    before = file.read_bytes()
    monkeypatch.setattr(*((Path, step, half) if step == "write_text" else (os, step, no)))
    for name in ("cell.json", "other.json"):
        with pytest.raises(OSError, match="No space left"):
            cells.write(tmp_path / name, CELL | {"seconds": 9.0})
    assert os.listdir(tmp_path) == ["cell.json"]
    assert file.read_bytes() == before


def test_a_kill_between_writing_and_naming_leaves_no_cell(tmp_path):
    file = tmp_path / "cell.json"
    code = "import os, signal, sys; from pathlib import Path; from bnlib.experiments import cells\n"
    code += "os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "cells.write(Path(sys.argv[1]), {'rows': [], 'seconds': 1.0})"
    done = subprocess.run([sys.executable, "-c", code, str(file)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert cells.read(file) is None
    assert not list(tmp_path.glob("*.json"))
    cells.write(file, CELL)
    assert cells.read(file)["seconds"] == 0.125


def test_cells_lie_in_a_folder_of_the_user_and_never_in_the_checkout(monkeypatch):
    monkeypatch.setenv("BNLIB_CELLS", "~/of-mine")
    assert cells.folder() == Path.home() / "of-mine"
    for value in (None, ""):
        monkeypatch.delenv("BNLIB_CELLS") if value is None else monkeypatch.setenv("BNLIB_CELLS", value)
        assert cells.folder().parts[-2:] == ("bnlib", "cells")
        assert ROOT not in cells.folder().parents


# --- what a cell is found by


def test_all_that_decides_a_cell_is_in_its_name(monkeypatch):
    paths = {
        path(),
        path(name="fair-comparison"),
        path(seed=12),
        path(seed=1),
        path(setting={"lr": 0.2}),
        path(of=config({"batch": 61})),
        path(of=config(dataset="mnist")),
        path(of=config(steps=11)),
        path(of=config(probed=True)),
        path(of=config(alone=True)),
        path(of=dataclasses.replace(config(), tuning_seeds=(11,), seeds=(12,))),
        path(of=Config({"bn": config().arms["plain"]}, (11, 12), (1, 2), options={"batch": 60}), arm="bn"),
    }
    assert len(paths) == 12
    monkeypatch.setattr(cells, "code", lambda name: "another digest")
    assert path() not in paths
    assert path().parent == cells.folder() / "sigmoid-mlp"


def test_nothing_else_is():
    arms = {**config(curves=True, seeds=(11,), settings=grid(lr=[0.1, 5.0])).arms, "bn": Plan("mnist", 7)}
    other = Config(arms, (11, 14), (1, 3), arrays={"p50": 2}, options={"batch": 60})
    assert path(of=other) == path()
    assert path(setting=dict(reversed({"lr": 0.1, "norm": "bn"}.items()))) == path(setting={"norm": "bn", "lr": 0.1})


# --- the digest of the code

HARMLESS = [
    ("scratch/layers.py", '"""', '"""Another docstring. '),
    ("scratch/optimizers.py", "    def step(self, net):\n", '    def step(self, net):\n        """Step."""\n'),
    ("scratch/network.py", "    for step in tqdm(", "    # a comment\n    for step in tqdm("),
    ("scratch/network.py", "    batch=64,\n", "    batch=64,  \n"),
    ("experiments/sigmoid_mlp.py", '"""Train one net', '"""Teach one net'),
    ("experiments/sigmoid_mlp.py", 'ax.set(xscale="log"', 'ax.set(xscale="linear"'),
    ("experiments/sigmoid_mlp.py", '**curve, "threshold": 2.0', '**curve, "threshold": 3.0'),
    ("experiments/sigmoid_mlp.py", '"best": float(', '"highest": float('),
    ("experiments/sigmoid_mlp.py", '"label": "no BN"', '"label": "none"'),
    ("experiments/sigmoid_mlp.py", '"bn": "the same with BN"', '"bn": "BN"'),
    ("experiments/sigmoid_mlp.py", "seeds=(31, 32, 33)", "seeds=(31, 32)"),
    ("experiments/fair_comparison.py", '"adam": "no normalization, Adam', '"adam": "Adam'),
    ("experiments/fair_comparison.py", "RATES = [0.1", "RATES = [0.2"),  # a cell's key holds its setting
    ("experiments/record.py", "POINTS = 40", "POINTS = 41"),
    ("page/figures.py", "WIDTH = 7", "WIDTH = 8"),
]
HARMFUL = [
    ("scratch/layers.py", "0.5", "0.6"),
    ("scratch/optimizers.py", "1e-8", "1e-7"),
    ("scratch/optimizers.py", "momentum=0.9", "momentum=0.8"),
    ("scratch/inits.py", "gain=4.0", "gain=4.5"),
    ("scratch/network.py", "step == steps or every(step, history)", "every(step, history)"),
    ("scratch/checks.py", "x.ndim < 2", "x.ndim < 3"),
    ("data.py", "SEED = 2015", "SEED = 2016"),
    ("data_sources.py", "def from_idx(", "def from_idx(*_, "),
    ("experiments/sigmoid_mlp.py", "[784, 100, 100, 100, 10], seed=seed", "[784, 100, 100, 10], seed=seed"),
    ("experiments/sigmoid_mlp.py", "range(25, 166, 5)", "range(25, 166, 10)"),
    ("experiments/sigmoid_mlp.py", "part > 127", "part > 128"),
    ("experiments/sigmoid_mlp.py", '*, norm="none", init="gaussian"', '*, norm="none", init="dd"'),
]


@pytest.fixture(scope="module")
def digests(tmp_path_factory):
    """``digests(edits)``: of both experiments, in a process with a copy of the package that has these edits."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "bnlib", folder / "bnlib", ignore=shutil.ignore_patterns("__pycache__", "page"))
    (folder / "bnlib" / "page").mkdir()
    (folder / "bnlib" / "page" / "figures.py").write_text("WIDTH = 7\nbands = look = lambda *_: {}\n")  # light
    code = "import sys, json, bnlib; from bnlib.experiments import cells; print(bnlib.__file__, flush=True)\n"
    code += "for line in sys.stdin:\n    cells.code.cache_clear()\n"
    code += "    print(json.dumps([cells.code(n) for n in ('sigmoid-mlp', 'fair-comparison')]), flush=True)\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=folder, **pipes) as process:
        assert process.stdout.readline() == f"{folder / 'bnlib' / '__init__.py'}\n"

        def ask(edits):
            sound = {}
            for name, old, new in edits:
                file = folder / "bnlib" / name
                text = file.read_text()
                sound.setdefault(file, text)
                assert old in text, f"{name} no longer holds {old!r}"
                file.write_text(text.replace(old, new, 1))
                compile(file.read_text(), file, "exec")
            print(file=process.stdin, flush=True)
            answer = json.loads(process.stdout.readline())
            for file, text in sound.items():
                file.write_text(text)
            return answer

        yield ask
        process.stdin.close()


@pytest.fixture(scope="module")
def untouched(digests):
    return digests([])


def test_the_digest_is_the_same_in_every_process_and_clone(untouched):
    assert untouched == [cells.code("sigmoid-mlp"), cells.code("fair-comparison")]
    assert len(set(untouched)) == 2


def test_what_decides_no_number_does_not_change_the_digest(digests, untouched):
    assert digests(HARMLESS) == untouched


@pytest.mark.parametrize("edit", HARMFUL, ids=lambda edit: f"{edit[0]}, {edit[2]}")
def test_what_decides_numbers_changes_the_digest_of_every_experiment_that_runs_it(digests, untouched, edit):
    assert all(now != before for now, before in zip(digests([edit]), untouched, strict=True))


def test_code_of_one_experiment_does_not_touch_the_digest_of_another(digests, untouched):
    now = digests([("experiments/fair_comparison.py", 'Plan("mnist5k", 500', 'Plan("mnist5k", 501')])
    assert now[0] == untouched[0]
    assert now[1] != untouched[1]
