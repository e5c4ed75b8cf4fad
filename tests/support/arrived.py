"""A stand-in for Ray's streams of results."""

from __future__ import annotations

from typing import Any


class Arrived(list):
    """A stream of what has arrived, in place of an ObjectRefGenerator."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def next_ready(self) -> bool:
        return bool(self)

    def __next__(self) -> Any:
        if not self:
            raise StopIteration
        return self.pop(0)
