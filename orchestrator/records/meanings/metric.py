"""A metric, and the sections that metrics stand in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class MetricMeaning:
    """What one metric tells a reader."""

    key: str
    """As it is logged; ``<…>`` stands for any name, such as that of a reward function."""
    unit: str
    meaning: str
    healthy: str = ""
    otherwise: str = ""
    """What to look at or to do when the values are not healthy."""

    def fits(self, key: str) -> bool:
        """Return whether this stands for a logged key."""
        return pattern_of(self.key).fullmatch(key) is not None


@cache
def pattern_of(key: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<\w+>", ".+", re.escape(key).replace(r"\<", "<").replace(r"\>", ">")))


@dataclass(frozen=True, slots=True)
class MetricSection:
    """The metrics under one prefix."""

    prefix: str
    introduction: str
    """Prose in Markdown, with its line breaks; empty when there is nothing to say of all of them."""
    metrics: tuple[MetricMeaning, ...]
