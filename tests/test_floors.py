"""The house: imports run downwards only, ``scratch`` needs no torch, cited equations exist and are tested."""

import ast
import graphlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import pytest

import bnlib

ROOT = Path(__file__).parents[1]
PACKAGE = Path(bnlib.__file__).parent

# room: the rooms below it, which it may import
GROUND = {"data", "scratch", "theory", "page"}
FLOORS = {room: set() for room in GROUND} | {
    "data": {"data_sources"},  # one room in two files
    "data_sources": set(),
    "nets": {"data"},
    "exercises": GROUND | {"nets"},
    "experiments": GROUND | {"nets", "exercises"},
    "bench": GROUND | {"nets", "experiments", "bench_cells"},  # times all of these
    "bench_cells": {"experiments"},  # one room with bench in two files
    "marks": set(),  # of the assignments, in whose notebooks the rooms above cannot be imported
    "results": set(),  # recorded files, no code
    "__main__": GROUND | {"nets", "exercises", "experiments", "bench", "results"},
    "": set(),  # bnlib/__init__.py: importing the package imports nothing
}
HEAVY = ["torch", "matplotlib", "pandas", "sklearn", "IPython", "ipywidgets"]


@pytest.fixture(scope="module")
def graph():
    """Every import in bnlib, also those inside functions, as ``{module: imported modules}``."""
    built = grimp.build_graph("bnlib", include_external_packages=True, cache_dir=None)
    return {m: built.find_modules_directly_imported_by(m) for m in built.modules if room_of(m) is not None}


def room_of(module):
    """The room a module of bnlib is in; None for a module of another package."""
    package, *parts = module.split(".")
    return (parts[0] if parts else "") if package == "bnlib" else None


def upward(graph):
    """Imports that leave their room for one that is not below it."""
    edges = [(a, b) for a, imported in graph.items() for b in imported if room_of(b) is not None]
    return [(a, b) for a, b in edges if room_of(a) != room_of(b) and room_of(b) not in FLOORS[room_of(a)]]


def test_every_module_is_in_a_room_of_the_house(graph):
    assert {room_of(module) for module in graph} - set(FLOORS) == set()
    # A folder without __init__.py would escape the graph.
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
    files = {path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py")}
    assert {".".join(path.parts).removesuffix(".__init__") for path in files} == set(graph)


def test_imports_run_downwards_only(graph):
    assert upward(graph) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("bnlib.scratch.network", "bnlib.data"),
        ("bnlib.page.figures", "bnlib.scratch.batchnorm"),
        ("bnlib.data", "bnlib.nets.models"),
        ("bnlib.nets.norms", "bnlib.scratch.batchnorm"),
        ("bnlib.exercises.check", "bnlib.experiments.core"),
        ("bnlib", "bnlib.data"),
    ],
)
def test_an_import_that_runs_upwards_or_sideways_is_seen(module, imported):
    assert upward({module: {imported}, imported: set()}) == [(module, imported)]


def test_no_import_runs_in_a_circle(graph):
    inside = {module: {b for b in imported if b in graph} for module, imported in graph.items()}
    order = list(graphlib.TopologicalSorter(inside).static_order())  # CycleError names the circle
    assert set(order) == set(graph)


def test_scratch_names_neither_torch_nor_any_heavy_package(graph):
    named = {b for module, imported in graph.items() if room_of(module) == "scratch" for b in imported}
    assert named & set(HEAVY) == set()
    assert "numpy" in named  # external packages are in the graph


def test_importing_scratch_loads_no_heavy_package():
    modules = [f"bnlib.scratch.{path.stem}" for path in (PACKAGE / "scratch").glob("*.py") if path.stem != "__init__"]
    code = f"import sys, {', '.join(['bnlib', *modules])}; print(*(n for n in {HEAVY} if n in sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
    )


# --- equations -------------------------------------------------------------------------------------


def cited_equations(folder):
    """``{(file, name of the function or class): labels}`` of every docstring that cites an equation."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for top in tree.body:
            for node in ast.walk(top):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    labels = re.findall(r"\{eq\}`([^`]+)`", ast.get_docstring(node) or "")
                    if labels:  # a method is known by its class
                        found.setdefault((path.relative_to(folder).as_posix(), top.name), set()).update(labels)
    return found


@cache
def written_labels(folder):
    """Labels of the equations of all pages: ``:label: name`` in a directive, ``$$ (name)`` after dollars."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.md")))
    return set(re.findall(r"^\s*:label:\s*(\S+)\s*$", text, re.M)) | set(re.findall(r"\$\$\s*\(([^)\s]+)\)", text))


@cache
def used_names(folder):
    """Names that the tests use, imports and texts left out."""
    names = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
    return names


CITED = cited_equations(PACKAGE)


def test_the_functions_of_part_1_cite_equations():
    names = {name for _, name in CITED}
    assert {"batchnorm_forward", "batchnorm_backward", "batchnorm_inference", "RunningStatistics", "fold"} <= names


@pytest.mark.parametrize(("file", "name"), CITED)
def test_a_function_that_cites_an_equation_has_a_test(file, name):
    assert name in used_names(ROOT / "tests"), f"no test uses {name} of bnlib/{file}"


@pytest.mark.parametrize(("file", "name"), CITED)
def test_each_cited_equation_is_in_the_book(file, name):
    missing = CITED[file, name] - written_labels(ROOT / "book")
    assert not missing, f"{name} in bnlib/{file} cites {sorted(missing)}: no page of book/ has these labels"


def test_a_missing_label_and_an_untested_function_are_seen(tmp_path):
    (tmp_path / "code.py").write_text('def f():\n    """Implements {eq}`eq-a` and {eq}`eq-b`."""\n')
    (tmp_path / "page.md").write_text("```{math}\n:label: eq-a\nx\n```\n\n$$ y $$ (eq-c)\n\nSee {eq}`eq-b`.\n")
    assert cited_equations(tmp_path) == {("code.py", "f"): {"eq-a", "eq-b"}}
    assert written_labels(tmp_path) == {"eq-a", "eq-c"}
    assert "f" not in used_names(tmp_path)
