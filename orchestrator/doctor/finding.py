"""What the doctor says about one thing. This package is standard library only, and runs on Python 3.10 too: it has to
answer where nothing else does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    name: str
    status: Status
    """``broken``: a run fails, or computes what was not asked for. ``warning``: some runs do, or they are slow."""
    found: str
    expected: str = ""
    """Empty when what was found is as expected."""
    fix: str = ""
    """A command or a sentence; never empty unless the status is ok."""


def ok(name: str, found: str) -> Finding:
    return Finding(name, "ok", found)


def warning(name: str, found: str, expected: str, fix: str) -> Finding:
    return Finding(name, "warning", found, expected, fix)


def broken(name: str, found: str, expected: str, fix: str) -> Finding:
    return Finding(name, "broken", found, expected, fix)
