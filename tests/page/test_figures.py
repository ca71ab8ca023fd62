"""The one style: every colour readable on light and on the dark pages, every meaning with a line of its own."""

import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bnlib.page.figures import COLORS, LINES, STYLE, batch_as_points, look, use_style

from ..conftest import ROOT


def dark(color):
    """A colour as the dark pages show it: the filter of course.css, by the formulas of the CSS filter standard."""
    css = (ROOT / "book" / "_static" / "course.css").read_text()
    share, degrees = re.search(r"invert\(([\d.]+)\) hue-rotate\((\d+)deg\)", css).groups()
    share, angle = float(share), np.deg2rad(float(degrees))
    inverted = share + (1 - 2 * share) * np.array(to_rgb(color))
    lum, cos, sin = np.array([0.213, 0.715, 0.072]), np.cos(angle), np.sin(angle)
    turn = np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
    rotate = lum + cos * (np.eye(3) - lum) + sin * turn
    return np.clip(rotate @ inverted, 0, 1)


def contrast(a, b):
    """WCAG contrast ratio of two colours."""

    def luminance(color):
        c = np.array(to_rgb(color))
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", COLORS)
def test_each_colour_stands_out_on_both_pages(kind):
    assert contrast(COLORS[kind], "white") >= 2.9
    assert contrast(dark(COLORS[kind]), dark("white")) >= 2.9


def test_dark_pages_keep_the_hues():
    for kind in ("batchnorm", "variant", "dropout", "other"):
        before, after = (mpl.colors.rgb_to_hsv(c)[0] for c in (to_rgb(COLORS[kind]), dark(COLORS[kind])))
        assert min(abs(before - after), 1 - abs(before - after)) < 0.09, kind


def test_line_styles_repeat_what_colours_say():
    assert LINES.keys() == COLORS.keys()
    styles = [str(LINES[kind]) for kind in COLORS if kind not in ("theory",)]
    assert len(set(styles)) == len(styles)
    assert look("batchnorm") == {"color": "#0072B2", "linestyle": "-"}
    with pytest.raises(ValueError, match=r"'blue'.*batchnorm"):
        look("blue")


def test_use_style_sets_it():
    with mpl.rc_context():
        use_style()
        assert mpl.rcParams["figure.figsize"] == list(STYLE["figure.figsize"])


def test_batch_as_points_draws_both_ends_of_each_sample():
    x, y = np.array([3.0, 8, 45]), np.array([-1.0, 0, 1])
    ax = Figure().add_subplot()
    batch_as_points(ax, x, y, x.mean(), x.std())
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert sorted(dot.get_xdata()[0] for dot in dots if dot.get_ydata()[0] == 1) == sorted(x)
    assert len(dots) == 6
    assert ax.get_xlim()[1] > 45  # a sample beyond the usual range stays in the picture
