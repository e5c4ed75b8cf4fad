"""Run all checks at the same time, so that a check that fails or hangs does not stop the others. Define findings.

The doctor uses only the standard library, and also runs on Python 3.10: it must work where nothing else works.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's table."""

    name: str
    status: Status
    """``broken``: runs fail or compute something wrong. ``warning``: some runs do, or runs are slow."""
    found: str
    """The state of the machine, in words."""
    expected: str = ""
    """The expected state, in words; empty if the status is ok."""
    fix: str = ""
    """A command or a sentence; empty only if the status is ok."""


def ok(name: str, found: str) -> Finding:
    return Finding(name, "ok", found)


def warning(name: str, found: str, expected: str, fix: str) -> Finding:
    return Finding(name, "warning", found, expected, fix)


def broken(name: str, found: str, expected: str, fix: str) -> Finding:
    return Finding(name, "broken", found, expected, fix)


def shortened(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


Progress = Callable[[Sequence[str]], None]
"""Called with the names of the checks that are still running."""


@dataclass(frozen=True)
class Check:
    """A function that returns findings about one subject."""

    name: str
    run: Callable[[], Sequence[Finding]]
    deadline_s: float = 20.0


Answers = queue.SimpleQueue[tuple[int, Sequence[Finding]]]


def run_checks(checks: Sequence[Check], progress: Progress) -> list[Finding]:
    """Return the findings in the order of the checks. A check that raises or misses its deadline becomes a warning."""
    answers: Answers = queue.SimpleQueue()
    for index, check in enumerate(checks):
        # Daemon threads: a check that hangs must not prevent the process from ending.
        threading.Thread(target=answer, args=(index, check, answers), daemon=True).start()
    start = time.monotonic()
    results: dict[int, Sequence[Finding]] = {}
    while waiting := {index: check for index, check in enumerate(checks) if index not in results}:
        progress([check.name for check in waiting.values()])
        try:
            index, findings = answers.get(timeout=0.2)
            results.setdefault(index, findings)
        except queue.Empty:
            elapsed = time.monotonic() - start
            late = {index: [no_answer(check)] for index, check in waiting.items() if elapsed > check.deadline_s}
            results.update(late)
    return [finding for index in range(len(checks)) for finding in results[index]]


def answer(index: int, check: Check, answers: Answers) -> None:
    """Run one check and put its findings into `answers`."""
    try:
        findings = check.run()
    except Exception as error:  # noqa: BLE001  one failed check must not end the others
        why = f"could not be checked: {type(error).__name__}: {error}"[:300]
        fix = "fix the broken findings first; if this one remains, please report it"
        findings = [warning(check.name, why, "an answer", fix)]
    answers.put((index, findings))


def no_answer(check: Check) -> Finding:
    """Return the finding about a check that hangs."""
    found = f"did not answer within {check.deadline_s:g} s"
    fix = "look for a disk, a network or a driver that hangs: dmesg | tail"
    return warning(check.name, found, "an answer", fix)


MARK = "rayzero-doctor-facts:"
# The alarm ends a child whose parent was killed. os._exit skips the cleanup of libraries, in which some crash.
FRAME = """import json, os, signal, sys
signal.alarm({alarm_s})
facts = {{}}
{code}
sys.stderr.flush()
print("\\n{mark}" + json.dumps(facts), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class ProbeOutcome:
    """The result of Python code that ran in a separate process."""

    status: Literal["done", "failed", "crashed", "hung"]
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The dictionary ``facts`` that the code filled; empty unless the status is ``done``."""
    words: str = ""
    """The reason: the last line of a traceback, or the signal. If the status is ``done``, everything printed."""


def probe(code: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> ProbeOutcome:
    """Run `code` with this Python in a separate process, where it may raise, crash or hang.

    The code may fill the dictionary ``facts``. `environment` has variables to add to the current ones.
    """
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", FRAME.format(code=code, mark=MARK, alarm_s=int(timeout_s) + 10)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        end(child)
        return ProbeOutcome("hung", time.monotonic() - start, words=f"no answer within {timeout_s:g} s")
    seconds = time.monotonic() - start
    printed, _, facts = output.rpartition(MARK)
    if child.returncode == 0 and MARK in output:
        return ProbeOutcome("done", seconds, json.loads(facts), (printed + errors).strip())
    if child.returncode < 0:
        return ProbeOutcome("crashed", seconds, words=f"died of {signal.Signals(-child.returncode).name}")
    lines = errors.strip().splitlines() or [f"ended with exit code {child.returncode} and no message"]
    return ProbeOutcome("failed", seconds, words=lines[-1][:300])


def end(child: subprocess.Popen[str]) -> None:
    """Kill the child and the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    # A grandchild that left the group may still hold the pipes: do not wait for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=2)
