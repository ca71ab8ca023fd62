"""Finished cells on disk: kept at once, found again by what decides them, never in the checkout.

A cell is known by its experiment, arm, setting, seed, the parts of the config that it sees, the code it runs, and the
version of NumPy and of PyTorch. So a killed run goes on where it stopped, also in a new clone, and no cell outlives a
change of its code.
"""

import ast
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import secrets
from functools import cache
from pathlib import Path

from pooch import os_cache

from . import core

APART = {"", *core.SHARED} - {"paired"}  # of this room: they decide no score
COMPUTING = ("data", "data_sources", "scratch", "theory", "nets")  # rooms that decide numbers
# Of an experiment: these names decide no number of a cell, whose key holds its setting and the options.
TELLING = {"ARMS", "PRESETS", "FULL", "LITE", "LOOKS", "RATES", "OPTIONS", "CURVES", "summarize", "draw", "claims"}
# And what makes a long list of arms or of claims.
TELLING |= {"plans", "lines", "STARTS", "LINES", "TUNED", "CHANGES", "RECIPE", "DROPOUT", "SEARCH", "SCHEDULES"}
TELLING |= {"BAND", "BANDS", "AGAIN", "LOWER", "WORDS", "BATCHES", "LARGE", "GHOSTS", "PASS", "CASES", "DROPPED"}
TELLING |= {"DECAYS", "SHIFTED", "SAID", "KINDS", "RACE", "_noise_size", "mcnemar", "unpacked"}


def folder():
    """Where cells are kept: ``BNLIB_CELLS`` if set, else the user's cache."""
    return Path(os.environ.get("BNLIB_CELLS") or os_cache("bnlib") / "cells").expanduser()


def path(name, config, arm, seed, setting):
    """The file of one cell."""
    plan = dataclasses.asdict(config.arms[arm])
    seen = {key: plan[key] for key in ("dataset", "steps", "probed", "alone")}
    seen |= {"options": config.options, "tuning": seed in config.tuning_seeds}
    key = json.dumps([name, arm, seed, setting, seen, code(name), versions()], sort_keys=True)
    return folder() / name / f"{arm}-{seed}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def write(file, cell):
    """Keep a finished cell, after a line with the digest of what follows."""
    body = json.dumps(cell)
    file.parent.mkdir(parents=True, exist_ok=True)
    put(file, hashlib.sha256(body.encode()).hexdigest() + "\n" + body)


def put(file, text):
    """Write a text file that appears whole or not at all: aside first, then renamed."""
    aside = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        aside.write_text(text, encoding="utf8")
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def read(file):
    """A finished cell; None where there is none, ValueError where the file is damaged."""
    try:
        digest, body = file.read_text(encoding="utf8").split("\n", 1)
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, ValueError):
        digest = body = ""
    if not body or hashlib.sha256(body.encode()).hexdigest() != digest:
        raise ValueError(f"the finished cell {file} is damaged")
    return json.loads(body)


@cache
def versions():
    """Versions of the packages that compute."""
    installed = importlib.metadata.packages_distributions()
    return {name: importlib.metadata.version(name) for name in ("numpy", "torch") if name in installed}


@cache
def code(name):
    """Digest of the code that a cell of this experiment runs: comments, docstrings, drawing and claims left out."""
    own = _tree(core.module(name).__name__, telling=False)
    trees, todo, seen = [own], _imports(own, core.module(name).__name__), set()
    while todo:
        module = todo.pop()
        room, _, stem = module.removeprefix("bnlib.").partition(".")
        if module not in seen and (room in COMPUTING or (room == "experiments" and stem not in APART)):
            seen.add(module)
            tree = _tree(module, telling=room != "experiments")
            trees.append(tree)
            todo |= _imports(tree, module)
    return hashlib.sha256("".join(sorted(map(ast.dump, trees))).encode()).hexdigest()


def _tree(module, telling):
    tree = ast.parse(Path(importlib.util.find_spec(module).origin).read_text(encoding="utf8"))
    tree.body = [node for node in tree.body if telling or not _names(node) & TELLING]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]
    return tree


def _names(node):
    targets = getattr(node, "targets", [])
    return {getattr(node, "name", None), *(target.id for target in targets if isinstance(target, ast.Name))}


def _imports(tree, module):
    """Modules of bnlib that a tree imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.rsplit(".", node.level)[0]
                base = f"{parent}.{base}".rstrip(".")
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("bnlib.") and _exists(name)}


@cache
def _exists(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
