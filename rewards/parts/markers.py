"""Detect reasoning behaviours in a completion's text.

docs/rewards.md defines each behaviour. A marker says that the text *shows* it, not that it is sound: read the markers
beside the accuracy, never instead of it. benchmarks/grading/markers.py measures how often they agree with labels.

A text is searched for the plain words of the rules (marker_rules.py), which is fast, and a pattern sees only some
characters around each. So the time is linear in the length of an untrusted text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from rewards.parts.marker_rules import (
    BACKTRACKING,
    EXPLORATION,
    SHOWS_CALCULATION,
    STEP_BY_STEP,
    VERIFICATION,
    Rule,
)

BEHAVIOURS: Mapping[str, tuple[Rule, ...]] = {
    "verification": VERIFICATION,
    "backtracking": BACKTRACKING,
    "step_by_step": STEP_BY_STEP,
    "exploration": EXPLORATION,
    "shows_calculation": SHOWS_CALCULATION,
}


class Agreement(NamedTuple):
    """How many labelled sentences show a behaviour: by the marker, by the label, and by both."""

    num_both: int
    num_marker: int
    num_labels: int

    @property
    def precision(self) -> float:
        return self.num_both / self.num_marker

    @property
    def recall(self) -> float:
        return self.num_both / self.num_labels

    def __str__(self) -> str:
        return f"precision {self.precision:.0%}, recall {self.recall:.0%}"


AGREEMENT: Mapping[str, Agreement] = {
    "verification": Agreement(29, 32, 31),
    "backtracking": Agreement(25, 25, 25),
    "step_by_step": Agreement(52, 52, 52),
    "exploration": Agreement(95, 95, 95),
    "shows_calculation": Agreement(75, 75, 75),
}
"""On the 222 sentences that no rule was tuned on: `python -m benchmarks.grading.markers measure ../shared/data`."""
TYPOGRAPHY = str.maketrans(
    dict.fromkeys("’‘ʼ", "'") | dict.fromkeys("–‒−‐‑", "-") | {"—": " - ", "\u00a0": " ", "\u202f": " "}
)
"""Plain characters that replace typographic signs."""

_BY_WORD: dict[str, list[tuple[str, Rule]]] = {}
for _name, _its_rules in BEHAVIOURS.items():
    for _rule in _its_rules:
        _BY_WORD.setdefault(_rule.word, []).append((_name, _rule))


def markers(text: str) -> tuple[str, ...]:
    """Return the behaviours that the text shows."""
    text = text.lower()
    if not text.isascii():
        text = text.translate(TYPOGRAPHY)
    text = text.replace("n't", " not").replace("'t ", " not ")
    shown = set[str]()
    for word, rules in _BY_WORD.items():
        if word in text:
            shown.update(name for name, rule in rules if name not in shown and _holds(rule, text))
    return tuple(name for name in BEHAVIOURS if name in shown)


def marker_shares(shown: Iterable[Collection[str] | None]) -> dict[str, float]:
    """Return for each behaviour the share of completions that show it, from 0 to 1; empty if none was searched.

    ``shown`` has the result of ``markers`` for each completion, or None if the completion was not searched.
    """
    known = [names for names in shown if names is not None]
    return {name: sum(name in names for names in known) / len(known) for name in BEHAVIOURS} if known else {}


def _holds(rule: Rule, text: str) -> bool:
    word, after, before, reach = rule
    position = text.find(word)
    while position >= 0:
        if after.match(text, position) and (before is None or before.search(text, max(0, position - reach), position)):
            return True
        position = text.find(word, position + 1)
    return False
