"""Who computes the cells of a run: processes of this machine, or the workers of a dask cluster.

joblib hands the cells out in both cases. A cluster needs more: the connection, what a worker must have before it
computes a cell, and one line for each thing that fails. Without dask installed all else works.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import sys
import threading
import time
from typing import NamedTuple

from tqdm.auto import tqdm

from bnlib import data

from . import cells, core

ENGINES = ("loky", "dask")  # names of joblib's backends
WAIT = 4  # seconds that a scheduler, or its first worker, has to answer
LOOK = 5  # seconds between two looks whether a worker is left
LOADED = time.time()  # workers stay: their code may be edited below them
START = "--nthreads 1"


class Machines(NamedTuple):
    """A backend of joblib, how many cells it runs at a time, and what `needs` says if it runs them elsewhere."""

    backend: object
    jobs: int
    needed: dict | None = None


HERE = Machines("loky", 1)


class ClusterError(RuntimeError):
    """The cluster cannot be used, or failed; the message is one line."""


def needs(name, config):
    """What a worker must have to compute cells of this experiment."""
    datasets = sorted({plan.dataset for plan in config.arms.values()} & set(data.NAMES))
    return {"name": name, "code": cells.code(name), "versions": cells.versions(), "datasets": datasets}


def lacks(needed, dask_worker):
    """Why this process, a worker of dask, must not compute such cells, and what to do; None where it may."""
    threads = dask_worker.state.nthreads
    if threads != 1:  # BLAS and PyTorch have one number of threads and one stream of random numbers a process
        return f"computes {threads} cells at a time in one process: start it with {START}"
    here = cells.versions()
    for package, version in needed["versions"].items():
        if here.get(package) != version:
            found = f"{package} {here[package]}" if package in here else f"no {package}"
            return f"has {found} where {version} is needed: install requirements.txt there"
    loaded = [module.__file__ for name, module in list(sys.modules.items()) if name.startswith("bnlib.")]
    if any(os.path.getmtime(file) > LOADED for file in loaded):
        return "was started before bnlib was changed there: start it again"
    if needed["name"] not in core.names() or cells.code(needed["name"]) != needed["code"]:
        return f"has other code of {needed['name']}: bring bnlib there to the same commit and start it again"
    for dataset in needed["datasets"]:
        if not data.available(dataset):
            return f"has no {dataset}: on that machine run python -m bnlib data fetch {dataset}"
    return None


def packed(*cell):
    """A cell as bytes. A worker that cannot read what dask sends it ends itself; these it reads when it computes."""
    import cloudpickle

    return cloudpickle.dumps(cell)


def check(needed):
    """On a worker: `ClusterError` unless it has what is needed. Workers may join at any time, so each cell asks."""
    from distributed import get_worker

    if line := lacks(needed, get_worker()):
        raise ClusterError(f"the worker {get_worker().address} {line}")


@contextlib.contextmanager
def chosen(engine, scheduler, jobs, name, config):
    """The `Machines` of an order such as ``--jobs 2`` or ``--engine dask --scheduler tcp://192.168.0.7:8786``.

    Parameters
    ----------
    engine : {"loky", "dask"}
    scheduler : str or None
    jobs : int or None
    name : str
        Of the experiment.
    config : Config

    Raises
    ------
    Refused
        If these do not go together.
    ClusterError
        See `connected`.
    """
    core.known(engine, ENGINES, "engine")
    if engine == "loky":
        if scheduler:
            raise core.Refused("a scheduler belongs to a dask cluster: add --engine dask")
        yield HERE._replace(jobs=jobs or 1)
        return
    if not scheduler:
        raise core.Refused(
            "the engine dask needs a scheduler: --scheduler tcp://HOST:8786; dask scheduler starts one"
        )
    if jobs:
        raise core.Refused("jobs are for one machine: with the engine dask each worker runs one cell at a time")
    needed = needs(name, config)
    with connected(scheduler, needed, config) as backend:
        yield Machines(backend, 1, needed)


@contextlib.contextmanager
def connected(address, needed, config):
    """A joblib backend that hands cells to the workers of the scheduler at this address.

    Parameters
    ----------
    address : str
        Such as ``tcp://192.168.0.7:8786``.
    needed : dict
        From `needs`.
    config : Config
        Goes to the workers with each cell.

    Raises
    ------
    Refused
        If dask is not installed, the address is none, or an arm cannot be sent.
    ClusterError
        If the scheduler does not answer, has no worker or loses the connection, or a worker may not compute.
    """
    try:
        import cloudpickle
        import distributed
    except ImportError:
        raise core.Refused(
            "the engine dask needs dask: pip install -r requirements.txt, or pip install dask distributed"
        ) from None
    try:
        cloudpickle.dumps(config)
    except Exception as error:  # whatever an object of a learner's own raises
        raise core.Refused(f"an arm holds what cannot be sent to a worker: {_line(error)}") from None
    _find_scheduler(address)
    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it reports is said below, or is repaired by the scheduler
    over = threading.Event()
    try:
        with contextlib.ExitStack() as stack:
            try:
                client = stack.enter_context(distributed.Client(address, timeout=WAIT, set_as_default=False))
                _check_workers(client, address, needed)
            except (OSError, ImportError) as error:  # not one of a cell
                raise ClusterError(f"the cluster at {address} cannot be used: {_line(error)}") from None
            threading.Thread(target=_tell_when_none_is_left, args=(client, address, over), daemon=True).start()
            yield _backend(client)
    except distributed.KilledWorker as error:
        times = error.allowed_failures + 1
        raise ClusterError(f"a cell killed {times} workers, perhaps for want of memory there") from None
    except (concurrent.futures.CancelledError, distributed.core.CommClosedError):
        raise ClusterError(f"the connection to the scheduler at {address} was lost") from None
    except ImportError as error:
        raise ClusterError(f"a worker cannot import what a cell needs: {_line(error)}") from None
    finally:
        over.set()
        log.setLevel(level)


def _line(error):
    return (str(error) or type(error).__name__).splitlines()[0]


def _find_scheduler(address):
    """Ask who answers at this address, in a thread of its own: dask's client would wait for ever for some others."""
    from distributed.core import rpc

    async def ask():
        async with rpc(address, timeout=WAIT) as there:
            return (await there.identity())["type"]

    async def ask_in_time():
        return await asyncio.wait_for(ask(), WAIT)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        try:
            found = pool.submit(lambda: asyncio.run(ask_in_time())).result()
        except OSError:  # a TimeoutError is one
            raise ClusterError(
                f"no scheduler answers at {address}: start one with dask scheduler, or check the address"
            ) from None
        except (ValueError, TypeError) as error:
            raise core.Refused(f"{address!r} is no address such as tcp://192.168.0.7:8786: {_line(error)}") from None
    if found != "Scheduler":
        raise ClusterError(f"at {address} answers a {found.lower()}, not a scheduler")


def _check_workers(client, address, needed):
    try:
        client.wait_for_workers(1, timeout=WAIT)
    except TimeoutError:
        raise ClusterError(
            f"the scheduler at {address} has no worker: start one with dask worker {address} {START}"
        ) from None
    for worker, line in client.run(lacks, needed, on_error="return").items():
        if isinstance(line, Exception):
            line = (
                f"cannot import bnlib as it is here: start it from the course's .venv, in its folder ({_line(line)})"
            )
        if line:
            raise ClusterError(f"the worker {worker} {line}")


def _tell_when_none_is_left(client, address, over):
    """dask waits for ever for a worker. So say it."""
    none = False
    while not over.wait(LOOK):
        before = none
        with contextlib.suppress(Exception):  # the connection is gone: the run ends with that line
            none = not client.nthreads()
        if none and not before:
            line = f"no worker is left at {address}: the run goes on when one is started (Ctrl-C stops it)"
            tqdm.write(line, file=sys.stderr)


def _backend(client):
    """joblib's dask backend with two repairs."""
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):
        def effective_n_jobs(self, n_jobs):
            """For one job joblib would compute here and in no worker. All cells are submitted at once in any case."""
            return 2

        def submit(self, func, callback=None):
            """joblib waits for ever for a task that dask gave up, because it is told of finished ones only."""
            future = super().submit(func, callback)
            future.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return future

    return Backend(client=client)
