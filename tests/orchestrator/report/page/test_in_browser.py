"""The report in a real browser."""

import shutil
from math import exp
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.report import write_evaluation_report, write_report
from tests.orchestrator.report.test_evaluation_report import written as written_evaluation
from tests.support.browser import PAGES, needs_browser, opened
from tests.support.paths import ROOT
from tests.support.run_directories import written_run

WIDTH_OF_PAPER = 717
"""CSS pixels of A4 within Chromium's margins."""
PLOTTED = """title => [...document.querySelectorAll("#page-learning figure")]
    .filter((figure) => figure.querySelector("h3").textContent === title)
    .flatMap((figure) => figure.querySelector(".plot").data.filter((trace) => trace.name === "wrong"))
    .filter((trace) => trace.hoverinfo !== "skip").map((trace) => [trace.name, trace.x, trace.y])"""
"""What a chart draws of the wrong completions."""
HOSTILE = "</script><img src=x onerror=alert(1)><b>bold</b>\u202e\u0000{{7*7}} 😀"


@pytest.mark.slow
def test_every_page_opens_filters_work_and_tokens_have_their_values(tmp_path: Path) -> None:
    needs_browser()
    file = write_report([written_run(tmp_path, text=HOSTILE)])
    with opened(file) as tab:
        assert tab.locator("h1").inner_text().startswith("A 4-layer")
        assert tab.locator(".change b").inner_text() == "+100.0 points"
        for page in PAGES:
            tab.click(f'nav a[href="#{page}"]')
            tab.wait_for_selector(f"#page-{page}:not([hidden])")
        tab.click('nav a[href="#learning"]')
        tab.wait_for_selector("#page-learning .plot .scatterlayer path")
        length = tab.locator("#page-learning figure", has_text="Length of right and wrong completions, training")
        length.scroll_into_view_if_needed()
        length.locator(".fills path").first.wait_for(state="attached")
        assert "Bands are 95% intervals over prompts." in length.locator(".note").inner_text()
        (mean,) = tab.evaluate(PLOTTED, "Length of right and wrong completions, training")
        assert mean == ["wrong", [1, 2, 3], [3.5] * 3]
        tab.click('nav a[href="#rollouts"]')
        assert tab.locator(".count").inner_text().startswith("104 completions of 104 kept, of 104")
        tab.select_option("#status", "right")
        tab.select_option("#split", "train")
        assert tab.locator(".count").inner_text().startswith("20 completions")
        tab.fill("#search", "train/4-1")
        assert tab.locator(".row").count() == 4
        tab.click(".row >> nth=2")
        assert tab.locator(".card[aria-pressed=true] b").inner_text() == "1"
        strip = tab.locator(".strip")
        strip.focus()
        tab.keyboard.press("ArrowRight")
        assert tab.locator(".readout").inner_text() == f"token 1 of 4: p {100 * exp(-0.5):.1f}%, logprob −0.50"
        tab.select_option("#colour", "pull")
        tab.locator(".strip").focus()
        tab.keyboard.press("ArrowRight")
        assert f"(1 − p) = −{0.3 * (1 - exp(-0.5)):.3f}" in tab.locator(".readout").inner_text()
        assert "left this completion out" in tab.locator(".missing").inner_text()
        tab.fill("#search", "")
        tab.select_option("#gap", "0.01")
        assert tab.locator(".count").inner_text().startswith("10 completions")
        tab.fill("#search", "train/4-0")
        assert (
            colours_of(tab, "gap") == ["", "58%", ""]
            and "sampler: +0.0200 nats" in tab.locator(".readout").inner_text()
        )
        assert colours_of(tab, "change") == ["", "36%", ""]
        assert "by +0.1000: advantage × change = +0.0900" in tab.locator(".readout").inner_text()
        assert tab.locator(".missing").inner_text() == ""
        assert tab.locator("#colour option").count() == 4  # no critic gives each token an advantage of its own
        tab.fill("#search", "train/3-0")
        assert "steps with an evaluation only" in tab.locator(".missing").inner_text()


def colours_of(tab: Any, mode: str) -> list[str]:
    """Colour the strip by that, point at its second token, and return how strong each token's colour is."""
    tab.select_option("#colour", mode)
    tab.locator(".token").nth(1).hover()
    shades = "tokens => tokens.map((token) => token.style.getPropertyValue('--shade'))"
    found: list[str] = tab.locator(".token").evaluate_all(shades)
    return found


@pytest.mark.slow
@pytest.mark.long
def test_hostile_completions_are_text_on_every_page(tmp_path: Path) -> None:
    needs_browser()
    file = write_report([written_run(tmp_path, text=HOSTILE), written_run(tmp_path, "two", text=HOSTILE)])
    with opened(file, "rollouts", color_scheme="dark", has_touch=True) as tab:
        tab.fill("#search", "bold")
        assert "<b>bold</b>⟨U+202E⟩␀" in tab.locator(".row .text").first.inner_text()
        for page in (*PAGES, "compare"):
            tab.click(f'nav a[href="#{page}"]')
            tab.wait_for_selector(f"#page-{page}:not([hidden])")
            assert tab.locator("#report img, #report b:text-is('bold')").count() == 0
        tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        tab.emulate_media(media="print")
        order = tab.locator("main > .page").evaluate_all("pages => pages.map((page) => page.id)")
        assert order == [f"page-{page}" for page in (*PAGES, "compare")]
        drawn = "svgs => svgs.map((svg) => [svg.getBoundingClientRect().right - svg.closest('main').offsetLeft])"
        rights = [right for (right,) in tab.locator("main .plot .main-svg").evaluate_all(drawn)]
        assert len(rights) > 10 and max(rights) <= WIDTH_OF_PAPER
        assert "rgb(68, 68, 68)" in tab.locator(".plot .xtick text").first.get_attribute("style")  # dark, on white
        height = "pre => getComputedStyle(pre).maxHeight"
        assert tab.locator("#page-emergence .answer pre").first.evaluate(height) == "none"
        tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
        assert tab.pdf()


@pytest.mark.slow
@pytest.mark.long
def test_events_are_on_every_chart_over_the_steps_and_runs_are_compared_over_minutes(tmp_path: Path) -> None:
    needs_browser()
    runs = [written_run(tmp_path, name, 6, 2) for name in ("one", "two")]
    (runs[0] / "log.txt").write_text("2026-01-01 00:00:00,000 INFO a new command resumes the run after step 2\n")
    with opened(write_report(runs), "learning") as tab:
        tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")  # draws all charts
        drawn = "all => all.filter(({ data }) => data).map(({ layout }) => [layout.xaxis.title.text, layout.shapes])"
        charts = tab.locator("#page-learning .plot, #page-emergence .plot").evaluate_all(drawn)
        over_steps = [shapes for title, shapes in charts if title == "step"]
        assert len(over_steps) > 10 and all([shape["x0"] for shape in shapes] == [2] for shapes in over_steps)
        tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
        tab.click('nav a[href="#compare"]')
        tab.select_option("#axis", "minutes")
        chart = tab.locator("#page-compare .plot").first
        chart.locator(".scatterlayer path").first.wait_for(state="attached")
        shown = "plot => plot.data.filter(({ name, hoverinfo }) => name && hoverinfo !== 'skip')"
        lines = chart.evaluate(f"{shown}.map(({{ name, x }}) => [name, x])")
        assert chart.evaluate("plot => plot.layout.shapes.map(({ x0 }) => x0)") == [pytest.approx(6 / 60)]
        assert chart.evaluate("plot => plot.data.at(-1).text[0]").startswith("one, step 2: ")
        minutes = pytest.approx([seconds / 60 for seconds in (2, 6, 10, 14)])
        assert [name for name, _ in lines] == ["one", "two"] and lines[0][1] == minutes
        tab.select_option("#axis", "completions")
        last = chart.evaluate("plot => plot.data.filter(({ name }) => name === 'two').at(-1).x.at(-1)")
        assert last == 6 * 32 * 8


@pytest.mark.slow
@pytest.mark.long
def test_the_keyboard_reaches_pages_filters_completions_and_tokens(tmp_path: Path) -> None:
    needs_browser()
    with opened(write_report([written_run(tmp_path)])) as tab:
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.textContent") == "to the page"
        reach(tab, "document.activeElement.textContent === 'Rollouts'")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#page-rollouts:not([hidden])")
        reach(tab, "document.activeElement.id === 'status'")
        tab.keyboard.type("wrong")
        assert tab.locator(".count").inner_text().endswith("Numbers are reward · advantage.")
        assert tab.locator(".row .mark.right").count() == 0 < tab.locator(".row .mark.wrong").count()
        reach(tab, "document.activeElement.dataset.row")
        tab.keyboard.press("Enter")
        reach(tab, "document.activeElement.className === 'strip'", most=80)
        tab.keyboard.press("ArrowRight")
        assert tab.locator(".readout").inner_text().startswith("token 1 of ")
        reach(tab, "document.activeElement.parentElement.className === 'rule'")
        tab.keyboard.press("Enter")
        assert "2,000 completions" in tab.locator(".rule p").inner_text()


def reach(tab: Any, wanted: str, most: int = 40) -> None:
    """Press the tabulator until that is focused."""
    for _ in range(most):
        tab.keyboard.press("Tab")
        if tab.evaluate(wanted):
            return
    raise AssertionError(f"not reached: {wanted}")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    needs_browser()
    file = write_report([written_run(tmp_path, text="word " * 400), written_run(tmp_path, "two")])
    with opened(file, "summary") as tab:
        tab.set_viewport_size({"width": width, "height": 800})
        for page in (*PAGES, "compare"):
            tab.click(f'nav a[href="#{page}"]')
            tab.wait_for_selector(f"#page-{page}:not([hidden])")
            tab.wait_for_function(f"document.documentElement.scrollWidth <= {width}", timeout=5_000)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_recorded_nothing_opens_too(tmp_path: Path) -> None:
    needs_browser()
    run = written_run(tmp_path, steps=0, every=0)
    with opened(write_report([run])) as tab:
        assert "nothing to show" in tab.locator(".hero").inner_text()
        for page in PAGES:
            tab.click(f'nav a[href="#{page}"]')
            assert tab.locator(f"#page-{page}").is_visible()


@pytest.mark.slow
@pytest.mark.long
def test_a_critics_advantages_of_tokens_stand_beside_those_of_grpo(tmp_path: Path) -> None:
    needs_browser()
    run = written_run(tmp_path, "critic", 2, 2, "no", "learner.algorithm.preset=ppo")
    with opened(write_report([run]), "grpo") as tab:
        tab.click("#critic summary")
        assert "GRPO: " in tab.locator("#critic .where").first.inner_text()
        tab.locator("#critic .token").nth(1).hover()
        assert "advantage +0.020" in tab.locator("#critic .readout").first.inner_text()


@pytest.mark.slow
@pytest.mark.long
def test_a_run_of_the_first_version_says_why_it_has_no_gaps(tmp_path: Path) -> None:
    needs_browser()
    run = tmp_path / "old"
    shutil.copytree(ROOT / "tests" / "data" / "run-of-0.1.0", run)
    with opened(write_report([run]), "rollouts") as tab:
        tab.select_option("#split", "train")
        assert "none are recorded, as by earlier versions" in tab.locator(".missing").inner_text()
        assert tab.locator("#gap, #sort option[value=gap]").count() == 0
        assert tab.locator("#colour option").all_inner_texts() == ["rollout logprob", "advantage × (1 − p)"]
        for page in PAGES:
            tab.click(f'nav a[href="#{page}"]')
            tab.wait_for_selector(f"#page-{page}:not([hidden]) h2")


@pytest.mark.slow
@pytest.mark.long
def test_models_of_an_evaluation_stand_side_by_side(tmp_path: Path) -> None:
    needs_browser()
    with opened(write_evaluation_report(written_evaluation(tmp_path / "found.json")), "evaluation") as tab:
        assert tab.locator("h1").inner_text() == "base against trained"
        tab.click('nav a[href="#answers"]')
        tab.select_option("#order", "gained")
        tab.click("text=next")
        assert tab.locator("[role=status]").inner_text() == "question 2 of 6"
        tab.locator(".answer details").nth(1).click()
        assert "base says </script>" in tab.locator(".answer details pre").nth(1).inner_text()
        tab.fill("#find", "no such text")
        assert tab.locator("[role=status]").inner_text() == "no question has this text"
