"""Draw a curve in one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*#@"
"""For terminals without Unicode."""


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """Return a bar for each value; the smallest value gets the lowest bar.

    With more than `width` values, each bar shows the mean of several. Values that are not finite become gaps.
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
    """Return the values, in their order, in at most `count` parts of nearly equal size."""
    count = min(count, len(values))
    return [values[len(values) * part // count : len(values) * (part + 1) // count] for part in range(count)]


def mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if isfinite(value)]
    return sum(known) / len(known) if known else None
