"""The setup and the Makefile: each thing that can go wrong is one clear line, and a finished setup costs nothing."""

import ast
import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXT = ROOT / "book" / "_ext"
sys.path.append(str(EXT))
environment = importlib.import_module("environment")


@pytest.fixture
def clone(tmp_path):
    """A clone with a pin of nothing real, and a function that runs make in it."""
    (tmp_path / "book" / "_ext").mkdir(parents=True)
    shutil.copy(EXT / "environment.py", tmp_path / "book" / "_ext")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").write_text("no-such-package-of-bnlib==1\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    return tmp_path


def make(root, *arguments, **settings):
    """Exit status and everything printed of ``make`` in ``root``."""
    command = ["make", "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    # these tests may run below a make of their own
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=env | settings)
    assert "Traceback" not in done.stdout + done.stderr
    return (
        done.returncode,
        done.stdout,
        [line for line in done.stderr.splitlines() if not line.startswith("make: ***")],
    )


def fake_environment(root, pip):
    """A .venv whose Python answers the probe and runs the shell command ``pip`` for pip."""
    version = "{}.{}".format(*sys.version_info)
    (root / ".venv" / "bin").mkdir(parents=True)
    site = root / ".venv" / "lib" / f"python{version}" / "site-packages"
    (site / "pip").mkdir(parents=True)
    (site / "pip" / "__init__.py").touch()
    (root / ".venv" / "pyvenv.cfg").write_text(f"version = {version}.0\n")
    python = root / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\ncase "$1" in -c) echo {version} 9.9;; *) echo "$@" >> pip.log; {pip};; esac\n')
    python.chmod(0o755)
    return site


def test_environment_is_readable_by_an_old_python():
    ast.parse((EXT / "environment.py").read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 10, 1), (3, 14, 0), (4, 0, 0)])
def test_a_python_out_of_range_is_named(version):
    with pytest.raises(
        environment.Stop, match=r"3\.11, 3\.12 or 3\.13 is needed, this is .* at /x/python3\. Install"
    ):
        environment.check_version(version, "/x/python3")


def test_a_missing_venv_module_is_named(monkeypatch):
    environment.check_venv()
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(environment.Stop, match=r"apt install python3-venv"):
        environment.check_venv()


def test_too_little_disk_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9e9, 8e9, 1e9))
    with pytest.raises(environment.Stop, match=r"1\.0 GB are free .* about 3 GB are needed"):
        environment.check_disk(tmp_path, 3)


def test_an_index_that_cannot_be_reached_is_one_line(clone):
    settings = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_CONFIG_FILE": os.devnull}
    status, _, errors = make(clone, "environment", PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="", **settings)
    assert status
    assert len(errors) == 1
    assert "the package index cannot be reached" in errors[0]
    assert not (clone / ".venv" / ".stamp").exists()


def test_a_disk_that_fills_up_is_one_line(clone):
    fake_environment(clone, 'echo "ERROR: Could not install: [Errno 28] No space left on device"; exit 1')
    status, _, errors = make(clone, "environment")
    assert status
    assert len(errors) == 1
    assert "the disk is full" in errors[0]


def test_a_finished_environment_is_left_alone_until_its_pins_change(clone):
    site = fake_environment(clone, "true")
    (site / "half-1.dist-info").mkdir()  # a killed pip: metadata without a RECORD
    assert make(clone, "environment")[0] == 0
    assert not (site / "half-1.dist-info").exists()
    calls = (clone / "pip.log").read_text().splitlines()
    assert calls == ["-m pip install -r requirements.txt", "-m pip install --no-deps -e ."]

    start = time.time()
    assert make(clone, "environment") == (0, "", [])
    assert time.time() - start < 2  # 0.1 s on an idle machine
    assert len((clone / "pip.log").read_text().splitlines()) == 2

    (clone / "requirements.txt").write_text("torch==9.9\nother==1\n")  # torch 9.9 is what the probe finds
    assert make(clone, "environment")[0] == 0
    assert len((clone / "pip.log").read_text().splitlines()) == 4


def test_experiments_run_here_or_on_a_cluster(clone):
    dry = make(clone, "-n", "experiments")[1].splitlines()
    assert dry[-1].rstrip() == ".venv/bin/python -m bnlib rerun"
    far = make(clone, "-n", "experiments", "SCHEDULER=tcp://h:8786")[1].splitlines()
    assert far[-1] == '.venv/bin/python -m bnlib rerun --engine dask --scheduler "tcp://h:8786"'


def test_dask_is_pinned_and_an_extra_of_the_package():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["optional-dependencies"] == {"cluster": ["dask", "distributed"]}
    assert not set(package["dependencies"]) & {"dask", "distributed"}
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert pins["dask"] == pins["distributed"]  # released together


def test_make_without_python_is_one_line(clone):
    status, _, errors = make(clone, "environment", "PYTHON=no-such-python")
    assert status
    assert errors[0].startswith("make: there is no no-such-python. Install Python 3.11, 3.12 or 3.13")


def test_serve_names_a_taken_port(clone):
    (clone / "_build" / "html").mkdir(parents=True)
    (clone / "_build" / "html" / "index.html").touch()
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, errors = make(clone, "serve", f"PORT={port}")
    assert status
    assert errors == [f"make: port {port} is not free. Take another: make serve PORT=8001"]


def test_clean_keeps_what_is_not_built(clone):
    for folder in ("_build/html", ".venv", "lab"):
        (clone / folder).mkdir(parents=True)
    assert make(clone, "clean")[0] == 0
    assert sorted(path.name for path in clone.iterdir() if path.is_dir()) == [".venv", "book", "lab"]


def test_help_is_the_default_and_names_every_target(clone):
    _, text, _ = make(clone)
    for target in ("book", "test", "serve", "lab", "clean"):
        assert re.search(rf"^make {target} ", text, re.MULTILINE)
