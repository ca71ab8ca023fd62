"""Points for parts of a task: what a test cell and a learner's notebook have in common."""

import doctest

import numpy as np
import pytest

from bnlib import marks
from bnlib.marks import Marks, own_numbers, same, values


def test_the_example_in_the_docstring_is_true():
    assert doctest.testmod(marks).failed == 0


def test_a_part_that_raises_gives_nothing_and_the_others_count(capsys):
    points = Marks(6)
    with points.part(2, "one"):
        pass
    with points.part(1, "two"):
        raise ZeroDivisionError
    with points.part(3, "three"):
        same([1.0, 2], [1, 2], "y")
    assert points.total() == 5
    assert capsys.readouterr().out == "0 of 1 for two: ZeroDivisionError\n5 of 6 points\n"


def test_tests_that_are_not_shown_are_said(capsys):
    points = Marks(5)
    with points.part(2, "one"):
        pass
    assert points.total() == 2
    assert "2 of 2 points; 3 more are given by tests that are not shown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("got", "said"),
    [
        (np.ones((2, 1)), r"y has shape \(2, 1\), expected \(2,\)"),
        ([1.0, np.nan], "y holds NaN or an infinite number"),
        ([1.0, 2.1], r"y\[1\] is 2.1, expected 2"),
        (None, "y holds NaN|y must be numbers|y has shape"),
        ("text", "y must be numbers, got str"),
        ([1.0, 2 + 1e-6], r"y\[1\]"),
    ],
)
def test_a_difference_is_said_in_words(got, said):
    with pytest.raises(AssertionError, match=said):
        same(got, [1.0, 2.0], "y")


def test_rounding_is_no_difference_and_scale_is_taken_into_account():
    same([1.0, 2 + 1e-9], [1.0, 2.0], "y")
    same([1e9, 1.0], [1e9, 0.0], "y")  # of the largest entry
    same([0.0, 0.0], [0.0, 0.0], "y")
    same([], [], "y")


def test_the_number_of_returned_values_is_checked():
    assert values([1, 2], 2, "f") == (1, 2)
    for returned, said in (((1,), "f must return 2 values, got 1 values"), (None, "got NoneType")):
        with pytest.raises(AssertionError, match=said):
            values(returned, 2, "f")


def test_numbers_follow_from_the_name_and_differ_between_students():
    names = [f"student {k}" for k in range(40)]
    drawn = [tuple(own_numbers(name, 4)) for name in names]
    assert len(set(drawn)) == len(names)
    assert all(len(set(numbers)) == 4 and set(numbers) <= set(range(1, 21)) for numbers in drawn)
    assert own_numbers(" Ada ", 3, 5, 9) == own_numbers("ada", 3, 5, 9)
    for name in ("", "  ", "Your name"):
        with pytest.raises(ValueError, match="write your name"):
            own_numbers(name, 2)
