"""The one style: every colour readable on light and on the dark pages, every meaning with a line of its own."""

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure

from bnlib.page.figures import COLORS, LINES, STYLE, bands, batch_as_points, graph, look, use_style

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


def test_graph_colours_what_the_walk_has_reached_and_points_the_arrows_back():
    places = {"x": (0, 1), "mu": (1, 0), "xc": (2, 1)}
    ax = Figure().add_subplot()
    graph(ax, places, [("x", "mu"), ("x", "xc"), ("mu", "xc")], ["xc", "mu"])
    arrows, boxes = ax.texts[:3], ax.texts[3:]
    assert {box.get_text(): box.get_position() for box in boxes} == places
    colors = {box.get_text(): mpl.colors.to_hex(box.get_bbox_patch().get_facecolor()).upper() for box in boxes}
    assert colors == {"xc": COLORS["batchnorm"], "mu": "#000000", "x": "#757575"}
    assert [(arrow.xyann, arrow.xy) for arrow in arrows] == [((1, 0), (0, 1)), ((2, 1), (0, 1)), ((2, 1), (1, 0))]
    blue = [mpl.colors.to_hex(a.arrow_patch.get_edgecolor()).upper() == COLORS["batchnorm"] for a in arrows]
    assert blue == [False, False, True]


# --- bands -----------------------------------------------------------------------------------------


def drawn(rows, looks=None, **options):
    """What `bands` draws, arm by arm: the lines, the bands, and each band as {x: (lowest, highest)}."""
    ax = Figure().add_subplot()
    rows = pd.DataFrame(rows, columns=["arm", "seed", options.get("x", "step"), "accuracy"])
    bands(ax, rows, "accuracy", looks or {}, **options)
    ranges = []
    for band in ax.collections:
        points = np.concatenate([path.vertices for path in band.get_paths()])
        ranges.append(
            {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()) for x in points[:, 0]}
        )
    assert len(ax.lines) == len(ax.collections)
    return ax.lines, ax.collections, ranges


TWO_ARMS = [
    ("plain", 1, 10, 0.1),
    ("plain", 1, 20, 0.2),
    ("plain", 2, 10, 0.2),
    ("plain", 2, 20, 0.5),
    ("plain", 3, 10, 0.6),
    ("plain", 3, 20, 0.5),
    ("bn", 1, 10, 0.7),
    ("bn", 1, 20, 0.8),
    ("bn", 2, 10, 0.9),
    ("bn", 2, 20, 0.8),
]
LOOKS = {
    "bn": {"label": "with BN", **look("batchnorm")},
    "plain": {"label": "without", **look("none"), "linewidth": 3},
    "dropout": {"label": "not run", **look("dropout")},
}


@pytest.mark.parametrize("x", ["step", "epoch"])
@pytest.mark.parametrize("rows", [TWO_ARMS, [*TWO_ARMS[5::-1], *TWO_ARMS[:5:-1]]], ids=["in order", "backwards"])
def test_bands_draws_the_mean_and_the_range_of_the_seeds_for_each_arm(rows, x):
    lines, collections, ranges = drawn(rows, LOOKS, x=x)
    plain, bn = lines  # in the order of the rows, not of the alphabet or of the looks
    np.testing.assert_allclose(plain.get_xydata(), [[10, 0.3], [20, 0.4]])
    np.testing.assert_allclose(bn.get_xydata(), [[10, 0.8], [20, 0.8]])
    assert ranges == [{10: (0.1, 0.6), 20: (0.2, 0.5)}, {10: (0.7, 0.9), 20: (0.8, 0.8)}]
    for line, band, kind in zip(lines, collections, ("none", "batchnorm"), strict=True):
        assert (line.get_color(), line.get_linestyle()) == (COLORS[kind], LINES[kind])
        assert tuple(band.get_facecolor()[0]) == pytest.approx(to_rgba(COLORS[kind], 0.2))
    assert [line.get_label() for line in lines] == ["without", "with BN"]
    assert plain.get_linewidth() == 3
    assert [band.get_label()[:1] for band in collections] == ["_", "_"]  # one entry of the legend per arm


def test_bands_gives_an_unknown_arm_its_name_and_the_look_of_a_variant():
    (_, mine), (_, band), ranges = drawn([*TWO_ARMS[:6], ("my norm", 1, 10, 0.5), ("my norm", 2, 10, 0.7)], LOOKS)
    assert mine.get_label() == "my norm"
    assert (mine.get_color(), mine.get_linestyle()) == (COLORS["variant"], LINES["variant"])
    assert tuple(band.get_facecolor()[0]) == pytest.approx(to_rgba(COLORS["variant"], 0.2))
    np.testing.assert_allclose(mine.get_xydata(), [[10, 0.6]])
    assert ranges[1] == {10: (0.5, 0.7)}


@pytest.mark.parametrize("gap", ["no row", "no number"])
def test_bands_takes_the_seeds_that_have_a_point(gap):
    rows = [("bn", 1, 10, 0.2), ("bn", 1, 20, 0.4), ("bn", 1, 30, 0.6), ("bn", 2, 10, 0.4), ("bn", 2, 30, 1.0)]
    if gap == "no number":
        rows.append(("bn", 2, 20, np.nan))
    (line,), _, ranges = drawn(rows, LOOKS)
    np.testing.assert_allclose(line.get_xydata(), [[10, 0.3], [20, 0.4], [30, 0.8]])
    assert ranges == [{10: (0.2, 0.4), 20: (0.4, 0.4), 30: (0.6, 1.0)}]
