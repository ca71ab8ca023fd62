"""Folders of each test's own, the toy among the experiments, and small configs of section 4.1."""

import dataclasses
import sys

import pytest
from pandas.testing import assert_frame_equal
from threadpoolctl import threadpool_limits

from bnlib.experiments import core, ledger, record, runner, sigmoid_mlp
from bnlib.experiments.core import Config, Plan, grid

from . import toy as toy_module


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Cells and records in the test's folder, no progress lines."""
    monkeypatch.setenv("BNLIB_CELLS", str(tmp_path / "cells"))
    monkeypatch.setenv("BNLIB_BUILD", "1")
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """As the runner does it: a second thread costs more than it gives."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def toy(monkeypatch):
    """The toy, found under its name like an experiment of the package; in this process only, so with one job."""
    names = (*core.names(), "toy")
    monkeypatch.setattr(core, "names", lambda: names)
    monkeypatch.setitem(sys.modules, "bnlib.experiments.toy", toy_module)
    toy_module.CALLS.clear()
    return toy_module


@pytest.fixture
def kept(monkeypatch):
    """``kept(run, rel=1e-3)`` gives a run back from its recorded file, which is small, fresh and has its claims."""

    def kept(run, rel=1e-3):
        monkeypatch.setitem(core.module(run.name).PRESETS, "full", run.config)
        file = record.save(run)
        again = record.load(run.name)
        assert file.stat().st_size < 300_000
        assert ledger.stale(run.name) == []
        for one, other in zip(ledger.entries(run), ledger.entries(again), strict=True):
            wanted = None if other["ours"] is None else pytest.approx(other["ours"], rel=rel, abs=1e-3)
            assert one["ours"] == wanted, one["id"]
            assert one["verdict"] == other["verdict"], one["id"]
        return again

    return kept


def tiny(**changes):
    """Three arms with two rates each: 21 cells of 40 steps."""
    arms = {"plain": ("none", "gaussian"), "bn": ("bn", "gaussian"), "dd": ("none", "dd")}
    plans = {
        arm: Plan("mnist5k", 40, grid(norm=norm, init=init, optimizer="sgd", lr=[0.3, 3.0]))
        for arm, (norm, init) in arms.items()
    }
    config = Config(plans, (31, 32, 33), (3, 4), sigmoid_mlp.ARRAYS, sigmoid_mlp.OPTIONS)
    return dataclasses.replace(config, **changes)


def varied():
    """An arm of every kind: tuned with curves, like another, probed, alone."""

    def sgd(norm, lr):
        return grid(norm=norm, init="gaussian", optimizer="sgd", lr=lr)

    plans = {
        "plain": Plan("mnist5k", 60, sgd("none", [0.3, 3.0]), curves=True),
        "bn": Plan("mnist5k", 60, sgd("bn", [0.3, 1.0, 3.0])),
        "plain-again": Plan("mnist5k", 60, like="plain", seeds=(41, 42, 43)),
        "mnist-plain": Plan("mnist5k", 220, sgd("none", 0.1), probed=True),
        "mnist-bn": Plan("mnist5k", 220, sgd("bn", 0.1), probed=True),
        "clock": Plan("mnist5k", 100, sgd("none", 0.1), alone=True),
    }
    return tiny(arms=plans)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """A run of `tiny` from first to last cell."""
    return _run_once(tmp_path_factory, tiny())


@pytest.fixture(scope="session")
def live(tmp_path_factory):
    """A run of `varied` as the full scale of section 4.1."""
    return _run_once(tmp_path_factory, varied())


def _run_once(tmp_path_factory, config):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_CELLS", str(tmp_path_factory.mktemp("cells")))
        patch.setitem(sigmoid_mlp.PRESETS, "full", config)
        return runner.run("sigmoid-mlp", "full", progress=False)


def assert_same_run(one, other):
    """Everything but the seconds is equal to the last bit."""
    assert_frame_equal(one.cells.drop(columns="seconds"), other.cells.drop(columns="seconds"), check_exact=True)
    assert_frame_equal(one.rows, other.rows, check_exact=True)
    assert (one.chosen, one.first) == (other.chosen, other.first)
    assert said(one) == said(other)


def said(run):
    """The ledger's entries of a run without the seconds."""
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in ledger.entries(run)]
