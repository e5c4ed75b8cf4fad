"""Grade Text length: how near the length of a completion comes to a wanted number of words.

The one part, ``words``, is ``1 - |n - target| / target`` for a turn of n words, at least 0: it rises from 0 for an
empty turn to 1 at the target and falls again to 0 at twice the target. The target is ``answer["target_words"]``. L1
trains models to keep to a length by a penalty on the same difference (LCPO-Exact, arXiv:2503.04697), besides being
right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.parts.length import num_words

PARTS = ("words",)


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. Raises KeyError without a target, ValueError for one below 1."""
    target = int(answer["target_words"])
    if target < 1:
        raise ValueError(f"answer['target_words'] = {target}: a text of no words cannot be wanted; set at least 1")
    return {"words": max(0.0, 1 - abs(num_words(text) - target) / target)}
