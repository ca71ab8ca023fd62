"""Assignments: made from one source each, and graded, with nbgrader in an environment of its own.

    python classroom.py make                  # make classroom
    python classroom.py grade SUBMISSIONS     # make grade SUBMISSIONS=folder

The sources are ``book/classroom/assignments/*.md``: notebooks with solutions and all tests, where a cell says what it
is by ``solution``, ``test`` and ``points``, ``written`` and ``points``, or ``given``. What is made from them lies in
``_build/classroom``: ``release`` for students, ``instructor`` with solutions, ``gradebook.db``, and after grading
``grades.csv`` and ``feedback``.
"""

import contextlib
import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
import environment
from chapters import Stop
from grading.testcells import MARK

ROOT = Path(__file__).resolve().parents[2]
GRADING = Path(__file__).parent / "grading"
PINS = ROOT / "book" / "classroom" / "requirements.txt"
SECONDS = 60  # that nbgrader has for itself, beside what a submission has
LARGEST = 50_000_000  # bytes of a notebook
COLUMNS = ("student", "assignment", "points", "of", "by hand", "signed", "seconds", "reasons")
CONFIG = """
import sys
sys.path.insert(0, {grading!r})
c = get_config()
c.CourseDirectory.course_id = "batch-normalization"
c.CourseDirectory.submitted_directory = "submitted"
c.ClearSolutions.code_stub = {{"python": "# Your code here"}}
c.ClearSolutions.text_stub = "Your answer here"
c.OverwriteCells.add_missing_cells = True
c.LimitOutput.max_lines = 200
c.LimitOutput.max_traceback = 20
c.Autograde.autograde_preprocessors = [
    "preprocess.Judge",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.CheckCellMetadata",
]
"""


class Classroom:
    """The folder ``_build/classroom`` of a checkout, and nbgrader's environment beside it."""

    def __init__(self, root=ROOT):
        self.root = Path(root)
        self.folder = self.root / "_build" / "classroom"
        self.venv = self.root / ".venv-classroom"
        self.submissions = None
        self.sources = sorted((self.root / "book" / "classroom" / "assignments").glob("*.md"))

    def install(self):
        """Make nbgrader's environment; it is kept until the pins change."""
        python, stamp = self.venv / "bin" / "python", self.venv / ".stamp"
        pins = PINS.read_text(encoding="utf8") + sys.version
        if stamp.is_file() and stamp.read_text(encoding="utf8") == pins:
            return
        print("Setting up .venv-classroom (once; about 0.4 GB)", flush=True)
        try:
            environment.run(
                "a new environment", [sys.executable, "-m", "venv", "--clear", str(self.venv)], str(self.venv)
            )
            install = [str(python), "-m", "pip", "install", "-r", str(PINS)]
            environment.run("the pins of book/classroom/requirements.txt", install, str(self.venv))
        except environment.Stop as stop:
            raise Stop(str(stop)) from None
        stamp.write_text(pins, encoding="utf8")

    def nbgrader(self, *words, seconds=600, **settings):
        """One nbgrader process in a group of its own: its exit status (None: out of time) and what it said."""
        command = [str(self.venv / "bin" / "python"), "-m", "nbgrader", *words]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                **os.environ,
                "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ['PATH']}",  # nbgrader calls alembic by its name
                "BNLIB_GRADING": json.dumps(self.grading()),
            },
            **settings,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
            return process.returncode, output.decode(errors="replace").strip().splitlines()
        except subprocess.TimeoutExpired:
            return None, []
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def grading(self):
        """What the judge must know: its Python, folders that no student may read, and each assignment's rules."""
        hidden = [self.folder, self.root / "book" / "classroom", self.root / "tests", self.submissions]
        hidden = [str(path) for path in hidden if path]
        rules = {path.stem: jupytext.read(path).metadata.get("bnlib", {}) for path in self.sources}
        return {"python": sys.executable, "order": {"hidden": hidden}, "assignments": rules}

    def make(self):
        """Write the release, the instructor's version and the gradebook."""
        self.install()
        for path in self.sources:
            notebook, name = from_source(path), path.stem
            target = self.folder / "source" / name / f"{name}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, target)
            (self.folder / "instructor").mkdir(exist_ok=True)
            shutil.copyfile(target, self.folder / "instructor" / f"{name}.ipynb")
        (self.folder / "nbgrader_config.py").write_text(CONFIG.format(grading=str(GRADING)), encoding="utf8")
        for path in tqdm(self.sources, desc="assignments", disable=None):
            status, words = self.nbgrader("generate_assignment", path.stem, "--force")
            if status != 0:
                raise Stop(f"nbgrader could not make {path.stem}: {' '.join(words[-3:]) or 'out of time'}")
        print(f"For students: {self.folder / 'release'}\nWith solutions: {self.folder / 'instructor'}")

    def grade(self, submissions):
        """Grade every submission of a folder; one that fails costs no other."""
        folder = Path(submissions).expanduser().resolve()
        if not folder.is_dir():
            raise Stop(
                f"there is no folder {submissions}: make grade SUBMISSIONS=folder, with a folder for each student"
            )
        if self.root.is_relative_to(folder):
            raise Stop(f"{submissions} holds the course itself: put the submissions into a folder of their own")
        if not (self.folder / "gradebook.db").is_file():
            self.make()
        found = list(self.find(folder))
        if not found:
            raise Stop(f"{submissions} holds no folders: one is expected for each student, with the notebooks in it")
        rows, self.submissions = [], folder
        for student, name, file, notes in tqdm(found, desc="submissions", disable=None):
            start = time.time()
            row = dict.fromkeys(COLUMNS, "") | {"student": student, "assignment": name or "", "points": 0}
            try:
                row |= self.one(student_id(student), name, file, notes) if name else {"reasons": "; ".join(notes)}
            except Stop as stop:
                row["reasons"] = "; ".join([*notes, str(stop)])
            except Exception as error:  # whatever it is, the other submissions are graded
                row["reasons"] = "; ".join([*notes, f"it could not be graded: {type(error).__name__}: {error}"])
            rows.append(row | {"seconds": f"{time.time() - start:.1f}"})
            self.write(rows)  # after each: nothing is lost where grading is stopped
        for name in sorted({row["assignment"] for row in rows} - {""}):
            if self.nbgrader("generate_feedback", name, "--force")[0] != 0:
                print(f"not every feedback page of {name} could be made")
        print(f"{len(rows)} submissions: {self.folder / 'grades.csv'}, feedback in {self.folder / 'feedback'}")
        return rows

    def write(self, rows):
        part = self.folder / "grades.csv.part"
        with part.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.folder / "grades.csv")

    def find(self, folder):
        """Student, assignment, notebook and notes of each submission; the assignment is None where there is none."""
        names = {path.stem for path in self.sources}
        for student in sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."):
            files = [path for path in sorted(student.rglob("*")) if path.is_file()]
            files = [f for f in files if not any(part[0] == "." for part in f.relative_to(student).parts)]
            taken, notes = {}, {}
            for file in sorted(
                (path for path in files if path.suffix == ".ipynb"), key=lambda f: f.stem not in names
            ):
                name = file.stem if file.stem in names else self.guess(file)
                if name in taken:
                    notes[name].append(f"{file.name} was left out: {taken[name].name} was there too")
                elif name:
                    taken[name] = file
                    notes[name] = [f"the file was {file.name}, expected {name}.ipynb"] * (file.stem != name)
            for name, file in taken.items():
                yield student.name, name, file, notes[name]
            if not taken:
                got = ", ".join(path.name for path in files) or "nothing"
                yield student.name, None, None, [f"no notebook of an assignment: got {got}"]

    def guess(self, file):
        """The assignment of a notebook with another name, by its cells."""
        try:
            there = set(cell_ids(json.loads(file.read_text(encoding="utf8")).get("cells", [])))
        except (ValueError, AttributeError, OSError):
            return None
        counts = {path.stem: len(there & set(self.known(path.stem))) for path in self.sources}
        return max(counts, key=counts.get) if any(counts.values()) else None

    def known(self, name):
        source = self.folder / "source" / name / f"{name}.ipynb"
        return cell_ids(json.loads(source.read_text(encoding="utf8"))["cells"])

    def one(self, student, name, file, notes):
        """Grade one submission: the fields of its row."""
        target = self.folder / "submitted" / student / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        notes = [*notes, *self.mend(file, name, target)]
        seconds = self.grading()["assignments"][name].get("limits", {}).get("total", 60) + SECONDS
        command = ("autograde", name, "--student", student, "--force")
        status, words = self.nbgrader(*command, seconds=seconds, preexec_fn=limits)
        if status != 0:
            why = f"stopped after {seconds} seconds" if status is None else " ".join(words[-2:])[:300]
            return {"reasons": "; ".join([*notes, f"grading failed: {why}"])}
        graded = nbformat.read(self.folder / "autograded" / student / name / f"{name}.ipynb", 4)
        return result(graded, notes)

    def mend(self, file, name, target):
        """Copy a submission where nbgrader looks for it; returns what had to be mended."""
        if file.stat().st_size > LARGEST:
            raise Stop(f"{file.name} has {file.stat().st_size / 1e6:.0f} MB: clear its outputs and hand it in again")
        try:
            notebook = nbformat.reads(file.read_text(encoding="utf8"), 4)
        except Exception:
            raise Stop(
                f"{file.name} is no notebook that can be read: hand in the file that JupyterLab saved"
            ) from None
        notes, known, seen = [], self.known(name), set()
        for cell in notebook.cells:
            about = cell.metadata.get("nbgrader", {})
            mark = about.get("grade_id")
            if mark is not None and (mark not in known or mark in seen):
                notes.append(f"a cell was renamed or copied: {mark!r} was read as a cell of the student's own")
                del cell.metadata["nbgrader"]
            elif mark is not None and (cell.cell_type == "code") != known[mark]:
                notes.append(f"the cell {mark!r} had another type")
                del cell.metadata["nbgrader"]
            seen.add(mark)
        gone = [
            mark
            for mark in known
            if mark not in {c.metadata.get("nbgrader", {}).get("grade_id") for c in notebook.cells}
        ]
        if gone:
            notes.append(f"cells were missing: {', '.join(gone)} (tests are put back)")
        nbformat.write(notebook, target)
        return notes


def from_source(path):
    """The notebook of a source, its cells marked as nbgrader wants them.

    Raises
    ------
    Stop
        If a cell is marked as two things, or a test or a written answer has no points.
    """
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        kinds = [kind for kind in ("solution", "test", "written", "given") if kind in cell.metadata]
        if not kinds:
            continue
        kind, mark = kinds[0], cell.metadata[kinds[0]]
        if len(kinds) > 1 or (kind in ("test", "written") and "points" not in cell.metadata):
            raise Stop(f"{path.name}: the cell {mark} must be one thing, and say its points where it has some")
        about = {"grade_id": str(mark), "schema_version": 3, "task": False, "locked": kind in ("test", "given")}
        about |= {"grade": kind in ("test", "written"), "solution": kind in ("solution", "written")}
        if about["grade"]:
            about["points"] = cell.metadata["points"]
        if kind == "test":
            cell.source = f"{MARK} {', '.join(cell.metadata.get('names', []))}\n{cell.source}"
        cell.metadata = nbformat.from_dict({"nbgrader": about})
        cell["id"] = f"cell-{number}"
    keep = {key: notebook.metadata[key] for key in ("kernelspec",) if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict({**keep, "language_info": {"name": "python"}})
    return notebook


def student_id(folder):
    """The name of a student's folder as nbgrader can have it, in a path and in its gradebook."""
    return re.sub(r"[^\w.@-]", "_", folder)


def cell_ids(cells):
    """Marks of a notebook's cells, each with whether it is code."""
    marks = ((cell.get("metadata", {}).get("nbgrader", {}).get("grade_id"), cell.get("cell_type")) for cell in cells)
    return {mark: kind == "code" for mark, kind in marks if mark is not None}


def result(notebook, notes):
    """Points of a graded notebook, and why some are missing."""
    points = of = by_hand = 0.0
    reasons, signed = list(notes), ""
    for cell in notebook.cells:
        about = cell.metadata.get("nbgrader", {})
        outputs = cell.get("outputs", [])
        text = "".join(out.text for out in outputs if out.output_type == "stream")
        errors = [f"{out.ename}: {out.evalue}" for out in outputs if out.output_type == "error"]
        if not about.get("grade"):
            reasons += errors
            continue
        if about.get("solution"):
            by_hand += about["points"]
            continue
        of += about["points"]
        values = [out.data["text/plain"] for out in outputs if out.output_type == "execute_result"]
        points += 0 if errors else float(values[0]) if values else about["points"]
        found = re.search(r"^numbers of (['\"]?)(.*)\1$", text, re.M)
        signed = found.group(2) if found else signed
        reasons += [f"{about['grade_id']}: {line}" for line in [*re.findall(r"^0 of .* for .*", text, re.M), *errors]]
    row = {"points": f"{points:g}", "of": f"{of:g}", "by hand": f"{by_hand:g}", "signed": signed}
    return row | {"reasons": "; ".join(dict.fromkeys(reasons))[:2_000]}


def limits():
    """For the process of one submission and all that it starts."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000_000, 100_000_000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(word="make", submissions=None):
    room = Classroom()
    try:
        if word == "make":
            room.make()
        elif not submissions:
            raise Stop("say where the submissions are: make grade SUBMISSIONS=folder, with a folder for each student")
        else:
            room.grade(submissions)
    except (Stop, OSError) as error:
        return f"make {'classroom' if word == 'make' else 'grade'}: {error}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
