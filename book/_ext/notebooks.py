"""Collect the chapters as notebooks in ``_build/notebooks``: clean, executed, and what they need to run elsewhere.

``make notebooks`` builds the book first, which writes both kinds for the pages' download buttons. With the wheel and
the pins beside them the clean ones run in any folder, in JupyterLab without this repository.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from bnbook import EXECUTED
from chapters import Stop, read_pages

README = """The chapters as notebooks: clean/ to work in, executed/ to look at. To run them, in a new folder:

    python3 -m venv .venv
    .venv/bin/pip install torch=={torch}  # for the CPU alone: --extra-index-url https://download.pytorch.org/whl/cpu
    .venv/bin/pip install -r requirements.txt
    .venv/bin/pip install --no-deps {wheel}
    .venv/bin/jupyter lab clean
"""


def collect(root):
    """Write the folder anew; `Stop` where the book is not built or the wheel cannot be made."""
    source, target = root / "_build" / "html" / "_sources", root / "_build" / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    pages = [page for page in read_pages(root) if page.notebook]
    for page in pages:
        for kind, ending in (("clean", ".ipynb"), ("executed", EXECUTED)):
            file, copy = source / f"{page.name}{ending}", target / kind / f"{page.title}.ipynb"
            if not file.is_file():
                raise Stop(f"{file.relative_to(root)} is missing: run make book first")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    wheel = make_wheel(root, target)
    pins = (root / "requirements.txt").read_text(encoding="utf8")
    torch = next(line.split("==")[1].split()[0] for line in pins.splitlines() if line.startswith("torch=="))
    (target / "requirements.txt").write_text(pins, encoding="utf8")
    (target / "README.txt").write_text(README.format(torch=torch, wheel=wheel.name), encoding="utf8")
    print(f"{len(pages)} chapters, clean and executed, and what they need: {target}")


def make_wheel(root, folder):
    """Build the wheel of bnlib into a folder, from a copy: setuptools leaves its traces where it works."""
    work = folder / "work"
    shutil.copytree(root / "bnlib", work / "bnlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(root / name, work / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(work)]
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(work)
    if done.returncode:
        raise Stop(f"the wheel could not be built: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return next(folder.glob("bnlib-*.whl"))


def main(root):
    try:
        collect(root)
    except (Stop, OSError) as error:
        return f"make notebooks: {error}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()))
