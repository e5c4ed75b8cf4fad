"""What the report of a run costs while it goes on: seconds of CPU, memory, its size, and how fast the page answers.

python -m benchmarks.driver.report_page --steps 50 200 1000 --completions 512

Each run is made up of a few steps, written again and again; so is what is counted of them. With Chromium and playwright
the page of the last one is opened too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from learner.logprob_record import LogprobRecord
from orchestrator.config.recipe import load
from orchestrator.records.metrics import rollout_metrics
from orchestrator.records.run_directory import RunDirectory
from orchestrator.report.reading.digests import KEPT, KeptDigests, key_of
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
OTHERS = 50
"""Metrics of a step besides those of its completions: about as many as a run has."""
TEXT = "12 + 7 = 19, 19 - 4 = 15. Wait, that is wrong. Let me check: 15 is not 17. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--completions", type=int, default=512, help="of each step, in groups of 8")
    parser.add_argument("--tokens", type=int, default=200, help="of each completion")
    parser.add_argument("--repeats", type=int, default=5, help="reports of a run, of which each has one step more")
    parser.add_argument("--page", type=Path, help="only open this report")
    parser.add_argument("--output", type=Path, help="keep the report here")
    given = parser.parse_args()
    if given.page:
        if not given.page.is_file():
            parser.error(f"--page {given.page}: there is no such file; name a report.html")
        open_page(given.page.resolve())
        return
    for steps in given.steps:
        with tempfile.TemporaryDirectory() as folder:
            measure(
                made_up(Path(folder), steps, given.completions, given.tokens), given, is_last=steps == given.steps[-1]
            )


def measure(run: Path, given: argparse.Namespace, is_last: bool) -> None:
    steps = len(list(run.glob("rollouts/*")))
    digests = KeptDigests(run)
    start = time.process_time()
    digests.of({step: step_file(run, step) for step in range(1, DIFFERENT + 1)})
    counted = (time.process_time() - start) / DIFFERENT
    copy_digests(run, steps)
    first = report_cpu(run)
    again = []
    for step in range(steps + 1, steps + 1 + given.repeats):
        add_step(run, step)
        again.append(report_cpu(run))
    size = (run / "report.html").stat().st_size / 2**20
    print(
        f"{steps} steps: a report after a further step takes {statistics.median(again):.2f} s of CPU "
        f"({min(again):.2f} to {max(again):.2f}), the first one {first:.2f} s and {counted:.2f} s for each step; "
        f"{size:.1f} MiB",
        flush=True,
    )
    if is_last:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"peak memory {peak:.2f} GiB")
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
            metrics |= {"health/alarms": 0.0} | {f"optim/other_{n}": 1 / (n + step) for n in range(OTHERS)}
        else:
            source = directory.rollouts / f"step_{step % DIFFERENT + 1:06d}.jsonl.zst"
            shutil.copy(source, directory.rollouts / f"step_{step:06d}.jsonl.zst")
        directory.log_metrics(step, metrics)
    return directory.path


def step_file(run: Path, step: int) -> Path:
    return run / "rollouts" / f"step_{step:06d}.jsonl.zst"


def copy_digests(run: Path, steps: int) -> None:
    """Keep for each copied step what was counted of the step that it is a copy of: to count it takes the same again."""
    kept = [json.loads(line) for line in (run / KEPT).read_text().splitlines()]
    by_step = {each["digest"]["step"]: each["digest"] for each in kept}
    with (run / KEPT).open("a") as file:
        for step in range(DIFFERENT + 1, steps + 1):
            copy = step_file(run, step)
            digest = by_step[step % DIFFERENT + 1] | {"step": step}
            file.write(json.dumps({"file": key_of(copy, copy.stat()), "digest": digest}) + "\n")


def add_step(run: Path, step: int) -> None:
    """Let the run do one step more."""
    shutil.copy(step_file(run, step % DIFFERENT + 1), step_file(run, step))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(json.loads(lines[-1]) | {"step": step}) + "\n")


def report_cpu(run: Path) -> float:
    """Write the report in a process of its own, as a run does, and return the seconds of CPU that it took.

    Not of the lowest priority, in which a busy machine would hardly run it.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "report", str(run)], check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


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
