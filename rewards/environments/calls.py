"""Calls of a tool in a model's text, and reward parts that count them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

PARTS = ("tool_called", "tool_calls", "tool_failures", "tool_used")
MAX_RESULT_CHARACTERS = 100
"""A longer result is not searched for."""


def called(text: str, tag: str) -> str | None:
    """Return the text in the pair of tags that a turn ends with; None without such a pair."""
    closing = f"</{tag}>"
    if not text.rstrip().endswith(closing):
        return None
    _, opening, inside = text.rstrip().removesuffix(closing).rpartition(f"<{tag}>")
    return inside if opening else None


@dataclass
class CallCounts:
    """The calls of a completion so far."""

    calls: int = 0
    failures: int = 0
    results: list[str] = field(default_factory=list)
    is_used: bool = False

    def read(self, text: str) -> None:
        """Look for earlier results in what the policy wrote after them."""
        self.is_used = self.is_used or any(_stands_in(result, text) for result in self.results)

    def record(self, result: str | None) -> None:
        """Count a call with its result, whose last line is searched for later; None: the call failed."""
        self.calls += 1
        if result is None:
            self.failures += 1
        else:
            last = result.rstrip()[-MAX_RESULT_CHARACTERS - 1 :].rpartition("\n")[2].strip()
            if 0 < len(last) <= MAX_RESULT_CHARACTERS:
                self.results.append(last)

    @property
    def parts(self) -> dict[str, float]:
        """Whether the tool was called, how often, how often it failed, and if the policy wrote a result afterwards."""
        values = (float(self.calls > 0), float(self.calls), float(self.failures), float(self.is_used))
        return dict(zip(PARTS, values, strict=True))


def _stands_in(result: str, text: str) -> bool:
    """Return whether a text contains a result, not as a part of a longer number or word."""
    return re.search(rf"(?<![\w.]){re.escape(result)}(?![\w]|\.[0-9])", text) is not None
