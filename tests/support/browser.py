"""A real browser for tests: Chromium as the system installs it, driven by Playwright."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import exp
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


FIRST_TOKEN = re.compile(r"token 1 of (\d+): p ([\d.]+)%, logprob (−?[\d.]+)")
PAGES = ("summary", "learning", "emergence", "rollouts", "grpo", "time")


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


def assert_report_shows(report: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Assert that all pages open, and that the tokens of the first record's group are shown with their logprobs."""
    needs_browser()
    group = [each for each in records if each["prompt_id"] == records[0]["prompt_id"]]
    with opened(report) as tab:
        for page in PAGES:
            tab.click(f'nav a[href="#{page}"]')
            tab.wait_for_selector(f"#page-{page}:not([hidden])")
        tab.click('nav a[href="#rollouts"]')
        tab.fill("#search", group[0]["prompt_id"])
        assert tab.locator(".row").count() == len(group)
        tab.click(".row >> nth=0")
        tab.locator(".strip").focus()
        tab.keyboard.press("ArrowRight")
        said = tab.locator(".readout").inner_text()
    count, probability, logprob = (float(found.replace("−", "-")) for found in FIRST_TOKEN.findall(said)[0])
    assert probability == pytest.approx(100 * exp(logprob), abs=0.6)
    shown = [each["rollout_logprobs"] for each in group if len(each["rollout_logprobs"]) == count]
    assert any(abs(each[0] - logprob) < 0.006 for each in shown), said  # a report has two digits of them
