"""Sphinx extension: a claim in a sentence, the claims of an experiment, the ledger. All from the recorded files.

- ``{claim}`id` ``: our number, its spread and the verdict, linked to the claim's row of the ledger;
- ``{claims} experiment``: a table for the end of a chapter, of the claims that its option ``only`` names, or of all;
- ``{ledger}``: every claim, by paper.
"""

import difflib
from collections import Counter
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective, SphinxRole

from bnlib.experiments import core, ledger, record

PAGE = "book/reference/ledger"
SIGNS = ("held", "part", "missed", "report")  # a class for each place in a list of verdicts: what its sign shows
ROLES = {"table": "table", "tr": "row", "th": "columnheader", "td": "cell"}  # lost where a phone stacks the cells


class Tag(nodes.General, nodes.Element):
    """An HTML element for which docutils has no node."""


def tag(name, *children, classes="", ids=(), **attributes):
    """An HTML element of nodes and strings; ``data_claim="x"`` becomes ``data-claim="x"``."""
    attributes = {key.replace("_", "-"): value for key, value in attributes.items()}
    attributes |= {"role": ROLES[name]} if name in ROLES else {}
    node = Tag(tag=name, html=attributes, classes=classes.split(), ids=list(ids))
    node += [nodes.Text(child) if isinstance(child, str) else child for child in children]
    return node


def open_tag(writer, node):
    writer.body.append(writer.starttag(node, node["tag"], "", **node["html"]))


def close_tag(writer, node):
    writer.body.append(f"</{node['tag']}>")


@cache
def claims():
    """All claims by their id."""
    return {entry["id"]: entry for entry in ledger.claims()}


def find(name):
    """The claim of this id; `core.Refused` names the nearest one."""
    if name not in claims():
        near = difflib.get_close_matches(name, claims(), 1, cutoff=0)
        hint = f"the nearest is {near[0]!r}" if near else "nothing is recorded"
        raise core.Refused(f"the ledger has no claim {name!r}: {hint}")
    return claims()[name]


def of_experiment(name, only=""):
    """The claims of an experiment, or those that ``only`` names, with or without the experiment's name before."""
    core.known(name, core.names(), "experiment")
    found = [entry for entry in claims().values() if entry["experiment"] == name]
    if not found:
        raise core.Refused(f"{name} is not recorded: python -m bnlib run {name} --scale full")
    wanted = (word if word.startswith(f"{name}-") else f"{name}-{word}" for word in only.replace(",", " ").split())
    return [find(word) for word in wanted] or found


def depend(env, name):
    """Let Sphinx read the page again when what its numbers come from has changed."""
    for file in (record.path(name), core.module(name).__file__, ledger.__file__):
        env.note_dependency(str(file))


def link(env, target, text=None, kind="ref"):
    """A link to a label, or to a page by its title."""
    about = {"refdomain": "std", "reftype": kind, "reftarget": target, "refexplicit": text is not None}
    found = addnodes.pending_xref("", nodes.inline("", text or target), refdoc=env.docname, refwarn=True, **about)
    return nodes.inline("", "", found)  # Sphinx writes a link inside a text element only


def verdict(entry, *words):
    """The verdict with a sign before it that needs no colour."""
    sign = SIGNS[[*core.VERDICTS[entry["fidelity"]], core.REPORT].index(entry["verdict"])]
    return tag("span", *(words or [entry["verdict"]]), classes=f"bn-verdict bn-{sign}")


def number(entry):
    """Our number and its spread."""
    spread = tag("span", ledger.spread(entry), classes="bn-spread")
    return [tag("strong", ledger.ours(entry), classes="bn-ours"), " (", spread, ")"]


class ClaimRole(SphinxRole):
    def run(self):
        try:
            entry = find(self.text)
        except core.Refused as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]
        depend(self.env, entry["experiment"])
        text = f"{ledger.ours(entry)} ({ledger.spread(entry)}), {entry['verdict']}"
        return [tag("span", link(self.env, f"claim-{self.text}", text), classes="bn-claim", data_claim=self.text)], []


class Claims(SphinxDirective):
    required_arguments = 1
    option_spec = {"only": str}
    columns = ("statement", "in the paper", "ours (interval)", "threshold", "verdict")

    def run(self):
        try:
            found = of_experiment(self.arguments[0], self.options.get("only", ""))
        except core.Refused as error:
            raise self.error(str(error)) from None
        depend(self.env, self.arguments[0])
        head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in self.columns)))
        table = tag("table", head, tag("tbody", *map(self.row, found)), classes="bn-claims")
        return [table, tag("p", "Each verdict leads to its row in the ledger.")]

    def row(self, entry):
        cells = (
            [entry["statement"]],
            [f"{entry['place']}: {entry['paper_value']}"],
            number(entry),
            [tag("span", ledger.threshold(entry), classes="bn-threshold")],
            [verdict(entry, link(self.env, f"claim-{entry['id']}", entry["verdict"]))],
        )
        cells = (tag("td", *cell, data_label=name) for name, cell in zip(self.columns, cells, strict=True))
        return tag("tr", *cells, data_claim=entry["id"])


class Ledger(SphinxDirective):
    def run(self):
        self.env.note_reread()  # it names all recorded files and, by their titles, other pages
        if not claims():
            return [tag("p", "Nothing is recorded yet, so the ledger has no rows.", classes="bn-no-rows")]
        paths = {page: Path(self.env.doc2path(page)) for page in self.env.found_docs}
        self.texts = {page: path.read_text(encoding="utf8") for page, path in paths.items()}
        papers = {key: [entry for entry in claims().values() if entry["paper"] == key] for key in core.PAPERS}
        return [self.paper(key, found) for key, found in papers.items() if found]

    def paper(self, key, found):
        verdicts = Counter(entry["verdict"] for entry in found)
        words = [*sum(core.VERDICTS.values(), ()), core.REPORT]
        counts = ", ".join(f"{word}: {verdicts[word]}" for word in words if verdicts[word])
        cited, messages = self.state.inline_text(f"{{cite:t}}`{key}`", self.lineno)
        text = nodes.Text(f": {len(found)} claim{'s' * (len(found) > 1)} ({counts}).")
        section = nodes.section("", nodes.title("", core.PAPERS[key]), ids=[f"ledger-{key}"], names=[f"ledger-{key}"])
        section += [nodes.paragraph("", "", *cited, text, *messages), *(self.row(entry) for entry in found)]
        self.state.document.note_explicit_target(section)
        return section

    def row(self, entry):
        name, anchor = entry["experiment"], f"claim-{entry['id']}"
        table = f"```{{claims}} {name}\n"  # an experiment has the name of its chapter, or its claims stand at the end
        pages = [page for page in sorted(self.texts) if page.rpartition("/")[2] == name or table in self.texts[page]]
        chapter = link(self.env, f"/{pages[0]}", kind="doc") if pages else f"{name} (no page yet)"
        cost = f" ({entry['seconds'] / 60:.3g} minutes of processor time for the whole experiment)"
        seeds = f", {len(entry['seeds'])} seed{'s' * (len(entry['seeds']) > 1)}"
        facts = {
            "in the paper": [f"{entry['place']}: {entry['paper_value']}"],
            "threshold": [tag("span", ledger.threshold(entry), classes="bn-threshold")],
            "fidelity": [f"{entry['fidelity']}, on {entry['dataset']}"],
            "chapter": [chapter],
            "rerun": [nodes.literal("", entry["command"]), cost],
        }
        itself = tag("a", entry["id"], href=f"#{anchor}")
        row = tag(
            "article",
            tag("p", entry["statement"], classes="bn-statement"),
            tag("p", tag("span", *number(entry), seeds), verdict(entry), itself, classes="bn-result"),
            tag("dl", *(tag("div", tag("dt", term), tag("dd", *words)) for term, words in facts.items())),
            classes="bn-row",
            ids=[anchor],
            data_claim=entry["id"],
            data_paper=core.PAPERS[entry["paper"]],
            data_verdict=entry["verdict"],
            data_fidelity=entry["fidelity"],
        )
        row["names"] = [anchor]  # makes it a label, as of a heading
        self.state.document.note_explicit_target(row)
        return row


def add_script(app, pagename, templatename, context, doctree):
    """The filters, on the page of the ledger only."""
    if pagename == PAGE:
        app.add_js_file("ledger.js", loading_method="defer")


def setup(app):
    claims.cache_clear()
    app.add_node(Tag, html=(open_tag, close_tag))
    app.add_role("claim", ClaimRole())
    app.add_directive("claims", Claims)
    app.add_directive("ledger", Ledger)
    app.connect("html-page-context", add_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
