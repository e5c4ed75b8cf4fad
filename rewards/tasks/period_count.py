"""Grade Period count: count the full stops of a completion.

The only part, ``periods``, is the number of ``.`` in the assistant's turn, without the prompt's text. Only the turn's
length limits it, so the weight sets its scale: ``rewards.weights = { periods = 0.3 }`` gives 1.2 for four full stops.
``...`` counts as three. The task demonstrates the KL to the reference: it prevents the policy from writing only full
stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTS = ("periods",)


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. ``answer`` is ignored. Never raises."""
    return {"periods": float(text.count("."))}
