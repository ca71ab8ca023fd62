"""What several test modules need: the repository, the built pages, a browser."""

import os
import shutil
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"


def toc_pages():
    """Names of all pages of the book, such as ``book/start-here``, in reading order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium; without one the tests that need it skip, or fail where REQUIRE_BROWSER is set."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        missing = "NO BROWSER FOUND: the built pages were not opened. Install Chromium to run these tests."
        if os.environ.get("REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=FLAGS.split())
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """``open_page(name, width=1440, theme="light", **options)`` opens a built page from file://, network cut.

    The page has two lists besides: ``errors`` (console errors and exceptions) and ``outside`` (requests that left
    the file system).
    """
    contexts = []

    def open_one(name, width=1440, theme="light", **options):
        view = {"width": width, "height": 900}
        context = browser.new_context(viewport=view, color_scheme=theme, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.errors, page.outside = [], []
        page.on("console", lambda m: page.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else page.outside.append(r.url))
        page.goto((HTML / f"{name}.html").as_uri(), wait_until="load")
        return page

    yield open_one
    for context in contexts:
        context.close()
