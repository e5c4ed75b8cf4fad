"""Run directories as a run would write them, without training anything."""

import json
import re
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from learner.logprob_record import LogprobRecord
from orchestrator.config.recipe import load
from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.metrics import rollout_metrics
from orchestrator.records.run_directory import RunDirectory
from rollout.types.completions import Group
from tests.support.groups import scored_group


def written_run(
    folder: Path, name: str = "one", steps: int = 4, every: int = 2, text: str = "checking: 3 is wrong", *settings: str
) -> Path:
    """Write a run that gets better step by step, with an evaluation before and every so many steps; 0: none."""
    overrides = [f"runs_dir={folder}", f"name={name}", f"num_steps={steps}", *settings]
    config = load("countdown-tiny", overrides)
    directory = RunDirectory(config).open()
    for step in range(steps + 1):
        right = [number * (steps + 1) < 4 * step for number in range(4)]
        metrics: dict[str, Any] = {"time/step_s": 2.0, "rollout/sampled_tokens": 24.0, "health/alarms": 0.0}
        held_out = [scored_group(f"held_out/{n}", right[n:] + right[:n], 5) for n in range(6)]
        if every and step % every == 0:
            metrics |= summarize(held_out, [scored_group("g", [right[0]])], (1, 4)).metrics()
            directory.write_held_out(step, held_out)
        groups = [scored_group(f"train/{step}-{n}", right, 3 + n, text=text) for n in range(2)]
        if step:
            learned = [(group, [0.9, -0.3, -0.3, -0.3]) for group in groups]
            is_scored_again = every > 0 and step % every == 0
            recorded = logprobs_of(groups[:1], is_scored_again, config.learner.algorithm.uses_critic)
            directory.write_rollouts(step, learned, recorded)
            metrics |= rollout_metrics(groups)
        if step or every:
            directory.log_metrics(step, metrics)
    directory.final.mkdir()
    return directory.path


def logprobs_of(groups: Sequence[Group], is_scored_again: bool, has_critic: bool) -> list[LogprobRecord]:
    """Return what the learner recorded: a gap of 0.02 nats at each completion's second token, and a change of 0.1.

    A critic gives that token an advantage of 0.02, and the others none.
    """
    found = []
    for group in groups:
        second = np.concatenate([np.arange(each.num_tokens) == 1 for each in group.completions])
        gaps, changes = np.where(second, 0.02, 0).astype(np.float16), np.where(second, 0.1, 0).astype(np.float16)
        found.append(LogprobRecord(gaps, changes if is_scored_again else None, gaps if has_critic else None))
    return found


def data_of(report: Path) -> dict[str, Any]:
    """The data that a report's page shows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    for run in data.get("runs", ()):
        tables = [(run[name], count) for name, count in (("metrics", 1), ("counted", 3))]
        run["steps"] = sorted({step for table, _ in tables for step, _, _ in table["rows"]})
        series, counted = (columns(table, run["steps"], count) for table, count in tables)
        run["series"], run["counted"] = {key: values for key, (values,) in series.items() if key != "step"}, counted
    return data


def columns(table: dict[str, Any], steps: list[int], count: int) -> dict[str, list[list[float | None]]]:
    """The columns of a table as the page makes them: `count` lists of values over the steps for each key."""
    found: dict[str, list[list[float | None]]] = {}
    for key in (key for keys in table["keys"] for key in keys):
        found[key] = [[None] * len(steps) for _ in range(count)]
    for step, keys, text in table["rows"]:
        values = [float(value) if isfinite(float(value)) else None for value in text.split(",")]
        for n, key in enumerate(table["keys"][keys]):
            for k in range(count):
                found[key][k][steps.index(step)] = values[n * count + k]
    return found


def set_in(run: Path, section: str, **settings: Any) -> None:
    """Change settings of a run's config.json."""
    found = json.loads((run / "config.json").read_text())
    found[section] |= settings
    (run / "config.json").write_text(json.dumps(found))
