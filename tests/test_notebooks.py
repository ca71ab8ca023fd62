"""The chapters as notebooks: every one, clean and executed, and with the wheel alone they run in an empty folder."""

import os
import re
import subprocess
import sys
import zipfile

import jupytext
import nbformat
import pytest
from bs4 import BeautifulSoup

from .conftest import HTML, ROOT, toc_pages

sys.path.append(str(ROOT / "book" / "_ext"))
import notebooks
from chapters import Stop

SOURCES = {name: (ROOT / f"{name}.md").read_text() for name in toc_pages()}
CHAPTERS = [name for name in SOURCES if "kernelspec:" in SOURCES[name]]
ALONE = ("book/transform/forward", "book/transform/backward", "book/experiments/fair-comparison")


@pytest.fixture(scope="module")
def folder():
    """What ``make notebooks`` writes after the book is built."""
    notebooks.collect(ROOT)
    return ROOT / "_build" / "notebooks"


@pytest.fixture(scope="module")
def wheel(folder, tmp_path_factory):
    """The wheel, unpacked."""
    place = tmp_path_factory.mktemp("wheel")
    (file,) = folder.glob("bnlib-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(place)
    return place


def code(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_is_there_clean_and_executed_and_linked_from_its_page(name, folder):
    source = code(jupytext.reads(SOURCES[name], fmt="md:myst"))
    title = name.removeprefix("book/")
    clean, executed = (nbformat.read(folder / kind / f"{title}.ipynb", 4) for kind in ("clean", "executed"))
    assert code(clean) == code(executed) == source
    assert not any(cell.get("outputs") for cell in clean.cells)
    printing = [cell for cell in executed.cells if "print(" in cell.source or "explore(" in cell.source]
    assert any(cell.outputs for cell in printing) or not printing
    assert not any(out.output_type == "error" for cell in executed.cells for out in cell.get("outputs", []))
    page = BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser")
    stem = name.rpartition("/")[2]
    for ending in (".ipynb", "-executed.ipynb"):
        (link,) = page.select(f'a[href$="/{stem}{ending}"]')
        assert ((HTML / name).parent / link["href"]).resolve().is_file()


def test_the_wheel_holds_the_package_as_it_is_here(wheel):
    def files(root):
        found = (path for path in (root / "bnlib").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(root)): path.read_bytes() for path in found}

    assert files(wheel) == files(ROOT)


@pytest.mark.parametrize("name", ALONE)
def test_a_notebook_runs_alone_with_the_wheel(name, folder, wheel, tmp_path):
    """The build runs every chapter with this package; these also without the repository, in a folder of their own."""
    file = folder / "clean" / f"{name.removeprefix('book/')}.ipynb"
    notebook = nbformat.read(file, 4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("import bnlib\nprint(bnlib.__file__)"))
    nbformat.write(notebook, tmp_path / "alone.ipynb")
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "nbconvert",
        "--to",
        "notebook",
        "--execute",
        "--inplace",
        "alone.ipynb",
    ]
    settings = {"PYTHONPATH": str(wheel), "OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    environment = {key: value for key, value in os.environ.items() if key != "BNLIB_BUILD"} | settings
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
    done = nbformat.read(tmp_path / "alone.ipynb", 4)
    assert done.cells[0].outputs[0].text.strip() == str(wheel / "bnlib" / "__init__.py")
    assert len(done.cells) == len(notebook.cells)


def test_what_they_need_is_beside_them(folder):
    (wheel,) = folder.glob("bnlib-*.whl")
    readme = (folder / "README.txt").read_text()
    assert wheel.name in readme
    assert (folder / "requirements.txt").read_text() == (ROOT / "requirements.txt").read_text()
    assert re.search(r"^torch==[^\s;#]+", (ROOT / "requirements.txt").read_text(), re.M)[0] in readme
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.txt", "clean", "executed", "requirements.txt", wheel.name]
    )


def test_without_a_book_it_says_what_to_do(tmp_path):
    for name in ("_toc.yml", "_config.yml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "book").symlink_to(ROOT / "book")
    with pytest.raises(Stop, match="is missing: run make book first"):
        notebooks.collect(tmp_path)
