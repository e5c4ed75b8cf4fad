"""The process that calls reward functions that are ``async def``: many at a time, in one event loop.

Each call has its own deadline, which is kept here: a late one is cancelled, and the others go on. Time for which other
calls kept the loop busy, or no CPU was free, is not held against a call. What blocks the loop altogether is found by
the process that started this one (lane.py), from its silence.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import time
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

from rewards.function import LoadedFunction, Outcome
from rewards.subject import Subject
from rewards.workers.children.grading import HEADER, Functions, limit, markers_of
from rewards.workers.children.kernel_counts import seconds_waited_for_cpu

TICK_S = 0.02
"""Seconds between two checks of the deadlines."""
PULSE_S = 0.25
"""Seconds between two signs of life, which are empty lines."""
GRACE_S = 0.2
"""Seconds that a cancelled call has to end. Otherwise the process is ended with it."""
MAX_WAITS = 2.0
"""Time spent waiting for a CPU does not count, up to this many times a call's deadline."""

_CURRENT: ContextVar[_Call | None] = ContextVar("current", default=None)


def run(channel: socket.socket, functions: Functions, memory_gib: float | None) -> None:
    """Call functions until ``channel`` is closed."""
    limit(memory_gib)
    # Not asyncio.run, which cancels every call when one of them ends the process.
    asyncio.new_event_loop().run_until_complete(_Calls(functions).serve(channel))


class _Call:
    """One function on one subject."""

    def __init__(self, number: int, loaded: LoadedFunction, subject: Subject, begins: _Clock) -> None:
        self.number = number
        self.loaded = loaded
        self.subject = subject
        self.task: asyncio.Task[Outcome] | None = None
        self.is_late = False
        self.own_s = 0.0
        """Seconds during which it kept the loop busy."""
        self._begins = begins

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._begins.now

    def is_past(self, deadline_s: float, clock: _Clock) -> bool:
        """Return whether it has had so many seconds, but for those that were not its own."""
        of_others = clock.busy - self._begins.busy - self.own_s
        waited = min(clock.waited - self._begins.waited, MAX_WAITS * deadline_s)
        return self.elapsed - of_others - waited >= deadline_s


class _Clock:
    """The time, how long calls have kept the loop busy until then, and how long the process waited for a CPU."""

    def __init__(self, busy: float) -> None:
        self.now = time.monotonic()
        self.busy = busy
        self.waited = seconds_waited_for_cpu(os.getpid())


class _Timed(Coroutine[Any, Any, Any]):
    """A coroutine of a call, and each that the call starts, which notes how long it keeps the loop busy."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], calls: _Calls) -> None:
        self._coroutine = coroutine
        self._calls = calls

    def send(self, value: Any) -> Any:
        return self._timed(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._timed(self._coroutine.throw, *error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def _timed(self, step: Any, *arguments: Any) -> Any:
        start = time.monotonic()
        try:
            return step(*arguments)
        finally:
            if (call := _CURRENT.get()) is not None:
                taken = time.monotonic() - start
                call.own_s += taken
                self._calls.busy_s += taken


class _Calls:
    """Those under way."""

    def __init__(self, functions: Functions) -> None:
        self._functions = {name: LoadedFunction.of(*each) for name, each in functions.items()}
        self._open: dict[int, _Call] = {}
        self._pulse = 0.0
        self.busy_s = 0.0

    async def serve(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, coroutine, **options: asyncio.Task(self._wrapped(coroutine), loop=loop, **options)
        )
        reader, self._writer = await asyncio.open_connection(sock=channel)
        watch = loop.create_task(self._watch())
        try:
            while True:
                (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                for number, name, subject in pickle.loads(await reader.readexactly(size)):
                    self._start(_Call(number, self._functions[name], subject, _Clock(self.busy_s)))
        except (asyncio.IncompleteReadError, ConnectionError):
            watch.cancel()
            os._exit(0)  # calls that go on are nobody's

    def _wrapped(self, coroutine: Any) -> Any:
        return _Timed(coroutine, self) if _CURRENT.get() is not None else coroutine

    def _start(self, call: _Call) -> None:
        self._open[call.number] = call
        token = _CURRENT.set(call)
        try:
            call.task = asyncio.get_running_loop().create_task(call.loaded.call_async(call.subject))
        finally:
            _CURRENT.reset(token)
        call.task.add_done_callback(lambda task: self._ended(call, task))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if self._open and time.monotonic() >= self._pulse:
                self._pulse = time.monotonic() + PULSE_S
                self._writer.write(b"\n")
            clock = _Clock(self.busy_s) if self._open else None
            for call in list(self._open.values()):
                if clock is not None and not call.is_late and call.is_past(call.loaded.declared.deadline_s, clock):
                    self._cancel(call)

    def _cancel(self, call: _Call) -> None:
        assert call.task is not None
        call.is_late = True
        call.task.cancel()
        asyncio.get_running_loop().call_later(GRACE_S, self._give_up, call)

    def _give_up(self, call: _Call) -> None:
        if call.number in self._open:
            self._report(call, late(call), is_stuck=True)

    def _ended(self, call: _Call, task: asyncio.Task[Outcome]) -> None:
        if call.number not in self._open:
            return
        if call.is_late:
            outcome = late(call)
        elif task.cancelled():
            outcome = Outcome("error", {}, "CancelledError: it cancelled itself")
        elif (error := task.exception()) is not None:  # such as SystemExit, which is no Exception
            outcome = Outcome("error", {}, f"{type(error).__name__}: {error}")
        else:
            outcome = task.result()
        self._report(call, outcome)

    def _report(self, call: _Call, outcome: Outcome, is_stuck: bool = False) -> None:
        del self._open[call.number]
        outcome = outcome._replace(seconds=call.elapsed, markers=markers_of(call.subject))
        self._writer.write(json.dumps([call.number, is_stuck, outcome]).encode() + b"\n")


def late(call: _Call) -> Outcome:
    return Outcome("timeout", {}, f"not graded within {call.loaded.declared.deadline_s:g} s")
