"""The solutions of the book, changed in one place at a time: the checker rejects every change that matters."""

import ast
import copy
from functools import partial

import jupytext
import pytest

from bnlib.exercises import check
from bnlib.exercises.attempt import Problem
from bnlib.exercises.check import EXERCISES, agree, outcomes
from bnlib.exercises.worker import worker

from .conftest import ROOT, toc_pages

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult}
SWAPS |= {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.Gt, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
PAIRS = ("mean sum", "min max", "var std", "log exp", "sqrt square", "argmin argmax", "zip list", "abs sum", "T real")
NAMES = {a: b for pair in PAIRS for a, b in (pair.split(), pair.split()[::-1])}


def solutions():
    """``{exercise: (statements that the solution needs, name of the answer, statements of its cell)}``."""
    found = {}
    for page in toc_pages():
        text = (ROOT / f"{page}.md").read_text()
        if "check(" not in text:
            continue
        cells = [c.source for c in jupytext.reads(text, fmt="md:myst").cells if c.cell_type == "code"]
        defined = {}  # name: the last statement that defines it
        for tree in map(ast.parse, cells):
            for statement in tree.body:
                for name, answer in checked(statement):
                    found[name] = needed(answer, defined), answer, tree.body
                for name in names(statement):
                    defined.pop(name, None)  # a later definition takes its place in the order
                    defined[name] = statement
    return found


def checked(statement):
    """Exercise and answer, where a solution prints what the checker says; an answer to be completed does not."""
    match statement:
        case ast.Expr(
            ast.Call(
                func=ast.Name("print"),
                args=[ast.Call(func=ast.Name("check"), args=[ast.Constant(name), ast.Name(answer)])],
            )
        ):
            yield name, answer


def names(statement):
    """What a statement at the top of a cell defines."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            return [alias.asname or alias.name for alias in statement.names]
        case ast.FunctionDef() | ast.ClassDef():
            return [statement.name]
        case ast.Assign():
            return [
                node.id for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)
            ]
    return []


def needed(name, defined):
    """The statements that a name needs, in the order of the page."""
    kept, waiting = [], [name]
    while waiting:
        statement = defined.get(waiting.pop())
        if statement is not None and statement not in kept:
            kept.append(statement)
            nodes = list(ast.walk(statement))
            own = {node.arg for node in nodes if isinstance(node, ast.arg)}
            own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            waiting += [node.id for node in nodes if isinstance(node, ast.Name) and node.id not in own]
    order = list(dict.fromkeys(defined.values()))
    return sorted(kept, key=order.index)


def built(statements, answer):
    """The answer that these statements define."""
    space = {"__name__": "__main__"}
    module = ast.fix_missing_locations(ast.Module(statements, []))
    exec(compile(module, "<solution>", "exec"), space)
    return space[answer]


def places(statement):
    """Nodes of a function or class that can be changed, with the way to them; default values are no part of it."""

    def below(node, path):
        yield path, node
        for field, value in ast.iter_fields(node):
            if field == "args" and isinstance(node, ast.FunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
                continue  # its sign is changed, and -2 means what -1 means in a reshape
            for key, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST):
                    yield from below(child, [*path, (field, key)])

    return below(statement, [])


def mutants(statement):
    """A function or class with an operator, number, name or argument changed: ``(what was changed, statement)``."""
    given = [node.arg for node in ast.walk(statement) if isinstance(node, ast.arg) and node.arg != "self"]
    arguments = {a: b for a, b in zip(given, given[1:] + given[:1], strict=True) if a != b}
    for path, node in places(statement):
        for new in changes(node, arguments):
            copied = copy.deepcopy(statement)
            before, parent = statement, copied
            for field, key in path[:-1]:
                before, parent = (
                    getattr(p, field) if key is None else getattr(p, field)[key] for p in (before, parent)
                )
            field, key = path[-1]
            if key is None:
                setattr(parent, field, new)
            else:
                getattr(parent, field)[key] = new
            if not isinstance(parent, ast.expr):
                before, parent = node, new
            yield f"{ast.unparse(before)} -> {ast.unparse(parent)}", copied


def changes(node, arguments):
    """Nodes with another meaning; ``arguments`` has the name of another argument for each."""

    def other(field, value):
        new = copy.deepcopy(node)
        setattr(new, field, value)
        return new

    match node:
        case ast.BinOp() | ast.AugAssign() if type(node.op) in SWAPS:
            yield other("op", SWAPS[type(node.op)]())
            if isinstance(node, ast.BinOp):
                yield node.left
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield other("ops", [SWAPS[type(op)]()])
        case ast.UnaryOp(op=ast.USub()):
            yield node.operand
        case ast.Constant(value) if type(value) in (int, float):
            yield other("value", value + 1)
            yield other("value", value - 1)
        case ast.Attribute(attr=name) if name in NAMES:
            yield other("attr", NAMES[name])
        case ast.Name(id=name, ctx=ast.Load()) if name in {**NAMES, **arguments}:
            yield other("id", {**NAMES, **arguments}[name])
        case ast.Call(args=[argument]) if not isinstance(argument, ast.Starred):
            yield argument
        case ast.Call(keywords=[_, *_]):
            yield other("keywords", node.keywords[1:])
        case ast.Tuple(elts=[_, ast.expr() as second, *_], ctx=ast.Load()):
            if not isinstance(second, ast.Constant | ast.Starred):  # axes: their order means nothing
                yield other("elts", [*node.elts[1:], node.elts[0]])


SOLUTIONS = solutions()
EQUIVALENT = {  # changes that leave a right answer, as the exercise defines it
    "batchnorm-forward": {  # the cache is not judged; gamma has the dtype of x
        "my_forward: x.dtype -> gamma.dtype",
        "my_forward: batchnorm_forward(x, gamma, beta, eps)[1] -> batchnorm_forward(x, gamma, beta, eps)[0]",
        "my_forward: batchnorm_forward(x, gamma, beta, eps) -> batchnorm_forward(x, beta, beta, eps)",
    },
    "batchnorm-backward": {"my_backward: dy.dtype -> cache.dtype"},
    "data-dependent-init": {  # other images: the tolerance is that of any batch of 256
        "set_by_data: rng.choice(len(images), 512, replace=False) -> rng.choice(len(images), 511, replace=False)",
        "set_by_data: images[rng.choice(len(images), 512, replace=False)] -> images[rng.choice(len(images), 512)]",
    },
    "population-statistics": {  # another batch of the same dimensions
        "my_population: batches[0] -> batches[1]",
        "my_population: batches[0] -> batches[-1]",
    },
    "input-gradient": {"my_square: len(dy) -> len(x_hat)"},
    "nearest-boundary": {"my_nearest: np.errstate(divide='ignore') -> np.errstate()"},  # a warning, no number
    "explosion-rate": {"my_rate: y.shape -> h.shape"},
}


def test_each_exercise_has_a_solution_on_a_page():
    assert set(SOLUTIONS) == set(EXERCISES)


def passes(name, expected, answer):
    """What `check` says, without its search for the name of a mistake."""
    got = worker.run(partial(outcomes, name), answer)
    return not isinstance(got, Problem) and all(map(agree, EXERCISES[name].cases, expected, got))


@pytest.mark.parametrize("name", EXERCISES)
def test_a_solution_changed_in_one_place_is_rejected(name):
    statements, answer, cell = SOLUTIONS[name]
    assert check(name, built(statements, answer)).passed
    expected = outcomes(name, EXERCISES[name].reference)
    survivors, count = set(), 0
    for place, statement in enumerate(statements):
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement in [*cell, statements[-1]]:
            for what, other in mutants(statement):
                count += 1
                try:
                    version = built([*statements[:place], other, *statements[place + 1 :]], answer)
                except Exception:  # a mutant that cannot even be defined
                    continue
                if passes(name, expected, version):
                    survivors.add(f"{statement.name}: {what}")
    assert survivors == EQUIVALENT.get(name, set())
    assert count >= 10


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_is_rejected(name):
    """The solution with nothing left in its functions but their docstrings."""
    statements, answer, cell = SOLUTIONS[name]
    emptied = copy.deepcopy(statements)
    for node in (node for statement in emptied for node in ast.walk(statement) if isinstance(node, ast.FunctionDef)):
        node.body = node.body[:1] if ast.get_docstring(node) else [ast.Pass()]
    feedback = check(name, built(emptied, answer))
    assert not feedback.passed
    assert len(feedback.message) > 20
