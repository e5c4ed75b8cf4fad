"""Summarize all completions of a step for a report: counts, and the numbers of the remarkable groups."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Self

from orchestrator.evaluate.evaluation import FORMAT_PARTS
from orchestrator.evaluate.statistics import Clusters
from orchestrator.report.reading.figures import (
    HELD_OUT,
    POOLED,
    SIDES,
    Figures,
    figures_of,
    is_right,
    length,
    parts_of,
    shown_in,
    step_figures,
)
from orchestrator.report.reading.record_stream import Record, RecordGroup
from rollout.types.completions import FAILED

FORMAT = 6
"""Version of a digest. Digests of other versions are computed again."""
MAX_VALUES = 12
"""Most distinct values of a reward part that are counted separately. Of more, the values are rounded to tenths."""
MEANS = ("completion_tokens", "reward")
"""Figures of an evaluation that are means over completions. The digest has them for each problem."""
MAX_LABELS = 20
"""Most difficulties that are distinguished in one evaluation; the rest are `other`."""


@dataclass(slots=True)
class StepDigest:
    """Counts over the completions of one file."""

    step: int
    completions: int = 0
    sides: dict[str, Figures] = field(default_factory=lambda: {side: {} for side in SIDES})
    """Sums over all, right, and wrong completions: for each figure the six numbers of `Clusters`."""
    estimates: list[str] = field(default_factory=list)
    """Means with their intervals, in the page's format: see `step_figures`."""
    runs: list[list[int]] = field(default_factory=list)
    """Consecutive groups of the same size: first line, lines of each group, number of groups."""
    right: dict[str, list[int]] = field(default_factory=dict)
    """By held-out problem: number of right completions, and of all completions."""
    formatted: dict[str, list[int]] = field(default_factory=dict)
    """The same for completions in the required format; empty if the recipe requires none."""
    means: dict[str, list[float]] = field(default_factory=dict)
    """By held-out problem: the means in `MEANS` over its completions."""
    parts: dict[str, list[list[float]]] = field(default_factory=dict)
    """By reward part: the values, each with the number of completions that have it."""
    difficulties: dict[str, list[list[int]]] = field(default_factory=dict)
    """By difficulty of held-out problems: for each problem, number of right completions and of all completions."""
    faults: list[int] = field(default_factory=list)
    """Numbers of the groups in which a reward or an environment timed out or failed."""
    first_shown: dict[str, int] = field(default_factory=dict)
    """By behaviour: number of the first group that shows it."""
    largest_advantage: list[float] = field(default_factory=list)
    """The number of the group with the largest absolute advantage, and that advantage."""
    largest_gap: list[float] = field(default_factory=list)
    """The same for the gap between sampler and learner in nats, if the records have it."""

    @property
    def num_groups(self) -> int:
        return sum(count for _, _, count in self.runs)

    def lines(self, number: int) -> range:
        """Return the lines of a group in its file."""
        for first, size, count in self.runs:
            if number < count:
                return range(first + number * size, first + (number + 1) * size)
            number -= count
        raise IndexError(f"step {self.step} has no group of that number")

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **{name: value for name, value in asdict(self).items() if value or name == "step"}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self | None:
        """Return the digest; None if another version wrote it."""
        return cls(**value) if value.pop("format", None) == FORMAT else None


def digest(step: int, groups: Iterable[RecordGroup], is_training: bool = True) -> StepDigest:
    """Compute the digest of a step, one group at a time."""
    made, values = StepDigest(step), dict[str, Counter[float]]()
    found: dict[str, dict[str, Clusters]] = {side: {} for side in SIDES}
    for number, group in enumerate(groups):
        made.completions += len(group.records)
        note_lines(made, group)
        shown = [shown_in(record) for record in group.records]
        for name in dict.fromkeys(name for each in shown for name in each):
            made.first_shown.setdefault(name, number)
        for side, figure, numbers in figures_of(group.records, shown):
            found[side].setdefault(figure, Clusters()).add(numbers)
        if not is_training:
            count_problem(made, group.records)
        count_parts(values, group.records)
        note_remarkable(made, number, group.records)
    made.sides = {
        side: {figure: [*asdict(each).values()] for figure, each in figures.items() if figure.startswith(POOLED)}
        for side, figures in found.items()
    }
    made.estimates = list(step_figures(found, HELD_OUT if not is_training else None))
    made.parts = {name: counted(each) for name, each in values.items()}
    return made


def note_lines(made: StepDigest, group: RecordGroup) -> None:
    if made.runs:
        first, size, count = made.runs[-1]
        if size == group.num_lines and first + size * count == group.first_line:
            made.runs[-1][2] += 1
            return
    made.runs.append([group.first_line, group.num_lines, 1])


def count_problem(made: StepDigest, records: Sequence[Record]) -> None:
    """Count the completions of a held-out problem, for the paired comparison of two evaluations."""
    problem = problem_key(records[0])
    rewards: list[Any] = [record.get("reward") for record in records]
    if all(isinstance(reward, int | float) and isfinite(reward) for reward in rewards):
        totals = sum(map(length, records)), sum(rewards)
        made.means[problem] = [round(total / len(records), 6) for total in totals]
    part = next((name for name in FORMAT_PARTS if name in records[0].get("parts", {})), None)
    if part is not None:
        formatted = sum(record["parts"].get(part, {}).get("value") == 1.0 for record in records)
        made.formatted[problem] = [formatted, len(records)]
    marks = [is_right(record) for record in records]
    if marks[0] is None:
        return
    counts = made.right[problem] = [sum(mark is True for mark in marks), len(marks)]
    label = str(records[0].get("difficulty") or "")
    if label:
        label = label if label in made.difficulties or len(made.difficulties) < MAX_LABELS else "other"
        made.difficulties.setdefault(label, []).append(counts)


def problem_key(record: Record) -> str:
    """Return a key that is equal for the same problem in other runs, but not for another problem with the same id."""
    content = json.dumps([record.get("prompt"), record.get("answer")], sort_keys=True)
    return f"{record.get('prompt_id')} {hashlib.blake2s(content.encode(), digest_size=6).hexdigest()}"


def count_parts(values: dict[str, Counter[float]], records: Sequence[Record]) -> None:
    for record in records:
        for name, value in parts_of(record):
            values.setdefault(name, Counter())[round(value, 3)] += 1


def counted(counts: Counter[float]) -> list[list[float]]:
    """Return the sorted values with their counts. If there are many, round the values to tenths."""
    if len(counts) > MAX_VALUES:
        rounded = Counter[float]()
        for value, count in counts.items():
            rounded[round(value, 1)] += count
        counts = rounded
    return [[value, count] for value, count in sorted(counts.items())]


def note_remarkable(made: StepDigest, number: int, records: Sequence[Record]) -> None:
    if any(has_fault(record) for record in records):
        made.faults.append(number)
    advantage = max((abs(record.get("advantage") or 0.0) for record in records), default=0.0)
    if advantage > (made.largest_advantage or [0, 0.0])[1]:
        made.largest_advantage = [number, advantage]
    gap = max((largest_gap(record) for record in records), default=0.0)
    if gap > (made.largest_gap or [0, 0.0])[1]:
        made.largest_gap = [number, gap]


def has_fault(record: Record) -> bool:
    """Return whether a reward part or the environment timed out or failed."""
    failed = any(part.get("status") != "ok" for part in record.get("parts", {}).values())
    return failed or record.get("finish_reason") in FAILED


def largest_gap(record: Record) -> float:
    """Return the largest gap between the logprobs of sampler and learner in nats; 0 if none is recorded."""
    gaps = record.get("logprob_gaps") or ()
    return max((abs(gap) for gap in gaps if isinstance(gap, int | float) and isfinite(gap)), default=0.0)
