"""Questions in the pages: what the directive accepts, and that choosing needs no script, storage or mouse."""

import re
import sys

import pytest
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from .conftest import HTML, ROOT, toc_pages

sys.path.append(str(ROOT / "book" / "_ext"))
import bnexercises

GOOD = """
:::{quiz} good
How many?

- One $x$.
  - No. Too few.
- Two.
  - Right. So it is.

    A second paragraph.
- Three.
  - No. Too many.
:::
"""
SOURCES = {name: (ROOT / f"{name}.md").read_text() for name in toc_pages()}
CHAPTERS = [name for name in SOURCES if re.match("book/(start-here|transform/|experiments/|why/)", name)]


def build(folder, text):
    """The page that a text becomes, and the warnings."""
    (folder / "source").mkdir()
    (folder / "source" / "index.md").write_text(f"# Page\n{text}")
    settings = {"extensions": ["myst_parser", "bnledger", "bnquiz"], "myst_enable_extensions": ["colon_fence"]}
    warnings = (folder / "warnings").open("w+")
    with docutils_namespace():
        app = Sphinx(
            *(folder / "source", None, folder / "html", folder / "doctrees", "html", settings),
            status=None,
            warning=warnings,
        )
        app.build()
    warnings.seek(0)
    return BeautifulSoup((folder / "html" / "index.html").read_text(), "html.parser"), warnings.read()


def test_each_answer_is_a_fold_with_its_reason(tmp_path):
    page, warnings = build(tmp_path, GOOD + GOOD.replace("{quiz} good", "{predict} other"))
    assert warnings == ""
    first, second = page.select("div.bn-quiz[role=group]")
    assert [box.p.get_text() for box in (first, second)] == [
        "Check yourself: choose an answer",
        "Predict: choose an answer",
    ]
    assert first["aria-labelledby"] == first.p["id"] == "quiz-good"
    folds = first.select("details")
    assert [fold["class"] for fold in folds] == [["bn-wrong"], ["bn-right"], ["bn-wrong"]]
    assert not any(fold.has_attr("open") for fold in folds)
    assert [fold.summary.get_text() for fold in folds][1:] == ["Two.", "Three."]
    assert [p.get_text() for p in folds[1].div.select("p")] == ["Right. So it is.", "A second paragraph."]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{quiz} good", "{quiz} Not-Good", "a quiz is named by small letters"),
        ("- Three.\n  - No. Too many.\n", "", "a list of at least 3 answers"),
        ("How many?\n", "", "needs a question"),
        ("No. Too few", "Right. Too few", "exactly one must be right"),
        ("Right. So it is", "No. So it is", "exactly one must be right"),
        ("No. Too many.", "Wrong, too many.", "begins with Right. or No."),
        ("No. Too many.", "No.", "begins with Right. or No."),
        ("- Three.", "- [Three](https://example.org).", "put its link into the reason"),
        ("- Three.", "- {ref}`Three <three>`.", "put its link into the reason"),
        ("  - No. Too few.\n", "", "with a list below it: 'One $x$.'"),
    ],
)
def test_a_wrong_quiz_is_an_error_that_says_what_is_expected(tmp_path, old, new, said):
    assert GOOD.count(old) == 1
    page, warnings = build(tmp_path, GOOD.replace(old, new))
    assert said in warnings
    assert not page.select(".bn-quiz")


@pytest.mark.parametrize("name", CHAPTERS)
def test_each_chapter_asks_at_least_twice_and_once_for_a_prediction(name):
    named = re.findall(r"^:::\{(predict|quiz)\} (\S+)$", SOURCES[name], re.M)
    assert len(named) >= 2
    assert "predict" in [kind for kind, _ in named]
    page = BeautifulSoup((HTML / f"{name}.html").read_text(), "html.parser")
    assert len(page.select(".bn-quiz")) == len(named)
    texts = [p.get_text() for fold in page.select(".bn-quiz details") for p in fold.div.select("p:first-child")]
    assert all(len(text) > 25 for text in texts), "a reason says why"
    assert len(set(texts)) == len(texts), "each answer has a reason of its own"


def test_names_of_quizzes_are_unique_and_the_right_answer_is_at_every_place():
    everything = "\n".join(SOURCES.values())
    names = re.findall(r"^:::\{(?:predict|quiz)\} (\S+)$", everything, re.M)
    assert len(names) == len(set(names)) >= 2 * len(CHAPTERS) + 12
    places = [
        [line.startswith("  - Right.") for line in block.splitlines() if re.match("  - (Right|No)\\.", line)].index(
            True
        )
        for block in re.findall(r"^:::\{(?:predict|quiz)\}.*?^:::$", everything, re.M | re.S)
    ]
    for place in range(3):
        assert places.count(place) > len(places) / 8


def test_the_concept_test_names_the_misconception_behind_each_wrong_answer():
    page = BeautifulSoup((HTML / "book/classroom/concept-test.html").read_text(), "html.parser")
    quizzes = page.select(".bn-quiz")
    assert len(quizzes) == 12
    for quiz in quizzes:
        assert len(quiz.select("details")) == 4
        for fold in quiz.select("details.bn-wrong"):
            assert len(fold.div.p.strong.get_text()) > 15


def test_answers_open_by_keyboard_without_scripts_and_without_storage(open_page):
    page = open_page("book/transform/forward", 360, java_script_enabled=False)
    fold = page.locator(".bn-quiz details").first
    reason = fold.locator("div").first
    assert not reason.is_visible()
    fold.locator("summary").focus()
    page.keyboard.press("Enter")
    assert reason.is_visible()
    page.keyboard.press("Space")
    assert not reason.is_visible()
    assert fold.locator("summary").bounding_box()["height"] >= 24  # large enough for a finger


# --- the table of exercises


def test_every_exercise_says_its_kind_level_and_minutes_and_is_in_the_table():
    everything = "\n".join(SOURCES.values())
    found = [exercise for text in SOURCES.values() for exercise in bnexercises.exercises(text)]
    assert len(found) == everything.count("{exercise-start}") + everything.count("```{exercise}") >= 3 * len(CHAPTERS)
    page = BeautifulSoup((HTML / "book/classroom/exercises.html").read_text(), "html.parser")
    rows = [row for row in page.select(".bn-exercises tbody tr") if row.td]
    names = [row.td.get_text().replace("\u2019", "'") for row in rows]
    assert names == [name for _, name, *_ in found]
    assert {kind for _, _, kind, *_ in found} == set(bnexercises.KINDS)
    assert {level for *_, level, _ in found} == set(bnexercises.LEVELS)


def test_an_exercise_without_its_kind_is_refused():
    text = "```{exercise-start}\n:label: ex-a\n```\n**Name (10 minutes).** Do it.\n```{exercise-end}\n```\n"
    with pytest.raises(ValueError, match="ex-a must begin with"):
        bnexercises.exercises(text)
