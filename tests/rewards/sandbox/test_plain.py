"""What may pass between a candidate and its judge, and that nothing else does."""

from __future__ import annotations

import math
import os
import time
from collections import Counter, OrderedDict
from enum import IntEnum
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.sandbox import plain

Plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    | st.frozensets(st.integers() | st.text()) | st.sets(st.integers()),
)  # fmt: skip


@given(Plain)
@settings(max_examples=60)
def test_plain_data_crosses_unchanged(value: object) -> None:
    received = _crossed(value)
    assert received == value and type(received) is type(value)


def test_what_is_special_about_plain_data() -> None:
    assert math.isnan(_crossed(math.nan)) and _crossed(-math.inf) == -math.inf
    assert _crossed("\ud800 \x00") == "\ud800 \x00"
    assert _crossed(-(7**20_000)) == -(7**20_000)  # Python refuses so many decimal digits


class Liar(list):
    def __iter__(self):
        return iter([42])

    def __eq__(self, other: object) -> bool:
        return True


class Weekday(IntEnum):
    MONDAY = 1


@pytest.mark.parametrize(
    ("value", "plain_value"),
    [(Counter("aab"), {"a": 2, "b": 1}), (OrderedDict(x=1), {"x": 1}), (Weekday.MONDAY, 1), (Liar([7]), [7])],
)
def test_a_subclass_crosses_as_the_plain_type(value: object, plain_value: object) -> None:
    received = _crossed(value)
    assert type(received) is type(plain_value)
    assert plain_value == received


@pytest.mark.parametrize("value", [object(), len, iter([]), range(3), {1: object()}, type, bytearray(b"x")])
def test_nothing_else_crosses(value: object) -> None:
    with pytest.raises(plain.NotPlainError):
        plain.encode(value)


def test_what_is_nested_without_end_does_not_cross() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(plain.NotPlainError):
        plain.encode(endless)


@pytest.mark.parametrize(
    "frame",
    [
        {"pickle": "gASV"}, {"tuple": 1}, {"set": [[1]]}, {"set": [{"dict": []}]}, {"dict": [[1]]}, {"dict": 5},
        {"int": 7}, {"int": "x"}, {"bytes": "\u0100"}, {"complex": [1]}, {"complex": ["a", "b"]},
        {"complex": [10**400, 0]}, {"a": 1, "b": 2}, {}, {"frozenset": {}},
    ],
)  # fmt: skip
def test_a_malformed_value_is_refused(frame: object) -> None:
    with pytest.raises(plain.NotPlainError):
        plain.decode(frame)


@pytest.mark.parametrize(
    "content", [b"\xff\xff\xff\xff", b"\0\0\0\x02{x", b"\0\1\x86\xa0" + b"[" * 100_000, b"\0\0\0\x01\xff"]
)
def test_a_malformed_frame_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "frame").write_bytes(content)
    with (tmp_path / "frame").open("rb") as file, pytest.raises(plain.NotPlainError):
        plain.decode(plain.read(file.fileno()))


def test_a_reader_does_not_wait_for_ever() -> None:
    reading, writing = os.pipe()
    with pytest.raises(TimeoutError):
        plain.read(reading, time.monotonic() + 0.05)
    os.close(writing)
    with pytest.raises(EOFError):
        plain.read(reading)
    os.close(reading)


def _crossed(value: object) -> object:
    with os.fdopen(os.memfd_create("frame"), "r+b", 0) as file:
        plain.write(file.fileno(), plain.encode(value))
        file.seek(0)
        return plain.decode(plain.read(file.fileno()))
