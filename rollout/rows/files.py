"""Rows of local files: JSON lines, JSON, CSV and Parquet, each value as the file has it."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from rollout.rows.json_text import decoded, json_rows, numbered_lines
from rollout.rows.row import LocatedRow, RowError
from rollout.types.paths import from_home

GZIP = b"\x1f\x8b"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
ROWS_PER_BATCH = 1024


def format_of(path: str) -> str | None:
    """Return `json`, `csv` or `parquet` by the ending of a file's name; None for another ending."""
    return ENDINGS.get("".join(Path(path.lower()).suffixes[-2:])) or ENDINGS.get(Path(path.lower()).suffix)


def file_rows(path: str, key: str, format: str | None = None) -> Iterator[LocatedRow]:
    """Return the rows of a local file; they are read lazily.

    Args:
        key: the setting that names the file, for errors.
        format: how to read it; None: as the ending of its name says.

    Raises FileNotFoundError, ValueError for a file that cannot be read or has no rows, and RowError for a row behind
    which nothing can be read.
    """
    what = f"{key} = {path!r}"
    place = Path(from_home(path))
    if not place.is_file():
        raise FileNotFoundError(f"{what}: {'Is a directory; name a file in it' if place.is_dir() else 'no such file'}")
    format = format or format_of(path)
    if format is None:
        ending = f"ends in {place.suffix!r}, which" if place.suffix else "has no ending, and so"
        raise ValueError(f"{what} {ending} is not read: save it as one of {', '.join(ENDINGS)}, and name it so")
    return _checked(READERS[format](place, path), what)


def _checked(rows: Iterator[LocatedRow], what: str) -> Iterator[LocatedRow]:
    """Yield the rows. Raises ValueError if there are none, or the file is truncated."""
    is_empty = True
    try:
        for row in rows:
            is_empty = False
            yield row
    except RowError:
        raise
    except (OSError, EOFError, zlib.error, csv.Error, ValueError) as error:
        reason = f"{error}" if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(f"{what} cannot be read ({reason})") from error
    if is_empty:
        raise ValueError(f"{what} has no rows: give a file that has some, one object per line")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a text file, uncompressed if needed. Raises ValueError for UTF-16."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in UTF_16:
        raise ValueError("it is UTF-16, not UTF-8: save it as UTF-8, such as with `iconv -f UTF-16 -t UTF-8`")
    opener: Callable[..., Any] = gzip.open if start == GZIP else open
    with opener(path, "rb") as file:
        yield file


def _json(path: Path, source: str) -> Iterator[LocatedRow]:
    with _opened(path) as file:
        yield from json_rows(file, source)


def _csv(path: Path, source: str) -> Iterator[LocatedRow]:
    """Yield the rows below the line of names. Every value is text, since nothing says which of them are numbers."""
    with _opened(path) as file:
        reader = csv.reader((decoded(line, where) for where, line in numbered_lines(file, source)), strict=True)
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise ValueError(f"its first line names a column twice: {names}")
        line = reader.line_num + 1
        for values in reader:
            where, line = f"{source}, line {line}", reader.line_num + 1
            if len(values) == len(names):
                yield LocatedRow(where, dict(zip(names, values, strict=True)))
            elif values:
                count = f"{len(values)} values for the {len(names)} columns {names}"
                yield LocatedRow(where, RowError(f"{where} has {count}: put a value that holds commas in quotes"))


def _parquet(path: Path, source: str) -> Iterator[LocatedRow]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise ValueError(f"it names a column twice: {names}")
        number = 0
        for batch in file.iter_batches(ROWS_PER_BATCH):
            for found in _batch_rows(batch):
                where = f"{source}, row {number}"
                is_bad = isinstance(found, UnicodeDecodeError)
                yield LocatedRow(where, RowError(f"{where} holds text that is not UTF-8: {found}") if is_bad else found)
                number += 1


def _batch_rows(batch: Any) -> list[Any]:
    """Return the rows of a batch; in place of one whose text is not UTF-8, the UnicodeDecodeError."""
    try:
        rows: list[Any] = batch.to_pylist()
    except UnicodeDecodeError as error:
        return (
            [error]
            if batch.num_rows == 1
            else [row for number in range(batch.num_rows) for row in _batch_rows(batch.slice(number, 1))]
        )
    for name, values in numbers_of(batch).items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def numbers_of(table: Any) -> dict[str, list[Any]]:
    """Return the columns of an Arrow table that hold floats, each number with its own digits. NaN is a missing value.

    As a float of 64 bits 0.1 of 32 would be 0.10000000149011612.
    """
    import pyarrow

    found = {}
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        values, as_text = table[name], with_floats(kind, pyarrow.string())
        if as_text != kind:
            values = values.cast(as_text).cast(with_floats(kind, pyarrow.float64()))
        elif not pyarrow.types.is_floating(kind):
            continue
        numbers = values.to_pylist()
        if pyarrow.types.is_float16(kind):
            numbers = [None if each is None else float(str(np.float16(each))) for each in numbers]
        found[name] = [None if each != each else each for each in numbers]
    return found


def with_floats(kind: Any, other: Any) -> Any:
    """Return an Arrow type with `other` in place of floats of 32 bits, in lists and structs too."""
    import pyarrow

    if pyarrow.types.is_float32(kind):
        return other
    if pyarrow.types.is_struct(kind):
        return pyarrow.struct([field.with_type(with_floats(field.type, other)) for field in kind])
    if pyarrow.types.is_fixed_size_list(kind):
        return pyarrow.list_(with_floats(kind.value_type, other), kind.list_size)
    if pyarrow.types.is_list(kind):
        return pyarrow.list_(with_floats(kind.value_type, other))
    return kind


READERS: Mapping[str, Callable[[Path, str], Iterator[LocatedRow]]] = {"json": _json, "csv": _csv, "parquet": _parquet}
TEXTS = {".jsonl": "json", ".json": "json", ".csv": "csv"}
ENDINGS = TEXTS | {f"{ending}.gz": format for ending, format in TEXTS.items()} | {".parquet": "parquet"}
