"""Detect reasoning behaviours in a completion's text.

docs/rewards.md defines each behaviour. A marker says that the text *shows* it, not that it is sound: read the markers
beside the accuracy, never instead of it. benchmarks/markers.py measures how often markers and a person agree.

A text is searched for the plain words of the rules (marker_rules.py), which is fast, and a pattern sees only some
characters around each. So the time is linear in the length of an untrusted text.
"""

from __future__ import annotations

from collections.abc import Mapping

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
REACH = 110
"""Characters before a word that a rule sees."""
TYPOGRAPHY = str.maketrans(
    dict.fromkeys("’‘ʼ", "'") | dict.fromkeys("–‒−‐‑", "-") | {"—": " - ", "\u00a0": " ", "\u202f": " "}
)
"""What the rules look for in place of typographic signs."""

_BY_WORD: dict[str, list[tuple[str, Rule]]] = {}
for _name, _its_rules in BEHAVIOURS.items():
    for _rule in _its_rules:
        _BY_WORD.setdefault(_rule.word, []).append((_name, _rule))


def markers(text: str) -> dict[str, bool]:
    """Return for each behaviour whether the text shows it."""
    text = text.lower()
    if not text.isascii():
        text = text.translate(TYPOGRAPHY)
    text = text.replace("n't", " not").replace("'t ", " not ")
    shown = dict.fromkeys(BEHAVIOURS, False)
    for word, rules in _BY_WORD.items():
        if word in text:
            for name, rule in rules:
                shown[name] = shown[name] or _holds(rule, text)
    return shown


def _holds(rule: Rule, text: str) -> bool:
    word, after, before = rule
    position = text.find(word)
    while position >= 0:
        if after.match(text, position) and (before is None or before.search(text, max(0, position - REACH), position)):
            return True
        position = text.find(word, position + 1)
    return False


def marker_shares(texts):
    found = [markers(text) for text in texts]
    return {name: sum(shown[name] for shown in found) / len(found) for name in found[0]}
