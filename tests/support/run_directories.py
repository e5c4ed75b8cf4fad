"""Run directories as a run would write them, without training anything."""

import json
import re
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import load
from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.metrics import rollout_metrics
from orchestrator.records.run_directory import RunDirectory
from tests.support.groups import scored_group


def written_run(
    folder: Path, name: str = "one", steps: int = 4, every: int = 2, text: str = "checking: 3 is wrong", *settings: str
) -> Path:
    """Write a run that gets better step by step, with an evaluation before and every so many steps; 0: none."""
    overrides = [f"runs_dir={folder}", f"name={name}", f"num_steps={steps}", *settings]
    directory = RunDirectory(load("countdown-tiny", overrides)).open()
    for step in range(steps + 1):
        right = [number * (steps + 1) < 4 * step for number in range(4)]
        metrics: dict[str, Any] = {"time/step_s": 2.0, "rollout/sampled_tokens": 24.0, "health/alarms": 0.0}
        held_out = [scored_group(f"held_out/{n}", right[n:] + right[:n], 5) for n in range(6)]
        if every and step % every == 0:
            metrics |= summarize(held_out, [scored_group("g", [right[0]])]).metrics()
            directory.write_held_out(step, held_out)
        groups = [scored_group(f"train/{step}-{n}", right, 3 + n, text=text) for n in range(2)]
        if step:
            directory.write_rollouts(step, [(group, [0.9, -0.3, -0.3, -0.3]) for group in groups])
            metrics |= rollout_metrics(groups)
        if step or every:
            directory.log_metrics(step, metrics)
    directory.final.mkdir()
    return directory.path


def data_of(report: Path) -> dict[str, Any]:
    """The data that a report's page shows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.read_text(), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def set_in(run: Path, section: str, **settings: Any) -> None:
    """Change settings of a run's config.json."""
    found = json.loads((run / "config.json").read_text())
    found[section] |= settings
    (run / "config.json").write_text(json.dumps(found))
