"""Numbers that keep their text from a file."""

from __future__ import annotations

from typing import Any


class WrittenFloat(float):
    """A float that is shown as it was written: `2.50`, `1e3`, or with more digits than a float has."""

    _text: str

    def __new__(cls, text: str) -> WrittenFloat:
        """Raise ValueError for a text that is not a number."""
        self = super().__new__(cls, text)
        self._text = text
        return self

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    def __reduce__(self) -> tuple[Any, ...]:
        return WrittenFloat, (self._text,)


def written_float(text: str) -> float:
    """Return the number in a text; it keeps the text if Python would show another one."""
    value = float(text)
    return value if repr(value) == text else WrittenFloat(text)
