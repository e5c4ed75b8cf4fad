"""What a report needs to know of all completions of a step: counts, and where the remarkable groups stand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Self

from orchestrator.evaluate.statistics import Estimate, wilson
from orchestrator.report.reading.record_stream import Record, RecordGroup
from rewards.parts.markers import markers
from rollout.types.completions import TRUNCATED

FORMAT = 2
"""Version of a digest. One of another version is made again."""
MAX_VALUES = 12
"""Distinct values of a reward part that are counted apart; of more, values are rounded to tenths."""
MAX_LABELS = 20
"""Difficulties that are told apart in one evaluation; the rest are `other`."""


@dataclass(slots=True)
class Side:
    """The right completions of a step, the wrong ones, or all."""

    completions: int = 0
    tokens: int = 0
    truncated: int = 0
    prompts: int = 0
    """Prompts that have at least one such completion."""
    markers: dict[str, int] = field(default_factory=dict)
    """Completions that show a behaviour."""
    shares: dict[str, list[float]] = field(default_factory=dict)
    """By behaviour: the sum over prompts of the share of completions that show it, and the sum of its squares."""

    def add(self, record: Record, shown: Sequence[str]) -> None:
        self.completions += 1
        self.tokens += record.get("num_tokens", len(record.get("token_ids", ())))
        self.truncated += record.get("finish_reason") in TRUNCATED
        for name in shown:
            self.markers[name] = self.markers.get(name, 0) + 1

    def add_prompt(self, shown: Sequence[Sequence[str]]) -> None:
        """Count a prompt with what each of its completions of this side shows."""
        self.prompts += 1
        for name in {name for names in shown for name in names}:
            share = sum(name in names for names in shown) / len(shown)
            sums = self.shares.setdefault(name, [0.0, 0.0])
            sums[0] += share
            sums[1] += share * share

    def estimate(self, marker: str) -> Estimate | None:
        """Return the share that shows a behaviour, with its interval over prompts; None without completions.

        The draws that count lie between the number of prompts and that of completions, as in `statistics.rate`.
        """
        if not self.completions:
            return None
        mean, prompts = self.markers.get(marker, 0) / self.completions, max(1, self.prompts)
        total, squares = self.shares.get(marker, (0.0, 0.0))
        variance = (squares / prompts - (total / prompts) ** 2) / max(1, prompts - 1)
        draws: float = prompts
        if 0 < mean < 1 and prompts > 1:
            most = float(self.completions)
            draws = min(most, max(draws, mean * (1 - mean) / variance)) if variance > 1e-12 else most
        return wilson(mean, draws)


@dataclass(slots=True)
class StepDigest:
    """Counts over the completions of one file."""

    step: int
    sides: dict[str, Side] = field(default_factory=lambda: {name: Side() for name in ("all", "right", "wrong")})
    """Right and wrong ones are missing where answers are neither."""
    groups: list[list[int]] = field(default_factory=list)
    """Of each group its first line and its number of lines."""
    right: dict[str, list[int]] = field(default_factory=dict)
    """By problem, under whatever words it is told from others: right completions, and completions."""
    parts: dict[str, list[list[float]]] = field(default_factory=dict)
    """By reward part: values, each with the number of completions that have it."""
    spread: dict[str, int] = field(default_factory=dict)
    """By reward part: groups whose completions differ in it."""
    difficulties: dict[str, list[list[int]]] = field(default_factory=dict)
    """By difficulty: right completions and completions of each prompt."""
    faults: list[int] = field(default_factory=list)
    """Numbers of the groups with a reward that timed out or failed."""
    first_shown: dict[str, int] = field(default_factory=dict)
    """By behaviour the number of the first group that shows it."""
    largest_advantage: list[float] = field(default_factory=list)
    """The number of the group with the largest advantage in size, and that advantage."""
    largest_gap: list[float] = field(default_factory=list)
    """The same for the gap between sampler and learner, nats, where records hold it."""

    @property
    def num_groups(self) -> int:
        return len(self.groups)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self | None:
        """Return the digest; None where another version made it."""
        if value.pop("format", None) != FORMAT:
            return None
        sides = {name: Side(**side) for name, side in value.pop("sides").items()}
        return cls(sides=sides, **value)


def digest(step: int, groups: Iterable[RecordGroup]) -> StepDigest:
    """Count what a report shows of all completions, one group at a time."""
    made, values = StepDigest(step), dict[str, Counter[float]]()
    for number, group in enumerate(groups):
        made.groups.append([group.first_line, group.num_lines])
        shown = [shown_in(record) for record in group.records]
        for name in dict.fromkeys(name for each in shown for name in each):
            made.first_shown.setdefault(name, number)
        count_sides(made, group.records, shown)
        count_right(made, group.records)
        count_parts(values, group.records)
        count_spread(made, group.records)
        note_remarkable(made, number, group.records)
    made.parts = {name: counted(found) for name, found in values.items()}
    return made


def shown_in(record: Record) -> Sequence[str]:
    """Return the behaviours that a completion shows: as recorded, or found now in a record of an earlier version."""
    recorded = record.get("markers")
    if isinstance(recorded, list):
        return recorded
    text = record["completion"]
    turns = record.get("turns") or [{"text_start": 0, "text_end": len(text)}]
    return markers("\n".join(text[turn["text_start"] : turn["text_end"]] for turn in turns))


def is_right(record: Record) -> bool | None:
    """Return whether a completion is right; None where answers are neither right nor wrong."""
    part = record.get("parts", {}).get("correctness")
    return None if part is None else part["value"] == 1.0


def count_sides(made: StepDigest, records: Sequence[Record], shown: Sequence[Sequence[str]]) -> None:
    by_side: dict[str, list[Sequence[str]]] = {}
    for record, names in zip(records, shown, strict=True):
        right = is_right(record)
        for side in ("all",) if right is None else ("all", "right" if right else "wrong"):
            made.sides[side].add(record, names)
            by_side.setdefault(side, []).append(names)
    for side, found in by_side.items():
        made.sides[side].add_prompt(found)


def count_right(made: StepDigest, records: Sequence[Record]) -> None:
    marks = [is_right(record) for record in records]
    if marks[0] is None:
        return
    counts = [sum(mark is True for mark in marks), len(marks)]
    made.right[problem_key(records[0])] = counts
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
        for name, value in values_of(record):
            values.setdefault(name, Counter())[round(value, 3)] += 1


def count_spread(made: StepDigest, records: Sequence[Record]) -> None:
    seen: dict[str, set[float]] = {}
    for name, value in (pair for record in records for pair in values_of(record)):
        seen.setdefault(name, set()).add(value)
    for name, found in seen.items():
        made.spread[name] = made.spread.get(name, 0) + (len(found) > 1)


def values_of(record: Record) -> Iterator[tuple[str, float]]:
    found = {"total": record.get("reward")}
    found |= {name: part.get("value") for name, part in record.get("parts", {}).items()}
    for name, value in found.items():
        if isinstance(value, int | float) and isfinite(value):
            yield name, float(value)


def counted(found: Counter[float]) -> list[list[float]]:
    """Return values with their counts, in order; of many values those rounded to tenths."""
    if len(found) > MAX_VALUES:
        rounded = Counter[float]()
        for value, count in found.items():
            rounded[round(value, 1)] += count
        found = rounded
    return [[value, count] for value, count in sorted(found.items())]


def note_remarkable(made: StepDigest, number: int, records: Sequence[Record]) -> None:
    if any(part.get("status") != "ok" for record in records for part in record.get("parts", {}).values()):
        made.faults.append(number)
    advantage = max((abs(record.get("advantage") or 0.0) for record in records), default=0.0)
    if advantage > (made.largest_advantage or [0, 0.0])[1]:
        made.largest_advantage = [number, advantage]
    gap = max((largest_gap(record) for record in records), default=0.0)
    if gap > (made.largest_gap or [0, 0.0])[1]:
        made.largest_gap = [number, gap]


def largest_gap(record: Record) -> float:
    """Return the largest gap between the logprobs of sampler and learner, nats; 0 where none is recorded."""
    gaps = record.get("logprob_gaps") or ()
    return max((abs(gap) for gap in gaps if isinstance(gap, int | float) and isfinite(gap)), default=0.0)
