"""The built pages: complete, linked, readable, and alive in a browser. `make test` builds them first."""

import json
import re
import statistics
from functools import cache
from urllib.parse import unquote, urlsplit

import jupytext
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from bnlib.scratch.batchnorm import batchnorm_forward
from bnlib.theory.length_direction import optimum, rayleigh, rayleigh_gradient
from bnlib.theory.partition import fold_batch, golden_weights, nearest, partition

from .conftest import HTML, ROOT, toc_pages

PAGES = toc_pages()
TEXTS = {name: (ROOT / f"{name}.md").read_text() for name in PAGES}
NOTEBOOKS = [name for name in PAGES if "kernelspec:" in TEXTS[name]]
CHAPTERS = [  # pages that follow the chapter's plan
    name for name in NOTEBOOKS if name != "book/index" and not name.startswith("book/reference/")
]


@cache
def soup(name):
    return BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser")


def code_cells(name):
    return [cell for cell in jupytext.reads(TEXTS[name], fmt="md:myst").cells if cell.cell_type == "code"]


def labels(text):
    return re.findall(r"^:label: (eq-\S+)", text, re.M)


@pytest.mark.parametrize("name", PAGES)
def test_page_holds_what_its_source_promises(name):
    page, source = soup(name), "\n".join(cell.source for cell in code_cells(name)) if name in NOTEBOOKS else ""
    assert len(page.select("bn-explore")) == len(re.findall(r"^explore\(", source, re.M))
    for figure in page.select("bn-explore"):
        data = json.loads(figure.select_one("script").string)
        frames = np.prod([len(steps) for steps in data["labels"].values()])
        assert data.get("live") or len(data["frames"]) == len(data["alts"]) == frames
    exercises = len(re.findall(r"\{exercise(?:-start)?\}", TEXTS[name]))
    assert len(page.select("div.exercise")) == exercises
    assert len(page.select("div.solution")) == exercises, "each exercise has a solution"
    assert len(page.select("div.admonition.hint")) == exercises, "each exercise has a hint"
    assert len(page.select(".math.notranslate.nohighlight[id^=equation-]")) == len(labels(TEXTS[name]))
    static = len(re.findall(r"^fig, .*plt\.subplots", source, re.M))
    assert len(page.select("div.cell_output > img, div.cell_output .output > img, div.cell_output picture")) == static


@pytest.mark.parametrize("name", PAGES)
def test_page_is_small_described_and_free_of_traces(name):
    page = soup(name)
    assert (HTML / f"{name}.html").stat().st_size < 2_000_000
    assert page.select_one("meta[name=description]")["content"]
    assert page.html["lang"] == "en"
    text = page.select_one("article").get_text()
    for trace in ("Traceback", "{doc}", "{ref}", "{eq}", "{cite", "{evidence}", "{claim}", " at 0x", "Error:"):
        allowed = text.count("ValueError:") if trace == "Error:" else 0  # shown on purpose
        assert text.count(trace) == allowed, trace
    for image in page.select("article img"):
        assert len(image.get("alt", "")) > 20, f"no alt text: {str(image)[:80]}"


def test_links_and_anchors_lead_somewhere():
    ids = {name: {tag["id"] for tag in soup(name).select("[id]")} for name in PAGES}
    missing = []
    for name in PAGES:
        for tag, attribute in (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")):
            for node in soup(name).select(f"{tag}[{attribute}]"):
                url = urlsplit(node[attribute])
                if url.scheme in ("http", "https", "mailto", "data"):
                    if tag != "a" and url.scheme != "data":
                        missing.append(f"{name} loads {node[attribute]}")
                    continue
                target = (HTML / name).parent / unquote(url.path) if url.path else HTML / f"{name}.html"
                target = target.resolve()
                if not target.exists():
                    missing.append(f"{name}: {node[attribute]}")
                other = str(target.relative_to(HTML.resolve())).removesuffix(".html")
                if url.fragment and other in ids and unquote(url.fragment) not in ids[other]:
                    missing.append(f"{name}: no anchor {node[attribute]}")
    assert not missing, "\n".join(missing)


def test_each_displayed_equation_is_numbered_and_used():
    everything = "\n".join(TEXTS.values())
    known = labels(everything)
    assert len(known) == len(set(known))
    assert everything.count("```{math}") == len(known), "a displayed equation has no label"
    assert "$$" not in everything
    unused = [label for label in known if f"{{eq}}`{label}`" not in everything]
    assert not unused


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_follows_the_plan(name):
    text, cells = TEXTS[name], code_cells(name)
    assert re.search(r":class: note\n\*\*(Core|Optional)\.\*\* .*minutes? to read, .* to run", text, re.S | re.I)
    assert "*You will be able to*" in text
    assert "*You need*" in text
    assert "Builds on" in text
    assert "*Before you read on:*" in text
    assert "explore(" in text[: text.index("## Exercises")]
    assert text.count("{exercise-start}") + text.count("```{exercise}") >= 3
    assert re.search(
        r"(sick_net|small_cnn)\(.*(BatchNorm\(units, \w+ward=my_|my_layer|MyBatchNorm)|runner\.run\(.*arms=", text
    ), "the learner's code trains a net"
    assert "(diagnose," in text
    assert len(cells) <= 25
    for cell in cells:
        lines = cell.source.splitlines()
        assert len(lines) <= 15 or "hide-input" in cell.metadata.get("tags", []), lines[0]
        assert max(map(len, lines)) <= 99, max(lines, key=len)
        assert max(map(len, lines)) <= 90 or "hide-input" in cell.metadata.get("tags", []), max(lines, key=len)


@pytest.mark.parametrize("name", [name for name in CHAPTERS if name.startswith("book/experiments/")])
def test_a_rerun_ends_in_claims_and_answers_the_checklist(name):
    text = TEXTS[name]
    rules = re.findall(r"^(\d+)\. \*\*", TEXTS["book/experiments/fair-comparison"], re.M)
    if name == "book/experiments/fair-comparison":
        assert [str(n) for n in range(1, len(rules) + 1)] == rules
        assert "For this page:" in text
    else:
        assert "```{claims} " in text
        assert "**What this does not show.**" in text
        answers = re.search(r"^\*\*Checklist\*\*.*?\n\n", text, re.M | re.S)[0]
        assert [n for n in rules if not re.search(rf"\b{n}: ", answers)] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_page_is_offered_as_a_notebook(name):
    notebook = json.loads((HTML / "_sources" / f"{name}.ipynb").read_text())
    assert sum(cell["cell_type"] == "code" for cell in notebook["cells"]) == len(code_cells(name))
    assert soup(name).select(f'a[href$="{name}.ipynb"]')


def test_front_door_leads_to_the_book():
    door = soup("index")
    assert door.title.string == soup("book/index").h1.get_text().removesuffix("#")
    assert door.a["href"] == "book/index.html"
    assert door.select_one("meta[http-equiv=refresh]")["content"].endswith("url=book/index.html")


# --- in a browser ---------------------------------------------------------------------------------------------

MOVES = """async () => {
  const dead = [], wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const state = (e) => [...e.querySelectorAll("img, svg")].map((i) => (i.src ?? i.outerHTML) + i.alt).join();
  for (const figure of document.querySelectorAll("bn-explore"))
    for (const slider of figure.querySelectorAll("input[type=range]")) {
      const before = state(figure), value = slider.value;
      slider.value = value === slider.max ? slider.min : slider.max;
      slider.dispatchEvent(new Event("input"));
      await wait(50);
      if (state(figure) === before) dead.push(slider.name);
      slider.value = value;
      slider.dispatchEvent(new Event("input"));
    }
  return dead;
}"""


ONE_OF_EACH = """() => document.querySelectorAll("section").forEach((paper) => {
  const seen = new Set();
  for (const row of paper.querySelectorAll(":scope > .bn-row"))
    seen.has(row.dataset.verdict) ? row.remove() : seen.add(row.dataset.verdict);
})"""


def serious(page, **options):
    """What axe finds in the text of a page, as ``(rule, element)``."""
    options = {"resultTypes": ["violations"], "preload": False, **options}  # preloading fails on file://
    found = Axe().run(page, context="#main-content", options=options)
    found = [v for v in found.response["violations"] if v["impact"] in ("serious", "critical")]
    nodes = [(v["id"], node["html"][:200]) for v in found for node in v["nodes"]]
    return [node for node in nodes if 'class="citation-list"' not in node[1]]  # docutils' own roles


@pytest.mark.parametrize("name", PAGES)
def test_page_opens_cleanly_and_axe_finds_nothing_serious(open_page, name):
    page = open_page(name, 360)
    for width in (360, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.evaluate(ONE_OF_EACH)  # rows of the ledger, which are all alike: axe would look at them for minutes
    assert serious(page) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert serious(page, runOnly=["color-contrast"]) == []  # all else is the same in the dark
    assert not page.errors
    assert not page.outside


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_slider_moves_its_picture_and_speaks(open_page, name):
    page = open_page(name)
    sliders = page.locator("bn-explore input[type=range]")
    assert sliders.count() == sum(
        len(json.loads(figure.select_one("script").string)["labels"]) for figure in soup(name).select("bn-explore")
    )
    assert page.evaluate(MOVES) == []
    for slider in sliders.all():
        slider.focus()
        before = slider.get_attribute("aria-valuetext")
        page.keyboard.press("ArrowLeft" if slider.input_value() == slider.get_attribute("max") else "ArrowRight")
        assert slider.get_attribute("aria-valuetext") != before, "the keyboard moves it, the spoken value follows"
    assert not page.errors


def test_play_runs_to_the_end_and_can_pause(open_page):
    page = open_page("book/transform/backward")
    figure = page.locator("bn-explore").first
    slider, play = figure.locator("input"), figure.locator("button")
    play.click()
    page.wait_for_timeout(1000)
    play.click()
    paused = int(slider.input_value())
    assert 1 <= paused <= 3, "one step in 0.4 s"
    page.wait_for_timeout(600)
    assert int(slider.input_value()) == paused
    play.click()
    page.wait_for_function("document.querySelector('bn-explore button').textContent === 'Play'", timeout=10_000)
    assert slider.input_value() == slider.get_attribute("max")


@pytest.mark.parametrize("name", ["book/index", *CHAPTERS])
def test_first_picture_shows_without_javascript(open_page, name):
    page = open_page(name, java_script_enabled=False)
    pictures = page.locator("bn-explore img")
    assert pictures.count() == page.locator("bn-explore").count() > 0
    for picture in pictures.all():
        assert picture.bounding_box()["height"] > 100


def test_slider_to_painted_frame_is_quick(open_page):
    page = open_page("book/start-here")
    milliseconds = page.evaluate("""async () => {
      const figure = [...document.querySelectorAll("bn-explore")].find((e) => !e.data.live), times = [];
      const slider = figure.querySelector("input"), image = figure.querySelector("img");
      const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      for (let i = 0; i < 40; i++) {
        const start = performance.now();
        slider.value = i % (+slider.max + 1);
        slider.dispatchEvent(new Event("input"));
        await image.decode();
        await painted();
        times.push(performance.now() - start);
      }
      return times;
    }""")
    print(
        f"slider to painted frame: median {statistics.median(milliseconds):.1f} ms, most {max(milliseconds):.1f} ms"
    )
    assert statistics.median(milliseconds) <= 50


def test_computed_figure_equals_bnlib(open_page):
    page = open_page("book/transform/forward")
    rng = np.random.default_rng(0)
    for case in range(200):
        m = int(rng.integers(2, 40))
        x = rng.normal(rng.normal() * 10 ** rng.integers(0, 4), 10.0 ** rng.integers(-2, 3), m)
        gamma, beta, eps = rng.normal(), rng.normal(), (0.0, 1e-5, 1e-2)[case % 3]
        theirs = page.evaluate(
            "([x, gamma, beta, eps]) => bnLive.batch.forward(x, gamma, beta, eps)", [x.tolist(), gamma, beta, eps]
        )
        y, cache = batchnorm_forward(x[:, None], np.array([gamma]), np.array([beta]), eps)
        np.testing.assert_allclose(theirs["y"], y[:, 0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(theirs["mu"], cache.mu[0], rtol=1e-9)
        np.testing.assert_allclose(theirs["variance"], cache.var[0], rtol=1e-6)


def test_what_the_computed_figure_shows_equals_bnlib(open_page):
    page = open_page("book/transform/forward")
    page.evaluate("document.querySelector('bn-explore').set('gamma', 5)")  # the sixth value: 1.0
    page.evaluate("document.querySelector('bn-explore').set('sample_6', 30)")
    shown = page.locator("bn-explore").first.locator(".bn-words").inner_text()
    y, _ = batchnorm_forward(np.array([3.0, 8, 9, 11, 14, 30])[:, None], np.ones(1), np.zeros(1))
    assert ", ".join(f"{v:.2f}" for v in y[:, 0]) in shown


def test_dragging_one_sample_moves_all_outputs(open_page):
    page = open_page("book/transform/forward")
    outputs = (
        "[...document.querySelectorAll('bn-explore svg > g:first-child circle')].map((c) => +c.getAttribute('cx'))"
    )
    handle = page.locator(".bn-handle").nth(2)
    handle.scroll_into_view_if_needed()
    before, box = page.evaluate(outputs), handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y, steps=5)
    page.mouse.up()
    after = page.evaluate(outputs)
    assert len(before) == len(after) == 6
    assert all(abs(a - b) > 0.5 for a, b in zip(before, after, strict=True))
    value = handle.get_attribute("aria-valuenow")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    assert int(handle.get_attribute("aria-valuenow")) == int(value) - 1


@pytest.mark.parametrize("width", [360, 390, 1440])
def test_pressing_a_point_takes_that_point(open_page, width):
    page = open_page("book/transform/forward", width, has_touch=True)
    page.locator("bn-explore svg").first.scroll_into_view_if_needed()
    for i in range(6):
        box = page.locator(".bn-handle circle:nth-child(2)").nth(i).bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.up()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"sample {i + 1}"


def test_keys_of_a_point_are_those_of_a_slider(open_page):
    page = open_page("book/transform/forward")
    handle = page.locator(".bn-handle").nth(1)
    handle.focus()
    for key, value in (("End", 30), ("PageDown", 25), ("Home", 0), ("ArrowUp", 1), ("Alt+ArrowRight", 1)):
        page.keyboard.press(key)
        assert handle.get_attribute("aria-valuenow") == str(value), key


# --- the partition of the plane, computed in the page

PLANE = (-3, 21, -9, 11)
NETS = {"no BN": {"mean": False, "scale": False}, "mean only": {"mean": True, "scale": False}, "BN": {}}


def test_the_partition_in_the_page_equals_bnlib(open_page):
    page, rng = open_page("book/why/partition"), np.random.default_rng(1)
    for case in range(24):
        sizes = [2, *rng.integers(2, 7, rng.integers(1, 4)).tolist()]
        weights = golden_weights(sizes)
        theirs = page.evaluate("sizes => bnLive.partition.golden(sizes)", sizes)
        for one, other in zip(theirs, weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
        if case % 2:
            weights = [rng.normal(size=weight.shape) for weight in weights]
        batch, points = rng.uniform((-3, -9), (21, 11), (2, 6, 2))
        how = {
            **NETS[list(NETS)[case % 3]],
            "beta": float(rng.normal()) * (case % 4 > 1),
            "eps": (0.0, 1e-5, 1e-1)[case % 3],
        }
        theirs = page.evaluate(
            """([batch, points, weights, how, box]) => {
              const { fold, cut, nearest } = bnLive.partition, layers = fold(batch, weights, how);
              return { layers, ...cut(layers, box), distances: nearest(points, layers) };
            }""",
            [batch.tolist(), points.tolist(), [weight.tolist() for weight in weights], how, PLANE],
        )
        layers = fold_batch(batch, weights, **how)
        for one, (weight, bias) in zip(theirs["layers"], layers, strict=True):
            np.testing.assert_allclose(one["weight"], weight, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(one["bias"], bias, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(theirs["distances"], nearest(points, layers), rtol=0, atol=1e-6)
        found = partition(layers, PLANE)
        assert len(theirs["regions"]) == len(found.regions)
        for one, other in zip(theirs["regions"], found.regions, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
        assert [piece["unit"] for piece in theirs["segments"]] == found.owners.tolist()
        for one, other in zip(theirs["segments"], found.segments, strict=True):
            np.testing.assert_allclose(one["ends"], other, rtol=0, atol=1e-6)


def plane_words(page):
    return page.locator("bn-explore").first.locator(".bn-words").inner_text()


def test_the_plane_says_what_bnlib_says_after_a_sample_was_moved(open_page):
    page = open_page("book/why/partition")
    handle = page.locator(".bn-handle").nth(5)
    handle.focus()
    for key in ("ArrowLeft", "ArrowUp", "PageUp"):
        page.keyboard.press(key)
    six = np.array([[3.0, 2], [8, -1], [9, 3], [11, -2], [14, 4], [14.5, 2.5]])
    assert "(14.5, 2.5)" in plane_words(page)
    assert handle.get_attribute("aria-valuetext").startswith("14.5 to the right, 2.5 up")
    for net, how in NETS.items():
        for depth in (1, 2, 3):
            page.evaluate(f"document.querySelector('bn-explore').set('net', {list(NETS).index(net)})")
            page.evaluate(f"document.querySelector('bn-explore').set('layers', {depth - 1})")
            layers = fold_batch(six, golden_weights([2] + [6] * depth), **how, eps=1e-5)
            words = (
                f"{len(partition(layers, PLANE).regions)} regions in view; mean distance of the six samples from the"
            )
            assert f"{words} nearest boundary {nearest(six, layers).mean():.3f}" in plane_words(page)
    assert not page.errors


@pytest.mark.parametrize("width", [360, 1440])
def test_dragging_a_sample_moves_the_boundaries_that_bn_puts_at_the_batch(open_page, width):
    page = open_page("book/why/partition", width, has_touch=True)
    lines = "[...document.querySelectorAll('bn-explore svg line')].map((l) => +l.getAttribute('x1'))"
    for net, moves in ((2, True), (0, False)):
        page.evaluate(f"document.querySelector('bn-explore').set('net', {net})")
        handle = page.locator(".bn-handle circle:nth-child(2)").nth(3)
        handle.scroll_into_view_if_needed()
        before, box = page.evaluate(lines), handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 40, y + 20, steps=4)
        page.mouse.up()
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "sample 4"
        assert (page.evaluate(lines) != before) == moves
        page.touchscreen.tap(x + 40, y + 20)
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "sample 4"


def test_keys_of_a_sample_stay_in_view_and_leave_those_of_the_browser(open_page):
    page = open_page("book/why/partition")
    handle = page.locator(".bn-handle").first
    handle.focus()
    for key, value in (("End", "21"), ("ArrowRight", "21"), ("Home", "-3"), ("Alt+ArrowRight", "-3")):
        page.keyboard.press(key)
        assert handle.get_attribute("aria-valuenow") == value, key


DIRECTION = "book/why/length-direction"


def descent(w, S, u, rate, steps):
    path = [np.asarray(w, float)]
    for _ in range(steps):
        path.append(path[-1] - rate * rayleigh_gradient(path[-1], S, u))
    return np.array(path)


def test_the_plane_equals_bnlib(open_page):
    page, rng = open_page(DIRECTION), np.random.default_rng(1)
    for _ in range(100):
        root, u, w = rng.normal(size=(2, 2)), rng.normal(size=2), rng.normal(size=2)
        S, rate = root @ root.T + 0.05 * np.eye(2), 10.0 ** rng.uniform(-2, 0)
        given = [S.tolist(), u.tolist(), w.tolist(), rate, 10]
        theirs = page.evaluate("([S, u, w, rate, steps]) => bnLive.plane.compute(S, u, w, rate, steps)", given)
        np.testing.assert_allclose(theirs["rho"], rayleigh(w, S, u), rtol=1e-6)
        np.testing.assert_allclose(theirs["gradient"], rayleigh_gradient(w, S, u), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(theirs["best"], optimum(S, u), rtol=1e-6)
        np.testing.assert_allclose(theirs["path"], descent(w, S, u, rate, 10), rtol=1e-6, atol=1e-6)


def test_what_the_plane_says_equals_bnlib(open_page):
    page = open_page(DIRECTION)
    figure = page.locator("bn-explore").first
    for name, place in (("direction", 50), ("length", 0), ("inputs_turned", 9)):  # 70 degrees, 0.5, 45 degrees
        page.evaluate("([name, i]) => document.querySelector('bn-explore').set(name, i)", [name, place])
    turn = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    S, u = turn @ np.diag([1, 0.2]) @ turn.T, np.array([-1.0, 0.0])
    path = descent(0.5 * np.array([np.cos(np.radians(70)), np.sin(np.radians(70))]), S, u, 0.3, 40)
    shown = figure.locator(".bn-words").inner_text()
    assert f"error {rayleigh(path[0], S, u):.3f}, lowest {rayleigh(optimum(S, u), S, u):.3f}" in shown
    assert f"length {np.linalg.norm(path[-1]):.2f}, error {rayleigh(path[-1], S, u):.3f}" in shown
    assert "cosine with w 0.000" in shown


@pytest.mark.parametrize("width", [360, 1440])
def test_the_weights_are_dragged_and_moved_by_keys(open_page, width):
    page = open_page(DIRECTION, width, has_touch=True)
    handle = page.locator(".bn-handle").first
    handle.scroll_into_view_if_needed()
    sliders = {name: page.locator(f"bn-explore input[name={name}]").first for name in ("direction", "length")}
    before = [slider.input_value() for slider in sliders.values()]
    box = page.locator(".bn-handle circle:nth-child(2)").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y - 60, steps=5)
    page.mouse.up()
    after = [slider.input_value() for slider in sliders.values()]
    assert all(a != b for a, b in zip(before, after, strict=True))
    moved = page.locator(".bn-handle circle:nth-child(2)").first.bounding_box()
    assert abs(moved["x"] + moved["width"] / 2 - x - 60) < 20
    page.touchscreen.tap(moved["x"] + moved["width"] / 2, moved["y"] + moved["height"] / 2)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "weights w"
    for key, name, by in (
        ("ArrowLeft", "direction", 1),
        ("ArrowRight", "direction", -1),
        ("ArrowDown", "length", -1),
    ):
        value = int(sliders[name].input_value())
        page.keyboard.press(key)
        assert int(sliders[name].input_value()) == value + by
    page.keyboard.press("Home")
    assert handle.get_attribute("aria-valuenow") == "-180"
    page.keyboard.press("ArrowRight")  # on through the seam
    assert handle.get_attribute("aria-valuenow") == "175"
    page.keyboard.press("Alt+ArrowLeft")
    assert handle.get_attribute("aria-valuenow") == "175"


def test_picture_follows_the_slider_after_going_back(open_page):
    page = open_page("book/transform/backward")
    page.locator("bn-explore input").first.focus()
    page.keyboard.press("End")
    page.goto((HTML / "book/transform/forward.html").as_uri())
    page.go_back(wait_until="load")
    page.wait_for_timeout(300)
    figure = page.locator("bn-explore").first
    stage = int(figure.locator("input").input_value()) + 1
    assert figure.locator("output").inner_text() == str(stage)
    assert figure.locator(".bn-words").inner_text().startswith(f"Stage {stage} of 8")


def test_dark_page_prints_light(open_page):
    page = open_page("book/start-here", theme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    look = (
        "(selector) => { const s = getComputedStyle(document.querySelector(selector)); return [s.filter, s.color]; }"
    )
    assert page.evaluate(look, ".bn-view")[0] == "none"
    assert page.evaluate(look, "article p")[1] == page.evaluate(look, "article pre span")[1] == "rgb(0, 0, 0)"


def test_every_page_is_in_the_table_of_contents():
    sources = {str(path.relative_to(ROOT))[:-3] for path in (ROOT / "book").rglob("*.md")}
    hidden = {name for name in sources if name.startswith("book/classroom/assignments/")}  # they hold solutions
    assert sources - hidden == set(PAGES)


def test_search_works_without_a_network(open_page):
    page = open_page("search")
    page.goto((HTML / "search.html").as_uri() + "?q=variance")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    assert not page.outside
