"""The view into three dimensions: a rigid turn, looked at from above, drawn with flat marks."""

import numpy as np
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from bnlib.page.space import View

# Right angles in a space that is not aligned with its axes, none of length 1.
FIRST, SECOND, UP = np.array([1.0, -2, 1]), np.array([-3.0, 0, 3]), np.array([2.0, 2, 2])


def unit(v):
    return v / np.linalg.norm(v)


def view(**angles):
    return View(FIRST, SECOND, UP, **angles)


def test_from_the_side_two_directions_are_seen_and_the_third_is_a_point():
    seen = view(tilt=0).flat([unit(FIRST), unit(SECOND), unit(UP)])
    np.testing.assert_allclose(seen, [[1, 0], [0, 0], [0, 1]], atol=1e-12)


def test_from_above_the_floor_is_seen_and_up_is_a_point():
    seen = view(tilt=90).flat([unit(FIRST), unit(SECOND), unit(UP)])
    np.testing.assert_allclose(seen, [[1, 0], [0, 1], [0, 0]], atol=1e-12)


def test_a_quarter_turn_brings_the_second_direction_to_the_right_and_the_first_to_the_front():
    seen = view(turn=90, tilt=90).flat([unit(FIRST), unit(SECOND)])
    np.testing.assert_allclose(seen, [[0, -1], [1, 0]], atol=1e-12)


@pytest.mark.parametrize("turn", [-60, 0, 25, 180])
def test_what_is_farther_away_is_drawn_higher_and_nothing_is_stretched(turn):
    angle = np.deg2rad(turn)
    away = np.cos(angle) * unit(SECOND) - np.sin(angle) * unit(FIRST)
    right = np.cos(angle) * unit(FIRST) + np.sin(angle) * unit(SECOND)
    seen = view(turn=turn, tilt=30).flat([away, right, unit(UP)])
    np.testing.assert_allclose(seen, [[0, 0.5], [1, 0], [0, np.sqrt(0.75)]], atol=1e-12)


def test_arrows_and_lines_end_where_the_points_are_seen():
    ax, side = Figure().add_subplot(), view(turn=40, tilt=20)
    side.arrow(ax, FIRST, UP, "black", name="u", label="an arrow", width=4)
    side.line(ax, [FIRST, UP, SECOND], color="red")
    arrow, name = ax.texts
    np.testing.assert_allclose(arrow.xy, side.flat(UP))
    np.testing.assert_allclose(arrow.xyann, side.flat(FIRST))
    assert same_color(arrow.arrow_patch.get_facecolor(), "black")
    assert name.get_text() == "u"
    entry, line = ax.lines
    assert (entry.get_label(), entry.get_linewidth()) == ("an arrow", 4)
    np.testing.assert_allclose(line.get_xydata(), side.flat([FIRST, UP, SECOND]))


@pytest.mark.parametrize("turn", range(0, 360, 30))
def test_a_name_stands_beside_its_arrow_never_to_the_right(turn):
    ax, side = Figure().add_subplot(), view(turn=turn, tilt=25)
    for head in (FIRST, SECOND, UP):
        side.arrow(ax, 0 * head, head, "black", name="v")
        along, beside = unit(side.flat(head)), np.array(ax.texts[-1].xyann)
        assert abs(along @ beside) < 1e-9 * 16
        assert np.linalg.norm(beside) == pytest.approx(16)
        assert beside[0] <= 1e-6


def test_an_arrow_seen_from_its_end_still_has_its_name():
    ax = Figure().add_subplot()
    view(tilt=0).arrow(ax, 0 * SECOND, SECOND, "black", name="v")
    assert np.isfinite(ax.texts[-1].xyann).all()


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (([1, 0], [0, 1], [1, 1]), r"shape \(3,\), got \(2,\)"),
        (([1, 0, 0], [0, 0, 0], [0, 0, 1]), "must not be zero"),
        (([1, 0, 0], [1, 1, 0], [0, 0, 1]), "right angles, got"),
    ],
)
def test_directions_that_are_no_frame_are_refused(directions, message):
    with pytest.raises(ValueError, match=message):
        View(*directions)
