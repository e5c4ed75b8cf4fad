"""Plain data between processes that do not trust each other: strict, bounded, and nothing that runs code.

A frame is four bytes of length and that much JSON. None, bools, strings, floats and small ints stand for themselves, a
JSON list for a list; everything else is an object of one key that names the type:

    {"tuple": [...]}  {"set": [...]}  {"frozenset": [...]}  {"dict": [[key, value], ...]}
    {"int": "ff"}     {"bytes": "latin-1"}                  {"complex": [real, imaginary]}

A subclass crosses as the plain type it derives from (a Counter as a dict, an IntEnum as an int), so no method of the
sender's ever runs at the receiver's. Anything else is refused. There is no pickle and no marshal here: loading either
from an untrusted sender hands over the process.
"""

from __future__ import annotations

import json
import os
import select
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FRAME_BYTES = 16 * 2**20
MAX_DEPTH = 100
_SMALL = 2**53
"""Larger ints are written in hexadecimal, because Python limits decimal conversion, and it is slow."""
_COLLECTIONS: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_HEADER = struct.Struct("!I")


class NotPlainError(TypeError):
    """A value cannot be sent, or a frame is malformed or too long."""


def encode(value: Any, depth: int = 0) -> Any:
    """Return the JSON for ``value``. Raises NotPlainError for other types, and past MAX_DEPTH."""
    if value is None or value is True or value is False:
        return value
    if depth > MAX_DEPTH:
        raise NotPlainError(f"a value nested deeper than {MAX_DEPTH} cannot cross")
    if isinstance(value, int):
        value = int(value)
        return value if -_SMALL <= value <= _SMALL else {"int": f"{value:x}"}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [encode(item, depth + 1) for item in list.__iter__(value)]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return {"dict": [[encode(key, depth + 1), encode(item, depth + 1)] for key, item in pairs]}
    for name, kind in _COLLECTIONS.items():
        if isinstance(value, kind):
            return {name: [encode(item, depth + 1) for item in kind.__iter__(value)]}
    if isinstance(value, bytes):
        return {"bytes": bytes(value).decode("latin-1")}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    raise NotPlainError(f"a value of type {type(value).__name__} cannot cross")


def decode(data: Any, depth: int = 0) -> Any:
    """Return the value that ``encode`` wrote. Raises NotPlainError for data that ``encode`` cannot have written."""
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if depth > MAX_DEPTH:
        raise NotPlainError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(data, list):
        return [decode(item, depth + 1) for item in data]
    if not isinstance(data, dict) or len(data) != 1:
        raise NotPlainError("not plain data")
    ((kind, content),) = data.items()
    try:
        return _decode_object(kind, content, depth)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise NotPlainError(f"not plain data: {error}") from error


def _decode_object(kind: str, content: Any, depth: int) -> Any:
    if kind == "int":
        return int(content, 16)
    if kind == "bytes":
        return content.encode("latin-1")
    if kind == "complex":
        real, imaginary = content
        return complex(real, imaginary)
    if kind == "dict":
        return {decode(key, depth + 1): decode(value, depth + 1) for key, value in content}
    if kind in _COLLECTIONS and isinstance(content, list):
        return _COLLECTIONS[kind](decode(item, depth + 1) for item in content)
    raise NotPlainError(f"not plain data: {kind[:20]!r}")


def write(descriptor: int, data: Any) -> None:
    """Write one frame of JSON data. Raises NotPlainError past MAX_FRAME_BYTES, OSError if nobody reads."""
    body = json.dumps(data, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise NotPlainError(f"{len(body)} bytes are more than a frame may have, {MAX_FRAME_BYTES}")
    rest = memoryview(_HEADER.pack(len(body)) + body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read(descriptor: int, deadline: float | None = None) -> Any:
    """Read one frame of JSON data.

    Raises EOFError when the writer is gone, NotPlainError for anything else than a frame, TimeoutError after
    ``deadline``, in seconds of the monotonic clock.
    """
    (length,) = _HEADER.unpack(_read_exactly(descriptor, _HEADER.size, deadline))
    if length > MAX_FRAME_BYTES:
        raise NotPlainError(f"a frame of {length} bytes, more than {MAX_FRAME_BYTES}")
    try:
        return json.loads(_read_exactly(descriptor, length, deadline))
    except (ValueError, RecursionError) as error:
        raise NotPlainError("a frame that is not JSON") from error


def _read_exactly(descriptor: int, length: int, deadline: float | None) -> bytes:
    content = bytearray()
    while len(content) < length:
        if deadline is not None:
            _wait(descriptor, deadline)
        chunk = os.read(descriptor, min(length - len(content), 2**16))
        if not chunk:
            raise EOFError("the other process is gone")
        content += chunk
    return bytes(content)


def _wait(descriptor: int, deadline: float) -> None:
    events = select.poll()
    events.register(descriptor, select.POLLIN)
    if not events.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError("the other process says nothing")
