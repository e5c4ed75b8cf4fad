"""Time to target on this machine, for every recipe that needs no GPU: docs/results.md.

`python -m benchmarks.real_runs.recipes` trains each recipe once with each seed, one after the other, in `--runs`; what
is finished there is not trained again. It prints the table in Markdown. Two quiet cores need about two hours for it.

Time to target is that of training alone, without the start and the evaluations, up to the first evaluation that shows
the rise. The last column counts from the start of the actors to their end.
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import load
from orchestrator.config.schema import RunConfig
from orchestrator.records.run_directory import RunDirectory

RECIPES = (
    "smollm2-135m",
    "countdown-tiny",
    "reasoning-gym-tiny",
    "word-problems-tiny",
    "countdown-curriculum-tiny",
    "period-count-tiny",
    "calculator-tiny",
    "guess-tiny",
)
PHASES = ("rollout", "update", "publish")
RISES = (20, 30)
"""Points of held-out pass@1 above the evaluation before training."""
COLUMNS = (
    *("recipe", "seeds", "held-out before → after"),
    *(f"minutes, completions to +{rise}" for rise in RISES),
    *("s a step", "rollout, update, publish", "tokens/s sampled", "peak GiB", "minutes with evaluations"),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """What a finished run recorded."""

    config: RunConfig
    lines: Sequence[Mapping[str, Any]]
    log: str

    @classmethod
    def of(cls, config: RunConfig) -> Curve:
        directory = RunDirectory(config)
        return cls(config, directory.metrics(), (directory.path / "log.txt").read_text())

    @property
    def measured(self) -> str:
        """The metric of the evaluations: pass@1, or the mean reward where nothing is right or wrong."""
        return "eval/pass_at_1" if "eval/pass_at_1" in self.lines[0] else "eval/reward"

    @property
    def change(self) -> tuple[float, float]:
        """The metric before and after training."""
        evaluated = [line[self.measured] for line in self.lines if self.measured in line]
        return evaluated[0], evaluated[-1]

    def to_rise(self, points: float) -> tuple[float, int] | None:
        """Return minutes of training and completions until an evaluation is so many points above the first."""
        if self.measured != "eval/pass_at_1":
            return None
        per_step = self.config.prompts_per_step * self.config.group_size
        seconds = itertools.accumulate(
            line["time/step_s"] - line.get("time/evaluation_s", 0) for line in self.lines[1:]
        )
        for line, spent in zip(self.lines[1:], seconds, strict=True):
            if line.get(self.measured, 0.0) - self.lines[0][self.measured] >= points / 100:
                return spent / 60, line["step"] * per_step
        return None

    def median(self, metric: str) -> float:
        """Return the metric's median over the steps, without the time of evaluations."""
        without = "time/evaluation_s" if metric == "time/step_s" else ""
        return statistics.median(line[metric] - line.get(without, 0.0) for line in self.lines[1:])

    @property
    def peak_gib(self) -> float:
        """The sum of all actors' peaks."""
        peaks = re.findall(r"peak memory, GiB: (\{.*\})", self.log)[-1]
        return sum(float(value) for value in re.findall(r": ([\d.]+)", peaks))

    @property
    def minutes(self) -> float:
        """From the log's first line to its last."""
        moments = re.findall(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", self.log, re.MULTILINE)
        first, last = (datetime.fromisoformat(moment) for moment in (moments[0], moments[-1]))
        return (last - first).total_seconds() / 60


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--recipes", nargs="*", choices=RECIPES, default=RECIPES)
    arguments.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    arguments.add_argument("--runs", type=Path, default=Path("runs/results"), help="folder of the runs")
    given = arguments.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for recipe in given.recipes:
        print(row(recipe, [trained(recipe, seed, given.runs) for seed in given.seeds]), flush=True)


def trained(recipe: str, seed: int, runs: Path) -> Curve:
    """Train, unless that run is finished, and return what it recorded."""
    settings = [f"runs_dir={runs}", f"name={recipe}-{seed}", f"seed={seed}"]
    train = [sys.executable, "-m", "orchestrator.cli", "train", recipe, *settings]
    subprocess.run(train, check=True, stdout=subprocess.DEVNULL)
    return Curve.of(load(recipe, settings))


def row(recipe: str, curves: Sequence[Curve]) -> str:
    """Return the recipe's line of the table."""
    before, after = (statistics.mean(values) for values in zip(*(curve.change for curve in curves), strict=True))
    low, high = (choose(curve.change[1] for curve in curves) for choose in (min, max))
    scale, unit = (100, "%") if curves[0].measured == "eval/pass_at_1" else (1, " reward")
    form = ".1f" if scale == 100 else ".2f"
    change = f"{scale * before:{form}} → {scale * after:{form}} ({scale * low:{form}} to {scale * high:{form}}){unit}"
    phases = " ".join(f"{mean_of(curves, f'time/{phase}_s'):.1f}" for phase in PHASES)
    cells = (
        *(f"`{recipe}`", str(len(curves)), change, *(targets(curves, rise) for rise in RISES)),
        *(f"{mean_of(curves, 'time/step_s'):.1f}", phases, f"{mean_of(curves, 'rollout/tokens_per_s'):.0f}"),
        *(f"{max(curve.peak_gib for curve in curves):.1f}", spread([curve.minutes for curve in curves])),
    )
    return f"| {' | '.join(cells)} |"


def targets(curves: Sequence[Curve], rise: float) -> str:
    """Return the minutes and completions of each seed, sorted; a dash for one that did not get there."""
    reached = sorted((curve.to_rise(rise) or (float("inf"), 0)) for curve in curves)
    return "; ".join(f"{minutes:.1f}, {count:,}" if count else "–" for minutes, count in reached)


def mean_of(curves: Sequence[Curve], metric: str) -> float:
    return statistics.mean(curve.median(metric) for curve in curves)


def spread(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


if __name__ == "__main__":
    main()
