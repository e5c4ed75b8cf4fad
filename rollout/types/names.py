"""Names that users type: the short name of a dotted path, and hints for unknown names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def short_name(path: str) -> str:
    """Return the last part of a dotted path: `my_task` of `my_package.my_task`, and all of `countdown`."""
    return path.rpartition(".")[2]


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the name in `known` that is most like `name`, ignoring case; None if none is similar."""
    by_lowercase = {other.lower(): other for other in sorted(known)}
    close = difflib.get_close_matches(name.lower(), by_lowercase, n=1)
    return by_lowercase[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown `name`: the most similar name in `known`, or else all of them."""
    known = sorted(known)
    close = closest(name, known)
    return f"did you mean {close!r}?" if close else f"there are {', '.join(known) or 'none'}"
