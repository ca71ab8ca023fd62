"""Grade one notebook: the student's cells run in a process of their own, the tests in this one.

Run as ``python judge.py < order.json > result.json``. A test cell is run here, where nothing of the student is ever
imported. The names that it may use of the student's are stand-ins that hand the arguments over, as data. So what the
student's code does to its own process, to NumPy or to Python, does not reach the test. An endless loop or a crash
costs the cell or the call it is in; the process is started again without that cell.
"""

import ast
import contextlib
import io
import json
import os
import resource
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from values import LONGEST, Lost, pack, receive, send, unpack

LIMITS = {"cell": 10, "call": 5, "total": 60, "memory": 4e9, "file": 10_000_000}  # seconds, bytes
HERE = Path(__file__).parent
START = 20  # seconds that a new process has to import NumPy
OWN = ["unshare", "--map-root-user", "--net", "--pid", "--mount", "--fork", "--kill-child"]


def own_namespaces():
    """Whether this system lets a process have a network, processes and mounts of its own without being root."""
    return bool(shutil.which("unshare")) and not subprocess.call([*OWN, "true"], stderr=subprocess.DEVNULL)


class Refused(Exception):
    """What a call to the student's code came to, where it came to nothing."""


class Session:
    """A student's process, started again where it was lost.

    Parameters
    ----------
    order : dict
        ``hidden`` folders, ``blocked`` modules, ``limits``.
    """

    def __init__(self, order):
        self.limits = LIMITS | order.get("limits", {})
        self.settings = {"hidden": order.get("hidden", []), "blocked": order.get("blocked", [])}
        self.cells, self.bad, self.process = [], set(), None
        self.end = time.monotonic() + self.limits["total"]
        self.own = own_namespaces()
        self.folder = tempfile.mkdtemp(prefix="grading-")
        self.life = 0

    def start(self):
        self.stop()
        self.life += 1
        theirs_read, self.write = os.pipe()
        self.read, theirs_write = os.pipe()
        command = [sys.executable, "-I", str(HERE / "student.py"), str(theirs_read), str(theirs_write)]
        if self.own:
            hidden = map(shlex.quote, self.settings["hidden"])
            script = "".join(f"[ ! -d {part} ] || mount -t tmpfs none {part}; " for part in hidden)
            command = [*OWN, "sh", "-c", f'{script}exec "$@"', "sh", *command]
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            pass_fds=(theirs_read, theirs_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=self.limit,  # in the group of this process: whoever stops that stops the student's too
        )
        os.close(theirs_read)
        os.close(theirs_write)
        self.out, self.rest = os.fdopen(self.write, "wb"), b""
        self.send(self.settings)
        for number, source in enumerate(self.cells):
            if number not in self.bad:
                self.ask({"source": source, "cell": f"cell {number + 1}"}, self.limits["cell"] + START)

    def environment(self):
        """One thread, no progress lines, caches in the folder that is thrown away, and nothing of the teacher's."""
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if key in os.environ}
        return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "BNLIB_BUILD": "1", "HOME": self.folder}

    def limit(self):
        for what, most in (("AS", "memory"), ("FSIZE", "file"), ("CPU", "total")):
            resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (int(self.limits[most]),) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def stop(self):
        if self.process is not None:
            self.process.kill()  # and with it, in namespaces of its own, all that it started
            self.process.wait()
            with contextlib.suppress(OSError):
                self.out.close()
            os.close(self.read)
            self.process = None

    def send(self, message):
        with contextlib.suppress(BrokenPipeError):
            send(self.out, message)

    def ask(self, order, seconds):
        """Send an order and wait for its answer; `Refused` says why there is none."""
        self.send(order)
        limit = min(time.monotonic() + seconds, self.end)
        parts, size = [self.rest], len(self.rest)
        while b"\n" not in parts[-1]:
            left = limit - time.monotonic()
            if left <= 0 or not select.select([self.read], [], [], left)[0]:
                self.stop()
                if time.monotonic() >= self.end:
                    raise Refused(f"the {self.limits['total']:g} seconds for this submission were used up")
                raise Refused(f"it did not end within {seconds:g} seconds")
            part = os.read(self.read, 1 << 20)
            if not part:
                code = self.process.wait()
                self.stop()
                raise Refused(f"the process ended in the middle of it (exit status {code})")
            parts.append(part)
            size += len(part)
            if size > LONGEST:
                self.stop()
                raise Refused(f"it gave back more than {LONGEST / 1e6:g} MB")
        line, self.rest = b"".join(parts).split(b"\n", 1)
        try:
            return receive(line)
        except Lost:
            self.stop()
            raise Refused("the process sent what is no answer") from None

    def run(self, source):
        """Run the next cell: what it printed, and its error or None."""
        number = len(self.cells)
        try:
            if self.process is None:
                self.start()
            answer = self.ask({"source": source, "cell": f"cell {number + 1}"}, self.limits["cell"])
            return answer["printed"], answer.get("error")
        except Refused as refused:
            self.bad.add(number)
            return "", f"cell {number + 1}: {refused}"
        finally:
            self.cells.append(source)

    def call(self, order):
        try:
            if self.process is None:
                self.start()
            answer = self.ask(order, self.limits["call"])
        except Refused as refused:
            raise Refused(f"{order['told']}: {refused}") from None
        if "error" in answer:
            raise Refused(answer["error"] if "args" not in order else f"{order['told']} raised {answer['error']}")
        return unpack(answer["value"], lambda number, kind: Stand(self, {"handle": number}, f"the {kind}"))


class Stand:
    """Stands for something of the student's: a function or a class by its name, an object by its handle."""

    def __init__(self, session, start, told):
        self._session, self._start, self._told, self._life = session, start, told, session.life

    def _order(self, told, **more):
        if "handle" in self._start and self._life != self._session.life:
            raise Refused(f"{self._told} is lost: the process that held it ended")
        return {**self._start, "told": told, **more}

    def __call__(self, *args, **kwargs):
        packed = [pack(value, self._number) for value in args]
        named = {key: pack(value, self._number) for key, value in kwargs.items()}
        return self._session.call(self._order(self._told, args=packed, kwargs=named))

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._session.call(self._order(f"{self._told}.{name}", attribute=name))

    @staticmethod
    def _number(value):
        if not isinstance(value, Stand) or "handle" not in value._start:
            raise TypeError(f"a {type(value).__name__} cannot be handed to the student's code")
        return value._start["handle"]


def stand_in(session, name):
    """What a test sees under a student's name: the data itself, or a stand-in for a function or a class."""
    value = session.call({"name": name, "told": name})
    return Stand(session, {"name": name}, name) if isinstance(value, Stand) else value


def run_test(source, session, names):
    """Run a test cell here: what it printed, its last value or None, its error or None."""
    space, printed = {"__name__": "judge"}, io.StringIO()
    try:
        space |= {name: stand_in(session, name) for name in names}
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, "test", "exec"), space)
            value = eval(compile(ast.Expression(last.value), "test", "eval"), space) if last else None
        return printed.getvalue(), value, None
    except Exception as error:
        return printed.getvalue(), None, " ".join(str(error).split()) or type(error).__name__


def main(order):
    session, results = Session(order), []
    try:
        for cell in order["cells"]:
            if cell["test"] is None:
                printed, error = session.run(cell["source"])
                results.append({"printed": printed, "value": None, "error": error})
            else:
                printed, value, error = run_test(cell["source"], session, cell["test"])
                number = None if value is None else float(value)
                results.append({"printed": printed, "value": number, "error": error})
    finally:
        session.stop()
        shutil.rmtree(session.folder, ignore_errors=True)
    return {"cells": results}


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
