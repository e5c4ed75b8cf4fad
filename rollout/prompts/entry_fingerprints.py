"""Fingerprints of the problems of a recipe, entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rollout.problems.fingerprint import Fingerprint
from rollout.problems.listed import ListedProblems
from rollout.problems.problem import Problem
from rollout.prompts.config import PromptsConfig
from rollout.prompts.mixture import Mixture
from rollout.prompts.task_config import TaskConfig, shown_fields


@dataclass(frozen=True)
class EntryFingerprint:
    """The fingerprint of an entry's problems."""

    source: str
    """The file or data set; empty if problems are drawn."""
    rows: Fingerprint | None
    """Fingerprint of all rows as they were read, before any is dropped; None if problems are drawn."""
    held_out: Fingerprint | None
    """Fingerprint of the held-out problems; None if there are none, as for pairs."""


def fingerprints(config: PromptsConfig, problems: Mixture) -> dict[str, EntryFingerprint]:
    """Return the fingerprint of each entry, by its key in the recipe such as `prompts.gsm8k`."""
    found = {}
    for name, source in problems.sources.items():
        entry = config.tasks[name]
        where = f"prompts.mixture.{name}" if config.mixture else f"prompts.{name}"
        rows = None
        if isinstance(source, ListedProblems):
            others = ((row.content, "", row.where) for row in (*source.faults, *source.ungradable))
            read = [*source.as_read, *(source.held_out_as_read or ())]
            rows = Fingerprint.of([*rows_of(read, entry), *others])
        held_out = Fingerprint.of(rows_of(source.held_out, entry))
        found[where] = EntryFingerprint(str(getattr(entry.settings, "source", "")), rows, held_out)
    return found


def rows_of(problems: Sequence[Problem], entry: TaskConfig) -> Iterator[tuple[str, str, str]]:
    """Yield each problem's key, its question with the reference, and its place."""
    wordings = (("template", entry.wording("zero_shot")), ("natural_template", entry.wording("natural")))
    encode = json.JSONEncoder(sort_keys=True, default=str).encode
    shown = sorted(set().union(*(shown_fields(*wording) for wording in wordings)))
    for problem in problems:
        asked = [problem.question, *(problem.fields.get(name) for name in shown)]
        yield problem.key, encode([asked, dict(problem.answer)]), problem.where
