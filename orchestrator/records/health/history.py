"""The steps that alarms look back at, from the rows of metrics.jsonl."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf

Row = Mapping[str, float]
"""One line of metrics.jsonl."""


class History:
    """The first step, the last few, and those before them. Fed one row after the other."""

    def __init__(self, num_steps: int) -> None:
        """`num_steps` is how long something must last before it is said."""
        self.num_steps = num_steps
        self._recent: deque[Row] = deque(maxlen=2 * num_steps)
        self._first: dict[str, float] = {}
        self._highest: dict[str, float] = {}

    def add(self, row: Row) -> None:
        self._recent.append(row)
        # A step without gradient, or one whose update was skipped, is nothing to compare later ones with.
        self._first = {key: value for key, value in row.items() if 0 < value < inf} | self._first
        for key, value in row.items():
            self._highest[key] = max(value, self._highest.get(key, value))

    @property
    def last(self) -> list[Row]:
        """The last `num_steps` rows; all there are while there are fewer."""
        return list(self._recent)[-self.num_steps :]

    def values(self, key: str) -> list[float]:
        """Return the metric over the last `num_steps` rows; nothing until there are so many that all have it."""
        found = [row[key] for row in self.last if key in row]
        return found if len(found) == self.num_steps else []

    def earlier(self, key: str) -> list[float]:
        """Return the metric over up to `num_steps` rows before those."""
        return [row[key] for row in list(self._recent)[: -self.num_steps] if key in row]

    def first(self, key: str) -> float | None:
        """Return the first value of the metric that is finite and above 0; None where there is none."""
        return self._first.get(key)

    def highest(self, key: str) -> float | None:
        """Return the highest value of the metric in any step; None where there is none."""
        return self._highest.get(key)


def named(pattern: str, row: Row) -> dict[str, str]:
    """Return the keys of the row that fit the pattern, by the name that its group holds."""
    found = ((re.fullmatch(pattern, key), key) for key in row)
    return {match[1]: key for match, key in found if match}


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def mean_of(rows: Sequence[Row], key: str) -> float:
    """Return the mean of the metric over the rows that have it; 0 where none has."""
    return mean([row[key] for row in rows if key in row])
