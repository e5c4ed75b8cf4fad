"""Where the time of a training step goes, on the real components: `make bench`.

Run a recipe, by default the default one, for a few steps in a folder of its own, and read what the run itself wrote. A
converted model and a warm start come from the cache (or are made first, untimed). Step 1 is left out of the medians:
its batches are the engines' first. The share of what the machine allows (benchmarks/speed/limits.py) stands below;
its rates are measured right before and after the run, in float32; the faster counts.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from typing import Any

from benchmarks.speed.limits import Rates, group_lengths, measure_rates, rollout_floor, update_floor
from orchestrator.base_model import load_tokenizer
from orchestrator.config.recipe import DEFAULT_RECIPE, load
from orchestrator.plan.model_shapes import shape_of
from orchestrator.records.run_directory import RunDirectory, read_records
from rollout.types.model_shape import ModelShape

PHASES = ("rollout", "update", "publish", "other")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--recipe", default=DEFAULT_RECIPE, help=f"recipe to run (default: {DEFAULT_RECIPE})")
    arguments.add_argument("--steps", type=int, default=8, help="steps to run (default: 8)")
    arguments.add_argument("overrides", nargs="*", help="settings to change, as rollout.num_generators=1")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        train(folder, "warm-up", given.recipe, 1, given.overrides)
        before, started = measure_rates(), time.time()
        train(folder, "bench", given.recipe, given.steps, given.overrides)
        rates = max(before, measure_rates(), key=lambda each: each.operations_per_s)
        config = load(given.recipe, [f"runs_dir={folder}", "name=bench", *given.overrides])
        report(RunDirectory(config), started)
        report_limits(RunDirectory(config), shape_of(config.model), rates)


def train(folder: str, name: str, recipe: str, num_steps: int, overrides: list[str]) -> None:
    settings = [f"runs_dir={folder}", f"name={name}", f"num_steps={num_steps}", "evaluation.every_steps=0", *overrides]
    subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "train", recipe, *settings],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def report(run: RunDirectory, started: float) -> None:
    """Print a table of the run; `started` is when its command began, in seconds since the epoch."""
    steps = steady_steps(run)
    whole = median(steps, "time/step_s")
    print(f"median of steps 2 to {len(steps) + 1}")
    for phase in PHASES:
        seconds = median(steps, f"time/{phase}_s")
        print(f"  {phase:<12} {seconds:7.3f} s  {100 * seconds / whole:5.1f}%")
    print(f"  {'reward wait':<12} {median(steps, 'time/reward_wait_s'):7.3f} s  (part of rollout)")
    print(f"  {'step':<12} {whole:7.3f} s")
    print(f"  sampled      {median(steps, 'rollout/tokens_per_s'):7.0f} tokens/s")
    trained = statistics.median(line["optim/trained_tokens"] / line["time/update_s"] for line in steps)
    print(f"  trained      {trained:7.0f} tokens/s")
    log = (run.path / "log.txt").read_text()
    print(
        f"  command to first training step  {first_step_at(log) - started:.1f} s, evaluation before training included"
    )
    peaks = re.search(r"peak memory, GiB: (.*)", log)[1]  # type: ignore[index]
    print("  peak memory, GiB ", re.sub(r"(\.\d\d)\d+", r"\1", peaks))


def report_limits(run: RunDirectory, shape: ModelShape, rates: Rates) -> None:
    """Print the share of rollout and update that the machine's rates would need."""
    tokenizer = load_tokenizer(str(run.final))
    count = cache(lambda text: len(tokenizer(text)["input_ids"]))
    shares: dict[str, list[float]] = {"rollout": [], "update": []}
    for step in steady_steps(run):
        groups = group_lengths(read_records(run.rollouts_file(step["step"])), count)
        floors = {"rollout": rollout_floor(shape, groups, rates), "update": update_floor(shape, groups, rates)}
        for phase, floor in floors.items():
            shares[phase].append(floor / step[f"time/{phase}_s"])
    print(f"  this machine  {rates}")
    for phase, found in shares.items():
        low, high = min(found), max(found)
        print(f"  {phase:<12} {statistics.median(found):7.0%}  of what it allows (steps {low:.0%} to {high:.0%})")


def steady_steps(run: RunDirectory) -> list[dict[str, Any]]:
    return [line for line in run.metrics() if line["step"] >= 2]


def median(lines: list[dict[str, Any]], key: str) -> float:
    return statistics.median(line[key] for line in lines)


def first_step_at(log: str) -> float:
    """When the first training step began, in seconds since the epoch."""
    moment, milliseconds = re.search(r"(\S+ \S+),(\d+) INFO training begins", log).groups()  # type: ignore[union-attr]
    return time.mktime(time.strptime(moment, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000


if __name__ == "__main__":
    main()
