"""Data in the form in which it is embedded in the page; the limits on the page's size apply to this form."""

from __future__ import annotations

import json
from typing import Any


def embedded(data: Any) -> str:
    """Return the data as ASCII JSON that cannot end the HTML element around it, whatever a model wrote.

    It may be much longer than the JSON itself: each `<`, `>` and `&` takes six bytes.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
