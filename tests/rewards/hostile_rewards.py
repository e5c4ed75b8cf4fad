"""Reward functions that do what hostile or careless ones do. A completion's text says which."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FUNCTIONS = {
    "hostile": "hostile_rewards:act",
    "inspect": "hostile_rewards:inspect",
    "misnamed": "hostile_rewards:misnamed",
    "slow": "slow_to_import:act",
    "missing": "no_such_module:act",
}
"""Task name -> function, for ``rewards.functions``."""


def _spin() -> None:
    while True:
        pass


def _kill_once(flag: str) -> None:
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def act(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Does what ``text`` says, and returns correctness 1 if that ever ends."""
    if text != "good" and "pid_file" in answer:
        Path(answer["pid_file"]).write_text(str(os.getpid()))
    actions: dict[str, Callable[[], object]] = {
        "backtrack": lambda: re.match(r"(a+)+$", "a" * 40 + "b"),  # in C, and it never lets go of the GIL
        "spin": _spin,
        "sleep": lambda: time.sleep(3600),
        "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "segfault": lambda: ctypes.string_at(0),
        "hog": lambda: bytearray(8 * 2**30),
        "raise": lambda: int("not a number"),
        "kill once": lambda: _kill_once(answer["flag"]),
    }
    actions.get(text, lambda: None)()
    return {"correctness": float("nan") if text == "nan" else 1.0, "format": 1.0}


def inspect(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """What the worker's process looks like to a task."""
    threads = {os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    return {"correctness": float("torch" in sys.modules), "format": float(threads == {"1"})}


def misnamed(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    return {"correct": 1.0, "format": 1.0}
