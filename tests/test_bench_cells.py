"""What the runner adds to a cell: every variant computes all cells, and computes them again in the next turn."""

import json

import pytest

from bnlib import bench, bench_cells
from bnlib.experiments import cells, runner, sigmoid_mlp

COUNT = 20


@pytest.fixture(scope="module")
def variants():
    with bench_cells.variants(COUNT) as found:
        yield found


@pytest.mark.parametrize("name", bench_cells.WORKERS)
def test_each_variant_computes_all_cells_in_every_turn(variants, monkeypatch, name):
    before = len(list(cells.folder().rglob("*.json")))
    taken, run, one_cell = [], runner.run, runner.one_cell

    def watched(*order, **options):
        assert not options["progress"]
        return run(*order, **options, each=lambda *cell: taken.append(cell[-1]))

    def counted(*cell):
        taken.append(len(cell) == 6)  # a bare cell names no file
        return one_cell(*cell)

    monkeypatch.setattr(runner, "run", watched)
    if name == bench_cells.BARE:
        monkeypatch.setattr(runner, "one_cell", counted)
    for _ in range(2):
        variants[name]()
        assert taken == [False] * COUNT  # none was kept from the turn before
        taken.clear()
    kept = len(list(cells.folder().rglob("*.json"))) - before
    assert kept == (0 if name == bench_cells.BARE else 2 * COUNT)
    assert "tiny" not in sigmoid_mlp.PRESETS


@pytest.mark.parametrize("count", [2, 20, 1000])
def test_a_config_has_so_many_cells(count):
    config = bench_cells.config(count, 0)
    assert 2 * len(config.tuning_seeds) + len(config.seeds) == count
    file = cells.path("sigmoid-mlp", config, "tiny", 0, {"lr": 0.1})
    assert file != cells.path("sigmoid-mlp", bench_cells.config(count, 1), "tiny", 0, {"lr": 0.1})


def test_the_folder_of_the_cells_is_the_readers_again(monkeypatch, tmp_path):
    monkeypatch.setenv("BNLIB_CELLS", str(tmp_path))
    with bench_cells.variants(2) as found:
        assert set(found) == set(bench_cells.WORKERS)
        inside = cells.folder()
        assert inside != tmp_path
    assert cells.folder() == tmp_path
    assert not inside.exists()


def test_overhead_is_what_a_worker_spends_beside_the_bare_cell():
    times = {bench_cells.BARE: 10.0, bench_cells.ONE: 12.0, bench_cells.TWO: 7.0, bench_cells.DASK: 9.0}
    rows = [{"case": bench_cells.CASE, "variant": name, "wall_ms_median": ms} for name, ms in times.items()]
    rows.append({"case": "another", "variant": bench_cells.BARE, "wall_ms_median": 1.0})
    assert bench_cells.overhead(rows) == {bench_cells.ONE: 2.0, bench_cells.TWO: 4.0, bench_cells.DASK: 8.0}


def test_the_measurement_prints_rows_for_the_recorded_file(capsys, monkeypatch):
    def take_turns(variants, threads, seconds, turns):
        assert (threads, seconds, turns) == (1, 0, 3)
        plain = {"cpu_ms_median": 40.0, "cpu_ms_min": 40.0, "wall_ms_median": 80.0, "spread": [40.0, 60.0]}
        return {name: {**plain, "ratio_to_floor": None, "ratio_to_torch": None} for name in variants}

    monkeypatch.setattr(bench, "take_turns", take_turns)
    bench.measure_cells(COUNT, turns=3)
    rows = json.loads(capsys.readouterr().out)
    assert [row["variant"] for row in rows] == list(bench_cells.WORKERS)
    for row in rows:
        assert row["wall_ms_median"] == 4.0
        assert row["spread"] == [2.0, 3.0]
        assert row["ratio_to_floor"] is None
        assert bench.table([row])


def test_the_recorded_rows_are_complete():
    recorded = [row for row in bench.load() if row["case"] == bench_cells.CASE]
    assert [row["variant"] for row in recorded] == list(bench_cells.WORKERS)
    assert all(ms > 0 for ms in bench_cells.overhead(recorded).values())
