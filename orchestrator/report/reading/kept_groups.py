"""The groups of a report in the page's format, stored beside the run, so that the next report adds only new ones.

These files are only a cache: a report without them reads the same groups from the files of completions.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.report.reading.digests import Key, key_of
from orchestrator.report.reading.embedding import embedded
from orchestrator.report.reading.kept import Digested, KeptGroup, Place, Split, read_groups

logger = logging.getLogger(__name__)

FILE = ".report-groups.jsonl"
"""File in the run directory. Its first line identifies the format; then each line has a group's place, a tab, and the
group."""
Files = Mapping[Split, Mapping[int, Path]]


class PageGroup(NamedTuple):
    """A group in the page's format."""

    size: int
    """Bytes in the page."""
    text: str = ""
    """The embedded text of the group; empty if there was no room for it."""
    group: dict[str, Any] | None = None
    """The content of the text."""


@dataclass(slots=True)
class GroupShelf:
    """Adds groups to a report until it reaches its largest size."""

    make: Callable[[KeptGroup], dict[str, Any]]
    """Converts a group into the page's format."""
    made_by: str
    """Identifies the version of the format and the tokenizer. Stored groups with another value are not used."""
    max_bytes: int
    groups: list[dict[str, Any]] = field(default_factory=list)
    num_completions: int = 0
    num_bytes: int = 0
    _before: dict[tuple[Key, int], PageGroup] = field(default_factory=dict)
    """Groups of the previous report, by file and number."""
    _now: dict[tuple[Key, int], PageGroup] = field(default_factory=dict)

    def recall(self, run: Path) -> None:
        """Read the groups of the previous report. Skip partial lines."""
        self._before = dict(read_lines(run / FILE, self.made_by))

    def keep(self, run: Path) -> None:
        """Store the groups of this report for the next one, if they differ from those of the previous report."""
        if self._now == self._before:
            return
        lines = (f"{json.dumps([*place, each.size])}\t{each.text}\n" for place, each in self._now.items())
        try:
            write_atomically(run / FILE, "".join([self.made_by + "\n", *lines]))
        except OSError as error:  # the next report computes them again
            logger.info("%s: the groups of the report cannot be written (%s)", run / FILE, error.strerror)

    def add(self, chosen: Mapping[Place, list[str]], digests: Digested, files: Files) -> None:
        """Add the chosen groups, file by file, in their order, without groups that were rewritten meanwhile."""
        by_file: dict[tuple[Split, int], list[Place]] = {}
        for place in chosen:
            by_file.setdefault((place.split, place.step), []).append(place)
        for (split, step), places in by_file.items():
            file = files[split][step]
            try:
                key = key_of(file, file.stat())
                missing = [place for place in places if self._is_to_be_read(key, place.number)]
                read = {each.place: each for each in read_groups(file, missing, digests[split][step])}
            except FileNotFoundError:
                continue
            for place in places:
                self._put(key, place, chosen[place], read.get(place))

    def _is_to_be_read(self, key: Key, number: int) -> bool:
        before = self._before.get((key, number))
        return before is None or (before.group is None and self.num_bytes + before.size <= self.max_bytes)

    def _put(self, key: Key, place: Place, reasons: list[str], read: KeptGroup | None) -> None:
        before = self._before.get((key, place.number))
        if read is not None:
            text = embedded(self.make(read))
            before = PageGroup(len(text), text, json.loads(text))
        if before is None:
            return
        is_room = self.num_bytes + before.size <= self.max_bytes
        self._now[key, place.number] = before if is_room else PageGroup(before.size)
        if is_room and before.group is not None:
            self.groups.append(before.group | ({"reasons": reasons} if reasons else {}))
            self.num_completions += len(before.group["completions"])
            self.num_bytes += before.size


def read_lines(file: Path, made_by: str) -> Iterator[tuple[tuple[Key, int], PageGroup]]:
    """Yield the stored groups of a report, if the file has the same `made_by`."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        if next(lines, "") != made_by + "\n":
            return
        yield from whole_groups(lines)


def whole_groups(lines: Iterable[str]) -> Iterator[tuple[tuple[Key, int], PageGroup]]:
    for line in lines:
        place, _, text = line.removesuffix("\n").partition("\t")
        try:
            (name, size, time), number, length = json.loads(place)
            group = json.loads(text) if text else None
        except (ValueError, TypeError):
            continue
        if line.endswith("\n") and len(text) in (0, length):
            yield ((name, size, time), number), PageGroup(length, text, group)
