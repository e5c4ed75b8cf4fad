"""JSON that every program can read. Python's `json` writes `Infinity` and `NaN`, which are not JSON."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Return the value as JSON, with null for infinity and NaN."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(without_infinities(value), indent=indent)


def without_infinities(value: Any, as_text: bool = False) -> Any:
    """Replace infinity and NaN in the value by null, or with `as_text` by `"inf"` and so on, which settings accept."""
    if isinstance(value, dict):
        return {key: without_infinities(inner, as_text) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(inner, as_text) for inner in value]
    if not isinstance(value, float) or isfinite(value):
        return value
    return str(value) if as_text else None
