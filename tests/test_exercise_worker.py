"""Answers run in a process of their own: what does not end is stopped, what ends the process costs nothing else."""

import importlib
import linecache
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest

from bnlib.exercises import check
from bnlib.exercises.check import EXERCISES
from bnlib.exercises.worker import LIMIT, _cells, worker

FOLD = EXERCISES["fold"].reference


def loops(*args):
    while True:
        pass


def loops_in_c(*args):
    re.match("(a+)+$", "a" * 60 + "b")  # does not come back, and no other thread gets a turn


def sleeps(*args):
    time.sleep(1000)


@pytest.mark.parametrize("answer", [loops, loops_in_c, sleeps])
def test_an_answer_without_end_is_stopped(answer):
    assert check("fold", FOLD).passed  # the process is there
    start = time.perf_counter()
    feedback = check("fold", answer)
    assert feedback.mistake == "too-slow"
    assert f"did not end within {LIMIT:g} seconds" in feedback.message
    assert time.perf_counter() - start < 2 * LIMIT
    assert check("fold", FOLD).passed


def quits(*args):
    os._exit(0)


def test_an_answer_that_ends_the_process_is_told():
    assert check("fold", quits).mistake == "ended"
    assert check("fold", FOLD).passed


def test_the_process_is_used_again_and_quick():
    check("fold", FOLD)
    first = worker.run(_process, FOLD)
    start = time.perf_counter()
    assert check("fold", FOLD).passed
    assert time.perf_counter() - start < 2
    assert worker.run(_process, FOLD) == first != os.getpid()


def _process(answer):
    return os.getpid()


def test_what_an_answer_prints_is_seen(capsys):
    def talks(*args):
        print("a word")
        return FOLD(*args)

    assert check("fold", talks).passed
    assert capsys.readouterr().out.count("a word\n") == len(EXERCISES["fold"].cases)


def test_an_answer_that_cannot_be_sent_is_run_here():
    lock = threading.Lock()

    def locked(*args):
        with lock:
            return FOLD(*args)

    assert check("fold", locked).passed


def test_an_answer_with_an_argument_fixed_is_sent_too():
    assert worker.run(_process, partial(FOLD)) != os.getpid()
    assert check("fold", partial(FOLD)).passed


def test_an_error_shows_its_line_of_a_notebook():
    source, name = "def answer(*args):\n    return 1 / 0  # here\n", "<cell of a notebook>"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)  # as IPython does
    space = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), space)
    assert name in _cells()
    assert "in line 2: `return 1 / 0  # here`" in check("fold", space["answer"]).message


def test_an_answer_from_a_file_is_never_an_old_version(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = tmp_path / "mine_of_today.py"
    file.write_text("def answer(*args):\n    return 1\n")
    module = importlib.import_module("mine_of_today")
    assert not check("fold", module.answer).passed
    file.write_text(
        "from bnlib.scratch.batchnorm import fold as answer\n\ndef mine(*args):\n    return answer(*args)\n"
    )
    assert check("fold", importlib.reload(module).mine).passed


def test_inputs_are_not_changed_by_the_process():
    def changes(weight, *args):
        weight += 1
        return FOLD(weight - 1, *args)

    before = [np.array(value) for value in EXERCISES["fold"].cases[0].args]
    assert check("fold", changes).mistake == "mutates-input"
    for old, new in zip(before, EXERCISES["fold"].cases[0].args, strict=True):
        np.testing.assert_array_equal(old, new)


def test_in_a_notebook_the_process_is_there_before_the_first_answer():
    code = "import sys, types; sys.modules['IPython'] = types.SimpleNamespace(get_ipython=lambda: {})\n"
    code += "import bnlib.exercises.worker as w; import bnlib.exercises; print(w.worker.pool is not None)"
    started = {"a notebook": ("object()", ""), "IPython, but no shell": ("None", ""), "a build": ("object()", "1")}
    for what, (shell, build) in started.items():
        environment = {**os.environ, "BNLIB_BUILD": build}
        done = subprocess.run(
            [sys.executable, "-c", code.format(shell)], env=environment, capture_output=True, text=True
        )
        assert done.stdout.strip() == str(what == "a notebook"), done.stderr
