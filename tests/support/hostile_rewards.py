"""Reward functions that do what hostile or careless ones do. A completion's text says which."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TASKS = {
    "hostile": "hostile_rewards:act",
    "inspect": "hostile_rewards:inspect",
    "misnamed": "hostile_rewards:misnamed",
    "slow": "slow_to_import:act",
    "missing": "no_such_module:act",
}
"""Task name -> function, for ``rewards.tasks``."""


def _spin() -> None:
    while True:
        pass


def _kill_once(flag: str) -> None:
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _start_program(pid_file: str) -> None:
    program = subprocess.Popen(["sleep", "3600"])
    Path(pid_file).write_text(f"{os.getpid()} {program.pid}")
    program.wait()


def act(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Do what ``text`` says, and return correctness 1 if that ever ends."""
    if text != "good" and "pid_file" in answer:
        Path(answer["pid_file"]).write_text(str(os.getpid()))
    actions: dict[str, Callable[[], object]] = {
        "backtrack": lambda: re.match(r"(a+)+$", "a" * 40 + "b"),  # in C, and it never lets go of the GIL
        "power": lambda: 7**7**9,  # likewise
        "spin": _spin,
        "sleep": lambda: time.sleep(3600),
        "nap": lambda: time.sleep(0.5),
        "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "segfault": lambda: ctypes.string_at(0),
        "leave": lambda: sys.exit(3),
        "hog": lambda: bytearray(8 * 2**30),
        "raise": lambda: int("not a number"),
        "kill once": lambda: _kill_once(answer["flag"]),
        "program": lambda: _start_program(answer["pid_file"]),
    }
    actions.get(text, lambda: None)()
    return {"correctness": float("nan") if text == "nan" else 1.0, "tidy": 1.0}


def guarded(text: str, answer: Mapping[str, Any], *, bonus: float = 0.5) -> float:
    """Return a part of its own; hang at ``guarded hangs``."""
    if text == "guarded hangs":
        _spin()
    return bonus


def bonus_of_two(text: str, answer: Mapping[str, Any]) -> float:
    return 2.0


def work_on_cpu(text: str, answer: Mapping[str, Any]) -> float:
    """Compute for half a second, on the CPU that the answer names."""
    os.sched_setaffinity(0, {answer["cpu"]})
    start = time.process_time()
    while time.process_time() < start + 0.5:
        pass
    return 1.0


def picky(text: str, answer: Mapping[str, Any]) -> float:
    """Return a part; raise on what it cannot read."""
    return float(text)


def inspect(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Tell what a grading process looks like to a task: whether it is light, and single-threaded."""
    threads = {os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    heavy = {"torch", "ray", "numpy", "pydantic"} & {*sys.modules}
    return {"correctness": float(len(heavy)), "tidy": float(threads == {"1"})}


def misnamed(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    return {"correct": 1.0, "tidy": 1.0}


def echo(text: str, answer: Mapping[str, Any]) -> dict[str, float]:
    """Pay what the text says, after a moment, to show whether a reward belongs to its completion."""
    time.sleep(0.003)
    return {"correctness": float(text.rpartition(" ")[2])}
