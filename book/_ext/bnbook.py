"""Sphinx extension of the course: figures that move, notebook copies, evidence labels, no outside address."""

import shutil
from pathlib import Path

import jupytext
from docutils import nodes

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "bnlib" / "page"
EXECUTED = "-executed.ipynb"
EVIDENCE = ("derived", "reproduced here", "not reproduced here", "reported", "disputed")
# MathJax parts that no page asks for: other output and input formats, builds for servers
UNUSED_MATHJAX = (
    "*-svg*.js",
    "mml-*.js",
    "tex-mml-*.js",
    "tex-chtml-full*.js",
    "node-main.js",
    "latest.js",
    "adaptors",
)


FRONT_DOOR = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="refresh" content="0; url={root}.html"><a href="{root}.html">{title}</a></html>
"""


def evidence_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """``{evidence}`derived` ``: what kind of evidence a statement rests on."""
    if text not in EVIDENCE:
        error = inliner.reporter.error(f"evidence must be one of {', '.join(EVIDENCE)}; got {text!r}", line=lineno)
        return [inliner.problematic(rawtext, rawtext, error)], [error]
    return [nodes.inline(rawtext, text, classes=["bn-evidence"])], []


def add_scripts(app):
    """Copy the scripts of bnlib.page first: Sphinx puts their checksums into the pages."""
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    for script in [*sorted((PAGE / "live").glob("*.js")), PAGE / "explore.js"]:  # explore.js looks for the modules
        shutil.copyfile(script, static / script.name)
        app.add_js_file(script.name, loading_method="defer")


def complete_page(app, pagename, templatename, context, doctree):
    """Offer a page with code as .ipynb too: Colab and plain Jupyter open no .md. And load nothing from outside."""
    # sphinx-thebe writes the address of a CDN into every page; nothing here uses it
    scripts = context.get("script_files", [])
    scripts[:] = [s for s in scripts if "thebe" not in (s.attributes.get("body") or s.filename or "").lower()]
    if pagename in app.env.metadata and "kernelspec" in app.env.metadata[pagename]:
        context["ipynb_source"] = f"{pagename}.ipynb"


def offer_outputs(app, pagename, templatename, context, doctree):
    """Beside the notebook the one with outputs, which build.py writes; the theme's button knows of one only."""
    for group in context.get("header_buttons", []) if context.get("ipynb_source") else ():
        for at, button in enumerate(group.get("buttons", ())):
            if button["label"] == "download-notebook-button":
                url = button["url"].replace(".ipynb", EXECUTED)
                new = {"url": url, "text": ".ipynb, executed", "label": "download-executed-button"}
                group["buttons"].insert(at + 1, button | new | {"tooltip": "Download notebook file with its outputs"})
                return


def finish(app, error):
    """Write the notebook copies and the front door, drop what no page loads."""
    if error or app.builder.name != "html":
        return
    out = Path(app.outdir)
    for page, metadata in app.env.metadata.items():
        if "kernelspec" in metadata:
            target = out / "_sources" / f"{page}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            jupytext.write(jupytext.read(app.env.doc2path(page)), target)
    (out / "index.html").write_text(FRONT_DOOR.format(title=app.config.html_title, root=app.config.root_doc))
    for pattern in UNUSED_MATHJAX:
        for path in (out / "_static" / "mathjax").glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def setup(app):
    app.add_role("evidence", evidence_role)
    app.add_css_file("course.css")
    app.connect("builder-inited", add_scripts)
    app.connect("html-page-context", complete_page, priority=100)  # before the theme makes its buttons
    app.connect("html-page-context", offer_outputs, priority=900)  # after the theme made its buttons
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
