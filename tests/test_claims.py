"""The ledger: each claim that a page names exists, each number on a built page is that of its recorded file."""

import importlib
import io
import re
import sys
from functools import cache
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from bnlib import data
from bnlib.experiments import core, ledger, record
from bnlib.nets import training
from bnlib.scratch import network

from .conftest import HTML, ROOT, toc_pages

sys.path.append(str(ROOT / "book" / "_ext"))
CLAIMS = {entry["id"]: entry for entry in ledger.claims()}
PAGE = "book/reference/ledger"
SOURCES = {name: (ROOT / f"{name}.md").read_text() for name in toc_pages()}
SEVEN = [(word, fidelity) for fidelity, words in core.VERDICTS.items() for word in (*words, core.REPORT)]
PAPERS = {"santurkar2018": "Santurkar et al. 2018", **core.PAPERS}
TRIAL = {  # two papers, every verdict in both; no number of these is anybody's
    f"sigmoid-mlp-{number}": {
        "id": f"sigmoid-mlp-{number}",
        "experiment": "sigmoid-mlp",
        "paper": "ioffe2015" if number % 2 else "santurkar2018",
        "place": f"Table {number}",
        "statement": f"Statement number {number}",
        "paper_value": "about 2",
        "ours": None if verdict == "disagrees" else 1.5 + number,
        "spread": [1.0 + number, 2.0 + number],
        "unit": "points" if number == 2 else "x",
        "bound": "≥" if number == 3 else "",
        "threshold": None if verdict == core.REPORT else 2.0,
        "fidelity": fidelity,
        "verdict": verdict,
        "dataset": "mnist",
        "seeds": [1, 2, 3],
        "seconds": 7200,
        "command": "python -m bnlib run sigmoid-mlp --scale full",
    }
    for number, (verdict, fidelity) in enumerate(SEVEN, 1)
}


@cache
def soup(file):
    return BeautifulSoup(file.read_text(), "html.parser")


def named(text):
    """The ids of all claims that a page's source prints in its sentences."""
    return re.findall(r"\{claim\}`([^`]*)`", text)


def wrong(page, known):
    """What a built page says about claims and the recorded files do not."""
    found = []
    for node in page.select("[data-claim]"):
        entry = known.get(node["data-claim"])
        if entry is None:
            found.append(f"{node['data-claim']} is no claim")
            continue
        ours, spread = ledger.ours(entry), ledger.spread(entry)
        if "bn-claim" in node.get("class", ()):
            pairs = [(node.get_text(), f"{ours} ({spread}), {entry['verdict']}")]
        else:
            parts = (("ours", ours), ("spread", spread), ("threshold", ledger.threshold(entry)))
            parts += (("verdict", entry["verdict"]),)
            pairs = [(node.select_one(f".bn-{name}").get_text(), value) for name, value in parts]
        found += [
            f"{entry['id']}: the page says {shown!r}, its file {value!r}" for shown, value in pairs if shown != value
        ]
    return found


def check_ledger(page, known):
    """A ledger has each claim once, whole, below its paper."""
    rows = page.select("article.bn-row")
    assert sorted(row["data-claim"] for row in rows) == sorted(known)
    assert wrong(page, known) == []
    for row in rows:
        entry = known[row["data-claim"]]
        assert row["id"] == f"claim-{entry['id']}"
        assert row.find_parent("section")["id"] == f"ledger-{entry['paper']}"
        assert row.find_parent("section").h3.get_text().startswith(PAPERS[entry["paper"]])
        text = " ".join(row.get_text(" ").split())
        for part in ("place", "statement", "paper_value", "fidelity", "dataset", "command"):
            assert entry[part] in text, part
        assert re.search(rf"\b{len(entry['seeds'])} seeds?\b", text)


# --- sources and recorded files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_a_page_names_claims_that_exist(name):
    assert [claim for claim in named(SOURCES[name]) if claim not in CLAIMS] == []
    tables = re.findall(r"^```\{claims\} (\S+)", SOURCES[name], re.M)
    assert [experiment for experiment in tables if experiment not in ledger.recorded()] == []


def test_a_name_in_a_sentence_is_found():
    assert named("It is {claim}`a-b`, and {claim}`c`.") == ["a-b", "c"]


def statements_of_the_paper(text):
    """The rows of the chapter's list: ``(statement and section, where tested or why not)``."""
    table = text[text.index("| statement (section) |") :]
    rows = table[: table.index("\n\n")].splitlines()[2:]
    return [tuple(part.strip() for part in row.strip("|").split("|")) for row in rows]


def untested(text):
    """Statements that name neither a claim of the ledger nor a reason, or both, or a claim that is not there."""
    reasons = ("cannot be tested", "reported there", "a statement of calculus")
    return [
        statement
        for statement, tested in statements_of_the_paper(text)
        if bool(named(tested)) == tested.startswith(reasons) or not set(named(tested)) <= set(CLAIMS)
    ]


def test_each_statement_of_the_paper_has_a_row_or_a_reason():
    text = SOURCES["book/experiments/further-claims"]
    rows = statements_of_the_paper(text)
    assert len(rows) >= 40
    assert all(len(row) == 2 and re.search(r"\(.+\)$", row[0]) for row in rows)
    assert untested(text) == []
    experiments = {CLAIMS[name]["experiment"] for _, tested in rows for name in named(tested)}
    of_the_paper = {claim["experiment"] for claim in CLAIMS.values() if claim["paper"] == "ioffe2015"}
    assert of_the_paper - experiments == {"speed-up-relu"}  # a control of ours, beside speed-up-map


def test_a_statement_without_a_row_is_seen():
    head = "| statement (section) | rows |\n|---|---|\n"
    rows = ("| a (1) | {claim}`sigmoid-mlp-speed` |", "| b (1) | later |", "| c (2) | {claim}`sigmoid-mlp-sped` |")
    assert untested(head + "\n".join(rows) + "\n\n") == ["b (1)", "c (2)"]
    assert untested(head + "| d (5) | cannot be tested here |\n\n") == []


def empty_cells(text):
    """Explanations with a cell of the verdict's table that names no claim and gives no reason, or a wrong claim."""
    table = text[text.index("| explanation |") :]
    rows = [row.strip("|").split("|") for row in table[: table.index("\n\n")].splitlines()[2:]]
    return [
        row[0].strip()
        for row in rows
        if len(row) != 3
        or not all(named(cell) or "not tested, because" in cell or "not tested, for" in cell for cell in row[1:])
        or not set(named("".join(row))) <= set(CLAIMS)
    ]


def test_each_cell_of_the_verdict_names_a_row_or_a_reason():
    text = SOURCES["book/why/verdict"]
    assert empty_cells(text) == []
    chapters = {name for name in SOURCES if name.startswith("book/why/")} - {"book/why/verdict"}
    assert [name for name in chapters if f"{{doc}}`{name.removeprefix('book/why/')}`" not in text] == []


def test_an_empty_cell_of_the_verdict_is_seen():
    head = "| explanation | removed | kept |\n|---|---|---|\n"
    rows = "| a | {claim}`sigmoid-mlp-speed` | later |\n| b | not tested, because x | {claim}`sigmoid-mlp-speed` |\n"
    assert empty_cells(head + rows + "\n") == ["a"]


@pytest.fixture
def without_evaluations(monkeypatch):
    """Accuracies are not computed: they take longer than the steps, and no loss of a training step depends on one."""
    for module in (network, training, *map(core.module, ledger.recorded())):
        if hasattr(module, "accuracy"):
            monkeypatch.setattr(module, "accuracy", lambda net, x, labels: 0.1)


@pytest.mark.parametrize("name", ledger.recorded())
@pytest.mark.usefixtures("without_evaluations")
def test_no_recorded_file_is_stale(name):
    try:
        for dataset in {plan.dataset for plan in record.load(name).config.arms.values()} & set(data.NAMES):
            data.load(dataset)
    except data.DataUnavailable as error:
        pytest.skip(f"THE RECORDED FILE OF {name} WAS NOT CHECKED: {error}")
    assert ledger.stale(name) == []


@pytest.mark.parametrize("name", ledger.recorded())
def test_a_recorded_file_is_small_and_whole(name):
    assert record.path(name).stat().st_size < 300_000
    run = record.load(name)
    assert list(run.config.arms) == list(core.preset(name, "full").arms)
    assert run.left_out() == 0
    assert ledger.entries(run)


# --- built pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_the_numbers_of_a_page_are_those_of_the_recorded_files(name):
    page = soup(HTML / f"{name}.html")
    assert wrong(page, CLAIMS) == []
    assert [node["data-claim"] for node in page.select(".bn-claim")] == named(SOURCES[name])
    assert len(page.select("table.bn-claims")) == len(re.findall(r"^```\{claims\} ", SOURCES[name], re.M))
    for node in page.select(".bn-claim, table.bn-claims [data-claim]"):
        assert node.a["href"].endswith(f"reference/ledger.html#claim-{node['data-claim']}")


def has_claims_of(experiment, name):
    return name.endswith(f"/{experiment}") or f"```{{claims}} {experiment}\n" in SOURCES[name]


def test_the_ledger_has_each_claim_once_and_leads_to_its_chapter():
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in CLAIMS)  # scripts look for them by a selector
    page = soup(HTML / f"{PAGE}.html")
    check_ledger(page, CLAIMS)
    assert bool(CLAIMS) != bool(page.select_one(".bn-no-rows"))
    for row in page.select("article.bn-row"):
        experiment = CLAIMS[row["data-claim"]]["experiment"]
        chapters = [name.removeprefix("book/") for name in SOURCES if has_claims_of(experiment, name)]
        assert chapters
        links = [link["href"] for link in row.select("dd a")]
        assert links == [f"../{chapter}.html" for chapter in chapters]


def test_another_recorded_file_reads_all_pages_again(tmp_path):
    build = importlib.import_module("build")
    for name in ("_config.yml", "_toc.yml", "requirements.txt", "bnlib/results/a.json", "bnlib/experiments/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    library, states = SimpleNamespace(needs=lambda trees: ([], ())), set()
    for name in ("bnlib/results/a.json", "bnlib/results/b.json", "bnlib/experiments/a.py"):
        states.add(build.render_state(tmp_path, [], library))
        (tmp_path / name).write_text("2")
    assert len({*states, build.render_state(tmp_path, [], library)}) == 4


# --- a trial: a few pages of its own, with a ledger that has every verdict --------------------------------------


def build_trial(root, monkeypatch, found, chapter):
    """Build a chapter and a ledger of these claims; returns the application, and Sphinx's warnings."""
    bnledger = importlib.import_module("bnledger")
    monkeypatch.setattr(bnledger.ledger, "claims", lambda: list(found.values()))
    monkeypatch.setattr(core, "PAPERS", PAPERS)
    pages = {
        "index": "# Trial\n\n"
        + " ".join(f"{{claim}}`{name}`" for name in found)
        + "\n\n```{toctree}\nbook/experiments/sigmoid-mlp\nbook/reference/ledger\n```\n",
        "book/experiments/sigmoid-mlp": f"# The chapter\n\n{chapter}\n",
        PAGE: "# Ledger\n\n## The claims\n\n```{ledger}\n```\n\n## Papers\n\n```{bibliography}\n:all:\n```\n",
    }
    for name, text in pages.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.md").write_text(text)
    settings = {
        "extensions": ["myst_parser", "sphinxcontrib.bibtex", "bnledger"],
        "html_theme": "sphinx_book_theme",
        "html_static_path": [str(ROOT / "book" / "_static")],
        "html_css_files": ["course.css"],
        "html_context": {"default_mode": "auto"},
        "bibtex_bibfiles": [str(ROOT / "book" / "references.bib")],
        "bibtex_reference_style": "author_year",
        "nitpicky": True,
    }
    warnings = io.StringIO()
    folders = {"srcdir": root, "confdir": None, "outdir": root / "html", "doctreedir": root / "doctrees"}
    with docutils_namespace():
        app = Sphinx(**folders, buildername="html", confoverrides=settings, status=None, warning=warnings)
        app.build()
    return app, re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue())


TRIAL_PAGES = ("index", "book/experiments/sigmoid-mlp")
CHAPTER = """```{claims} sigmoid-mlp
```

```{claims} sigmoid-mlp
:only: 3, sigmoid-mlp-1
```
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """The trial, built once: its application."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        app, warnings = build_trial(tmp_path_factory.mktemp("trial"), monkeypatch, TRIAL, CHAPTER)
    assert warnings == ""
    return app


def test_the_trial_prints_every_claim(trial):
    chapter = soup(trial.outdir / "book" / "experiments" / "sigmoid-mlp.html")
    sentence = soup(trial.outdir / "index.html").select(".bn-claim")
    assert [node["data-claim"] for node in sentence] == list(TRIAL)
    assert sentence[0].get_text() == "2.50x (2.00 to 3.00x), reproduced"
    assert [wrong(page, TRIAL) for page in (chapter, soup(trial.outdir / "index.html"))] == [[], []]
    whole, part = chapter.select("table.bn-claims")
    assert [row["data-claim"] for row in whole.select("tbody tr")] == list(TRIAL)
    assert [row["data-claim"] for row in part.select("tbody tr")] == ["sigmoid-mlp-3", "sigmoid-mlp-1"]
    page = soup(trial.outdir / f"{PAGE}.html")
    check_ledger(page, TRIAL)
    assert [link["href"] for link in page.select_one(".bn-row").select("dd a")] == ["../experiments/sigmoid-mlp.html"]
    signs = {(row["data-verdict"], *row.select_one(".bn-verdict")["class"][1:]) for row in page.select(".bn-row")}
    assert len(signs) == 7  # one sign for each word
    assert {sign for _, sign in signs} == {"bn-held", "bn-part", "bn-missed", "bn-report"}


@pytest.mark.parametrize(
    ("field", "value"), [("ours", 9.0), ("spread", [0.0, 9.0]), ("threshold", 9.0), ("verdict", "partly")]
)
def test_a_wrong_number_is_seen(trial, field, value):
    other = {**TRIAL, "sigmoid-mlp-1": {**TRIAL["sigmoid-mlp-1"], field: value}}
    seen = [wrong(soup(trial.outdir / f"{page}.html"), other) for page in (*TRIAL_PAGES, PAGE)]
    assert [len(lines) for lines in seen] == [field != "threshold", 2, 1]  # a sentence, two tables, a row
    assert wrong(soup(trial.outdir / f"{PAGE}.html"), {}) != []


def test_a_page_is_read_again_when_its_numbers_may_have_changed(trial):
    files = {str(record.path("sigmoid-mlp")), core.module("sigmoid-mlp").__file__, ledger.__file__}
    assert [files - trial.env.dependencies[page] for page in TRIAL_PAGES] == [set(), set()]
    assert PAGE in trial.env.reread_always


SPEED = {"sigmoid-mlp-speed": {**TRIAL["sigmoid-mlp-1"], "id": "sigmoid-mlp-speed"}}


@pytest.mark.parametrize(
    ("found", "chapter", "message"),
    [
        (SPEED, "{claim}`sigmoid-mlp-sped`", "no claim 'sigmoid-mlp-sped': the nearest is 'sigmoid-mlp-speed'"),
        (SPEED, "```{claims} sigmoid-mpl\n```", "did you mean sigmoid-mlp?"),
        (SPEED, "```{claims} sigmoid-mlp\n:only: sped\n```", "the nearest is 'sigmoid-mlp-speed'"),
        ({}, "```{claims} sigmoid-mlp\n```", "sigmoid-mlp is not recorded"),
        ({}, "{claim}`sigmoid-mlp-speed`", "nothing is recorded"),
    ],
)
def test_what_the_ledger_does_not_have_is_an_error(tmp_path, monkeypatch, found, chapter, message):
    _, warnings = build_trial(tmp_path, monkeypatch, found, chapter)
    assert message in warnings


def test_an_empty_ledger_says_so(tmp_path, monkeypatch):
    app, warnings = build_trial(tmp_path, monkeypatch, {}, "Nothing.")
    assert warnings == ""
    assert "Nothing is recorded yet" in soup(app.outdir / f"{PAGE}.html").select_one(".bn-no-rows").get_text()


# --- in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["trial", "book"])
def open_ledger(request, open_page):
    """``open_ledger(**options)`` opens the trial's ledger, and the book's; with the claims that it shows."""
    if request.param == "trial":
        folder, known = request.getfixturevalue("trial").outdir, TRIAL
    else:
        folder, known = HTML, CLAIMS
    assert known, "nothing is recorded"

    def open_one(**options):
        page = open_page(str(folder / PAGE), **options)
        page.claims = known
        return page

    return open_one


TITLES = """[...document.querySelectorAll("section:has(> .bn-row) > h3")]
  .filter(title => title.checkVisibility({visibilityProperty: true})).map(title => title.innerText)"""


def shown(page):
    """The ids of the claims that can be seen."""
    look = "rows => rows.filter(row => row.checkVisibility({visibilityProperty: true})).map(row => row.dataset.claim)"
    return page.locator(".bn-row").evaluate_all(look)  # one call: there are hundreds


@pytest.mark.parametrize("name", ["paper", "verdict", "fidelity"])
def test_a_choice_leaves_its_rows_and_counts_them(open_ledger, name):
    page = open_ledger()
    values = [PAPERS[e["paper"]] if name == "paper" else e[name] for e in page.claims.values()]
    select, count = page.get_by_label(name, exact=True), page.get_by_role("status")
    assert {option.inner_text() for option in select.locator("option").all()} == {"all", *values}
    for value in set(values):
        select.select_option(value)
        wanted = {claim for claim, v in zip(page.claims, values, strict=True) if v == value}
        assert set(shown(page)) == wanted
        assert count.inner_text() == f"{len(wanted)} of {len(values)} claims shown"
        papers = {page.claims[claim]["paper"] for claim in wanted}
        titles = page.evaluate(TITLES)
        assert {title.removesuffix("#") for title in titles} == {PAPERS[paper] for paper in papers}
    page.get_by_role("button", name="Show all").click()
    assert len(shown(page)) == len(values)
    assert not page.errors


def test_choices_are_made_by_keyboard_and_combine(open_ledger):
    page = open_ledger()
    first = next(iter(page.claims.values()))
    page.get_by_label("paper", exact=True).focus()
    page.keyboard.press("Tab")
    options = page.get_by_label("verdict", exact=True).locator("option").all_inner_texts()
    for _ in range(options.index(first["verdict"])):  # letters would be forgotten while many rows are laid out anew
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type(first["id"].upper())
    page.keyboard.press("Enter")
    same = [e["id"] for e in page.claims.values() if e["verdict"] == first["verdict"] and first["id"] in e["id"]]
    assert sorted(shown(page)) == sorted(same)
    page.keyboard.type(" nowhere")
    assert shown(page) == []
    assert page.get_by_role("status").inner_text().startswith("0 of ")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert len(shown(page)) == len(page.claims)


def test_a_link_to_a_row_shows_it_whatever_was_chosen(open_ledger):
    page = open_ledger()
    anchor = f"claim-{list(page.claims)[-1]}"
    row, words = page.locator(f"#{anchor}"), page.get_by_label("words")
    near_top = f"(() => {{ const y = document.getElementById('{anchor}').getBoundingClientRect().top; " + (
        "return y >= 0 && y < innerHeight; })()"
    )
    for _ in range(2):  # and the same link once more
        words.fill("nowhere")
        assert not row.is_visible()
        page.evaluate(f"location.hash = '#{anchor}'")
        page.wait_for_function(near_top)
        assert row.is_visible()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_function(near_top)


def test_the_ledger_is_whole_without_javascript_and_on_paper(open_ledger):
    page = open_ledger(java_script_enabled=False)
    assert len(shown(page)) == len(page.claims)
    assert page.locator(".bn-filter, [hidden].bn-row").count() == 0
    page = open_ledger()
    page.get_by_label("words").fill("nowhere")
    assert shown(page) == []
    page.emulate_media(media="print")
    assert len(shown(page)) == len(page.claims)
    assert not page.locator(".bn-filter").is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_row_fits_a_phone_and_follows_the_theme(open_ledger, theme):
    page = open_ledger(width=360, theme=theme)
    wide = "(e) => e.scrollWidth > e.clientWidth || e.getBoundingClientRect().right > innerWidth"
    parts = page.locator(".bn-row, .bn-filter, .bn-row dd")
    assert parts.evaluate_all(f"parts => parts.filter({wide}).map(part => part.outerHTML.slice(0, 200))") == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for part in (".bn-row", ".bn-verdict", ".bn-filter select", ".bn-filter input"):
        text = page.locator(part).first.evaluate("(e) => getComputedStyle(e).color.match(/\\d+/g).map(Number)")
        assert (min(text) > 150) if theme == "dark" else (max(text) < 120), part
