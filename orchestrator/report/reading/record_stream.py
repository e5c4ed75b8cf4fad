"""The records of a compressed file, one after the other: a report never holds a whole step's completions."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

Record = dict[str, Any]
"""A completion as the run directory keeps it."""

LONGEST_LINE = 32 * 2**20
"""Characters of a line beyond which it is passed over: a completion takes kilobytes."""


class RecordGroup(NamedTuple):
    """The completions of a prompt, which stand one after the other."""

    first_line: int
    """In the file, counted from 0."""
    num_lines: int
    records: list[Record]


def lines_of(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the whole lines of a file with their numbers. One that a kill tore ends where it was torn."""
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
    """Yield a file's groups of completions, each whole."""
    for _, found in groupby(records_of(file), key=lambda pair: pair[1].get("prompt_id")):
        numbers, records = zip(*found, strict=True)
        yield RecordGroup(numbers[0], numbers[-1] - numbers[0] + 1, list(records))


def records_of(file: Path, wanted: Collection[int] | None = None) -> Iterator[tuple[int, Record]]:
    """Yield a file's records with the numbers of their lines; of `wanted` lines only, where they are given."""
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
