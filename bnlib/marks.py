"""Points for the parts of a graded task. The same test cells run in a learner's notebook and when it is graded.

Imports nothing of bnlib: a notebook of an assignment may use this module where all that holds a solution is refused.
"""

import hashlib
from contextlib import contextmanager

import numpy as np


class Marks:
    """Adds up the points of one test cell and says why a part got none.

    Parameters
    ----------
    most : float
        Points of the whole cell.

    Examples
    --------
    >>> marks = Marks(3)
    >>> with marks.part(2, "the mean"):
    ...     same(np.array([1.0, 2.0]).mean(), 1.5, "mean")
    >>> with marks.part(1, "the sign"):
    ...     same(1.0, -1.0, "sign")
    0 of 1 for the sign: sign is 1, expected -1
    >>> marks.total()
    2 of 3 points
    2.0
    """

    def __init__(self, most):
        self.most, self.points, self.given = float(most), 0.0, 0.0

    @contextmanager
    def part(self, points, what):
        """A part of the task: its points count if nothing in the block raises."""
        self.points += points
        try:
            yield
            self.given += points
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"0 of {points:g} for {what}: {reason}")

    def total(self):
        """The points so far, which nbgrader takes as partial credit.

        A learner's notebook holds some of the parts; when it is graded, all of them are there.
        """
        left = self.most - self.points
        more = f"; {left:g} more are given by tests that are not shown" if left > 0 else ""
        print(f"{self.given:g} of {self.points:g} points{more}")
        return self.given


def same(got, expected, what, tolerance=1e-8):
    """Raise AssertionError, with the first difference in words, unless two numbers or arrays agree.

    Parameters
    ----------
    got, expected : float or array
    what : str
        Name of the value, for the message.
    tolerance : float
        On the largest difference, as a share of the largest entry of either.
    """
    try:
        got = np.asarray(got, float)
    except (TypeError, ValueError):
        raise AssertionError(f"{what} must be numbers, got {type(got).__name__}") from None
    expected = np.asarray(expected, float)
    if got.shape != expected.shape:
        raise AssertionError(f"{what} has shape {got.shape}, expected {expected.shape}")
    if not np.isfinite(got).all():
        raise AssertionError(f"{what} holds NaN or an infinite number")
    off = np.abs(got - expected)
    if off.size and off.max() > tolerance * max(np.abs(got).max(), np.abs(expected).max()):
        place = np.unravel_index(off.argmax(), off.shape)
        where = f"[{', '.join(map(str, place))}]" if place else ""
        raise AssertionError(f"{what}{where} is {got[place]:.6g}, expected {expected[place]:.6g}")


def values(returned, count, what):
    """The values that a function returned, as a tuple; AssertionError unless they are ``count`` many."""
    if not isinstance(returned, tuple | list) or len(returned) != count:
        got = f"{len(returned)} values" if isinstance(returned, tuple | list) else type(returned).__name__
        raise AssertionError(f"{what} must return {count} values, got {got}")
    return tuple(returned)


def own_numbers(student, count, low=1, high=20):
    """Different whole numbers for each student: the same name gives the same numbers, here and when graded.

    Parameters
    ----------
    student : str
        Name or number of the student; capitals and spaces around it do not matter.
    count : int
    low, high : int
        Smallest and largest possible number.

    Returns
    -------
    list of int
        ``count`` different numbers.

    Raises
    ------
    ValueError
        If there is no name.
    """
    name = str(student).strip().lower()
    if not name or name == "your name":
        raise ValueError("write your name or student number into STUDENT first: your numbers follow from it")
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return [int(n) for n in np.random.default_rng(seed).permutation(np.arange(low, high + 1))[:count]]
