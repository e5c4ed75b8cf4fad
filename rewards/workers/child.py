"""A marking process, as its supervisor sees it, and the marks it works on."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rewards.function import Outcome, RewardFunction
from rewards.workers import grading
from rewards.workers.channel import Channel
from rewards.workers.proc import seconds_waited_for_cpu

MAX_STRETCH = 3.0
"""Waiting for a CPU is not held against a mark until it has taken so many times its deadline."""


@dataclass(eq=False)
class Mark:
    """One function to be called on one text."""

    function: RewardFunction
    text: str
    answer: Mapping[str, Any]
    on_change: Callable[[], None]
    """Called when it is made, and when it is held up."""
    outcome: Outcome | None = None
    is_held_up: bool = False
    deaths: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it is still to be made, and nothing unusual is known about it."""
        return self.outcome is None and not self.is_held_up

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.on_change()


class Child:
    """A process and what it is busy with."""

    channel: Channel

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.marks: deque[Mark] = deque()
        """What it was given and has not answered; it works on the first."""
        self.is_held_up = False
        self.is_outdated = False
        """Whether functions were loaded after it was forked."""
        self._since = self._waited_before = self._waited_latest = 0.0
        self._is_lowered = False

    def give(self, marks: Iterable[Mark]) -> None:
        self.marks.extend(marks)
        self.look()
        self._begin()
        self.channel.send(grading.request((mark.function.name, mark.text, mark.answer) for mark in self.marks))

    def pop(self) -> Mark:
        """The mark that was just answered. Its next one begins."""
        self._begin()
        return self.marks.popleft()

    def look(self) -> None:
        """To be called every few milliseconds: notes how long the process has waited for a CPU, for the next mark."""
        if not self.is_held_up:
            self._waited_latest = seconds_waited_for_cpu(self.pid)

    def elapsed(self) -> float:
        """Seconds since the first mark began, or a little less: never more, which would shorten its deadline."""
        return time.monotonic() - self._since

    def is_late(self) -> bool:
        """Whether the first mark is past its deadline, not counting the time for which no CPU was free."""
        elapsed, deadline_s = self.elapsed(), self.marks[0].function.deadline_s
        if elapsed < deadline_s:
            return False
        waited = seconds_waited_for_cpu(self.pid) - self._waited_before
        return elapsed - waited >= deadline_s or elapsed >= MAX_STRETCH * deadline_s

    def hold_up(self) -> list[Mark]:
        """Leaves it the first mark only; returns the others."""
        self.is_held_up = True
        first, *others = self.marks
        self.marks = deque([first])
        first.is_held_up = True
        first.on_change()
        return others

    def lower_priority(self) -> None:
        """To what nobody else wants of a CPU, for good: only a privileged process could raise it again.

        Niceness would not do: Ray's workers have 15 by default, so that the 19 at which the kernel stops is a third of a CPU.
        """
        if self._is_lowered:
            return
        self._is_lowered = True
        with suppress(OSError):  # it just ended
            os.sched_setscheduler(self.pid, os.SCHED_IDLE, os.sched_param(0))

    def _begin(self) -> None:
        # What it waited for since the last look, and before this mark, is given to this mark too: a deadline is never
        # shortened.
        self._since, self._waited_before = time.monotonic(), self._waited_latest
