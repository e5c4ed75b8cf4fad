"""Collect all data of the report's page, as JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

from orchestrator.records.meanings.table import find_metric
from orchestrator.report.page.chart import plain
from orchestrator.report.page.comparison import ComparedRun, comparison
from orchestrator.report.page.completions import FORMAT, group_json
from orchestrator.report.page.document import room_beside
from orchestrator.report.page.emergence import emergence
from orchestrator.report.page.events import events
from orchestrator.report.page.group_credit import credit, learns_without_rewards
from orchestrator.report.page.learning import Digests, learning_sections
from orchestrator.report.page.machines import machines
from orchestrator.report.page.overview import overview
from orchestrator.report.reading.columns import counted_table, metrics_table
from orchestrator.report.reading.digests import KeptDigests
from orchestrator.report.reading.kept import MAX_COMPLETIONS, MAX_FAULTS, RULE, Digested, choose
from orchestrator.report.reading.kept_groups import GroupShelf
from orchestrator.report.reading.recorded_run import RecordedRun
from orchestrator.report.reading.tokens import token_texts


def report_data(runs: Sequence[RecordedRun], steps: Sequence[int] = ()) -> dict[str, Any]:
    """Read the files of one run, or of several, and return all data of the page; see `run_data`."""
    digested: list[Digested] = []
    for run in runs:
        digests = KeptDigests(run.path)
        digested.append({"train": digests.of(run.rollouts), "held_out": digests.of(run.held_out)})
    data: dict[str, Any] = {
        "runs": [run_data(run, each["train"], each["held_out"]) for run, each in zip(runs, digested, strict=True)]
    }
    if len(runs) > 1:
        last = [each["held_out"][max(each["held_out"])] if each["held_out"] else None for each in digested]
        data["compare"] = comparison([ComparedRun(*each) for each in zip(runs, last, strict=True)])
    room = room_beside(data)
    for run, each, made in zip(runs, digested, data["runs"], strict=True):
        kept = rollouts(run, each, steps, 1 / len(runs), room)
        made["rollouts"] = kept
        counted = dict.fromkeys(key for keys in made["counted"]["keys"] for key in keys)
        made["credit"] = credit(run.settings, kept["groups"], each["train"], counted)
    return data


def run_data(run: RecordedRun, train: Digests, held_out: Digests) -> dict[str, Any]:
    """Return the page's data of a run, without completions and the data that depends on them.

    Args:
        train: digests of the training completions, by step.
        held_out: digests of the evaluations, by step.
    """
    metrics, counted = metrics_table(run.rows), counted_table(train, held_out)
    keys = dict.fromkeys([*metrics.all_keys(), *counted.all_keys()])
    return {
        "name": run.name,
        "summary": overview(run, held_out),
        "sampled": sampled(run),
        "metrics": metrics.to_json(),
        "counted": counted.to_json(),
        "meanings": meanings(keys),
        "events": events(run),
        "learning": learning_sections(
            keys, held_out, "the teacher" if learns_without_rewards(run.settings) else "the reference"
        ),
        "emergence": emergence(keys, train, held_out),
        "machines": machines(run, keys),
    }


def sampled(run: RecordedRun) -> list[int]:
    """Return, for each row of the metrics, the training completions sampled so far, with those of replaced groups."""
    prompts, size = (0 if run.is_supervised else run.setting(key) or 0 for key in ("prompts_per_step", "group_size"))
    replaced = [row.get("rollout/replaced_groups", 0.0) for row in run.rows]
    groups = [
        prompts + int(more if isfinite(more) else 0) if row["step"] else 0
        for row, more in zip(run.rows, replaced, strict=True)
    ]
    return [count * size for count in accumulate(groups)]


def meanings(keys: Collection[str]) -> dict[str, list[str]]:
    """Return, for each documented metric, its unit, its meaning, what is healthy, and what to do otherwise."""
    found = {key: find_metric(key) for key in keys if not key.endswith("_ci95")}
    return {
        key: [plain(text) for text in (each.unit, each.meaning, each.healthy, each.otherwise)]
        for key, each in found.items()
        if each is not None
    }


def rollouts(run: RecordedRun, digests: Digested, steps: Sequence[int], share: float, room: int) -> dict[str, Any]:
    """Return the completions in the page, and the number of all completions.

    Args:
        steps: steps whose groups are all kept, as far as there is room.
        share: this run's share of the report's completions, from 0 to 1.
        room: bytes available for the completions of all runs.
    """
    limit, texts = int(MAX_COMPLETIONS * share), token_texts(run)
    made_by = json.dumps([FORMAT, texts.made_by])
    shelf = GroupShelf(lambda group: group_json(group, texts), made_by, int(room * share))
    shelf.recall(run.path)
    shelf.add(choose(digests, steps, limit), digests, {"train": run.rollouts, "held_out": run.held_out})
    if share == 1.0 and not steps:  # for the next report of this run
        shelf.keep(run.path)
    shelf.groups.sort(key=lambda group: (group["step"], group["split"]))
    return {
        "groups": shelf.groups,
        "kept": shelf.num_completions,
        "of": sum(each.completions for digested in digests.values() for each in digested.values()),
        "rule": RULE.format(limit=limit, faults=MAX_FAULTS),
    }
