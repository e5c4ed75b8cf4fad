"""Hands marks to child processes and keeps their deadlines; runs no reward function itself.

One child works through the queue in batches of some milliseconds. Each mark is answered when it is made, so the one that a
child hangs in is known:

    unusually slow    ──> the child is held up: it keeps that mark, at idle priority; a fresh child goes on
    past its deadline ──> the child is killed, the mark is a timeout; the rest of its batch goes on
    the child died    ──> the mark is tried once more in another child; then it is an error

At most MAX_HELD_UP children are held up at a time. So a share h of hanging completions with a deadline of D seconds costs
little, up to MAX_HELD_UP / (h D) completions a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from rewards.function import Outcome, RewardFunction
from rewards.workers.channel import Channel
from rewards.workers.child import Child, Mark
from rewards.workers.fork_server import ForkServer, LoadError
from rewards.workers.pace import Pace

BATCH_S = 0.02
"""Seconds of work in one batch: many times what handing it over costs, and little to hand back when it hangs."""
MAX_BATCH = 128
TICK_S = 0.01
"""Seconds between two looks at the children that are busy."""
MAX_HELD_UP = 8
"""Each may burn a share of a CPU, and takes a few MiB."""
SLOW_FACTOR = 4.0
"""A mark is unusually slow past so many times the mean of its function, and past MIN_SLOW_S."""
MIN_SLOW_S = 0.02
MAX_DEATHS = 2


class Supervisor:
    """Marks in, outcomes out. Lives in an event loop, which it never blocks for longer than a fork takes."""

    def __init__(self, memory_gib: float | None) -> None:
        """``memory_gib`` bounds what each child may allocate; None leaves it alone."""
        self._server = ForkServer(memory_gib)
        self._pace = Pace()
        self._queue: deque[Mark] = deque()
        self._children: list[Child] = []
        self._timer: asyncio.TimerHandle | None = None
        self.trouble: Exception | None = None
        """Why there is no child to go on with, as long as there is none."""

    @property
    def pids(self) -> list[int]:
        """The processes it started that are alive: the fork server, then the children."""
        return [self._server.pid, *(child.pid for child in self._children)]

    def load(self, functions: Iterable[RewardFunction]) -> None:
        """Makes functions known before marks ask for them; waits for their import. Raises LoadError."""
        self._server.load(functions)
        for child in self._children:
            child.is_outdated = True

    def submit(self, marks: Iterable[Mark]) -> None:
        """Queues marks."""
        self._queue.extend(marks)
        self._dispatch()
        if self._timer is None:
            self._tick()

    def close(self) -> None:
        """Ends all processes; marks that are not made are dropped."""
        if self._timer is not None:
            self._timer.cancel()
        for child in list(self._children):
            self._end(child)
        self._server.close()

    def _dispatch(self) -> None:
        while self._queue and (child := self._free_child()) is not None:
            child.give(self._next_batch())

    def _next_batch(self) -> list[Mark]:
        batch: list[Mark] = []
        seconds = 0.0
        while self._queue and seconds < BATCH_S and len(batch) < MAX_BATCH:
            batch.append(self._queue.popleft())
            seconds += self._pace.mean(batch[-1].function.name) or BATCH_S
        return batch

    def _free_child(self) -> Child | None:
        for child in [child for child in self._children if not child.is_held_up]:
            if child.marks:
                return None
            if not child.is_outdated:
                return child
            self._end(child)
        return self._fork()

    def _fork(self) -> Child | None:
        try:
            pid, connection = self._server.fork()
        except (OSError, LoadError) as error:  # the next tick tries again
            self.trouble = error
            return None
        self.trouble = None
        for held_up in self._children:
            held_up.lower_priority()
        child = Child(pid)
        child.channel = Channel(connection, lambda outcome: self._answered(child, outcome), lambda: self._died(child))
        self._children.append(child)
        return child

    def _answered(self, child: Child, outcome: Outcome) -> None:
        if not child.marks:  # an answer to nothing
            self._died(child)
            return
        mark = child.pop()
        self._pace.record(mark.function.name, outcome.seconds)
        mark.finish(outcome)
        if child.is_held_up:  # it would go on with marks that others have by now, at idle priority
            self._end(child)
        if not child.marks:
            self._dispatch()

    def _died(self, child: Child) -> None:
        how = self._end(child)
        marks = list(child.marks)
        if marks:
            marks[0].deaths += 1
            marks[0].is_held_up = False
            if marks[0].deaths == MAX_DEATHS:
                marks.pop(0).finish(Outcome("error", {}, f"the process died while marking it: {how}"))
        self._queue.extendleft(reversed(marks))
        self._dispatch()

    def _end(self, child: Child) -> str:
        self._children.remove(child)
        child.channel.close()
        return self._server.end(child.pid)

    def _tick(self) -> None:
        """Runs after what is readable was read, so that an answer in time counts however late it is looked at."""
        for child in [child for child in self._children if child.marks]:
            child.look()
            if child.is_late():
                self._time_out(child)
            elif self._is_unusually_slow(child):
                self._queue.extendleft(reversed(child.hold_up()))
        self._dispatch()
        is_busy = self._queue or any(child.marks for child in self._children)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick) if is_busy else None

    def _time_out(self, child: Child) -> None:
        self._end(child)
        late, *others = child.marks
        late.finish(Outcome("timeout", {}, f"not marked within {late.function.deadline_s:g} s"))
        self._queue.extendleft(reversed(others))

    def _is_unusually_slow(self, child: Child) -> bool:
        mean = self._pace.mean(child.marks[0].function.name)
        return (
            not child.is_held_up
            # Before anything is known about a function, what is slow is not known either.
            and mean is not None
            and child.elapsed() > max(MIN_SLOW_S, SLOW_FACTOR * mean)
            and sum(each.is_held_up for each in self._children) < MAX_HELD_UP
        )
