"""Read the records of a compressed file one by one, so that a report never holds all completions of a step."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

Record = dict[str, Any]
"""A completion's record in the run directory."""

LONGEST_LINE = 32 * 2**20
"""Longer lines, in characters, are skipped; a completion takes kilobytes."""


class RecordGroup(NamedTuple):
    """The completions of a prompt, which are consecutive in the file."""

    first_line: int
    """Number of the first line in the file, counted from 0."""
    num_lines: int
    records: list[Record]


def lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the complete lines of a file with their numbers. A truncated file ends at its last complete line."""
    with file.open("rb") as compressed, zstandard.ZstdDecompressor().stream_reader(compressed) as stream:
        text = io.TextIOWrapper(stream, "utf-8", "replace", newline="\n")
        number = 0
        try:
            while line := text.readline(LONGEST_LINE):
                is_whole = line.endswith("\n")
                if is_whole:
                    yield number, line
                while not is_whole and (rest := text.readline(LONGEST_LINE)):
                    is_whole = rest.endswith("\n")
                number += 1
        except zstandard.ZstdError:
            return


def groups_of(file: Path) -> Iterator[RecordGroup]:
    """Yield a file's complete groups of completions."""
    for _, pairs in groupby(records_of(file), key=lambda pair: pair[1].get("prompt_id")):
        numbers, records = zip(*pairs, strict=True)
        yield RecordGroup(numbers[0], numbers[-1] - numbers[0] + 1, list(records))


def records_of(file: Path, wanted: Collection[int] | None = None) -> Iterator[tuple[int, Record]]:
    """Yield a file's records with the numbers of their lines; only the lines `wanted`, if given."""
    last = max(wanted, default=-1) if wanted is not None else None
    for number, line in lines_of(file):
        if last is not None and number > last:
            return
        if wanted is not None and number not in wanted:
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("completion"), str):
            yield number, record
