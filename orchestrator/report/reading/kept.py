"""Which completions a report holds: whole groups, by a rule that is said in the report, within two limits."""

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
"""Held-out questions that are kept of the first evaluation, the middle one and the last."""
EACH_STEP = 4
"""Groups that are kept of a step with an evaluation before others are filled up."""
MAX_FAULTS = 40
"""Groups that are kept for a fault alone."""
RULE = (
    "Kept are whole groups, in this order until there are {limit:,} completions or the page is full: the first group "
    "that shows each behaviour; up to {faults} groups with a fault, evenly over the run; the first questions of the "
    "first, the middle and the last evaluation; groups of steps with an evaluation, in turn with the group of the "
    "largest advantage and of the largest gap of each step; then others, evenly over the run. `rayzero report RUN "
    "--steps N` keeps those of step N first."
)

MAX_MISSES = 200
"""Groups that are tried in vain before nothing more is expected to fit."""

Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a group stands."""

    split: Split
    step: int
    number: int
    """Among the groups of its file."""


@dataclass(slots=True)
class KeptGroup:
    """A group that the report holds."""

    place: Place
    records: list[Record] = field(default_factory=list)


Digested = Mapping[Split, Mapping[int, StepDigest]]


def choose(digests: Digested, steps: Sequence[int] = (), limit: int = MAX_COMPLETIONS) -> dict[Place, list[str]]:
    """Return the places of the groups to keep, the most wanted first, with the reasons of each.

    Args:
        steps: steps of which all groups come first.
    """
    chosen: dict[Place, list[str]] = {}
    count = misses = 0
    for place, reason in wanted(digests, steps):
        if misses > MAX_MISSES:  # it is as full as it gets
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
    """Yield groups with the reason to keep each, the most wanted first; empty where others had better reasons."""
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
        yield from (found for found in pair if found is not None)
    others = (places("train", step, range(each.num_groups)) for step, each in spread(train))
    yield from ((place, "") for place in in_turn(others))
    rest = (places("held_out", step, range(each.num_groups)) for step, each in spread(held_out))
    yield from ((place, "") for place in in_turn(rest))


def largest(train: Mapping[int, StepDigest]) -> Iterator[tuple[Place, str]]:
    """Yield of each step the group with the largest advantage, and that with the largest gap."""
    for step, each in spread(train):
        for found, reason in ((each.largest_advantage, "largest advantage"), (each.largest_gap, "largest gap")):
            if found:
                yield Place("train", step, int(found[0])), reason


def places(split: Split, step: int, numbers: Iterable[int]) -> Iterator[Place]:
    return (Place(split, step, number) for number in numbers)


def in_turn(lists: Iterable[Iterable[Place]]) -> Iterator[Place]:
    """Yield the first of each list, then the second of each, and so on."""
    for row in zip_longest(*lists):
        yield from (place for place in row if place is not None)


def spread(found: Mapping[int, StepDigest]) -> list[tuple[int, StepDigest]]:
    """Return steps in an order in which every beginning lies evenly over the run: last, first, then round numbers.

    Rounder in binary comes first, so that with each new step nearly the same ones come first as before.
    """
    steps = list(found)
    order = list(dict.fromkeys([*steps[-1:], *steps[:1], *sorted(steps, key=reversed_bits)]))
    return [(step, found[step]) for step in order]


def reversed_bits(step: int) -> int:
    return int(f"{step:032b}"[::-1], 2)


def ends_and_middle(steps: Sequence[int]) -> list[int]:
    """Return the first, the last and the middle one, fewer where there are fewer."""
    return list(dict.fromkeys([steps[0], steps[-1], steps[len(steps) // 2]])) if steps else []


def read_groups(file: Path, places: Sequence[Place], digest: StepDigest) -> Iterator[KeptGroup]:
    """Yield groups of a file with their records; without those that were rewritten meanwhile.

    Raises FileNotFoundError where a resumed run has removed it.
    """
    lines = {line: place for place in places for line in digest.lines(place.number)}
    groups = {place: KeptGroup(place) for place in places}
    if lines:
        for number, record in records_of(file, lines):
            groups[lines[number]].records.append(record)
    yield from (group for group in groups.values() if group.records)
