"""Build the book: execute the chapters that changed, on all cores, then let Sphinx render the pages.

jupyter-cache keeps the outputs in the place where myst-nb looks for them, so Sphinx executes nothing itself;
beside each output lies its chapter's key (see chapters.py), which decides whether it is still good.

Run as ``python build.py [ROOT]``; without ROOT the book is the one that this file stands in.
"""

import copy
import errno
import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from chapters import Library, Stop, available, digest, parse, read_pages, set_keys
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.db import NbCacheRecord
from jupyter_cache.executors.utils import single_nb_execution

CELL_SECONDS = 600


def is_full(folder):
    """Whether the disk of ``folder`` has no room left."""
    return shutil.disk_usage(folder).free < 20e6


def open_cache(path):
    """The jupyter-cache at ``path``; one that cannot be read is started anew."""
    try:
        cache = get_cache(str(path))
        cache.list_cache_records()
    except Exception as error:
        if is_full(path.parent):
            raise
        print(f"The cache of executed chapters cannot be read ({type(error).__name__}) and is started anew.")
        shutil.rmtree(path, ignore_errors=True)
        cache = get_cache(str(path))
    return cache


def valid_record(cache, page):
    """The page's cached record, or None; one that is outdated or incomplete is dropped."""
    try:
        record = cache.match_cache_notebook(page.notebook)
    except KeyError:
        return None
    if (record.data or {}).get("key") == page.key:
        try:
            cache.get_cache_bundle(record.pk)
            return record
        except Exception:  # killed after the database's commit: the file is missing, cut off or no JSON
            pass
    # cache.remove_cache refuses where the file is missing
    shutil.rmtree(cache.path / "executed" / record.hashkey, ignore_errors=True)
    NbCacheRecord.remove_records([record.pk], cache.db)
    return None


def prepare_kernels(root):
    """Let every kernel be this Python, with one thread and none of the user's own settings."""
    for name in ("MPLBACKEND", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS"):
        os.environ.pop(name, None)
    for name in ("OMP", "OPENBLAS", "MKL", "VECLIB_MAXIMUM", "NUMEXPR"):
        os.environ[f"{name}_NUM_THREADS"] = "1"  # the chapters run side by side
    settings = root / "_build" / "jupyter"
    (settings / "ipython").mkdir(parents=True, exist_ok=True)
    matplotlib = Path(importlib.util.find_spec("matplotlib").origin).parent / "mpl-data" / "matplotlibrc"
    os.environ.update(
        BNLIB_BUILD="1",
        PYTHONHASHSEED="0",
        PYTHONPATH=str(root),
        JUPYTER_PATH=str(Path(sys.prefix, "share", "jupyter")),  # before a kernel `python3` of the user's
        JUPYTER_CONFIG_DIR=str(settings),
        JUPYTER_DATA_DIR=str(settings),
        IPYTHONDIR=str(settings / "ipython"),
        MATPLOTLIBRC=str(matplotlib),
        PYDEVD_DISABLE_FILE_VALIDATION="1",
    )


def execute(page):
    """Run one chapter in its folder. Returns the executed notebook, its seconds, and what went wrong or ''."""
    notebook, start = copy.deepcopy(page.notebook), time.perf_counter()
    source = "(the kernel did not start)"

    def note(cell, **_):
        nonlocal source
        source = cell.source

    try:
        options = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"], "on_cell_start": note}
        error = single_nb_execution(notebook, str(page.path.parent), CELL_SECONDS, False, **options).err
    except Exception as problem:  # the kernel died or did not start
        error = problem
    if error is None:
        return notebook, time.perf_counter() - start, ""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip().splitlines()
    if not hasattr(error, "traceback"):
        text = [f"{type(error).__name__}: {text[0] if text else ''}"]
    return notebook, time.perf_counter() - start, "\n".join([source, "-" * 40, *text[-6:]])


def execute_all(pages, cache):
    """Run these chapters side by side, keep each that succeeds; raise `Stop` if one did not."""
    failed = []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(cores)
    running = {pool.submit(execute, page): page for page in pages}
    try:
        for count, future in enumerate(as_completed(running), 1):
            page, (notebook, seconds, problem) = running[future], future.result()
            line = f"[{count}/{len(pages)}] {page.title}  {seconds:.1f} s"
            if problem:
                failed.append(page.title)
                print(f"{line}  FAILED\n    " + problem.replace("\n", "\n    "), flush=True)
            else:
                record = {"execution_seconds": seconds, "key": page.key, "executed": time.time()}
                bundle = CacheBundleIn(notebook, str(page.path), data=record)
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
                print(line, flush=True)  # from here on a killed build keeps it
    except KeyboardInterrupt:
        print("\nInterrupted. The chapters that were finished are kept.", flush=True)
        os._exit(130)  # waits for no thread; a kernel ends when its parent is gone
    if failed:
        raise Stop(f"a cell failed in {', '.join(failed)} (see above)")


def fetch_data(root, names):
    """Fetch and check the data sets that chapters name; returns whether one was new here."""
    before = [available(name) for name in names]
    for name, here in zip(names, before, strict=True):
        if not here:
            print(f"Fetching the data set {name}", flush=True)
        command = [sys.executable, "-m", "bnlib", "data", "fetch", name]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip() or "?").splitlines()[-1]
            if name == "mnist5k":
                raise Stop(f"the data set mnist5k cannot be had: {why}")
            print(f"Note: {name} cannot be had now, chapters fall back to mnist5k ({why})")
    return before != [available(name) for name in names]


# --- rendering ----------------------------------------------------------------------------------------------


def files_below(folder):
    """All files below a folder, without what Python and Jupyter leave there."""
    skip = {"__pycache__", ".ipynb_checkpoints"}
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not skip.intersection(p.parts)]


def render_state(root, pages, library):
    """Digest of what every page is rendered with: if it changes, Sphinx reads all pages again."""
    sources = {page.path for page in pages}
    extensions = sorted((root / "book" / "_ext").glob("*.py"))
    used, _ = library.needs([parse(path.read_text("utf8")) for path in extensions])
    paths = [root / "_config.yml", root / "_toc.yml", root / "requirements.txt", *used]
    paths += [path for path in files_below(root / "book") if path not in sources]
    paths += [path for path in files_below(root / "bnlib" / "page") if path.suffix == ".js"]
    paths += [path for path in files_below(root / "bnlib" / "results") if path.suffix == ".json"]
    paths += files_below(root / "bnlib" / "experiments")  # the ledger finds them by their names
    return digest(sys.version, *(str(path.relative_to(root)) for path in paths), *paths)


def render(root):
    """Run jupyter-book; its warnings, which are errors, go to the screen."""
    # without that module as in chapters.py
    program = "import sys; sys.modules['rfc3987_syntax'] = None; from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", program, "build", ".", "-q", "-n", "-W", "--keep-going"]
    if subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL).returncode:
        raise Stop("Sphinx failed, or warned, which counts as failing (see above)")


def write_executed(root, pages, cache):
    """The executed notebook of each chapter, beside its clean copy, for the page's download button."""
    for page in (page for page in pages if page.notebook):
        _, notebook = cache.merge_match_into_notebook(page.notebook)
        target = root / "_build" / "html" / "_sources" / f"{page.name}-executed.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)


def report(root, pages, records, executed, start):
    """Print where the book is and what each chapter cost."""
    print(f"\nThe book: {root / '_build' / 'html' / 'index.html'}  ({len(pages)} pages)\n")
    width = max([len("chapter"), *(len(page.title) for page in pages)])
    print(f"  {'chapter':{width}}  seconds")
    for page in (page for page in pages if page.notebook):
        seconds = records[page.name].data["execution_seconds"]
        print(f"  {page.title:{width}}  {seconds:7.1f}{'' if page in executed else '  from the cache'}")
    print(f"\n{time.perf_counter() - start:.1f} s in all", flush=True)


def build(root):
    """Bring ``_build/html`` up to date with the sources below ``root``."""
    start = time.perf_counter()
    out = root / "_build"
    out.mkdir(exist_ok=True)
    lock = os.open(out, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # a second build waits until the first is done
    prepare_kernels(root)
    library, cache = Library(root), open_cache(out / ".jupyter_cache")
    pages = read_pages(root)

    def state():
        """Keys and records of the chapters, and what the finished pages show: their sources and executions."""
        set_keys(root, pages, cache, library)
        records = {page.name: valid_record(cache, page) for page in pages if page.notebook}
        shown = {p.name: [digest(p.path), records.get(p.name) and records[p.name].data["executed"]] for p in pages}
        return records, {"render": render_state(root, pages, library), "pages": shown}

    finished = out / ".finished"  # written after a build, removed before the next: a failed build leaves none
    try:
        last = json.loads(finished.read_text())
    except (OSError, ValueError):
        last = {"render": None, "pages": {}}
    records, now = state()
    html = [out / "html" / "index.html", *(out / "html" / f"{page.name}.html" for page in pages)]
    if now == last and all(path.exists() for path in html):
        print("Nothing changed since the last build.")
        return report(root, pages, records, (), start)

    if fetch_data(root, sorted({name for page in pages for name in page.data})):
        records, now = state()
    stale = [page for page in pages if page.notebook and not records[page.name]]
    execute_all(stale, cache)
    records, now = state()

    finished.unlink(missing_ok=True)
    shutil.rmtree(out / "html", ignore_errors=True)  # all pages are written again: a label may have moved
    if now["render"] != last["render"]:
        for folder in (".doctrees", "jupyter_execute"):
            shutil.rmtree(out / folder, ignore_errors=True)
    for name, shown in now["pages"].items():
        if shown != last["pages"].get(name):  # Sphinx looks at sources only: a new execution is no change to it
            (out / ".doctrees" / f"{name}.doctree").unlink(missing_ok=True)
    known = {record.pk for record in cache.list_cache_records()}
    render(root)
    write_executed(root, pages, cache)
    extra = [record.uri for record in cache.list_cache_records() if record.pk not in known]
    if extra:
        raise Stop(f"Sphinx executed {', '.join(extra)} itself: build.py read it in another way than myst-nb")
    (out / ".finished.new").write_text(json.dumps(now))
    os.replace(out / ".finished.new", finished)
    report(root, pages, records, stale, start)


def main(root):
    """Build, and turn what can go wrong into one line."""
    try:
        build(root)
    except Stop as stop:
        return f"make book: {stop}"
    except Exception as error:  # a full disk shows as an OSError here, as an error of the database elsewhere
        if getattr(error, "errno", None) != errno.ENOSPC and not is_full(root):
            raise
        return f"make book: the disk of {root} is full: make room, then run this again"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()))
