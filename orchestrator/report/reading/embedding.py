"""Data as it stands in the page, which is what its size is measured by."""

from __future__ import annotations

import json
from typing import Any


def embedded(data: Any) -> str:
    """Return the data as JSON, ASCII only, that cannot end the element that contains it, whatever a model wrote.

    It may be far longer than the JSON itself: each `<`, `>` and `&` takes six bytes.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
