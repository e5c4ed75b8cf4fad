"""Grade Text length: compare the length of a completion with a target number of words.

The only part, ``words``, is ``1 - |n - target| / target`` for a turn of n words, at least 0: it rises from 0 for an
empty turn to 1 at the target, and falls again to 0 at twice the target. The target is ``answer["target_words"]``. L1
uses a penalty on the same difference, together with correctness, to train models to keep to a length (LCPO-Exact,
arXiv:2503.04697).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.parts.length import num_words

PARTS = ("words",)


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. Raises KeyError without a target, ValueError if it is below 1."""
    target = int(answer["target_words"])
    if target < 1:
        raise ValueError(f"answer['target_words'] = {target}: the target must be at least one word; set 1 or more")
    return {"words": max(0.0, 1 - abs(num_words(text) - target) / target)}
