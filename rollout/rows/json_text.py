"""Read JSON exactly as written: values keep their type, and numbers keep their digits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import IO, Any, NoReturn

from rollout.rows.row import LocatedRow, Row, RowError
from rollout.types.numbers import WrittenFloat, written_float

MAX_LINE_BYTES = 2**28
MAX_LIST_BYTES = 2**31
"""Largest file with one JSON list, which is read at once, in bytes. Files of JSON lines have no limit."""
BOM = b"\xef\xbb\xbf"

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BETWEEN = re.compile(r"\s*(,?)\s*")


def json_rows(file: IO[bytes], source: str) -> Iterator[LocatedRow]:
    """Yield the rows of an open file: JSON lines without the empty ones, or a list of objects.

    Raises RowError if no further row can be found.
    """
    lines = numbered_lines(file, source)
    for where, line in lines:
        if line.lstrip().startswith(b"["):
            yield from _listed(line + file.read(MAX_LIST_BYTES), source)
            return
        if line.strip():
            lines = chain([(where, line)], lines)
            break
    for where, line in lines:
        if line.strip():
            yield LocatedRow(where, _caught(line, where))


def numbered_lines(file: IO[bytes], source: str) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of an open file with their places, a byte order mark left out.

    Raises RowError for a line of more than MAX_LINE_BYTES.
    """
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
        where = f"{source}, line {number}"
        if len(line) == MAX_LINE_BYTES:
            raise RowError(f"{where} has {MAX_LINE_BYTES} bytes or more: it is not a row; write one object per line")
        yield where, line.removeprefix(BOM) if number == 1 else line


def decoded(text: bytes, where: str) -> str:
    """Return the text of UTF-8. Raises RowError for other bytes."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{text[error.start]:02x} at position {error.start + 1}"
        raise RowError(
            f"{where} is not UTF-8 ({byte}): save the file as UTF-8, such as with `iconv -f ISO-8859-1 -t UTF-8`"
        ) from None


def parse_object(text: str, where: str) -> Row:
    """Return the object of a JSON text. Raises RowError for anything else."""
    text = text.rstrip()
    row, _ = _parse(text, len(text) - len(text.lstrip()), where, is_whole=True)
    return row


def json_text(value: Any) -> str:
    """Return the value as JSON, its numbers as they were written."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json_text(str(key))}: {json_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return str(value) if isinstance(value, WrittenFloat) else json.dumps(value, ensure_ascii=False, default=str)


def _caught(line: bytes, where: str) -> Row | RowError:
    try:
        return parse_object(decoded(line, where), where)
    except RowError as error:
        return error


def _listed(content: bytes, source: str) -> Iterator[LocatedRow]:
    """Yield the objects of a list. Raises RowError if the rest of the list cannot be read."""
    if len(content) >= MAX_LIST_BYTES:
        raise RowError(f"{source} is a list of {MAX_LIST_BYTES} bytes or more: write one object a line instead")
    text = decoded(content, source)
    position, number = _BETWEEN.match(text, text.index("[") + 1).end(), 0  # type: ignore[union-attr]
    while not text.startswith("]", position):
        where = f"{source}, row {number}"
        row, position = _parse(text, position, where)
        yield LocatedRow(where, row)
        between = _BETWEEN.match(text, position)
        assert between is not None
        if not between[1] and not text.startswith("]", between.end()):
            found = repr(text[between.end() :][:20]) if text[between.end() :] else "the end of the file"
            raise RowError(f"{where} is followed by {found} instead of `,` or `]`: fix the list")
        position, number = between.end(), number + 1
    if text[position + 1 :].strip():
        raise RowError(f"{source}: the list is followed by {text[position + 1 :].strip()[:20]!r}: remove it")


def _parse(text: str, start: int, where: str, is_whole: bool = False) -> tuple[Row, int]:
    """Return the object that starts at `start`, and where it ends. With `is_whole` nothing may follow it."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if is_whole else f"line {error.lineno}, column {error.colno}"
        raise RowError(f"{where} is not JSON ({error.msg} at {place}): {_FIX}") from None
    except RecursionError:
        raise RowError(f"{where} is nested too deep: write a flat object") from None
    except ValueError as error:
        raise RowError(f"{where}: {error}") from None
    if is_whole and (rest := text[end:].strip()):
        raise RowError(f"{where}: its object is followed by {rest[:20]!r}: {_FIX}")
    if not isinstance(value, dict):
        raise RowError(f"{where} is not an object, but {json_text(value)[:40]}: {_FIX}")
    if _SURROGATE.search(text, start, end):
        _refuse_surrogates(value, where)
    return value, end


def _refuse_surrogates(row: Row, where: str) -> None:
    for column, value in row.items():
        try:
            json_text({column: value}).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):x}"
            raise RowError(
                f"{where}: column {column!r} holds {half}, half of a character that takes two (a lone surrogate), "
                "which no tokenizer reads: write the whole character, or leave the row out"
            ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} occurs twice in one object: remove one of them")
    return found


def _float(text: str) -> float:
    value = written_float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is above what a number holds: write it as text, in quotes")
    return value


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"a whole number of {len(text)} digits is above what is read: write it as text") from None


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON: write a text in quotes, null, or leave the row out")


_FIX = "write one object per line, or a list of objects"
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_constant)
