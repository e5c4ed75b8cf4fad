"""A real browser for tests: Chromium as the system installs it, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


def needs_browser() -> None:
    """Skip where there is no browser, or nothing that drives it."""
    pytest.importorskip("playwright", reason="the extra `dev` installs playwright")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")


@contextmanager
def opened(report: Path, page: str = "summary", **context: Any) -> Iterator[Any]:
    """Open a page of a report. What the console said of errors is raised at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
        errors: list[str] = []
        tab.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on(
            "request",
            lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else errors.append(asked.url),
        )
        tab.on("dialog", lambda dialog: errors.append(dialog.message))
        tab.goto(f"{report.resolve().as_uri()}#{page}")
        yield tab
        browser.close()
        assert not errors
