"""The chapters of the book, and what the outputs of each depend on.

Two equal keys mean equal outputs. A key is made from the chapter's code, the pins, Python, the modules of bnlib
that it imports (also through others), the recorded files and scripts that it names, and which data are here.
"""

import ast
import dataclasses
import functools
import hashlib
import importlib
import sys
from pathlib import Path, PurePosixPath

# ruff: noqa: E402 -- jsonschema can do without this module, and importing it takes a second of every build
sys.modules.setdefault("rfc3987_syntax", None)

import grimp
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_book.config import get_final_config
from myst_nb.core.config import NbParserConfig
from myst_nb.core.read import create_nb_reader
from myst_parser.config.main import MdParserConfig

DATASETS = ("mnist5k", "mnist", "fashion-mnist")
REGISTRY = "bnlib.data"  # names every data set, uses none


class Stop(Exception):
    """What is wrong, in one line."""


@dataclasses.dataclass(eq=False)
class Page:
    """One page of the table of contents; ``notebook`` is None for a page without code."""

    name: str
    path: Path
    notebook: dict | None
    key: str = ""
    data: tuple = ()

    @property
    def title(self):
        return self.name.removeprefix("book/")


def digest(*parts):
    """SHA-256 of strings and files."""
    sha = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else str(part).encode()
        sha.update(b"%d:" % len(content) + content)
    return sha.hexdigest()


def read_pages(root):
    """The pages of ``_toc.yml`` in their order, read as Sphinx will read them."""
    try:
        toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
        user = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    except (OSError, yaml.YAMLError) as error:
        raise Stop(" ".join(str(error).split())) from None

    def files(node):
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from files(child)

    # the same extensions as in Sphinx: with colon_fence, for one, other fences are top-level cells
    config, _ = get_final_config(user_yaml=user, cli_config={"latex_individualpages": False}, sourcedir=root)
    names = {field.name for field in dataclasses.fields(MdParserConfig)}
    markdown = {name[5:]: value for name, value in config.items() if name.startswith("myst_") and name[5:] in names}
    markdown = MdParserConfig(**markdown)
    pages = []
    for file in dict.fromkeys(files(toc)):
        path = root / (file if file.endswith(".md") else f"{file}.md")
        if not path.is_file():
            raise Stop(f"_toc.yml names {file}, but there is no {path.relative_to(root)}")
        text = path.read_text(encoding="utf8")
        try:
            reader = create_nb_reader(str(path), markdown, NbParserConfig(), text)
            pages.append(Page(file.removesuffix(".md"), path, reader and reader.read(text)))
        except Exception as error:  # such as a cell whose options are no YAML
            raise Stop(f"{path.relative_to(root)} cannot be read: {' '.join(str(error).split())}") from None
    return pages


@functools.lru_cache(None)
def parse(code):
    """Syntax tree of a cell or a module, with IPython's commands translated; None if it is no Python."""
    for source in (lambda: code, lambda: TransformerManager().transform_cell(code)):
        try:
            tree = ast.parse(source())
            break
        except SyntaxError:
            continue
    else:
        return None
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("run_line_magic", "run_cell_magic"):
            # what %%time and its like run is Python too, but in this tree it is a string
            for arg in (arg for arg in node.args[1:] if isinstance(arg, ast.Constant)):
                inner = parse(str(arg.value))
                if inner is None:
                    return None
                tree.body += inner.body
    return tree


def imports(tree):
    """Names a tree imports; ``from a import b`` gives ``a`` and ``a.b``, which may be a module too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def words(tree):
    """Names of modules, files and data sets that a tree may mean: its strings, whole and as the stem of a path."""
    strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return {name for text in strings if 0 < len(text) < 100 for name in (text, PurePosixPath(text).stem)}


class Library:
    """The modules and data files of bnlib, and which of them a piece of code needs."""

    def __init__(self, root):
        self.root = root
        sys.path.insert(0, str(root))  # this book's bnlib, wherever another one is installed
        importlib.invalidate_caches()
        try:
            self.graph = grimp.build_graph("bnlib", cache_dir=None)
        except grimp.exceptions.SourceSyntaxError as error:
            raise Stop(" ".join(str(error).split())) from None
        self.files = sorted((root / "bnlib").rglob("*.json"))  # scripts are read by the pages, not by the cells

    def path(self, module):
        base = self.root / module.replace(".", "/")
        return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")

    def closure(self, modules):
        """These modules, all that they import, and the packages they are in, which are imported with them."""
        todo, found = list(modules), set()
        while todo:
            module = todo.pop()
            if module in self.graph.modules and module not in found:
                found.add(module)
                todo += [*self.graph.find_modules_directly_imported_by(module), module.rpartition(".")[0]]
        return found

    def needs(self, trees):
        """Files of bnlib that these syntax trees depend on, and the data sets named on the way."""
        readable = [tree for tree in trees if tree is not None]
        named = set().union(*map(words, readable))
        # a chapter may name a module, check("forward", ...) or run("a-b"), that bnlib imports when it is called
        stems = named | {name.replace("-", "_") for name in named}
        meant = {module for module in self.graph.modules if {module, module.rpartition(".")[2]} & stems}
        if len(readable) < len(trees):  # what a cell does that cannot be read is not known: it may use anything
            meant = set(self.graph.modules)
        modules = self.closure(meant.union(*map(imports, readable)))
        paths = {self.path(module) for module in modules}
        named = named.union(*(words(parse(self.path(m).read_text("utf8"))) for m in modules - {REGISTRY}))
        same = {name.replace("-", "_") for name in named}
        paths |= {p for p in self.files if p.stem.replace("-", "_") in same}
        return sorted(paths), tuple(name for name in DATASETS if name in named)


def available(name):
    """Whether a data set is on this computer."""
    return importlib.import_module(REGISTRY).available(name)


def set_keys(root, pages, cache, library):
    """Give each page with code its key: two equal keys mean equal outputs."""
    pins = root / "requirements.txt"
    for page in (page for page in pages if page.notebook):
        code = [cell.source for cell in page.notebook.cells if cell.cell_type == "code"]
        paths, page.data = library.needs([parse(cell) for cell in code])
        named = [str(path.relative_to(root)) for path in paths]
        here = {name: available(name) for name in page.data}
        _, code_hash = cache.create_hashed_notebook(page.notebook)  # what jupyter-cache itself looks at
        page.key = digest(code_hash, sys.version, pins, *named, *paths, here)
