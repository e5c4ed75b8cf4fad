"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path


def from_home(path: str) -> str:
    """Return the path with a leading `~` or `~name` replaced by the home folder; any other text unchanged.

    Raises ValueError if that home folder is unknown.
    """
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise ValueError(f"the home folder of {Path(path).parts[0]} is not known; give the whole path") from None


def refuse_missing_model(path: str) -> None:
    """Raise FileNotFoundError for a model's absolute path if this node has no such folder.

    Libraries would report it as an invalid name on the hub.
    """
    if path.startswith("/") and not Path(path).is_dir():
        raise FileNotFoundError(
            f"node {os.uname().nodename} has no folder {path}, where the model is: mount there what the run's other "
            "nodes share, or copy the model to it"
        )
