"""Cells on the workers of a dask cluster: the table of one machine, no cell lost, and one line for what fails."""

import contextlib
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client, LocalCluster

from bnlib.experiments import cells, core, machines, runner, sigmoid_mlp
from bnlib.scratch.layers import BatchNorm

from ..conftest import ROOT
from .conftest import assert_same_run, tiny
from .toy_worker import Bomb, Toy, loaded_at

ALONE = 3  # cells of the toy that measure time: they run here


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """However busy the machine is; where nobody answers, the tests wait less."""
    monkeypatch.setattr(machines, "WAIT", 60)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers with folders of their own for cells and data; a task that kills two of them is given up."""
    folders = {name: str(tmp_path_factory.mktemp(name.lower())) for name in ("BNLIB_CELLS", "BNLIB_DATA")}
    few = {"distributed.scheduler.allowed-failures": 1}
    options = {"threads_per_worker": 1, "processes": True, "dashboard_address": ":0", "env": folders}
    with dask.config.set(few), LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
        client.register_plugin(Toy())
        cluster.client, cluster.cells = client, Path(folders["BNLIB_CELLS"])
        yield cluster


@pytest.fixture
def here():
    """A scheduler and one worker in this process."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def far(cluster, toy):
    """``far(**options)`` runs the toy on the cluster, whose workers have no finished cells."""
    for file in cluster.cells.rglob("*.json"):
        file.unlink()
    try:
        cluster.client.wait_for_workers(2, timeout=30)
    except TimeoutError:  # on a busy machine a killed worker may not come back in dask's own time: take new ones
        cluster.scale(0)
        while cluster.workers or cluster.client.nthreads():
            time.sleep(0.1)
        cluster.scale(2)
        cluster.client.wait_for_workers(2, timeout=60)

    def run(**options):
        where = {"engine": "dask", "scheduler": cluster.scheduler_address}
        return runner.run("toy", "full", **where | options)

    return run


@pytest.fixture
def one_machine(toy, monkeypatch, tmp_path):
    """A run of the toy in this process, with cells in a folder of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("BNLIB_CELLS", str(tmp_path / "of-one-machine"))
        found = runner.run("toy", "full")
    toy.CALLS.clear()
    return found


def kept(folder=None):
    return sorted(file.name for file in (folder or cells.folder()).rglob("*.json"))


# --- the same table


def test_two_workers_give_the_table_of_one_machine_and_every_cell_comes_home(far, toy, one_machine, cluster):
    assert_same_run(far(), one_machine)
    assert [arm for arm, *_ in toy.CALLS] == ["timed"] * ALONE  # no other was computed in this process
    assert len(kept()) == 47
    assert kept(cluster.cells) == [name for name in kept() if not name.startswith("timed-")]
    toy.CALLS.clear()
    calls = []
    assert_same_run(far(each=lambda *cell: calls.append(cell[-1])), one_machine)
    assert (calls, toy.CALLS) == ([True] * 47, [])  # all of them kept


def test_real_nets_give_equal_numbers_on_the_workers(cluster, monkeypatch, unbroken):
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", tiny())
    monkeypatch.setattr(runner, "one_cell", None)  # of this process
    where = {"engine": "dask", "scheduler": cluster.scheduler_address}
    assert_same_run(runner.run("sigmoid-mlp", "full", **where), unbroken)


def test_a_single_worker_computes_and_not_this_thread(toy, one_machine, here, monkeypatch):
    threads, run = [], toy.run
    monkeypatch.setattr(toy, "run", lambda *cell, **s: threads.append(threading.current_thread()) or run(*cell, **s))
    assert_same_run(runner.run("toy", "full", engine="dask", scheduler=here.scheduler_address), one_machine)
    assert threads.count(threading.main_thread()) == ALONE
    assert len(threads) == 47


# --- what dies


def test_a_killed_worker_loses_no_cell(far, toy, one_machine, cluster):
    pids, taken = list(cluster.client.run(os.getpid).values()), []

    def kill(*cell):
        taken.append(cell)
        if len(taken) == 10:
            os.kill(pids[0], signal.SIGKILL)

    assert_same_run(far(each=kill), one_machine)
    assert pids[0] not in cluster.client.run(os.getpid).values()
    assert len(taken) == len(kept()) == 47
    assert len(toy.CALLS) == ALONE


def test_a_run_that_stops_in_the_middle_goes_on_from_there(far, toy, one_machine):
    taken = []

    def stop(*cell):
        taken.append(cell)
        if len(taken) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        far(each=stop)
    before = kept()
    assert len(before) == 10
    again = []
    assert_same_run(far(each=lambda *cell: again.append(cell)), one_machine)
    assert [cell[-1] for cell in again].count(True) == 10
    assert set(before) < set(kept())


def test_a_cell_that_a_worker_has_finished_is_not_computed_again(far, one_machine, cluster):
    first = far()
    for file in cells.folder().rglob("*.json"):
        if not file.name.startswith("timed-"):
            file.unlink()  # all that came home is lost
    before = {file: file.stat().st_mtime_ns for file in cluster.cells.rglob("*.json")}
    second = far()
    assert_same_run(second, one_machine)
    assert first.cells["seconds"].equals(second.cells["seconds"])
    assert {file: file.stat().st_mtime_ns for file in cluster.cells.rglob("*.json")} == before
    file = next(iter(before))
    file.write_text("damaged")
    (cells.folder() / "toy" / file.name).unlink()
    assert_same_run(far(), one_machine)
    assert cells.read(file) is not None


@pytest.mark.filterwarnings("error")
def test_a_full_disk_here_stops_the_run_without_another_word(far, monkeypatch, capsys):
    write, written = cells.write, []

    def limited(file, cell):
        written.append(file)
        if len(written) == 5:
            raise OSError(28, "No space left on device", str(file))
        write(file, cell)

    monkeypatch.setattr(cells, "write", limited)
    with pytest.raises(OSError, match="No space left"):
        far()
    assert len(kept()) == 4
    assert capsys.readouterr().err == ""


def test_a_cell_that_kills_its_workers_ends_the_run_in_one_line(far, toy):
    with pytest.raises(machines.ClusterError, match=r"^a cell killed 2 workers, perhaps for want of memory there$"):
        far(arms={"mine": {"base": "fixed", "word": Bomb()}})


def test_a_cluster_without_workers_is_told_and_waited_for(toy, one_machine, here, monkeypatch, capsys):
    monkeypatch.setattr(machines, "LOOK", 0.2)
    told, taken, until, write = [], [], time.monotonic() + 120, machines.tqdm.write
    monkeypatch.setattr(machines.tqdm, "write", lambda line, **to: (told.append(line), write(line, **to)))

    def bring_back():
        while not told and time.monotonic() < until:
            time.sleep(0.1)
        here.scale(1)

    def leave(*cell):
        taken.append(cell)
        if len(taken) == 10:
            here.scale(0)
            threading.Thread(target=bring_back).start()

    monkeypatch.setattr(toy, "run", lambda *cell, run=toy.run, **s: time.sleep(0.05) or run(*cell, **s))
    assert_same_run(
        runner.run("toy", "full", engine="dask", scheduler=here.scheduler_address, each=leave), one_machine
    )
    line = f"no worker is left at {here.scheduler_address}: the run goes on when one is started (Ctrl-C stops it)"
    assert told == [line]
    assert capsys.readouterr().err == line + "\n"


def test_a_lost_scheduler_is_one_line(toy, here):
    with pytest.raises(machines.ClusterError, match=r"^the connection to the scheduler at \S+ was lost$"):
        runner.run("toy", "full", engine="dask", scheduler=here.scheduler_address, each=lambda *cell: here.close())
    assert kept()


# --- functions of one's own


def test_a_lambda_is_sent_and_its_cells_are_kept_nowhere(cluster, far, monkeypatch):
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", tiny(seeds=(31,)))
    factor = 0.5

    def shrunk(net, images, rng):
        for layer in net.layers:
            if "weight" in layer.params:
                layer.params["weight"] *= factor

    own = {"base": "bn", "init": shrunk, "norm": lambda channels: BatchNorm(channels)}
    where = {"engine": "dask", "scheduler": cluster.scheduler_address}
    run = runner.run("sigmoid-mlp", "full", arms={"mine": own}, **where)
    assert run.chosen["mine"]["setting"]["init"] is shrunk
    assert kept() == kept(cluster.cells) == []
    here = runner.run("sigmoid-mlp", "full", arms={"mine": own})
    assert here.cells["score"].equals(run.cells["score"])


def test_what_cannot_be_sent_is_refused(far):
    with pytest.raises(
        core.Refused, match=r"^an arm holds what cannot be sent to a worker: cannot pickle '_thread.l"
    ):
        far(arms={"mine": {"base": "fixed", "word": threading.Lock()}})


def test_what_a_worker_cannot_import_is_one_line(far, monkeypatch, tmp_path):
    (tmp_path / "of_mine.py").write_text("class Word:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import of_mine

    with pytest.raises(machines.ClusterError, match=r"^a worker cannot import what a cell needs: .*of_mine"):
        far(arms={"mine": {"base": "fixed", "word": of_mine.Word()}})


# --- workers that must not compute


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"versions": {"numpy": "1.0"}}, r"has numpy \S+ where 1.0 is needed: install requirements.txt there"),
        ({"versions": {"nothing": "1.0"}}, "has no nothing where 1.0 is needed: install requirements.txt there"),
        ({"code": "another"}, "has other code of toy: bring bnlib there to the same commit and start it again"),
        ({"name": "unknown"}, "has other code of unknown: bring bnlib there to the same commit and start it again"),
        ({"datasets": ["mnist5k", "mnist"]}, "has no mnist: on that machine run python -m bnlib data fetch mnist"),
    ],
)
def test_a_worker_that_lacks_something_is_refused_before_any_cell_and_in_each(far, toy, monkeypatch, change, line):
    needs = machines.needs
    monkeypatch.setattr(machines, "needs", lambda name, config: needs(name, config) | change)
    for checked in (True, False):
        with monkeypatch.context() as patch:
            if not checked:  # a worker that joined later
                patch.setattr(machines, "_check_workers", lambda *_: None)
            with pytest.raises(machines.ClusterError, match=rf"^the worker tcp://\S+ {line}$"):
                far()
    assert kept() == toy.CALLS == []


def test_a_worker_whose_code_was_changed_below_it_is_refused(far, cluster):
    before = next(iter(cluster.client.run(loaded_at, 0.0).values()))
    try:
        with pytest.raises(
            machines.ClusterError, match="was started before bnlib was changed there: start it again$"
        ):
            far()
    finally:
        cluster.client.run(loaded_at, before)
    far(arms=["fixed"])


def test_a_worker_of_several_threads_is_refused(toy):
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as other:
        with pytest.raises(
            machines.ClusterError, match="computes 2 cells at a time in one process: start it with --n"
        ):
            runner.run("toy", "full", engine="dask", scheduler=other.scheduler_address)
        assert toy.CALLS == []


WITHOUT = (
    "import runpy, sys; sys.modules['bnlib'] = None; sys.argv[0] = 'dask'; runpy.run_module('dask', None, '__main__')"
)


def test_a_worker_without_bnlib_is_refused(toy):
    with contextlib.ExitStack() as stack:
        options = {"n_workers": 0, "processes": True, "dashboard_address": ":0"}
        other = stack.enter_context(LocalCluster(**options))
        words = ["worker", other.scheduler_address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        worker = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", WITHOUT, *words], stderr=subprocess.DEVNULL)
        )
        stack.callback(worker.kill)
        with Client(other) as client:
            client.wait_for_workers(1, timeout=120)
        with pytest.raises(
            machines.ClusterError, match=r"cannot import bnlib as it is here: start it from the course's"
        ):
            runner.run("toy", "full", engine="dask", scheduler=other.scheduler_address)
    assert toy.CALLS == []


def test_what_a_worker_raises_survives_the_way_home():
    error = pickle.loads(pickle.dumps(machines.ClusterError("the worker x has no mnist")))
    assert (type(error), str(error)) == (machines.ClusterError, "the worker x has no mnist")


# --- schedulers that do not answer


def refused(address, kind=machines.ClusterError):
    """The line, which must come within seconds."""
    began = time.monotonic()
    with pytest.raises(kind) as error:
        runner.run("toy", "full", engine="dask", scheduler=address)
    assert time.monotonic() - began < 30  # seconds; 4 on an idle machine
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_scheduler_that_is_not_there_or_silent_is_one_line(toy, monkeypatch):
    monkeypatch.setattr(machines, "WAIT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "tcp://{}:{}".format(*silent.getsockname())
        line = f"no scheduler answers at {address}: start one with dask scheduler, or check the address"
        assert refused(address) == line
    assert refused(address) == line
    assert toy.CALLS == []


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "ftp://127.0.0.1:8786", "tls://127.0.0.1:8786"])
def test_what_is_no_address_is_refused(toy, address):
    assert refused(address, core.Refused).startswith(f"'{address}' is no address such as tcp://192.168.0.7:8786: ")


def test_a_worker_is_no_scheduler(far, cluster):
    worker = next(iter(cluster.client.nthreads()))
    assert refused(worker) == f"at {worker} answers a worker, not a scheduler"


def test_a_scheduler_without_workers_says_how_to_start_one(toy, monkeypatch):
    monkeypatch.setattr(machines, "WAIT", 6)
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as other:
        address = other.scheduler_address
        line = f"the scheduler at {address} has no worker: start one with dask worker {address} --nthreads 1"
        assert refused(address) == line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "dsk"}, "there is no engine 'dsk': choose from loky, dask; did you mean dask[?]"),
        (
            {"engine": "dask"},
            "the engine dask needs a scheduler: --scheduler tcp://HOST:8786; dask scheduler starts one",
        ),
        ({"scheduler": "tcp://h:1"}, "a scheduler belongs to a dask cluster: add --engine dask"),
        (
            {"engine": "dask", "scheduler": "tcp://h:1", "jobs": 2},
            "jobs are for one machine: with the engine dask each worker runs one cell at a time",
        ),
    ],
)
def test_orders_that_do_not_go_together_are_refused(toy, options, message):
    with pytest.raises(core.Refused, match=f"^{message}$"):
        runner.run("toy", "full", **options)
    assert toy.CALLS == []


def test_all_but_the_engine_dask_works_without_dask(toy, monkeypatch):
    for name in ("dask", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        core.Refused, match=r"^the engine dask needs dask: pip install -r requirements.txt, or pip inst"
    ):
        runner.run("toy", "full", engine="dask", scheduler="tcp://127.0.0.1:1")
    assert toy.CALLS == []
    assert len(runner.run("toy", "full").cells) == 47


# --- whole processes: the worked example of the book

TINY = """
import sys
from bnlib import __main__ as command_line
from bnlib.experiments import sigmoid_mlp
from tests.experiments.conftest import tiny
sigmoid_mlp.PRESETS["tiny"] = tiny()
sys.exit(command_line.main(sys.argv[1:]))
"""


# as the page shows them, with another port
SCHEDULER = "dask scheduler --host 127.0.0.1"
WORKERS = "dask worker tcp://127.0.0.1:8786 --nworkers 2 --nthreads 1"
RUN = "python -m bnlib run sigmoid-mlp --engine dask --scheduler tcp://127.0.0.1:8786"


def test_the_page_shows_the_commands_of_the_worked_example():
    page = (ROOT / "book" / "reference" / "scaling.md").read_text()
    assert "".join(f".venv/bin/{line}\n" for line in (SCHEDULER, WORKERS, RUN)) in page


def test_the_worked_example_survives_a_killed_run_and_a_killed_worker(tmp_path):
    def started(*words, **options):
        process = stack.enter_context(subprocess.Popen([sys.executable, *words], cwd=ROOT, **options))
        stack.callback(process.kill)
        return process

    def command(*words):
        return ["-c", TINY, *RUN.split()[3:5], "--scale", "tiny", *words]

    def printed(*words):
        done = subprocess.run(
            [sys.executable, *command(*words)], cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stdout, done.stderr

    expected = printed("--jobs", "1")
    assert expected[0] == 0
    for file in cells.folder().rglob("*.json"):
        file.unlink()
    with contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        address, quiet = f"tcp://127.0.0.1:{port}", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        far = RUN.replace("8786", str(port)).split()[5:]
        scheduler = started("-m", *SCHEDULER.split(), "--port", str(port), "--dashboard-address", ":0", **quiet)
        workers = started("-m", *WORKERS.replace("8786", str(port)).split(), **quiet)
        with Client(address, timeout=120) as client:
            client.wait_for_workers(2, timeout=120)
        run = started(*command(*far), **quiet)
        until = time.monotonic() + 120
        while len(kept()) < 3 and run.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        run.kill()
        assert run.wait() == -signal.SIGKILL
        before = len(kept())
        assert 3 <= before < 21
        run = started(*command(*far), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        while len(kept()) <= before and run.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        below = psutil.Process(workers.pid).children()
        victim = next(process for process in below if "spawn_main" in " ".join(process.cmdline()))
        victim.kill()  # -9
        out, _ = run.communicate(timeout=300)
        assert (run.returncode, out) == expected[:2]
        assert len(kept()) == 21
        scheduler.kill()
        scheduler.wait()
        workers.terminate()
        status, out, err = printed(*far)
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"error: no scheduler answers at {address}: .*; finished cells are kept\n", err)
