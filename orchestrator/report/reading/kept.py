"""Choose the completions of a report: complete groups, by a rule that the report states, within two limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal

from orchestrator.report.reading.digest import StepDigest
from orchestrator.report.reading.record_stream import Record, records_of

MAX_COMPLETIONS = 2_000
QUESTIONS = 8
"""Number of held-out questions that are kept from the first, the middle and the last evaluation."""
EACH_STEP = 4
"""Number of groups that are kept from each step with an evaluation, before other groups fill the space."""
MAX_FAULTS = 40
"""Largest number of groups that are kept only because of a fault."""
RULE = (
    "Complete groups are kept, in this order, up to {limit:,} completions or until the page is full: the first group "
    "that shows each behaviour; up to {faults} groups with a fault, spread over the run; the first questions of the "
    "first, the middle and the last evaluation; groups of steps with an evaluation, alternating with the groups that "
    "have the largest advantage and the largest gap of each step; then other groups, spread over the run. `rayzero "
    "report RUN --steps N` keeps the groups of step N first."
)

MAX_MISSES = 200
"""After this number of groups that did not fit, no more are tried."""

Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a group."""

    split: Split
    step: int
    number: int
    """Number of the group in its file."""


@dataclass(slots=True)
class KeptGroup:
    """A group that the report contains."""

    place: Place
    records: list[Record] = field(default_factory=list)


Digested = Mapping[Split, Mapping[int, StepDigest]]


def choose(digests: Digested, steps: Sequence[int] = (), limit: int = MAX_COMPLETIONS) -> dict[Place, list[str]]:
    """Return the places of the groups to keep, the most important first, with the reasons for each.

    Args:
        steps: steps whose groups all come first.
    """
    chosen: dict[Place, list[str]] = {}
    count = misses = 0
    for place, reason in wanted(digests, steps):
        if misses > MAX_MISSES:  # hardly anything more would fit
            break
        if place in chosen:
            if reason and reason not in chosen[place]:
                chosen[place].append(reason)
            continue
        size = len(digests[place.split][place.step].lines(place.number))
        if count + size <= limit or (reason == "asked for" and count < 10 * limit):
            chosen[place] = [reason] if reason else []
            count += size
        else:
            misses += 1
    return chosen


def wanted(digests: Digested, steps: Sequence[int]) -> Iterator[tuple[Place, str]]:
    """Yield groups, the most important first, with the reason to keep each; the reason is empty for filling groups."""
    train, held_out = digests["train"], digests["held_out"]
    for step in steps:
        for split in ("train", "held_out"):
            if step in digests[split]:
                yield from ((Place(split, step, n), "asked for") for n in range(digests[split][step].num_groups))
    seen = set[str]()
    for step, each in train.items():
        for name, number in each.first_shown.items():
            if name not in seen:
                yield Place("train", step, number), f"first {name.replace('_', ' ')}"
                seen.add(name)
    faults = (places("train", step, each.faults) for step, each in spread(train))
    yield from ((place, "fault") for place in islice(in_turn(faults), MAX_FAULTS))
    for step in ends_and_middle(list(held_out)):
        yield from (
            (Place("held_out", step, n), "evaluation") for n in range(min(QUESTIONS, held_out[step].num_groups))
        )
    evaluated = [(step, train[step]) for step in held_out if step in train]
    firsts = (places("train", step, range(min(EACH_STEP, each.num_groups))) for step, each in evaluated)
    for pair in zip_longest(((place, "step of an evaluation") for place in in_turn(firsts)), largest(train)):
        yield from (each for each in pair if each is not None)
    others = (places("train", step, range(each.num_groups)) for step, each in spread(train))
    yield from ((place, "") for place in in_turn(others))
    rest = (places("held_out", step, range(each.num_groups)) for step, each in spread(held_out))
    yield from ((place, "") for place in in_turn(rest))


def largest(train: Mapping[int, StepDigest]) -> Iterator[tuple[Place, str]]:
    """Yield, for each step, the group with the largest advantage, and the group with the largest gap."""
    for step, each in spread(train):
        for found, reason in ((each.largest_advantage, "largest advantage"), (each.largest_gap, "largest gap")):
            if found:
                yield Place("train", step, int(found[0])), reason


def places(split: Split, step: int, numbers: Iterable[int]) -> Iterator[Place]:
    return (Place(split, step, number) for number in numbers)


def in_turn(lists: Iterable[Iterable[Place]]) -> Iterator[Place]:
    """Yield the first item of each list, then the second item of each, and so on."""
    for row in zip_longest(*lists):
        yield from (place for place in row if place is not None)


def spread(digests: Mapping[int, StepDigest]) -> list[tuple[int, StepDigest]]:
    """Return the steps in an order whose first items are always spread over the run: last, first, then round numbers.

    Numbers with more trailing zeros in binary come first, so that a new step changes the order only a little.
    """
    steps = list(digests)
    order = list(dict.fromkeys([*steps[-1:], *steps[:1], *sorted(steps, key=reversed_bits)]))
    return [(step, digests[step]) for step in order]


def reversed_bits(step: int) -> int:
    return int(f"{step:032b}"[::-1], 2)


def ends_and_middle(steps: Sequence[int]) -> list[int]:
    """Return the first, the last and the middle step, without repeats."""
    return list(dict.fromkeys([steps[0], steps[-1], steps[len(steps) // 2]])) if steps else []


def read_groups(file: Path, places: Sequence[Place], digest: StepDigest) -> Iterator[KeptGroup]:
    """Yield groups of a file with their records, without groups that were rewritten meanwhile.

    Raises FileNotFoundError if a resumed run has removed the file.
    """
    lines = {line: place for place in places for line in digest.lines(place.number)}
    groups = {place: KeptGroup(place) for place in places}
    if lines:
        for number, record in records_of(file, lines):
            groups[lines[number]].records.append(record)
    yield from (group for group in groups.values() if group.records)
