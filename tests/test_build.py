"""The build: what is executed again, what a killed or failed build leaves, and what `make lab` never touches."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXT = ROOT / "book" / "_ext"
sys.path.append(str(EXT))

CONFIG = """
title: Mini
only_build_toc_files: true
execute: {execute_notebooks: cache}
parse: {myst_enable_extensions: [colon_fence, dollarmath]}
repository: {url: ""}
sphinx: {config: {nb_execution_raise_on_error: true}}
"""
TOC = "{format: jb-book, root: index, chapters: [{file: book/first}, {file: book/second}]}"
HEAD = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3}
---
# A chapter

:::{note}
With colon_fence, this is no paragraph.
:::

"""


def cell(code):
    return f"```{{code-cell}} ipython3\n{code}\n```\n"


def write_book(root):
    """A book of three pages over a bnlib of its own."""
    files = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "requirements.txt": "some==1\n",
        "index.md": "# Mini\n\n{ref}`somewhere`\n",
        "book/first.md": HEAD + cell("%matplotlib inline\nfrom bnlib import a\nprint('VALUE', a.value())"),
        "book/second.md": HEAD.replace("# A", "(somewhere)=\n# A") + cell("recorded = 'numbers'"),
        "bnlib/__init__.py": "",
        "bnlib/a.py": "from bnlib.b import X\ndef value():\n    return X\n",
        "bnlib/b.py": "X = 1\n",
        "bnlib/c.py": "Y = 1\n",
        "bnlib/results/numbers.json": "{}",
        "bnlib/results/others.json": "{}",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def mini(tmp_path):
    """The sources of the small book."""
    return write_book(tmp_path)


@pytest.fixture(scope="module")
def first_build(tmp_path_factory):
    """The small book built once: the folder, a copy of it, and what the build printed."""
    root = write_book(tmp_path_factory.mktemp("built") / "book")
    status, output = build(root)
    assert status == 0, output
    shutil.copytree(root, root.with_name("kept"))
    return root, root.with_name("kept"), output


@pytest.fixture
def built(first_build):
    """The built book, as it was after its first build, at the same path: Sphinx would notice another one."""
    root, kept, _ = first_build
    shutil.rmtree(root)
    shutil.copytree(kept, root)
    return root


def build(root):
    """Run the build; returns its exit status and all it printed."""
    done = subprocess.run([sys.executable, EXT / "build.py", root], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def executed(output):
    """Names of the chapters that a build executed."""
    return set(re.findall(r"^\[\d+/\d+\] (\S+)", output, re.MULTILINE))


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(mini, monkeypatch, tmp_path_factory):
    """A function that computes the keys of the mini book, with the mini bnlib and not this one."""
    chapters = importlib.import_module("chapters")
    get_cache = importlib.import_module("jupyter_cache").get_cache
    cache = get_cache(str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(sys, "path", sys.path[:])
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "bnlib"}

    def forget():
        for name in [name for name in sys.modules if name.partition(".")[0] == "bnlib"]:
            del sys.modules[name]

    def compute():
        forget()
        pages = chapters.read_pages(mini)
        chapters.set_keys(mini, pages, cache, chapters.Library(mini))
        return {page.title: page.key for page in pages if page.notebook}

    yield compute
    forget()
    sys.modules.update(ours)


@pytest.mark.parametrize(
    ("file", "text", "changed"),
    [
        ("bnlib/b.py", "X = 2\n", {"first"}),  # imported by bnlib.a, which the chapter imports
        ("bnlib/__init__.py", "Z = 1\n", {"first"}),  # runs when bnlib.a is imported
        ("bnlib/c.py", "Y = 2\n", set()),
        ("bnlib/a.py", "from bnlib.b import X\nfrom bnlib.c import Y\n", {"first"}),
        ("bnlib/results/numbers.json", "[1]", {"second"}),  # named by a literal of the chapter
        ("bnlib/results/others.json", "[1]", set()),
        ("requirements.txt", "some==2\n", {"first", "second"}),
        ("book/second.md", HEAD + "Another text.\n" + cell("recorded = 'numbers'"), set()),
        ("book/second.md", HEAD + cell("recorded = 'others'"), {"second"}),
    ],
)
def test_a_key_changes_with_what_the_chapter_depends_on(mini, keys, file, text, changed):
    before = keys()
    (mini / file).write_text(text)
    assert {name for name, key in keys().items() if key != before[name]} == changed


@pytest.mark.parametrize(
    "code",
    [
        "from bnlib import c\nfiles = !echo hi",  # an IPython line must not hide the import above it
        "c?\nimport bnlib.c",
        "import importlib\nc = importlib.import_module('bnlib.c')",
        "this is no Python",  # it may use anything
        "%%time\nfrom bnlib import c",
        "%time from bnlib import c",
        "%%bash\npython some.py",
    ],
)
def test_a_key_changes_with_a_module_however_it_is_named(mini, keys, code):
    (mini / "book" / "second.md").write_text(HEAD + cell(code))
    before = keys()["second"]
    (mini / "bnlib" / "c.py").write_text("Y = 2\n")
    assert keys()["second"] != before


def test_a_key_changes_with_a_module_named_with_a_hyphen(mini, keys):
    (mini / "bnlib" / "d_e.py").write_text("Y = 1\n")
    (mini / "book" / "second.md").write_text(HEAD + cell("name = 'd-e'"))
    before = keys()["second"]
    (mini / "bnlib" / "d_e.py").write_text("Y = 2\n")
    assert keys()["second"] != before


def test_a_script_of_the_pages_is_no_reason_to_execute(mini, keys):
    (mini / "bnlib" / "a.js").write_text("1")
    before = keys()
    (mini / "bnlib" / "a.js").write_text("2")
    assert keys() == before


@pytest.mark.parametrize(
    ("file", "text"),
    [("book/first.md", HEAD + cell(":tags: [hide-input")), ("bnlib/b.py", "X = = 1\n")],
)
def test_what_cannot_be_read_is_named_in_one_line(mini, file, text):
    (mini / file).write_text(text)
    status, output = build(mini)
    assert status == 1
    assert "Traceback" not in output
    assert file in output


def test_a_key_changes_when_a_named_data_set_arrives(mini, keys):
    module = "from pathlib import Path\nSETS = ['fashion-mnist']\n"
    module += f"def available(name):\n    return Path({str(mini)!r}, name).exists()\n"
    (mini / "bnlib" / "data.py").write_text(module)
    (mini / "book" / "second.md").write_text(HEAD + cell("from bnlib import data\nname = 'mnist'"))
    before = keys()
    (mini / "fashion-mnist").touch()  # named by bnlib.data itself only
    assert keys() == before
    (mini / "mnist").touch()
    after = keys()
    assert {name for name in after if after[name] != before[name]} == {"second"}


# --- builds -------------------------------------------------------------------------------------------------


def test_a_build_reports_its_pages_and_a_second_one_does_nothing(first_build, built):
    _, _, output = first_build
    assert executed(output) == {"first", "second"}
    assert f"{built}/_build/html/index.html  (3 pages)" in output
    assert len(re.findall(r"^  (first|second) +\d+\.\d$", output, re.MULTILINE)) == 2

    start = time.time()
    status, output = build(built)
    assert time.time() - start < 10
    assert (status, executed(output)) == (0, set())
    assert "Nothing changed" in output
    assert len(re.findall(r"^  (first|second) +\d+\.\d  from the cache$", output, re.MULTILINE)) == 2


def test_a_changed_module_and_a_damaged_cache_are_executed_again(built):
    page = built / "_build" / "html" / "book" / "first.html"
    assert "VALUE 1" in page.read_text()
    (built / "bnlib" / "b.py").write_text("X = 2\n")
    # the state that a kill leaves between the database's commit and the writing of the file
    for notebook in (built / "_build" / ".jupyter_cache" / "executed").glob("*/base.ipynb"):
        if "recorded" in notebook.read_text():
            notebook.unlink()
    status, output = build(built)
    assert (status, executed(output)) == (0, {"first", "second"}), output
    assert "VALUE 2" in page.read_text()


def test_a_changed_script_is_rendered_and_not_executed(built):
    (built / "bnlib" / "page").mkdir()
    (built / "bnlib" / "page" / "numbers.js").write_text("1")  # a name that the second chapter holds
    status, output = build(built)
    assert (status, executed(output)) == (0, set()), output
    assert "Nothing changed" not in output


def test_a_failing_cell_fails_twice_and_others_finish(mini):
    (mini / "book" / "second.md").write_text(HEAD + cell("before = 1") + cell("1 / 0  # here"))
    for others in ({"first"}, set()):
        status, output = build(mini)
        assert status == 1
        assert executed(output) == {"second"} | others
        assert re.search(r"1 / 0  # here\n(.*\n)*.*ZeroDivisionError: division by zero", output), output
        assert "Traceback (most recent call last):\n" not in output  # the chapter's error, not the build's own
        assert not (mini / "_build" / "html").exists()


def test_a_warning_fails_twice_also_of_a_page_that_did_not_change(built):
    (built / "book" / "second.md").write_text(HEAD + cell("recorded = 'numbers'"))  # index.md refers to its label
    for _ in range(2):
        status, output = build(built)
        assert status == 1
        assert executed(output) == set()
        assert "undefined label: 'somewhere'" in output


def kill_when(root, reached):
    """Start a build, kill it and its kernels when ``reached()``."""
    process = subprocess.Popen(
        [sys.executable, EXT / "build.py", root], stdout=subprocess.PIPE, start_new_session=True
    )
    end = time.time() + 60
    while not reached(process) and time.time() < end and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, "the build ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_a_build_killed_between_chapters_goes_on(mini):
    wait = "import os, time\nwhile os.path.exists('../slow'):\n    time.sleep(.1)"
    (mini / "slow").touch()
    (mini / "index.md").write_text("# Mini\n")
    (mini / "book" / "second.md").write_text(HEAD + cell(wait))
    kill_when(mini, lambda process: b"first" in process.stdout.readline())
    (mini / "slow").unlink()
    status, output = build(mini)
    assert (status, executed(output)) == (0, {"second"}), output


def test_a_build_killed_while_it_writes_pages_leaves_no_half_page(built):
    page = built / "_build" / "html" / "book" / "first.html"
    (built / "book" / "first.md").open("a").write("One more line.\n")
    kill_when(
        built,
        lambda process: (built / "_build" / ".doctrees" / "book" / "first.doctree").exists() and not page.exists(),
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("half a pa")
    status, output = build(built)
    assert (status, executed(output)) == (0, set()), output
    assert "VALUE 1" in page.read_text()
    assert "One more line" in page.read_text()


def test_a_page_that_is_missing_is_one_line(mini):
    (mini / "book" / "first.md").unlink()
    assert build(mini) == (1, "make book: _toc.yml names book/first, but there is no book/first.md\n")


# --- make lab -----------------------------------------------------------------------------------------------


def test_the_lab_never_overwrites(mini):
    def prepare():
        command = [sys.executable, EXT / "lab.py", "--prepare", mini]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    assert prepare() == [f"2 chapters copied to {mini}/lab"]
    mine = mini / "lab" / "first.md"
    mine.write_text("my own work")
    (mini / "book" / "second.md").write_text(HEAD + cell("newer = 1"))
    second = (mini / "lab" / "second.md").read_text()
    assert [line.partition(" ")[0] for line in prepare()] == ["lab/second.md", "Your"]
    assert mine.read_text() == "my own work"
    assert (mini / "lab" / "second.md").read_text() == second
    viewers = next((mini / "_build" / "jupyter-config").rglob("*.json")).read_text()
    assert "Jupytext Notebook" in viewers
