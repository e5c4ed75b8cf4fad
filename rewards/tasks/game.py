"""Grade games whose environment computes all parts itself, such as games of OpenEnv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PARTS = ()


def score(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Return no parts."""
    return {}
