"""All that the report's page knows of one run, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

from orchestrator.records.meanings.table import find_metric
from orchestrator.report.page.comparison import ComparedRun, comparison
from orchestrator.report.page.completions import KeptCompletions
from orchestrator.report.page.emergence import emergence
from orchestrator.report.page.events import events
from orchestrator.report.page.group_credit import credit
from orchestrator.report.page.learning import Digests, learning_sections
from orchestrator.report.page.machines import machines
from orchestrator.report.page.overview import overview
from orchestrator.report.reading.digest import StepDigest
from orchestrator.report.reading.digests import KeptDigests
from orchestrator.report.reading.kept import MAX_COMPLETIONS, RULE, Digested, choose, read_kept_groups
from orchestrator.report.reading.recorded_run import RecordedRun, Row
from orchestrator.report.reading.tokens import token_texts

DIGITS = 6
"""Significant digits of a metric."""


def report_data(runs: Sequence[RecordedRun], steps: Sequence[int] = ()) -> dict[str, Any]:
    """Read the files of one run, or of several, and return all that the page knows; see `run_data`."""
    made, compared = [], []
    for run in runs:
        digests = KeptDigests(run.path)
        train, held_out = digests.of(run.rollouts), digests.of(run.held_out)
        made.append(run_data(run, train, held_out, steps, 1 / len(runs)))
        compared.append(ComparedRun(run, held_out[max(held_out)] if held_out else None))
    return {"runs": made} | ({"compare": comparison(compared)} if len(made) > 1 else {})


def run_data(
    run: RecordedRun, train: Digests, held_out: Digests, steps: Sequence[int] = (), share: float = 1.0
) -> dict[str, Any]:
    """Return what the page shows of a run.

    Args:
        train: digests of the training completions, by step.
        held_out: digests of the evaluations, by step.
        steps: steps of which every group is kept, as far as there is room.
        share: of the report's room that this run's completions may take.
    """
    series = series_of(run.rows)
    kept = rollouts(run, {"train": train, "held_out": held_out}, steps, share)
    return {
        "name": run.name,
        "summary": overview(run, held_out),
        "steps": [int(row["step"]) for row in run.rows],
        "series": series,
        "meanings": meanings(series),
        "events": events(run),
        "learning": learning_sections(series.keys(), train, held_out),
        "emergence": emergence(series, train, held_out),
        "credit": credit(run.settings, kept["groups"], train),
        "machines": machines(run, series),
        "clocks": clocks(run),
        "rollouts": kept,
    }


def series_of(lines: Sequence[Row]) -> dict[str, list[float | None]]:
    """Return the values of each metric over the steps, None where it was not logged."""
    keys = dict.fromkeys(key for line in lines for key in line if key != "step")
    return {key: [rounded(line.get(key)) for line in lines] for key in keys}


def clocks(run: RecordedRun) -> dict[str, list[float]]:
    """Return how many completions and minutes each step ended at; the evaluation before training has no time."""
    size = (run.setting("prompts_per_step") or 0) * (run.setting("group_size") or 0)
    minutes = list(accumulate(row.get("time/step_s", 0.0) / 60 for row in run.rows))
    return {
        "completions": [int(row["step"]) * size for row in run.rows],
        "minutes": [round(minute, 3) for minute in minutes],
    }


def rounded(value: float | None) -> float | None:
    if not isinstance(value, int | float) or not isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def meanings(keys: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return unit, meaning, what is healthy and what to do otherwise, of each metric that is documented."""
    found = {key: find_metric(key) for key in keys if not key.endswith("_ci95")}
    return {
        key: [text.replace("`", "") for text in (each.unit, each.meaning, each.healthy, each.otherwise)]
        for key, each in found.items()
        if each is not None
    }


def rollouts(run: RecordedRun, digests: Digested, steps: Sequence[int], share: float) -> dict[str, Any]:
    """Return the completions that the page holds, and how many there are."""
    limit = int(MAX_COMPLETIONS * share)
    chosen = choose(digests, steps, limit)
    kept = KeptCompletions()
    kept.max_bytes = int(kept.max_bytes * share)
    kept.add(read_kept_groups(chosen, digests, {"train": run.rollouts, "held_out": run.held_out}), token_texts(run))
    kept.groups.sort(key=lambda group: (group["step"], group["split"]))
    return {
        "groups": kept.groups,
        "kept": kept.num_completions,
        "of": sum(count(each) for each in digests.values()),
        "rule": RULE.format(limit=limit),
    }


def count(found: Mapping[int, StepDigest]) -> int:
    return sum(each.sides["all"].completions for each in found.values())
