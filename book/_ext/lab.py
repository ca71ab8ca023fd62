"""Open JupyterLab on copies of the chapters, in ``lab/``. A copy that is there is a learner's work: it stays.

Run as ``python lab.py [--prepare]``; with ``--prepare`` the copies are made and JupyterLab is not started.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from chapters import Stop, digest, read_pages


def copy_chapters(root):
    """Copy each chapter that has no copy yet; name those whose source has changed since."""
    lab = root / "lab"
    lab.mkdir(exist_ok=True)
    notes = lab / ".copied.json"  # digest of each source when it was copied
    try:
        copied = json.loads(notes.read_text())
    except (OSError, ValueError):
        copied = {}
    new = 0
    for page in (page for page in read_pages(root) if page.notebook):
        target, source = lab / f"{page.title}.md", digest(page.path)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_suffix(".part")  # a half-written copy must never pass for a learner's work
            shutil.copyfile(page.path, part)
            part.rename(target)
            copied[page.title] = source
            new += 1
        elif source not in (copied.get(page.title), digest(target)):
            print(f"{target.relative_to(root)} is yours and stays; its chapter has changed since you got it")
    part = notes.with_suffix(".part")
    part.write_text(json.dumps(copied, indent=1))
    part.replace(notes)
    print(f"{new} chapters copied to {lab}" if new else f"Your copies of the chapters are in {lab}", flush=True)


def configure(root):
    """Settings of this book's JupyterLab: a click on a chapter opens it as a notebook, with this Python."""
    settings = root / "_build" / "jupyter-config"
    settings.mkdir(parents=True, exist_ok=True)
    os.environ["JUPYTER_CONFIG_DIR"] = str(settings)
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel `python3` of .venv, not one of the user's
    command = [sys.executable, "-m", "jupytext_config", "set-default-viewer", "markdown"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main(root, prepare=False):
    """Prepare ``lab/``, then become JupyterLab."""
    try:
        copy_chapters(root)
        configure(root)
    except (Stop, OSError, subprocess.CalledProcessError) as error:
        return f"make lab: {error}"
    if not prepare:
        as_root = ["--allow-root"] if os.geteuid() == 0 else []  # in a container; it refuses otherwise
        os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", str(root / "lab"), *as_root])


if __name__ == "__main__":
    roots = [argument for argument in sys.argv[1:] if argument != "--prepare"]
    root = Path(roots[0] if roots else Path(__file__).parents[2]).resolve()
    sys.exit(main(root, prepare="--prepare" in sys.argv))
