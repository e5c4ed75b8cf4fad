"""Paths as users write them."""

from __future__ import annotations

import os
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


def refuse_missing_model(path: str) -> None:
    """Raise FileNotFoundError for a model's whole path where this node has no such folder.

    Libraries would take it for a hub's name that is not well-formed.
    """
    if path.startswith("/") and not Path(path).is_dir():
        raise FileNotFoundError(
            f"node {os.uname().nodename} has no folder {path}, where the model is: mount there what the run's other "
            "nodes share, or copy the model to it"
        )
