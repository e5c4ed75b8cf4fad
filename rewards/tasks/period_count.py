"""Grade Period count: how many full stops a completion has.

The one part, ``periods``, is the plain count of ``.`` in the assistant's turn; the prompt's text is not in it. It is
bounded by the turn's length and has no other ceiling, so the weight sets its scale: ``rewards.weights = { periods = 0.3
}`` pays 1.2 for four of them. ``...`` counts as three. The KL to the reference keeps a policy from writing nothing but
full stops, which is the point of the demonstration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTS = ("periods",)


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of a completion's reward. ``answer`` is not looked at. Never raises."""
    return {"periods": float(text.count("."))}
