"""Assignments: stubs fail, solutions get all points, and one bad submission costs no other anything."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from .conftest import HTML, ROOT

EXT = ROOT / "book" / "_ext"
sys.path.append(str(EXT))
import classroom  # noqa: E402 -- lies beside the Sphinx extensions
from grading.testcells import names  # noqa: E402

NAMES = ("experiment", "inference", "transform", "why")


def judged(name, notebook, **more):
    """The judge's results for the code cells of a notebook: ``[(nbgrader's mark, result)]``."""
    room = classroom.Classroom()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    orders = [{"source": c.source, "test": names(c.source) if is_test(c) else None} for c in cells]
    grading = room.grading()
    order = {"cells": orders, **grading["order"], **grading["assignments"][name], **more}
    command = [sys.executable, str(classroom.GRADING / "judge.py")]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=True)
    return list(zip([about(cell) for cell in cells], json.loads(done.stdout)["cells"], strict=True))


def about(cell):
    return cell.metadata.get("nbgrader", {})


def is_test(cell):
    return about(cell).get("grade") and not about(cell)["solution"]


def source(name):
    return classroom.from_source(ROOT / "book" / "classroom" / "assignments" / f"{name}.md")


def stub(notebook):
    """What a student gets, as nbgrader makes it."""
    for cell in notebook.cells:
        if about(cell).get("solution") and cell.cell_type == "code":
            part = r"^([ ]*)### BEGIN SOLUTION.*?### END SOLUTION"
            cell.source = re.sub(part, r"\1# Your code here", cell.source, flags=re.M | re.S)
    return notebook


def points(results):
    """Points by test cell, and all that was printed or raised."""
    given = {mark["grade_id"]: result["value"] or 0 for mark, result in results if mark.get("grade")}
    return given, [result["error"] or result["printed"] for _, result in results]


def cell_of(notebook, mark):
    return next(cell for cell in notebook.cells if about(cell).get("grade_id") == mark)


# --- the sources


def test_there_are_four_assignments_of_twenty_points():
    assert sorted(path.stem for path in classroom.Classroom().sources) == list(NAMES)
    for name in NAMES:
        marks = [about(cell) for cell in source(name).cells if about(cell).get("grade")]
        assert sum(mark["points"] for mark in marks) == 20
        assert len({mark["grade_id"] for mark in marks}) == len(marks)


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_gets_all_points(name):
    notebook = source(name)
    given, told = points(judged(name, notebook))
    assert given == {about(cell)["grade_id"]: about(cell)["points"] for cell in notebook.cells if is_test(cell)}, told


@pytest.mark.parametrize("choice", ["covariate shift", "conditioning"])
def test_each_choice_of_an_explanation_gets_all_points(choice):
    notebook = source("why")
    cell = cell_of(notebook, "choice")
    assert cell.source.count('choice = "length and direction"') == 1
    cell.source = cell.source.replace('choice = "length and direction"', f"choice = {choice!r}")
    given, told = points(judged("why", notebook))
    assert given == {"measure-test": 4, "break-test": 4}, told


@pytest.mark.parametrize("name", NAMES)
def test_the_stub_gets_nothing_and_a_reason_for_each_test(name):
    results = judged(name, stub(source(name)))
    given, _ = points(results)
    assert not any(given.values())
    for mark, result in results:
        if mark.get("grade"):
            assert result["error"] or "0 of " in result["printed"]


@pytest.mark.parametrize("name", NAMES)
def test_every_test_cell_hides_a_part_that_is_not_shown_elsewhere(name):
    for cell in filter(is_test, source(name).cells):
        shown, _, hidden = cell.source.partition("### BEGIN HIDDEN TESTS")
        hidden = hidden.partition("### END HIDDEN TESTS")[0]
        parts = re.findall(r"marks\.part\(.*\):\n(.*)\n", hidden)
        assert parts, f"{about(cell)['grade_id']} hides nothing"
        assert not [part for part in parts if part in shown]


def test_no_page_of_the_book_holds_a_solution():
    assert not [path for path in HTML.rglob("*") if "assignments" in path.parts]
    titles = [re.search(r"^# (.+)$", source(name).cells[0].source, re.M)[1] for name in NAMES]
    pages = [path.read_text(encoding="utf8") for path in (HTML / "book").rglob("*.html")]
    assert not [title for title in titles if any(f"{title}<" in page for page in pages)]


# --- the judge


def test_what_a_student_changes_in_its_own_process_does_not_reach_the_tests():
    patch = """
import builtins, sys
import numpy as np
import bnlib.marks
bnlib.marks.same = lambda *a, **k: None
bnlib.marks.Marks.total = lambda self: self.most
np.testing.assert_allclose = np.asarray = builtins.abs = lambda *a, **k: None
sys.modules["bnlib.marks"] = None
def forward(x, gamma, beta, eps=1e-5):
    return x, None
"""
    notebook = source("transform")
    next(cell for cell in notebook.cells if about(cell).get("grade_id") == "forward").source = patch
    given, told = points(judged("transform", notebook))
    assert given["forward-test"] <= 1, told  # the dtype is right
    assert given["backward-test"] == 0


REFUSED = {
    "open('/etc/passwd', 'a')": "writing outside of the assignment's folder is not allowed: /etc/passwd",
    "import os; os.remove('/etc/no-such-file')": "changing files outside",
    f"open({str(ROOT / 'book/classroom/assignments/transform.md')!r}).read()": "reading the course's own files",
    f"import os; os.listdir({str(ROOT / 'tests')!r})": "reading the course's own files",
    "import subprocess; subprocess.run(['true'])": "starting other programs is not allowed",
    "import os; os.system('true')": "starting other programs is not allowed",
    "import socket; socket.create_connection(('127.0.0.1', 80), 1)": "network connections are not allowed",
    "import torch": "torch may not be used in this assignment",
    "from bnlib.scratch.batchnorm import batchnorm_forward": "bnlib.scratch.batchnorm may not be used",
    "x = bytearray(10**12)": "MemoryError",
    "def broken(:": "SyntaxError: invalid syntax (cell 1, line 1)",
    "raise SystemExit": "SystemExit",
    "a = 1\nb = a / 0": "ZeroDivisionError: division by zero (cell 1, line 2)",
}
LOST = {
    "while True: pass": "it did not end within 2 seconds",
    "while True: print('flood' * 10_000)": "it did not end within 2 seconds",
    "import os; os._exit(3)": "the process ended in the middle of it (exit status 3)",
    "import ctypes; ctypes.string_at(0)": "the process ended in the middle of it",
}


def run_cells(*cells, hidden=(), **limits):
    """Results of the judge for plain cells; a pair (code, names) is a test cell."""
    orders = [{"source": c, "test": None} if isinstance(c, str) else {"source": c[0], "test": c[1]} for c in cells]
    rules = classroom.Classroom().grading()
    order = {"cells": orders, **rules["order"], **rules["assignments"]["transform"]}
    order["limits"] = {"cell": 2, "call": 2, "total": 30} | limits
    order["hidden"] = [*order["hidden"], *hidden]
    command = [sys.executable, str(classroom.GRADING / "judge.py")]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["cells"]


@pytest.mark.parametrize("code", REFUSED)
def test_what_is_not_allowed_is_a_readable_error_of_its_cell(code):
    first, second, third = run_cells(code, "n = 5", ("assert n == 5", ["n"]))
    assert REFUSED[code] in first["error"]
    assert second["error"] is third["error"] is None


def test_a_hidden_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "O'Brien; $(touch x)"
    folder.mkdir()
    (folder / "secret").write_text("4711")
    (result,) = run_cells(f"print(open({str(folder / 'secret')!r}).read())", hidden=[str(folder)])
    assert "reading the course's own files is not allowed" in result["error"]
    assert "4711" not in result["printed"]
    beside = tmp_path / f"{folder.name}-too"
    beside.write_text("4712")
    (result,) = run_cells(f"print(open({str(beside)!r}).read())", hidden=[str(folder)])
    assert result["printed"] == "4712\n"


def test_an_answer_that_is_too_large_costs_its_call_alone():
    code = "def f(n):\n    return 'x' * n"
    cells = run_cells(code, ("f(60_000_000)", ["f"]), ("assert f(3) == 'xxx'", ["f"]), call=20)
    assert "it gave back more than 50 MB" in cells[1]["error"]
    assert cells[2]["error"] is None


@pytest.mark.parametrize("code", LOST)
def test_a_lost_process_costs_its_cell_alone(code):
    before, lost, after, test = run_cells("n = 5", code, "k = n + 1", ("assert (n, k) == (5, 6)", ["n", "k"]))
    assert LOST[code] in lost["error"]
    assert before["error"] is after["error"] is test["error"] is None


def test_a_call_that_does_not_end_costs_its_part_alone():
    test = "\n".join(
        ["from bnlib.marks import Marks", "marks = Marks(2)", "with marks.part(1, 'a loop'):", "    f(0)"]
    )
    test += "\nwith marks.part(1, 'no loop'):\n    assert f(1) == 1\nmarks.total()"
    _, result = run_cells("def f(x):\n    while not x: pass\n    return x", (test, ["f"]))
    assert result["value"] == 1
    assert "0 of 1 for a loop: f: it did not end within 2 seconds" in result["printed"]


def test_the_time_of_a_submission_is_limited():
    start = time.monotonic()
    results = run_cells(*["while True: pass"] * 6, cell=2, total=5)
    assert time.monotonic() - start < 12
    assert "the 5 seconds for this submission were used up" in results[-1]["error"]


def test_data_and_objects_cross_as_they_are():
    cell = """
import numpy as np
class Sum:
    def __init__(self, start): self.total = start
    def update(self, x): self.total = self.total + x.sum()
def twice(x, *, by=2): return {"y": by * x, "kind": type(x).__name__, "pair": (1, [None, "a"])}
def total(thing): return thing.total
here = [1, 2.5, "x", np.float32(3)]
"""
    test = """
import numpy as np
s = Sum(1.5)
s.update(np.ones((2, 3), np.float32))
assert s.total == 7.5 and total(s) == 7.5
got = twice(np.arange(3), by=3)
assert got["kind"] == "ndarray" and got["pair"] == (1, [None, "a"]) and got["y"].dtype == np.arange(3).dtype
assert np.array_equal(got["y"], [0, 3, 6])
assert here == [1, 2.5, "x", 3] and type(here[3]) is np.float32
"""
    assert run_cells(cell, (test, ["Sum", "twice", "total", "here"]))[1]["error"] is None


def test_printed_text_is_cut():
    (result,) = run_cells("print('x' * 100_000)")
    assert len(result["printed"]) < 10_100
    assert "(and 90,001 characters more)" in result["printed"]


# --- from end to end, with nbgrader


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = classroom.Classroom()
    room.folder = tmp_path_factory.mktemp("course") / "classroom"
    room.make()
    return room


def write_submissions(room, folder):
    """Sixteen submissions of `transform`: what each gets and a part of its reasons."""
    release = room.folder / "release" / "transform" / "transform.ipynb"
    solved = nbformat.read(room.folder / "source" / "transform" / "transform.ipynb", 4)

    def hand_in(student, changes=(), fill=True, name="transform.ipynb"):
        notebook = nbformat.read(release, 4)
        for cell in notebook.cells if fill else ():
            if about(cell).get("solution"):
                cell.source = cell_of(solved, about(cell)["grade_id"]).source
        for mark, source in dict(changes).items():
            cell_of(notebook, mark).source = source
        (folder / student).mkdir(parents=True)
        nbformat.write(notebook, folder / student / name)
        return folder / student / name

    expected = {}

    def case(student, least, most, reason, *args, **options):
        expected[student] = least, most, reason
        return hand_in(student, *args, **options)

    loop = "def backward(dy, cache):\n    while True:\n        pass"
    constants = "def backward(dy, cache):\n    return dy, dy.sum(0), dy.sum(0)"
    half = {"backward": constants, "gradient-check": "def gradient_error(*args):\n    return None"}
    case("good", 20, 20, "")
    hidden = folder / "good" / ".ipynb_checkpoints" / "transform-checkpoint.ipynb"
    hidden.parent.mkdir()
    hidden.write_text("{}")
    name = {"own-batch": cell_of(solved, "own-batch").source.replace('"the solution"', '"Anna O\'Brien"')}
    case("O'Brien, Anna_12", 20, 20, "", name)
    case("half", 8, 12, "backward-test: 0 of 2 for dx, six samples", half)
    case("empty", 0, 0, "write your name or student number", fill=False)
    case("loop", 13, 13, "it did not end within 5 seconds", {"backward": loop})
    case(
        "crash",
        13,
        13,
        "the process ended in the middle of it (exit status 1)",
        {"backward": "import os; os._exit(1)"},
    )
    case("syntax", 5, 8, "SyntaxError: expected ':' (cell 2, line 1)", {"forward": "def forward(x)\n    return x"})
    path = room.folder / "source" / "transform" / "transform.ipynb"
    case(
        "reader", 13, 13, "reading the course's own files is not allowed", {"backward": f"open({str(path)!r}).read()"}
    )
    evil = folder.parent / "written-by-a-student"
    case("writer", 13, 13, "writing outside of the assignment's folder", {"backward": f"open({str(evil)!r}, 'w')"})
    memory = "def backward(dy, cache):\n    return bytearray(10**12)"
    case("memory", 13, 13, "backward raised MemoryError", {"backward": memory})
    flood = {"backward": "while True:\n    print('flood' * 1_000)"}
    case("flood", 13, 13, "it did not end within 10 seconds", flood)
    case("other-name", 20, 20, "the file was homework.ipynb, expected transform.ipynb", name="homework.ipynb")
    copied = case("copied", 20, 20, "transform-Copy1.ipynb was left out: transform.ipynb was there too")
    (copied.parent / "transform-Copy1.ipynb").write_bytes(release.read_bytes())
    renamed = case("renamed", 20, 20, "a cell was renamed or copied: 'mine'")
    notebook = nbformat.read(renamed, 4)
    about(cell_of(notebook, "forward"))["grade_id"] = "mine"
    notebook.cells.remove(cell_of(notebook, "backward-test"))
    nbformat.write(notebook, renamed)
    case("broken", 0, 0, "is no notebook that can be read").write_text("{no json")
    (folder / "wrong-file").mkdir()
    (folder / "wrong-file" / "report.pdf").write_text("%PDF")
    expected["wrong-file"] = 0, 0, "no notebook of an assignment: got report.pdf"
    return expected, evil


def test_a_folder_of_submissions_is_graded_whatever_is_in_it(room, tmp_path):
    expected, evil = write_submissions(room, tmp_path / "submissions")
    start = time.monotonic()
    room.grade(tmp_path / "submissions")
    assert time.monotonic() - start < 300
    with (room.folder / "grades.csv").open(encoding="utf8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows.keys() == expected.keys()
    assert len(rows) >= 12
    for student, (least, most, reason) in expected.items():
        row = rows[student]
        assert least <= float(row["points"]) <= most, row
        assert reason in row["reasons"], row
        assert bool(row["reasons"]) == (student not in ("good", "O'Brien, Anna_12")), row
        if row["of"]:
            assert row["of"] == "20"
            page = room.folder / "feedback" / classroom.student_id(student) / "transform" / "transform.html"
            assert len(page.read_text(encoding="utf8")) < 2_000_000
    assert rows["good"]["signed"] == "the solution"
    assert rows["O'Brien, Anna_12"]["signed"] == "Anna O'Brien"
    assert not evil.exists()


def test_the_release_holds_neither_solutions_nor_hidden_tests(room):
    for name in NAMES:
        text = (room.folder / "release" / name / f"{name}.ipynb").read_text(encoding="utf8")
        assert "SOLUTION" not in text
        assert "HIDDEN" not in text
        assert "MARK SCHEME" not in text
        assert "# Your code here" in text
        assert "SOLUTION" in (room.folder / "instructor" / f"{name}.ipynb").read_text(encoding="utf8")


def test_a_missing_folder_is_said_in_one_line(room, capsys):
    assert "make grade SUBMISSIONS=folder" in classroom.main("grade", "")
    with pytest.raises(classroom.Stop, match="there is no folder nowhere"):
        room.grade("nowhere")
    with pytest.raises(classroom.Stop, match="holds the course itself"):
        room.grade(ROOT.parent)


def test_a_notebook_that_is_too_large_is_said(room, tmp_path, monkeypatch):
    monkeypatch.setattr(classroom, "LARGEST", 10)
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / "why.ipynb").write_text("{" + " " * 20)
    (row,) = room.grade(tmp_path)
    assert "why.ipynb has 0 MB: clear its outputs" in row["reasons"]


def test_a_students_process_ends_with_the_group_of_its_judge():
    """As when a submission is out of time: its nbgrader is stopped, with all that is in the same group."""
    order = {"cells": [{"source": "import time\ntime.sleep(50)", "test": None}], "limits": {"cell": 40}}
    command = [sys.executable, str(classroom.GRADING / "judge.py")]
    judge = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    judge.stdin.write(json.dumps(order).encode())
    judge.stdin.close()

    def students():
        lines = [process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"])]
        return [line for line in lines if line[0] == sys.executable and str(classroom.GRADING / "student.py") in line]

    def wait(there):
        end = time.monotonic() + 20
        while bool(students()) != there and time.monotonic() < end:
            time.sleep(0.1)
        return bool(students()) == there

    try:
        assert wait(True)
    finally:
        os.killpg(judge.pid, signal.SIGKILL)
        judge.wait()
    assert wait(False)
