"""A curve of one line."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*#@"
"""For a terminal that has no Unicode."""


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """Return a bar for each value, the lowest for the lowest; means where there are more values than `width` allows.

    Values that are not finite are gaps.
    """
    means = [mean(part) for part in split(values, max(1, width))]
    known = [each for each in means if each is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    top = len(bars) - 1

    def bar(value: float | None) -> str:
        if value is None:
            return " "
        return bars[round((value - low) / span * top)] if 0 < span < float("inf") else bars[top // 2]

    return "".join(map(bar, means))


def split(values: Sequence[float], count: int) -> list[Sequence[float]]:
    """Return the values in at most `count` parts of nearly one size, in their order."""
    count = min(count, len(values))
    return [values[len(values) * part // count : len(values) * (part + 1) // count] for part in range(count)]


def mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if isfinite(value)]
    return sum(known) / len(known) if known else None
