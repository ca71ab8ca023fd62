"""The process in which a student's cells run while they are graded. It holds no test and sees no answer.

Run as ``python -I student.py READ WRITE``, two file descriptors over which the judge sends orders: run a cell, call a
function, read an attribute. Everything that the cells do stays in here. The hook below makes a readable error of what
is not allowed; it is no wall against someone who wants to get around it (see the instructor guide).
"""

import io
import json
import linecache
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np  # noqa: F401 -- imported before the hook: its own files are no student's business
from values import pack, receive, send, unpack

SHOWN = 10_000  # characters of one cell's output that are kept
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.kill")
CHANGING = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown")


class Printed(io.TextIOBase):
    """Keeps the first characters that a cell prints and counts the others."""

    def __init__(self):
        self.text, self.left_out = "", 0

    def writable(self):
        return True

    def write(self, text):
        taken = text[: SHOWN - len(self.text)]
        self.text += taken
        self.left_out += len(text) - len(taken)
        return len(text)

    def told(self):
        return self.text + (f"\n(and {self.left_out:,} characters more)\n" if self.left_out else "")


def guard(folder, hidden, blocked):
    """Refuse, with a reason, to write outside of ``folder``, to read in ``hidden``, to start programs, to connect."""
    inside = (str(folder) + os.sep, os.devnull)
    hidden = [os.path.realpath(part) for part in hidden]

    def is_hidden(where):
        return any(where == part or where.startswith(part + os.sep) for part in hidden)

    def place(path):
        return os.path.realpath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ""

    def hook(event, args):
        if event == "open":
            where, mode, flags = place(args[0]), args[1] or "", args[2] or 0
            if where and (set(mode) & set("wax+") or flags & WRITING) and not where.startswith(inside):
                raise PermissionError(f"writing outside of the assignment's folder is not allowed: {args[0]}")
            if is_hidden(where):
                raise PermissionError(f"reading the course's own files is not allowed: {args[0]}")
        elif event in ("os.listdir", "os.scandir") and is_hidden(place(args[0])):
            raise PermissionError(f"reading the course's own files is not allowed: {args[0]}")
        elif event in CHANGING and not place(args[0]).startswith(inside):
            raise PermissionError(f"changing files outside of the assignment's folder is not allowed: {args[0]}")
        elif event in PROGRAMS:
            raise PermissionError("starting other programs is not allowed while an assignment is graded")
        elif event.startswith("socket.") and event != "socket.gethostname":
            raise PermissionError("network connections are not allowed while an assignment is graded")
        elif event == "import" and any(args[0] == name or args[0].startswith(f"{name}.") for name in blocked):
            raise ImportError(f"{args[0]} may not be used in this assignment")

    sys.addaudithook(hook)


class Namespace:
    """The cells' names, and what was handed out."""

    def __init__(self):
        self.names = {"__name__": "__main__"}
        self.kept = []

    def keep(self, value):
        self.kept.append(value)
        return len(self.kept) - 1

    def find(self, order):
        if "name" in order:
            if order["name"] not in self.names:
                raise NameError(f"there is no {order['name']}: its cell is missing, empty, or ended with an error")
            return self.names[order["name"]]
        return self.kept[order["handle"]]

    def run(self, order):
        source, name = order["source"], order["cell"]
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(source, name, "exec"), self.names)

    def call(self, order):
        here = self.find(order)
        if "attribute" in order:
            return getattr(here, order["attribute"])
        if "args" not in order:
            return here
        args = [unpack(item, self.give) for item in order["args"]]
        return here(*args, **{key: unpack(item, self.give) for key, item in order["kwargs"].items()})

    def give(self, number, kind):
        return self.kept[number]


def told(error):
    """An exception in one line, with the line of the cell where it was raised."""
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("cell ")]
    where = f" ({lines[-1].filename}, line {lines[-1].lineno})" if lines else ""
    if isinstance(error, SyntaxError) and str(error.filename).startswith("cell "):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:  # an exception class of the student's own
        text = "(its text cannot be made)"
    return f"{type(error).__name__}: {text}{where}"


def main(read, write):
    orders, answers = os.fdopen(read, "rb"), os.fdopen(write, "wb")
    space = Namespace()
    settings = receive(orders.readline())
    guard(Path.cwd().resolve(), settings["hidden"], settings["blocked"])
    for line in orders:
        order, printed = json.loads(line), Printed()
        sys.stdout = sys.stderr = printed
        try:
            value = space.run(order) if "source" in order else space.call(order)
            answer = {"value": pack(value, space.keep)}
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            answer = {"error": told(error)}
        send(answers, answer | {"printed": printed.told()})


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
