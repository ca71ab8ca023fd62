"""Set up ``.venv``: the exact pins of requirements.txt, and bnlib itself.

The system's own Python runs this file before anything is installed: standard library only, and no syntax
newer than Python 3.6, so that a too old Python still gets as far as saying so in one line.
"""

import fcntl
import glob
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VERSIONS = [(3, 13), (3, 12), (3, 11)]  # the ones the pins were tested with, preferred first
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NETWORK = (
    r"connection broken|NewConnectionError|NameResolutionError|name resolution|ConnectTimeout"
    r"|ReadTimeout|ProxyError|Max retries exceeded|Network is unreachable|Connection (refused|reset|aborted)"
)


class Stop(Exception):
    """What is wrong and what to do about it, in one line."""


def check_version(version, path):
    """Raise `Stop` unless ``version``, a tuple such as (3, 12, 1), is one the pins are for."""
    if tuple(version[:2]) not in VERSIONS:
        found = ".".join(str(part) for part in version[:3])
        raise Stop(
            f"Python 3.11, 3.12 or 3.13 is needed, this is {found} at {path}. "
            "Install one, or: make book PYTHON=python3.12"
        )


def other_python():
    """Path of a suitable Python beside an unsuitable ``python3``, or None."""
    for major, minor in VERSIONS:
        path = shutil.which(f"python{major}.{minor}")
        # a version manager leaves names on the PATH that only print an error: see whether it runs
        if path and not subprocess.call([path, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            return path
    return None


def check_venv(version=sys.version_info):
    """Raise `Stop` where the modules that make a virtual environment are not installed."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        package = f"python{version[0]}.{version[1]}-venv"
        raise Stop(
            "this Python cannot make virtual environments. On Debian and Ubuntu: "
            f"apt install python3-venv (or {package}), then run this again"
        ) from None


def check_disk(folder, needed):
    """Raise `Stop` unless ``folder``'s disk has ``needed`` GB free."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < needed:
        raise Stop(f"{free:.1f} GB are free on the disk of {folder}, about {needed} GB are needed: make room")


def explain(output, doing):
    """One line for the output of a failed pip.

    Parameters
    ----------
    output : str
        All that pip printed.
    doing : str
        What it was to install, for the line.
    """
    if re.search(r"No space left on device|Errno 28|Disk quota exceeded|database or disk is full", output):
        return f"the disk is full ({doing}): make room (the whole needs about 3 GB), then run this again"
    if re.search(NETWORK, output, re.IGNORECASE):
        return (
            f"the package index cannot be reached ({doing}): check the network (behind a proxy set HTTPS_PROXY; "
            "pip's own settings, such as PIP_INDEX_URL, are used), then run this again"
        )
    missing = re.search(r"No matching distribution found for (\S+)", output)
    if missing:
        here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
        return f"the package index has no {missing.group(1)} for {here}"
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["it ended without a word"]
    errors = [line for line in lines if re.match(r"(ERROR|error|\w*Error)\b", line)]
    return f"{doing} failed: {(errors or lines)[-1]} (all of it: .venv/install.log)"


def run(label, command, venv):
    """Run one phase, show ``label`` and its seconds; raise `Stop` with one line if it fails."""
    start = time.time()
    print(f"  {label} ...", end=" ", flush=True)
    settings = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_ROOT_USER_ACTION="ignore", PIP_NO_INPUT="1")
    settings.update(PIP_USER="0", PYTHONUNBUFFERED="1")
    settings.pop("PYTHONHOME", None)
    settings.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    output = ""
    for line in process.stdout:
        line = line.decode("utf-8", "replace")
        output += line
        if sys.stdout.isatty() and re.match(r"\s*(Collecting|Downloading|Installing|Building)\b", line):
            print(f"\r\033[K  {label} ... {line.strip()[:60]}", end=" ", flush=True)
    failed = process.wait()
    if sys.stdout.isatty():
        print(f"\r\033[K  {label} ...", end=" ")
    print("failed" if failed else f"{time.time() - start:.1f} s", flush=True)
    if failed:
        why = explain(output, label)
        try:
            with open(os.path.join(venv, "install.log"), "w") as log:
                log.write(output)
        except OSError:
            pass  # a full disk, or no .venv yet: the line below says it
        raise Stop(why)


def probe(python):
    """Version and torch's version of a virtual environment's Python, or None if it or its pip is broken."""
    code = (
        "import pip, sys, importlib.metadata as m\n"
        "torch = [d.version for d in m.distributions() if d.metadata['Name'] == 'torch']\n"
        "print('%d.%d' % sys.version_info[:2], *torch[:1])"
    )
    try:
        out = subprocess.check_output([python, "-c", code], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    version, _, torch = out.decode().strip().partition(" ")
    return tuple(int(part) for part in version.split(".")), torch


def drop_half_installed(venv):
    """A killed pip can leave a package's metadata without its RECORD: pip would take it for installed."""
    for info in glob.glob(os.path.join(venv, "lib", "python*", "site-packages", "*.dist-info")):
        if not os.path.exists(os.path.join(info, "RECORD")):
            shutil.rmtree(info)


def cpu_index_answers():
    """Whether PyTorch's index of CPU-only builds can be reached."""
    import urllib.request

    try:
        request = urllib.request.Request(CPU_INDEX + "/torch/", method="HEAD")
        urllib.request.urlopen(request, timeout=5).close()
        return True
    except (OSError, ValueError):
        return False


def torch_options():
    """pip's options for torch, after a line on the size where the CPU-only build cannot be had."""
    if not sys.platform.startswith("linux"):
        return []  # elsewhere the usual build is the small one, about 0.1 GB
    if cpu_index_answers():
        return ["--extra-index-url", CPU_INDEX]  # its versions, 2.13.0+cpu, count as newer than a plain 2.13.0
    print(
        "  PyTorch's index of CPU-only builds does not answer, so pip takes torch from its usual places. PyPI's\n"
        "  build for Linux x86-64 is about 0.9 GB, and 2 to 3 GB with the CUDA packages it pulls (about 0.1 GB\n"
        "  on macOS and Windows). A CPU-only wheel named by pip's own settings (PIP_FIND_LINKS) is preferred."
    )
    return []


def stamp_of(venv):
    """What a finished ``.venv`` was made from: the pins, the package, its Python, and where it lies."""
    digest = hashlib.sha256(ROOT.encode())
    for path in (os.path.join(ROOT, "requirements.txt"), os.path.join(ROOT, "pyproject.toml")):
        with open(path, "rb") as file:
            digest.update(file.read())
    with open(os.path.join(venv, "pyvenv.cfg"), "rb") as file:
        digest.update(file.read())
    return digest.hexdigest()


def is_finished(venv, version=None):
    """Whether ``.venv`` is complete and unchanged (and, if asked for, of that Python version)."""
    try:
        with open(os.path.join(venv, ".stamp")) as file:
            stamp = file.read()
        with open(os.path.join(venv, "pyvenv.cfg")) as file:
            made = re.search(r"version\s*=\s*(\d+)\.(\d+)", file.read())
        found = (int(made.group(1)), int(made.group(2)))
        pip = os.path.join(venv, "lib", "python{}.{}".format(*found), "site-packages", "pip", "__init__.py")
        whole = os.access(os.path.join(venv, "bin", "python"), os.X_OK) and os.path.exists(pip)
        return whole and stamp == stamp_of(venv) and version in (None, found)
    except (OSError, AttributeError):
        return False


def install(venv, version):
    """Make or complete ``.venv``; ``version`` is the Python asked for, or None if any suitable one will do."""
    python = os.path.join(venv, "bin", "python")
    found = probe(python)
    usable = found is not None and found[0] in VERSIONS and version in (None, found[0])
    check_disk(ROOT, 1 if usable and found[1] else 3)
    if not usable:
        check_venv()
        run(f".venv with Python {platform.python_version()}", [sys.executable, "-m", "venv", "--clear", venv], venv)
        found = (sys.version_info[:2], "")
    if os.path.exists(os.path.join(venv, ".stamp")):
        os.remove(os.path.join(venv, ".stamp"))
    drop_half_installed(venv)
    pip = [python, "-m", "pip", "install"]
    with open(os.path.join(ROOT, "requirements.txt")) as file:
        torch = re.search(r"^torch==([^\s;#]+)", file.read(), re.MULTILINE)
    if torch and found[1].partition("+")[0] != torch.group(1):
        run(f"torch {torch.group(1)}", pip + torch_options() + [torch.group(0)], venv)
    run("the pins of requirements.txt", pip + ["-r", "requirements.txt"], venv)
    run("bnlib", pip + ["--no-deps", "-e", "."], venv)
    with open(os.path.join(venv, ".stamp.new"), "w") as file:
        file.write(stamp_of(venv))
    os.rename(os.path.join(venv, ".stamp.new"), os.path.join(venv, ".stamp"))


def main(asked="python3"):
    """Make ``.venv`` complete. ``asked`` is the Makefile's PYTHON: one named by the user is taken or refused."""
    venv = os.path.join(ROOT, ".venv")
    version = None if asked == "python3" else tuple(sys.version_info[:2])
    if is_finished(venv, version):
        return
    try:
        check_version(sys.version_info, sys.executable)
    except Stop:
        path = other_python() if asked == "python3" else None
        if path is None:
            raise
        os.execv(path, [path, os.path.abspath(__file__), asked])
    lock = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # a second make waits here, then finds .venv finished
    try:
        if not is_finished(venv, version):
            print("Setting up .venv (once; about 1.5 GB)", flush=True)
            install(venv, version)
    finally:
        os.close(lock)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except Stop as stop:
        sys.exit(f"make: {stop}")
    except OSError as error:
        sys.exit("make: " + explain(str(error), "setting up .venv"))
    except KeyboardInterrupt:
        print("\nmake: interrupted; run it again, it goes on from here", file=sys.stderr)
        sys.exit(130)
