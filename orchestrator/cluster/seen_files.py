"""Check which files of other nodes a node sees. Standard library only: it runs on each node."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAG_S = 15.0
"""Longest time in seconds for which a network file system may still show an old state of a folder."""
POLL_S = 0.2
MODEL_SUFFIXES = (".json", ".safetensors")
"""Suffixes of the files that a model is loaded from. Other files in its folder may differ."""


def listing(folder: str) -> dict[str, int] | None:
    """Return the sizes of a model's files by name; None where there is no such folder."""
    if not Path(folder).is_dir():
        return None
    return {file.name: file.stat().st_size for file in Path(folder).iterdir() if file.suffix in MODEL_SUFFIXES}


def answer(folder: Path, name: str, answer_name: str) -> str:
    """Write a file next to the one with that name. Return why that is impossible; empty if it succeeds."""
    if not appears(folder / name):
        return "does not see what is written here" if folder.is_dir() else "has no such folder"
    try:
        (folder / answer_name).write_text(os.uname().nodename)
    except OSError as error:
        return f"cannot write: {error.strerror or error}"
    return ""


@contextmanager
def token(folder: Path) -> Iterator[str]:
    """Yield the name of a temporary file in the folder; at the end remove it and files whose names start with it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f".shared-{uuid.uuid4().hex}"
    (folder / name).touch()
    try:
        yield name
    finally:
        for file in folder.glob(f"{name}*"):
            file.unlink(missing_ok=True)


def appears(file: Path) -> bool:
    """Return whether the file exists, now or within the delay of a network file system."""
    deadline = time.monotonic() + LAG_S
    while not file.exists():
        if time.monotonic() > deadline or not file.parent.is_dir():
            return False
        time.sleep(POLL_S)
    return True
