"""What the report of a long run costs: seconds and memory to make it, its size, and how fast the page answers.

python -m benchmarks.driver.report_page --steps 1000 --completions 512

The run is made up of a few steps, written again and again. With Chromium and playwright the page is opened too.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from learner.logprob_record import LogprobRecord
from orchestrator.config.recipe import load
from orchestrator.records.metrics import rollout_metrics
from orchestrator.records.run_directory import RunDirectory
from orchestrator.report.report import write_report
from tests.support.groups import scored_group

FILTERS = """async () => {
    const wanted = { status: "right", split: "train", search: "check", reward: "correctness", gap: "0.01" };
    const found = {};
    for (const [id, value] of Object.entries(wanted)) {
        const field = document.getElementById(id), start = performance.now();
        field.value = value;
        field.dispatchEvent(new Event(id === "search" ? "input" : "change"));
        await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
        found[id] = performance.now() - start;
    }
    return found;
}"""
"""Set one filter after the other, and return how long the page takes to show what fits, in ms."""
DIFFERENT = 8
"""Steps whose completions are written; the others have copies of them."""
TEXT = "12 + 7 = 19, 19 - 4 = 15. Wait, that is wrong. Let me check: 15 is not 17. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--completions", type=int, default=512, help="of each step, in groups of 8")
    parser.add_argument("--tokens", type=int, default=200, help="of each completion")
    parser.add_argument("--page", type=Path, help="only open this report")
    parser.add_argument("--output", type=Path, help="keep the report here")
    given = parser.parse_args()
    if given.page:
        if not given.page.is_file():
            parser.error(f"--page {given.page}: there is no such file; name a report.html")
        open_page(given.page.resolve())
        return
    with tempfile.TemporaryDirectory() as folder:
        run = made_up(Path(folder), given.steps, given.completions, given.tokens)
        for when in ("every step read for the first time", "as at an evaluation: one step is new"):
            seconds, cpu = timed(run)
            print(f"{when}: {seconds:.1f} s, {cpu:.1f} s of CPU")
            add_step(run, given.steps)
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        print(f"size {(run / 'report.html').stat().st_size / 2**20:.1f} MiB")
        if given.output:
            shutil.copy(run / "report.html", given.output)
        open_page(run / "report.html")


def made_up(folder: Path, steps: int, completions: int, tokens: int) -> Path:
    """Write a run of that size."""
    directory = RunDirectory(load("countdown-tiny", [f"runs_dir={folder}", "name=long", f"num_steps={steps}"])).open()
    for step in range(1, steps + 1):
        if step <= DIFFERENT:
            right = [number < step for number in range(8)]
            groups = [
                scored_group(f"train/{step}-{n}", right, tokens, text=TEXT * (tokens // 25))
                for n in range(completions // 8)
            ]
            rng = np.random.default_rng(step)
            logprobs = [LogprobRecord(rng.normal(0, 0.01, 8 * tokens).astype(np.float16)) for _ in groups]
            directory.write_rollouts(step, [(group, [0.5 - each for each in right]) for group in groups], logprobs)
            metrics = rollout_metrics(groups) | {"time/step_s": 20.0, "optim/entropy": 0.3, "rollout/logprob_gap": 1e-6}
        else:
            source = directory.rollouts / f"step_{step % DIFFERENT + 1:06d}.jsonl.zst"
            shutil.copy(source, directory.rollouts / f"step_{step:06d}.jsonl.zst")
        directory.log_metrics(step, metrics)
    return directory.path


def add_step(run: Path, steps: int) -> None:
    """Write the last step again, as a resumed run does."""
    shutil.copy(run / "rollouts" / "step_000001.jsonl.zst", run / "rollouts" / f"step_{steps:06d}.jsonl.zst")


def timed(run: Path) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    write_report([run])
    return time.perf_counter() - start, time.process_time() - cpu


def open_page(report: Path) -> None:
    """Print how long the page takes to show itself, and to filter its completions."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        print("not opened: playwright is not installed")
        return
    browser_file = shutil.which("chromium")
    if browser_file is None:
        print("not opened: Chromium is not installed")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_file, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(report.as_uri())
        paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        print(f"first paint after {page.evaluate(paint):.0f} ms")
        page.goto(f"{report.as_uri()}#rollouts")
        page.wait_for_selector("#status")
        found = page.evaluate(FILTERS)
        print("a filter, to the next picture: " + ", ".join(f"{name} {took:.0f} ms" for name, took in found.items()))
        browser.close()


if __name__ == "__main__":
    main()
