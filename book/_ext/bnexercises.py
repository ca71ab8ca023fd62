"""Sphinx extension: ``{exercises}``, a table of all exercises of the book, read from the pages themselves."""

import re
from pathlib import Path

from bnledger import link, tag
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
KINDS = ("implement", "derive", "diagnose", "predict")
LEVELS = ("easy", "medium", "hard")
START = re.compile(
    r"```\{exercise-start\}[^\n]*\n:label: (?P<label>\S+)\n```\n(?P<text>.*?)```\{exercise-end\}", re.S
)
HEADING = re.compile(rf"\*\*(.+?) \(({'|'.join(KINDS)}), ({'|'.join(LEVELS)}), (\d+) minutes\)\.\*\*")
COLUMNS = ("exercise", "kind", "level", "minutes")


def exercises(text):
    """Label, name, kind, level and minutes of each exercise of a page's source.

    Raises
    ------
    ValueError
        If an exercise does not begin with "**Name (kind, level, n minutes).**".
    """
    found = []
    for start in START.finditer(text):
        heading = HEADING.match(start["text"])
        if not heading:
            raise ValueError(f"the exercise {start['label']} must begin with **Name (kind, level, n minutes).**")
        name, kind, level, minutes = heading.groups()
        found.append((start["label"], name, kind, level, int(minutes)))
    return found


class Exercises(SphinxDirective):
    """One row an exercise, under the title of its page, and the sums."""

    def run(self):
        self.env.note_reread()
        rows, all_found = [], []
        for name in re.findall(r"file: (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf8")):
            try:
                found = exercises(Path(self.env.doc2path(name)).read_text(encoding="utf8"))
            except ValueError as error:
                raise self.error(f"{name}: {error}") from None
            if found:
                chapter = tag(
                    "th", link(self.env, f"/{name}", kind="doc"), colspan=str(len(COLUMNS)), scope="rowgroup"
                )
                rows += [tag("tbody", tag("tr", chapter), *(self.row(*exercise) for exercise in found))]
            all_found += found
        head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in COLUMNS)))
        counts = ", ".join(f"{sum(found[2] == kind for found in all_found)} {kind}" for kind in KINDS)
        hours = sum(found[4] for found in all_found) / 60
        text = f"{len(all_found)} exercises ({counts}), about {hours:.0f} hours."
        return [tag("p", text), tag("table", head, *rows, classes="bn-exercises")]

    def row(self, label, name, kind, level, minutes):
        first = tag("td", link(self.env, label, name))
        return tag("tr", first, *(tag("td", text) for text in (kind, level, str(minutes))))


def setup(app):
    app.add_directive("exercises", Exercises)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
