"""Run an answer in a process of its own, which can be killed: it may loop without end, or end the process."""

import contextlib
import io
import linecache
import sys
import types
from collections import ChainMap

import cloudpickle
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from .attempt import Problem

LIMIT = 1.5  # seconds that an answer has for all its cases
START = 60  # seconds that the process may take to start, on a machine that is busy
IDLE = 600  # seconds without an answer after which it ends; the next one starts another
PRINTED = 10_000  # characters of what an answer prints


class Worker:
    """One process, started for the first answer and used again, so that the others wait for nothing."""

    def __init__(self):
        self.pool = None

    def start(self, work):
        """Start the process, if there is none: a future that is done when the process has all for the work."""
        if self.pool is None:
            self.pool = ProcessPoolExecutor(max_workers=1, timeout=IDLE)
        return self.pool.submit(_ready, work)

    def stop(self):
        """Kill the process, whatever it does."""
        if self.pool is not None:
            self.pool.shutdown(wait=False, kill_workers=True)
            self.pool = None

    def run(self, work, answer):
        """``work(answer)`` from the process; a `Problem` where it does not end in time, or ends the process.

        What the answer prints is printed here. An answer that cannot be sent is run here, and has no limit.

        Parameters
        ----------
        work : callable
            Of a module that the process can import, or a partial of one.
        answer : callable
            Sent by value if it is not of an installed package: the process never has an old version.
        """
        try:
            sent = _by_value(answer)
        except Exception:  # an open file, a lock: pickle raises what it likes
            return work(answer)
        try:
            self.start(work).result(START)
            result, printed = self.pool.submit(_call, work, sent, _cells()).result(LIMIT)
        except TimeoutError:
            text = (
                f"Your code did not end within {LIMIT:g} seconds, so it was stopped. Look for a loop without end, or "
                "for a loop over single samples where NumPy has one operation."
            )
            return self._lost(work, "too-slow", text)
        except TerminatedWorkerError:
            text = "Your code ended the Python process: `os._exit`, a crash in compiled code, or too much memory."
            return self._lost(work, "ended", text)
        except KeyboardInterrupt:
            self.stop()
            raise
        print(printed, end="")
        return result

    def _lost(self, work, slug, text):
        self.stop()
        self.start(work)  # for the next answer
        return Problem(slug, None, text)


def _ready(work):
    """Getting the work has imported its modules, which takes most of the time of a first answer."""


def _call(work, sent, cells):
    """In the process: the result, and what was printed."""
    linecache.cache.update(cells)  # so that an error can show the line of a notebook's cell
    answer = cloudpickle.loads(sent)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        result = work(answer)
    return result, printed.getvalue()[:PRINTED]


def _code(code):
    make, args = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return make, tuple(code.co_filename if value == "<dynamic-code>" else value for value in args)


class _Pickler(cloudpickle.Pickler):
    """Keeps the names of files, which cloudpickle drops, so that an error can show its line."""

    dispatch_table = ChainMap({types.CodeType: _code}, cloudpickle.Pickler.dispatch_table)


def _by_value(answer):
    """An answer as bytes: by value, unless it is of an installed package or of this one."""
    module, sent = sys.modules.get(getattr(answer, "__module__", None)), io.BytesIO()
    name, file = getattr(module, "__name__", "__main__"), getattr(module, "__file__", None)
    edited = file and "site-packages" not in file and __package__ not in name
    if edited and name.partition(".")[0] not in {"__main__", *sys.stdlib_module_names}:
        cloudpickle.register_pickle_by_value(module)
        try:
            _Pickler(sent).dump(answer)
        finally:
            cloudpickle.unregister_pickle_by_value(module)
    else:  # cloudpickle itself sends what is of a notebook by value
        _Pickler(sent).dump(answer)
    return sent.getvalue()


def _cells():
    """Sources that are in no file: the cells of a notebook."""
    return {name: entry for name, entry in list(linecache.cache.items()) if len(entry) == 4 and entry[1] is None}


worker = Worker()
