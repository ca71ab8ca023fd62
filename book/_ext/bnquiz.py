"""Sphinx extension: questions that answer back without a kernel, a script or storage. Each answer is a fold.

    :::{quiz} outlier
    The question, as text.

    - An answer.
      - No. Why this one is wrong.
      - Another paragraph, if it needs one.
    - Another answer.
      - Right. Why.
    :::

Opening a fold is choosing that answer: it shows what is wrong with it. ``{predict}`` is the same with another title,
for a guess before the page gives the answer. In JupyterLab, where directives are shown raw, the text is a list.
"""

import re

from bnledger import tag
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

TITLES = {"predict": "Predict: choose an answer", "quiz": "Check yourself: choose an answer"}
VERDICTS = {"Right.": "bn-right", "No.": "bn-wrong"}
LEAST = 3  # answers: with two, one can guess


class Quiz(SphinxDirective):
    """One right answer among several, each with its reason."""

    required_arguments = 1
    has_content = True

    def run(self):
        name = self.arguments[0]
        if not re.fullmatch("[a-z0-9-]+", name):
            raise self.error(f"a quiz is named by small letters, digits and hyphens; got {name!r}")
        *question, answers = self.parse_content_to_nodes() or [None]
        if not question or not isinstance(answers, nodes.bullet_list) or len(answers) < LEAST:
            raise self.error(f"the quiz {name} needs a question, and after it a list of at least {LEAST} answers")
        folds = [self.fold(name, item) for item in answers]
        if sum(fold["classes"] == ["bn-right"] for fold in folds) != 1:
            raise self.error(f"of the answers of the quiz {name} exactly one must be right")
        title = f"quiz-{name}"
        head = tag("p", TITLES[self.name], classes="bn-quiz-title", ids=[title])
        return [tag("div", head, *question, *folds, classes="bn-quiz", role="group", aria_labelledby=title)]

    def fold(self, name, item):
        """``<details>`` with the answer as its summary."""
        if len(item) != 2 or not isinstance(item[1], nodes.bullet_list) or not isinstance(item[0], nodes.paragraph):
            raise self.error(
                f"each answer of the quiz {name} is one paragraph, with a list below it: {item.astext()!r}"
            )
        if any(map(leads_away, item[0].findall())):
            raise self.error(f"an answer of the quiz {name} is what one opens: put its link into the reason")
        reasons = [child for entry in item[1] for child in entry]
        verdict = reasons[0].astext().split(maxsplit=1)[0]
        if verdict not in VERDICTS or reasons[0].astext() == verdict:
            raise self.error(f"a reason in the quiz {name} begins with Right. or No. and says why: {verdict!r}")
        return tag(
            "details", tag("summary", nodes.inline("", "", *item[0])), tag("div", *reasons), classes=VERDICTS[verdict]
        )


def leads_away(node):
    """Whether a node is, or becomes, a link."""
    return isinstance(node, nodes.reference | addnodes.pending_xref)


def setup(app):
    for name in TITLES:
        app.add_directive(name, Quiz)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
