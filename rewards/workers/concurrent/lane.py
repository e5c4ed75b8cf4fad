"""Have reward functions that are ``async def`` called together, many at a time, in a process of their own.

Whose calls end how:

    it is done, raises or is late  ──> its outcome, and the others go on (coroutines.py keeps the deadlines)
    late, and not to be cancelled  ──> a timeout; the process gets nothing new and ends when its other calls have
    the process dies or is silent  ──> each of its calls is made once more by itself, under the supervisor's rules

So what kills its process or blocks the event loop fails alone.
"""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rewards.function import Outcome, RewardFunction
from rewards.workers.children.channel import Channel
from rewards.workers.children.fork_server_handle import ForkServer
from rewards.workers.children.grading import UNREADABLE, encode_message, outcome_from
from rewards.workers.children.kernel_counts import CpuTimes
from rewards.workers.processes import GradeTask

CHILD = "rewards.workers.concurrent.coroutines"
MIN_SILENCE_S = 1.0
"""Shortest silence of a process, in seconds, that counts, even with shorter deadlines."""


class AsyncCall(NamedTuple):
    """A function to be called for a task."""

    task: GradeTask
    function: RewardFunction


class _Answer(NamedTuple):
    """A process's message about a call; without a call it is a sign of life."""

    number: int = -1
    is_stuck: bool = False
    """Whether the call continues although it was cancelled."""
    outcome: Outcome | None = None


class _LaneProcess:
    """A process and its calls."""

    def __init__(self, pid: int, connection: socket.socket, lane: Lane) -> None:
        self.pid = pid
        self.channel = Channel(
            connection, _decode, lambda answer: lane.take(self, answer), lambda _: lane.call_alone(self)
        )
        self.calls: dict[int, AsyncCall] = {}
        self.is_retired = False
        """Whether it gets no more calls."""
        self.heard()

    def heard(self) -> None:
        """Note that it sent something."""
        self._heard, self._waited = time.monotonic(), CpuTimes.of(self.pid).waited

    @property
    def is_silent(self) -> bool:
        """Whether it has said nothing for longer than each of its calls may take, but for waiting for a CPU."""
        limit = max((MIN_SILENCE_S, *(call.function.deadline_s for call in self.calls.values())))
        silence = time.monotonic() - self._heard
        return silence >= limit and silence - (CpuTimes.of(self.pid).waited - self._waited) >= limit


class Lane:
    """The calls of functions that are ``async def``. Lives in the supervisor's event loop."""

    def __init__(self, memory_gib: float | None, max_in_flight: int, alone: Callable[[AsyncCall], None]) -> None:
        """``alone`` calls a function by itself, in another process."""
        self._memory_gib = memory_gib
        self._server: ForkServer | None = None
        self._max_in_flight = max_in_flight
        self._alone = alone
        self._queue: deque[AsyncCall] = deque()
        self._processes: list[_LaneProcess] = []
        self._number = 0

    @property
    def pids(self) -> list[int]:
        server = [] if self._server is None else [self._server.pid]
        return [*server, *(process.pid for process in self._processes)]

    @property
    def is_busy(self) -> bool:
        return bool(self._queue) or any(process.calls for process in self._processes)

    def submit(self, task: GradeTask) -> None:
        """Queue the calls of a task's ``async def`` functions."""
        self._queue.extend(AsyncCall(task, function) for function in task.concurrent)

    def load(self, functions: Sequence[RewardFunction]) -> None:
        """Import functions before tasks ask for them. Raises LoadError."""
        if not functions:
            return
        if self._server is None:
            self._server = ForkServer(self._memory_gib, CHILD)
        self._server.load(functions)
        self._retire_all()

    def advance(self) -> None:
        """Start queued calls, and end silent processes. Raises OSError or LoadError if no process can be started."""
        if self._server is not None and self._server.has_ended:
            self._retire_all()
        for process in [process for process in self._processes if process.calls and process.is_silent]:
            self.call_alone(process)
        room = self._max_in_flight - sum(len(process.calls) for process in self._processes)
        calls = [self._queue.popleft() for _ in range(min(room, len(self._queue)))]
        if not calls:
            return
        try:
            process = self._process()
        except Exception:
            self._queue.extendleft(reversed(calls))
            raise
        if not process.calls:
            process.heard()
        numbers = range(self._number, self._number + len(calls))
        self._number += len(calls)
        process.calls |= dict(zip(numbers, calls, strict=True))
        sent = [(number, call.function.name, call.task.subject) for number, call in zip(numbers, calls, strict=True)]
        process.channel.send(encode_message(sent))

    def close(self) -> None:
        """End all processes; calls under way are dropped."""
        for process in list(self._processes):
            self._end(process)
        if self._server is not None:
            self._server.close()

    def _process(self) -> _LaneProcess:
        for process in self._processes:
            if not process.is_retired:
                return process
        assert self._server is not None, "no function that is async def was loaded"
        process = _LaneProcess(*self._server.fork(), self)
        self._processes.append(process)
        return process

    def take(self, process: _LaneProcess, answer: _Answer) -> None:
        """Handle a process's message."""
        process.heard()
        if answer.outcome is None:
            return
        if (call := process.calls.pop(answer.number, None)) is None:  # an answer to nothing
            self.call_alone(process)
            return
        call.task.note(call.function.name, answer.outcome)
        if answer.is_stuck or process.is_retired:
            self._retire(process)

    def call_alone(self, process: _LaneProcess) -> None:
        """End a broken process, and repeat each of its calls by itself."""
        self._end(process)
        for call in process.calls.values():
            self._alone(call)

    def _retire_all(self) -> None:
        for process in list(self._processes):
            self._retire(process)

    def _retire(self, process: _LaneProcess) -> None:
        process.is_retired = True
        if not process.calls:
            self._end(process)

    def _end(self, process: _LaneProcess) -> None:
        self._processes.remove(process)
        process.channel.close()
        assert self._server is not None
        self._server.end(process.pid)


def _decode(line: bytes) -> _Answer:
    """Return the message in a line. Raises ValueError for anything else, which a broken process may write."""
    if not line:
        return _Answer()
    try:
        number, is_stuck, fields = json.loads(line)
        return _Answer(int(number), bool(is_stuck), outcome_from(fields))
    except UNREADABLE as error:
        raise ValueError(f"not an answer: {line[:80]!r}") from error
