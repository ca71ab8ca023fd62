"""Run one answer on one case: what comes out, or what stands in the way."""

import copy
import traceback
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    """Why the outputs of a case cannot be compared. Two problems are the same when slug and key are."""

    slug: str
    key: object
    text: str


def attempt(exercise, case, answer, expected=None):
    """Outputs of an answer on a case: a list of arrays fit to compare with ``expected``, or a `Problem`.

    The answer gets copies of the inputs.
    """
    args = copy.deepcopy(case.args)
    try:
        with np.errstate(all="ignore"):
            outputs = exercise.run(answer, *args)
            several = isinstance(outputs, tuple | list)
            if not several or len(outputs) != len(exercise.outputs):
                kind = f"{len(outputs)} values" if several else f"one {type(outputs).__name__}"
                wanted = f"{len(exercise.outputs)} values, `{', '.join(exercise.outputs)}`"
                return Problem("wrong-number", kind, f"Return {wanted}. You returned {kind}.")
            arrays = [_array(value) for value in outputs[: exercise.judged]]
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() and the like are no reason for the checker to stop
        text = f"Your code raised {_said(error)}{_line(error)}. The checker calls it as `{exercise.usage}`."
        return Problem("raised", None, f"{text} {situation(exercise, case)}")
    for name, before, after in zip(exercise.inputs, case.args, args, strict=True):
        if not all(map(np.array_equal, _leaves(before), _leaves(after))):
            text = f"Your code changes its input `{name}` in place. The caller still needs it. Work on a new array"
            return Problem("mutates-input", name, f"{text}, for instance `x = x - mu` instead of `x -= mu`.")
    return arrays if expected is None else _unfit(exercise, case, arrays, expected) or arrays


def _unfit(exercise, case, arrays, expected):
    """The first problem of shape, dtype or value, or None."""
    where = situation(exercise, case)
    for name, a, right in zip(exercise.outputs, arrays, expected, strict=False):
        if a.dtype.kind not in "fiub":
            return Problem(
                "wrong-dtype", name, f"`{name}` is not an array of numbers: its dtype is {a.dtype}. {where}"
            )
        if a.shape != right.shape:
            shapes = tuple(a.shape for a in arrays)
            return Problem("wrong-shape", shapes, f"`{name}` has shape {a.shape}, expected {right.shape}. {where}")
        if a.dtype != right.dtype:
            text = f"`{name}` has dtype {a.dtype}, expected {right.dtype}, the dtype of the input."
            return Problem("wrong-dtype", name, f"{text} Convert it at the end with `.astype`. {where}")
        if not np.isfinite(a).all():
            text = f"`{name}` holds {np.sum(~np.isfinite(a))} NaN or infinite values out of {a.size}."
            return Problem("not-finite", name, f"{text} Look for a division by 0 or the root of a negative. {where}")
    return None


def _array(value):
    """A copy of the value as an array; of dtype object if it is none, such as a ragged list."""
    try:
        return np.array(value)
    except (TypeError, ValueError):
        return np.array(None)


def situation(exercise, case):
    """The inputs of a case in one sentence: shapes of the arrays, values of the numbers."""
    parts = []
    for name, value in zip(exercise.inputs, case.args, strict=True):
        shapes = [str(v.shape) for v in _leaves(value) if isinstance(v, np.ndarray)]
        if hasattr(value, "_fields"):  # a cache: its first array speaks for it
            shapes = shapes[:1]
        parts.append(f"{name} {', '.join(shapes) or value}")
    return f"Input: {'; '.join(parts)}."


def _leaves(value):
    """The arrays and numbers in nested tuples and lists."""
    return [leaf for v in value for leaf in _leaves(v)] if isinstance(value, tuple | list) else [value]


def _said(error):
    """Name and message of an exception, on one line and without a final stop."""
    try:
        message = " ".join(str(error).split()).rstrip(".")
    except KeyboardInterrupt:
        raise
    except BaseException:  # its own __str__ is broken, and may raise anything too
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _line(error):
    """Where in the student's own code an error came up, if it did."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    theirs = [f for f in frames if f.line and not f.filename.startswith(ours) and "site-packages" not in f.filename]
    return f", in line {theirs[-1].lineno}: `{theirs[-1].line}`" if theirs else ""
