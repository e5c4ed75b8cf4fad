"""What a report needs to know of all completions of a step: counts, and where the remarkable groups stand."""

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
"""Version of a digest. One of another version is made again."""
MAX_VALUES = 12
"""Distinct values of a reward part that are counted apart; of more, values are rounded to tenths."""
MEANS = ("completion_tokens", "reward")
"""Figures of an evaluation that are means over completions, of which each problem's are kept."""
MAX_LABELS = 20
"""Difficulties that are told apart in one evaluation; the rest are `other`."""


@dataclass(slots=True)
class StepDigest:
    """Counts over the completions of one file."""

    step: int
    completions: int = 0
    sides: dict[str, Figures] = field(default_factory=lambda: {side: {} for side in SIDES})
    """Sums over all completions, over the right ones and over the wrong ones: by figure, six numbers of `Clusters`."""
    estimates: list[str] = field(default_factory=list)
    """Means with their intervals, as the page has them: see `step_figures`."""
    runs: list[list[int]] = field(default_factory=list)
    """Groups of one size that follow one another: first line, lines of each group, groups."""
    right: dict[str, list[int]] = field(default_factory=dict)
    """By held-out problem: number of right completions, and of all completions."""
    formatted: dict[str, list[int]] = field(default_factory=dict)
    """The same for completions in the format that was asked for; empty where the recipe asks for none."""
    means: dict[str, list[float]] = field(default_factory=dict)
    """By held-out problem: the means over its completions that `MEANS` names."""
    parts: dict[str, list[list[float]]] = field(default_factory=dict)
    """By reward part: values, each with the number of completions that have it."""
    difficulties: dict[str, list[list[int]]] = field(default_factory=dict)
    """By difficulty of held-out problems: right completions and completions of each."""
    faults: list[int] = field(default_factory=list)
    """Numbers of the groups with a reward, or an environment, that timed out or failed."""
    first_shown: dict[str, int] = field(default_factory=dict)
    """By behaviour the number of the first group that shows it."""
    largest_advantage: list[float] = field(default_factory=list)
    """The number of the group with the largest advantage in size, and that advantage."""
    largest_gap: list[float] = field(default_factory=list)
    """The same for the gap between sampler and learner, nats, where records hold it."""

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
        """Return the digest; None where another version made it."""
        return cls(**value) if value.pop("format", None) == FORMAT else None


def digest(step: int, groups: Iterable[RecordGroup], is_training: bool = True) -> StepDigest:
    """Count what a report shows of all completions, one group at a time."""
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
    """Count the completions of a held-out problem, by which two evaluations are compared."""
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
    """Return the same key for the same problem in another run, and another for another problem of the same id."""
    content = json.dumps([record.get("prompt"), record.get("answer")], sort_keys=True)
    return f"{record.get('prompt_id')} {hashlib.blake2s(content.encode(), digest_size=6).hexdigest()}"


def count_parts(values: dict[str, Counter[float]], records: Sequence[Record]) -> None:
    for record in records:
        for name, value in parts_of(record):
            values.setdefault(name, Counter())[round(value, 3)] += 1


def counted(found: Counter[float]) -> list[list[float]]:
    """Return values with their counts, in order; of many values those rounded to tenths."""
    if len(found) > MAX_VALUES:
        rounded = Counter[float]()
        for value, count in found.items():
            rounded[round(value, 1)] += count
        found = rounded
    return [[value, count] for value, count in sorted(found.items())]


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
    """Return whether a reward, or the environment, timed out or failed."""
    failed = any(part.get("status") != "ok" for part in record.get("parts", {}).values())
    return failed or record.get("finish_reason") in FAILED


def largest_gap(record: Record) -> float:
    """Return the largest gap between the logprobs of sampler and learner, nats; 0 where none is recorded."""
    gaps = record.get("logprob_gaps") or ()
    return max((abs(gap) for gap in gaps if isinstance(gap, int | float) and isfinite(gap)), default=0.0)
