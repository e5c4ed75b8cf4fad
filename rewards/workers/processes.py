"""Grading processes, seen from their supervisor: their tasks, and the time that these take."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from rewards.function import Outcome, RewardFunction
from rewards.subject import Subject
from rewards.workers.children import grading
from rewards.workers.children.channel import Channel
from rewards.workers.children.kernel_counts import CallClock


@dataclass(eq=False)
class GradeTask:
    """One completion, or a whole group, to be graded.

    Its functions are called on it one after another, then all together those that are ``async def``.
    """

    functions: tuple[RewardFunction, ...]
    subject: Subject
    concurrent: tuple[RewardFunction, ...] = ()
    """The functions that are called together (concurrent/lane.py)."""
    found: dict[str, Outcome] = field(default_factory=dict)
    """The outcome of each finished function, by name."""
    is_set_aside: bool = False
    """Whether the current function is so slow that other tasks continue without it."""
    num_deaths: int = 0
    """Number of processes that died in the current function."""
    on_change: Callable[[], None] | None = None
    """Called after each outcome, and when the task is set aside."""
    _num_called: int = 0

    def __post_init__(self) -> None:
        self._in_turn = self.functions

    @property
    def is_done(self) -> bool:
        return len(self.found) == len(self.functions)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each function, in their order. The task must be done."""
        return tuple(self.found[function.name] for function in self.functions)

    @property
    def remaining(self) -> tuple[RewardFunction, ...]:
        """The functions without an outcome that are called one after another; the first is the current one."""
        return self._in_turn[self._num_called :]

    def set_apart(self, names: Collection[str]) -> None:
        """Have the functions of these names called together, after the others."""
        self.concurrent = tuple(function for function in self.functions if function.name in names)
        self._in_turn = tuple(function for function in self.functions if function.name not in names)

    def record(self, outcome: Outcome) -> None:
        """Take the outcome of the current function."""
        self.is_set_aside, self.num_deaths = False, 0
        self._num_called += 1
        self.note(self._in_turn[self._num_called - 1].name, outcome)

    def note(self, name: str, outcome: Outcome) -> None:
        """Take the outcome of a function."""
        self.found[name] = outcome
        self.notify()

    def notify(self) -> None:
        """Call `on_change`."""
        if self.on_change is not None:
            self.on_change()


class GradingProcess:
    """A process and its tasks."""

    def __init__(
        self,
        pid: int,
        connection: socket.socket,
        on_outcome: Callable[[GradingProcess, Outcome], None],
        on_end: Callable[[GradingProcess], None],
    ) -> None:
        """``on_end`` is called once, when it ended or wrote anything but an outcome; not after ``close``."""
        self.pid = pid
        self._channel = Channel(
            connection, grading.decode_outcome, lambda outcome: on_outcome(self, outcome), lambda _: on_end(self)
        )
        self.tasks: deque[GradeTask] = deque()
        """The tasks that are not done; it works on the first."""
        self.is_set_aside = False
        self.is_outdated = False
        """Whether functions were loaded after it was forked."""
        self._clock = CallClock(pid)
        self._is_lowered = False

    @property
    def function(self) -> RewardFunction:
        """The function that it is calling."""
        return self.tasks[0].remaining[0]

    def give(self, tasks: Iterable[GradeTask]) -> None:
        """Send tasks to a process that has none."""
        self.tasks.extend(tasks)
        self.note_waiting()
        self._clock.begin()
        self._channel.send(grading.encode_batch((task.remaining, task.subject) for task in self.tasks))

    def record(self, outcome: Outcome) -> None:
        """Take the outcome of the function that it was calling. The next function begins."""
        self._clock.begin()
        task = self.tasks[0]
        task.record(outcome)
        if not task.remaining:
            self.tasks.popleft()

    def note_waiting(self) -> None:
        """Note how long it has waited for a CPU, for the next function. To be called every few milliseconds."""
        if not self.is_set_aside:
            self._clock.note_waiting()

    def elapsed(self) -> float:
        """Return the seconds since its function began, or a little less: more would shorten the deadline."""
        return self._clock.elapsed()

    def is_late(self) -> bool:
        """Return whether its function is past the deadline, not counting the time for which no CPU was free."""
        return self._clock.is_past(self.function.deadline_s)

    def read(self) -> None:
        """Take the outcomes that it has written so far."""
        self._channel.read()

    def set_aside_straggler(self) -> list[GradeTask]:
        """Leave it only the first task, which is unusually slow; return the others."""
        self.is_set_aside = True
        first, *others = self.tasks
        self.tasks = deque([first])
        first.is_set_aside = True
        first.notify()
        return others

    def lower_priority(self) -> None:
        """Give it the lowest CPU priority, permanently: only a privileged process could raise it again.

        Niceness would not do: Ray's workers have 15 by default, so that the 19 at which the kernel stops is a third of
        a CPU.
        """
        if self._is_lowered:
            return
        self._is_lowered = True
        with suppress(OSError):  # it just ended
            os.sched_setscheduler(self.pid, os.SCHED_IDLE, os.sched_param(0))

    def close(self) -> None:
        """Close the socket to it. May be called twice."""
        self._channel.close()
