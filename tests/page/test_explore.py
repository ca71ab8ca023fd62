"""explore: frames in the built page, widgets with a kernel, and errors that stop the cell."""

import base64
import io
import json

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from bnlib.page.explore import explore


def draw(fig, a, b="x"):
    fig.add_subplot(xlim=(0, 10), ylim=(0, 1)).plot([a], [0.5], "o", markersize=40)


def words(a, b="x"):
    return f"a is {a}, b is {b}"


@pytest.fixture
def building(monkeypatch):
    monkeypatch.setenv("BNLIB_BUILD", "1")


@pytest.fixture
def with_kernel(monkeypatch):
    monkeypatch.delenv("BNLIB_BUILD", raising=False)


def page_of(figure):
    element = BeautifulSoup(figure._repr_mimebundle_()["text/html"], "html.parser").select_one("bn-explore")
    return element, json.loads(element.select_one("script").string)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), float)


def test_built_page_holds_every_frame_in_slider_order(building):
    element, data = page_of(explore(draw, alt=words, start={"a": 5}, a=[1, 5, 9], b=["x", "y"]))
    assert data["labels"] == {"a": ["1", "5", "9"], "b": ["x", "y"]}
    assert data["start"] == [1, 0]
    assert data["alts"] == [words(a, b) for a in (1, 5, 9) for b in ("x", "y")]
    columns = [np.average(np.arange(p.shape[1]), weights=255 - p.mean(0)) for p in map(pixels, data["frames"])]
    assert columns[0] == columns[1] < columns[2] == columns[3] < columns[4] == columns[5]  # the dot moves with a
    image = element.select_one("img")
    assert image["alt"] == words(5, "x")
    assert image["src"] == "data:image/webp;base64," + data["frames"][2]
    assert int(image["width"]) == pixels(data["frames"][2]).shape[1]


def test_frames_are_lossless(building):
    _, data = page_of(explore(draw, alt=words, a=[1, 2]))
    figure = explore(draw, alt=words, a=[1, 2])
    exact = np.asarray(Image.open(io.BytesIO(figure.picture((0,), "png"))).convert("L"), float)
    np.testing.assert_array_equal(pixels(data["frames"][0]), exact)


def test_computed_figure_needs_no_frames(building):
    element, data = page_of(explore(draw, alt=words, live="batch", a=list(range(300))))
    assert data["live"] == "batch"
    assert data["values"] == {"a": list(range(300))}
    assert "frames" not in data
    assert element.select_one("img")["alt"] == words(0)


def test_text_cannot_break_out_of_the_page(building):
    nasty = '<!-- <script></script><b onclick="x">'
    element, data = page_of(explore(draw, alt=lambda **_: nasty, a=[1, 2]))
    assert data["alts"] == [nasty, nasty]
    assert element.select_one("img")["alt"] == nasty
    assert not element.select("b")


def test_with_a_kernel_sliders_redraw(with_kernel):
    figure = explore(draw, alt=words, start={"b": "y"}, a=[1, 9], b=["x", "y"])
    bundle = figure._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert words(1, "y") in bundle["text/html"]
    view, text, a, b, play = figure._widget().children
    assert (a.index, b.index) == (0, 1)
    before = view.value
    a.index = 1
    assert view.value != before
    assert text.value == words(9, "y")
    assert play.max == 1


@pytest.mark.parametrize("mode", ["building", "with_kernel"])
def test_an_error_while_drawing_stops_the_cell(request, mode):
    request.getfixturevalue(mode)

    def broken(fig, a):
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        explore(broken, alt=words, a=[1, 2])


@pytest.mark.parametrize(
    ("values", "start", "message"),
    [
        ({}, None, "one to three sliders, got 0"),
        (dict(a=[1, 2], b=[1, 2], c=[1, 2], d=[1, 2]), None, "got 4"),
        (dict(a=[1]), None, "at least two values"),
        (dict(a=[1, 2]), {"a": 3}, "a = 3 is not among"),
        (dict(a=[1, 2]), {"z": 3}, "z = 3 is not among"),
        (dict(a=range(21), b=range(10)), None, "210 frames are more than 200"),
        (dict(a=[1.0, np.nan]), None, "must be finite"),
        (dict(a=[1, np.inf]), None, "must be finite"),
        (dict(a=[1, 1.0]), None, "read differently"),
    ],
)
def test_bad_sliders_are_refused(with_kernel, values, start, message):
    with pytest.raises(ValueError, match=message):
        explore(draw, alt=words, start=start, **values)


def test_an_unknown_module_is_named(building):
    with pytest.raises(ValueError, match=r"no module 'nosuch'.*batch"):
        explore(draw, alt=words, live="nosuch", a=[1, 2])


@pytest.mark.parametrize("mode", ["building", "with_kernel"])
def test_alt_must_return_words(request, mode):
    request.getfixturevalue(mode)
    with pytest.raises(TypeError, match="alt must return a string, got NoneType"):
        explore(draw, alt=lambda **_: None, a=[1, 2])


def test_numpy_values_and_odd_labels_reach_the_page(building):
    figure = explore(
        lambda fig, **_: None,
        alt=words,
        live="batch",
        a=np.arange(3),
        b=[True, False, None],
        start={"a": np.int64(2)},
    )
    _, data = page_of(figure)
    assert data["values"] == {"a": [0, 1, 2], "b": [True, False, None]}
    assert data["labels"] == {"a": ["0", "1", "2"], "b": ["True", "False", "None"]}
    assert data["start"] == [2, 0]
    _, data = page_of(explore(lambda fig, **_: None, alt=words, a=[1234567, 1234568]))
    assert data["labels"]["a"] == ["1234567", "1234568"]
