"""Runs checks all at once; one that fails or hangs holds up no other."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.doctor.finding import Finding, warning

Answers = queue.SimpleQueue[tuple[int, Sequence[Finding]]]
Progress = Callable[[Sequence[str]], None]
"""Told the names of the checks that are still under way."""


@dataclass(frozen=True)
class Check:
    """Some findings about one thing."""

    name: str
    run: Callable[[], Sequence[Finding]]
    deadline_s: float = 20.0


def run_checks(checks: Sequence[Check], progress: Progress) -> list[Finding]:
    """The findings in the checks' order. A check that raises, or passes its deadline, is a finding itself."""
    answers: Answers = queue.SimpleQueue()
    for index, check in enumerate(checks):
        # A daemon's hang does not hold up our end.
        threading.Thread(target=answer, args=(index, check, answers), daemon=True).start()
    start = time.monotonic()
    found: dict[int, Sequence[Finding]] = {}
    while waiting := {index: check for index, check in enumerate(checks) if index not in found}:
        progress([check.name for check in waiting.values()])
        try:
            index, findings = answers.get(timeout=0.2)
            found.setdefault(index, findings)
        except queue.Empty:
            elapsed = time.monotonic() - start
            found.update({index: [no_answer(check)] for index, check in waiting.items() if elapsed > check.deadline_s})
    return [finding for index in range(len(checks)) for finding in found[index]]


def answer(index: int, check: Check, answers: Answers) -> None:
    try:
        findings = check.run()
    except Exception as error:  # noqa: BLE001  whatever is wrong with this machine, the other checks go on
        why = f"could not be checked: {type(error).__name__}: {error}"[:300]
        findings = [warning(check.name, why, "an answer", "mend what is broken first; if this stays, please report it")]
    answers.put((index, findings))


def no_answer(check: Check) -> Finding:
    found = f"did not answer within {check.deadline_s:g} s"
    fix = "look for a disk, a network or a driver that hangs: dmesg | tail"
    return warning(check.name, found, "an answer", fix)
