"""What a node sees of the files of others. Standard library only: each node answers by itself."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAG_S = 15.0
"""For how long a network file system may go on showing a folder as it was, seconds."""
POLL_S = 0.2
MODEL_SUFFIXES = (".json", ".safetensors")
"""Suffixes of the files that a model is loaded from. Other files in its folder may differ."""


def listing(folder: str) -> dict[str, int] | None:
    """Return the sizes of a model's files by name; None where there is no such folder."""
    if not Path(folder).is_dir():
        return None
    return {file.name: file.stat().st_size for file in Path(folder).iterdir() if file.suffix in MODEL_SUFFIXES}


def answer(folder: Path, name: str, answer_name: str) -> str:
    """Write a file beside the one of that name. Return why that is not possible; empty when it is."""
    if not appears(folder / name):
        return "does not see what is written here" if folder.is_dir() else "has no such folder"
    try:
        (folder / answer_name).write_text(os.uname().nodename)
    except OSError as error:
        return f"cannot write: {error.strerror or error}"
    return ""


@contextmanager
def token(folder: Path) -> Iterator[str]:
    """Yield the name of a file that is in the folder meanwhile; files whose names begin with it go with it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f".shared-{uuid.uuid4().hex}"
    (folder / name).touch()
    try:
        yield name
    finally:
        for file in folder.glob(f"{name}*"):
            file.unlink(missing_ok=True)


def appears(file: Path) -> bool:
    """Return whether the file is there, at once or within what a network file system may take."""
    deadline = time.monotonic() + LAG_S
    while not file.exists():
        if time.monotonic() > deadline or not file.parent.is_dir():
            return False
        time.sleep(POLL_S)
    return True
