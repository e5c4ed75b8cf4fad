"""The recent steps that alarms look at, from the rows of metrics.jsonl."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from math import inf

Row = Mapping[str, float]
"""One line of metrics.jsonl."""


class History:
    """Keeps each metric's first and highest value, the last `num_steps` rows, and as many before them."""

    def __init__(self, num_steps: int) -> None:
        """`num_steps` is the number of steps that a problem must last before it is reported."""
        self.num_steps = num_steps
        self._recent: deque[Row] = deque(maxlen=2 * num_steps)
        self._first: dict[str, float] = {}
        self._highest: dict[str, float] = {}

    def add(self, row: Row) -> None:
        self._recent.append(row)
        # Later values cannot be compared with those of a step without a gradient or with a skipped update.
        self._first = {key: value for key, value in row.items() if 0 < value < inf} | self._first
        for key, value in row.items():
            self._highest[key] = max(value, self._highest.get(key, value))

    @property
    def last(self) -> list[Row]:
        """The last `num_steps` rows, or all rows if there are fewer."""
        return list(self._recent)[-self.num_steps :]

    def values(self, key: str) -> list[float]:
        """Return the metric in the last `num_steps` rows; empty unless there are that many and all have it."""
        values = [row[key] for row in self.last if key in row]
        return values if len(values) == self.num_steps else []

    def earlier(self, key: str) -> list[float]:
        """Return the metric in up to `num_steps` rows before the last `num_steps` rows."""
        return [row[key] for row in list(self._recent)[: -self.num_steps] if key in row]

    def first(self, key: str) -> float | None:
        """Return the first value of the metric that is finite and above 0; None if there is none."""
        return self._first.get(key)

    def highest(self, key: str) -> float | None:
        """Return the highest value of the metric in any step; None if no step has it."""
        return self._highest.get(key)


def named(pattern: str, row: Row) -> dict[str, str]:
    """Return the keys of the row that match the pattern, by the text of the pattern's first group."""
    matches = ((re.fullmatch(pattern, key), key) for key in row)
    return {match[1]: key for match, key in matches if match}


def mean(values: Sequence[float]) -> float:
    """Return the mean; 0 for no values."""
    return sum(values) / len(values) if values else 0.0


def mean_of(rows: Sequence[Row], key: str) -> float:
    """Return the mean of the metric over the rows that have it; 0 if no row has it."""
    return mean([row[key] for row in rows if key in row])
