"""The benchmark: what it times does the work, variants take turns, and the recorded file holds what the page says."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import torch
from numpy.testing import assert_allclose

from bnlib import __main__, bench, bench_cells

FIELDS = {"case", "variant", "threads", "cpu_ms_median", "cpu_ms_min", "wall_ms_median", "spread"}
FIELDS |= {"ratio_to_floor", "ratio_to_torch", "about"}


@pytest.fixture(scope="module")
def recorded():
    return {(row["case"], row["variant"], row["threads"]): row for row in bench.load()}


@pytest.mark.parametrize("shape", [(12, 3), (4, 3, 6, 5)])
def test_the_timed_variants_do_the_same_work(shape):
    variants = bench.transform(shape, parts=True)
    dx, dgamma, dbeta = variants["fast"]()
    closed, staged = variants["closed form"](), variants["staged"]()
    for name, got, other in (("dx", dx, closed[0]), ("dgamma", dgamma, closed[1]), ("dbeta", dbeta, closed[2])):
        assert_allclose(got, staged[name], rtol=1e-4, atol=1e-5)
        assert_allclose(got, other, rtol=1e-4, atol=1e-5)
    for name in ("fast, forward", "fast, forward sums", "fast, backward", "fast, backward sums"):
        assert variants[name]() is not None
    assert ("torch channels_last" in variants) == (len(shape) == 4)
    assert "staged" not in bench.transform(shape, slow=False)
    for name in ("floor", "torch"):
        variants[name]()


@pytest.mark.parametrize("norm", [False, True])
def test_a_timed_training_step_trains(norm):
    variants = bench.mlp_step(norm)
    assert set(variants) == {"torch", "scratch"} | ({"scratch, fast"} if norm else set())
    for step in variants.values():
        step()


@pytest.mark.parametrize("norm", [False, True])
def test_the_timed_loops_take_the_same_steps(norm, monkeypatch):
    monkeypatch.setattr(bench, "STEPS", 3)
    taken = []
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, *_: taken.append(self))
    variants = bench.loop(norm)
    assert set(variants) == {"torch", "fit"}
    for call in variants.values():
        call()
        assert len(taken) == 3
        taken.clear()


def test_the_timed_modules_do_the_same_work():
    x_grads = {}
    for name, step in bench.module((4, 3, 5, 5)).items():
        step()
        x_grads[name] = dict(zip(step.__code__.co_freevars, step.__closure__, strict=True))["x"].cell_contents.grad
    assert_allclose(x_grads["nets"], x_grads["torch"], atol=1e-5)


def test_variants_take_turns_and_ratios_are_of_medians(monkeypatch):
    class Clock:
        cpu = wall = 0.0

        def process_time(self):
            return self.cpu

        def perf_counter(self):
            return self.wall

    clock, calls = Clock(), []
    monkeypatch.setattr(bench, "time", clock)

    def variant(name, cpu, wall=None):
        def call():
            calls.append(name)
            slower = 1.5 if calls.count(name) % 2 else 1  # every other call
            clock.cpu += cpu * slower
            clock.wall += (wall or cpu) * slower

        return call

    variants = {"floor": variant("a", 0.004), "torch": variant("b", 0.008), "fast": variant("c", 0.032)}
    found = bench.take_turns(variants, threads=1, seconds=0)
    assert "".join(calls) == "aabbcc" + "aabc" * 9  # short calls share a turn of 10 ms
    assert found["fast"]["cpu_ms_median"] == 48
    assert found["fast"]["cpu_ms_min"] == 32
    assert found["fast"]["spread"] == [32, 48]
    assert found["torch"]["ratio_to_floor"] == pytest.approx(12 / 5)
    assert found["fast"]["ratio_to_torch"] == 4
    assert found["floor"]["ratio_to_floor"] == found["torch"]["ratio_to_torch"] == 1
    assert bench.take_turns({"torch": variants["torch"]}, 1, 0)["torch"]["ratio_to_floor"] is None
    shared = {"floor": variant("d", 0.02, 0.02), "torch": variant("e", 0.04, 0.08)}
    assert bench.take_turns(shared, 2, 0)["torch"]["ratio_to_floor"] == 4  # wall clock, where threads share the work
    assert bench.take_turns(shared, 1, 0)["torch"]["ratio_to_floor"] == 2
    began, calls[:] = clock.wall, []
    bench.take_turns({"floor": variant("f", 0.1)}, 1, seconds=6)
    assert clock.wall - began > 6


def test_measure_prints_rows_as_json(monkeypatch, capsys):
    monkeypatch.setenv(bench.THREADS[0], str(torch.get_num_threads()))
    monkeypatch.setattr(bench, "SHAPES", [(6, 3)])
    monkeypatch.setattr(bench, "GROWING", [(8, 3)])
    monkeypatch.setattr(bench, "take_turns", lambda variants, threads: {name: {} for name in variants})
    bench.measure()
    rows = json.loads(capsys.readouterr().out)
    assert {"(6, 3)", "MLP step", "MLP step with BN"} <= {row["case"] for row in rows}


def test_the_command_records_and_prints(monkeypatch, capsys, tmp_path, recorded):
    seen = []

    def run(command, env, **options):
        seen.append([env[name] for name in bench.THREADS])
        threads, of_cells = int(env[bench.THREADS[0]]), "measure_cells()" in command[-1]
        chosen = [row for row in bench_rows if (row["case"] == bench_cells.CASE) == of_cells]
        return SimpleNamespace(stdout=json.dumps([row for row in chosen if row["threads"] == threads]))

    first = next(iter(recorded.values()))
    of_cells = [{**first, "case": bench_cells.CASE, "variant": name} for name in bench_cells.WORKERS]
    bench_rows = [row for row in recorded.values() if row["case"] != bench_cells.CASE] + of_cells
    monkeypatch.setattr(bench, "FILE", tmp_path / "bench.json")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 2)
    assert __main__.main(["bench"]) == 0
    assert seen == [["1"] * 3, ["2"] * 3, ["1"] * 3]
    assert bench.load() == bench_rows
    assert "(256, 64, 28, 28)           fast  " in capsys.readouterr().out
    for group, count in (("cells", 1), ("transform", 2)):  # the others stay as they are
        seen.clear()
        assert __main__.main(["bench", group]) == 0
        assert len(seen) == count
        assert bench.load() == bench_rows
    bench_rows[-1]["cpu_ms_min"] = bench_rows[0]["cpu_ms_min"] = -1.0
    __main__.main(["bench", "cells"])
    assert [bench.load()[i]["cpu_ms_min"] == -1.0 for i in (0, -1)] == [False, True]


def test_the_recorded_file_is_complete_and_consistent(recorded):
    assert len(recorded) == len(bench.load())
    others = {f"{case}{norm}" for case in ("MLP step", "Inception, 20 steps") for norm in ("", " with BN")}
    shapes = {str(shape) for shape in bench.SHAPES + bench.GROWING}
    assert {case for case, _, _ in recorded} - {bench_cells.CASE} == shapes | others | {"module (32, 64, 7, 7)"}
    assert {threads for _, _, threads in recorded} > {1}
    for (case, variant, threads), row in recorded.items():
        assert set(row) == FIELDS
        clock = "cpu_ms_median" if threads == 1 else "wall_ms_median"
        for other in ("floor", "torch"):
            if (case, other, threads) in recorded:
                ratio = row[clock] / recorded[case, other, threads][clock]
                assert row[f"ratio_to_{other}"] == pytest.approx(ratio, rel=2e-3), (case, variant)
    for shape in bench.SHAPES:
        for variant in ("staged", "closed form", "fast", "torch", "floor"):
            assert (str(shape), variant, 1) in recorded


def test_what_the_page_says_about_the_recorded_times(recorded):
    """Not less than was asked for when the fast form was written, and the sentences of the page."""
    ms = {key: row["cpu_ms_median"] for key, row in recorded.items()}
    for shape, most in (("(4096, 1024)", 2.2), ("(256, 64, 28, 28)", 0.8)):
        assert ms[shape, "fast", 1] <= most * ms[shape, "torch", 1]
    for shape in map(str, bench.SHAPES):
        assert ms[shape, "staged", 1] >= 3 * ms[shape, "fast", 1]
        maps = ms[shape, "fast, forward", 1] - ms[shape, "fast, forward sums", 1]
        maps += ms[shape, "fast, backward", 1] - ms[shape, "fast, backward sums", 1]
        assert maps > ms[shape, "fast, forward sums", 1] + ms[shape, "fast, backward sums", 1]  # the larger part
    assert ms["MLP step", "scratch", 1] <= 0.6 * ms["MLP step", "torch", 1]
    assert ms["MLP step with BN", "scratch", 1] < ms["MLP step with BN", "torch", 1]
    assert ms["MLP step with BN", "scratch, fast", 1] > 0.9 * ms["MLP step with BN", "scratch", 1]  # gains nothing
    assert 0.1 < ms["(64, 256)", "fast", 1] < 0.4  # little work: mostly the cost of the calls
    for norm in ("", " with BN"):  # what the loop of the torch nets costs over a bare one
        assert ms[f"Inception, 20 steps{norm}", "fit", 1] <= 1.05 * ms[f"Inception, 20 steps{norm}", "torch", 1]
    assert ms["module (32, 64, 7, 7)", "nets", 1] > 1.1 * ms["module (32, 64, 7, 7)", "torch", 1]
