"""List the faults and restarts of a run, and the alarms of its health checks, each with its step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from orchestrator.config.recipe import ConfigError, validate
from orchestrator.records.health.monitor import ALARMS
from orchestrator.records.health.replay import recall
from orchestrator.records.meanings.table import METRICS
from orchestrator.report.reading.recorded_run import RecordedRun, Row

logger = logging.getLogger(__name__)

COUNTED = {
    "system/generator_restarts": "a generator was replaced",
    "system/learner_restarts": "the learner was lost and began again",
    "system/reward_worker_restarts": "a reward worker was replaced",
}
"""Metrics that count events since the command began."""
HAPPENED = {
    "optim/skipped_updates": "an update was skipped: its gradient was not finite",
    "reward/timeouts": "gradings passed their deadline",
    "reward/errors": "gradings failed",
}
"""Metrics that count events in a step."""


def events(run: RecordedRun) -> list[dict[str, Any]]:
    """Return the faults and restarts of a run, by step."""
    found = [{"step": step, "text": "a new command, or the learner, went on from here"} for step in run.resumed_after]
    before: Row = {"step": -1}
    for row in run.rows:
        if any(before["step"] <= step < row["step"] for step in run.commands_after):
            before = {}
        for key, text in COUNTED.items():
            if row.get(key, 0.0) > before.get(key, 0.0):
                found.append({"step": int(row["step"]), "text": text})
        for key, text in HAPPENED.items():
            if row.get(key, 0.0) > 0:
                found.append({"step": int(row["step"]), "text": f"{row[key]:.0f} × {text}"})
        before = row
    return sorted(found, key=lambda event: event["step"])


def verdicts(run: RecordedRun) -> list[dict[str, Any]]:
    """Return each alarm of the health checks: its first step, whether it holds at the end, and its message."""
    said = sentences(run)
    raised = [row for row in run.rows if row.get("health/alarms", 1.0)]  # rows of earlier versions lack the key
    held = {name: steps for name in ALARMS if (steps := list(steps_of(name, raised)))}
    return [alarm(name, run.rows, held.get(name, []), said) for name in ALARMS if name in held or name in said]


def alarm(name: str, rows: Sequence[Row], steps: Sequence[int], said: dict[str, tuple[int, str]]) -> dict[str, Any]:
    step, sentence = said.get(name, (steps[0] if steps else 0, METRICS[f"health/{name}"].meaning))
    holds = bool(rows) and rows[-1].get(f"health/{name}", 0.0) == 1.0
    return {"name": name.replace("_", " "), "step": steps[0] if steps else step, "holds": holds, "text": sentence}


def steps_of(name: str, rows: Sequence[Row]) -> Iterator[int]:
    return (int(row["step"]) for row in rows if row.get(f"health/{name}", 0.0) == 1.0)


def sentences(run: RecordedRun) -> dict[str, tuple[int, str]]:
    """Return the messages of the alarms by this version's checks; empty if it does not know the settings."""
    try:
        return recall(run.rows, validate(run.settings))
    except ConfigError:
        return {}
    except (KeyError, ValueError, ZeroDivisionError) as error:  # metrics that an earlier version did not log
        logger.info("the health checks cannot be repeated: %s", error)
        return {}
