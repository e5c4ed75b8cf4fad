"""The meaning of a metric, and the sections of the page on metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class MetricMeaning:
    """The meaning of one metric, for a reader."""

    key: str
    """As it is logged; ``<…>`` stands for any name, such as that of a reward function."""
    unit: str
    meaning: str
    healthy: str = ""
    otherwise: str = ""
    """What to look at or do if the values are not healthy."""

    def fits(self, key: str) -> bool:
        """Return whether `key`, as logged, belongs to this entry."""
        return pattern_of(self.key).fullmatch(key) is not None


@cache
def pattern_of(key: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<\w+>", ".+", re.escape(key).replace(r"\<", "<").replace(r"\>", ">")))


@dataclass(frozen=True, slots=True)
class MetricSection:
    """The metrics under one prefix."""

    prefix: str
    introduction: str
    """Text in Markdown, with its line breaks; may be empty."""
    metrics: tuple[MetricMeaning, ...]
