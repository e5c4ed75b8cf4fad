"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path


def from_home(path: str) -> str:
    """Return the path with the home folder in place of a leading `~` or `~name`; any other text as it is.

    Raises ValueError when that home folder is not known.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"the home folder of {Path(path).parts[0]} is not known; give the whole path") from None
