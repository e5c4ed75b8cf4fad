"""Hand tasks to grading processes and keep their deadlines; no reward function runs here.

One process works through the queue in batches of some milliseconds. Each function is answered as soon as it returns, so
the one that a process hangs in is known:

    unusually slow    ──> the process is set aside: it keeps that task, at idle priority; a fresh process goes on
    past its deadline ──> the process is killed, the outcome is a timeout; the rest of its batch goes on
    the process died  ──> the function is called once more in another process; then the outcome is an error

Functions that are ``async def`` come last, and are called many at a time (concurrent/lane.py).

At most MAX_SET_ASIDE processes are set aside at a time. So a share h of hanging completions with a deadline of D
seconds costs little, up to MAX_SET_ASIDE / (h D) completions a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from rewards.function import Outcome, RewardFunction
from rewards.signature import Kind
from rewards.workers.children.fork_server_handle import ForkServer, LoadError
from rewards.workers.concurrent.lane import AsyncCall, Lane
from rewards.workers.processes import GradeTask, GradingProcess
from rewards.workers.running_means import RunningMeans

BATCH_S = 0.02
"""Seconds of work in one batch: much more than the cost of sending it, and little to repeat when it hangs."""
MAX_BATCH = 128
TICK_S = 0.01
"""Seconds between two checks of busy processes."""
MAX_SET_ASIDE = 8
"""Largest number of slow processes that are set aside. Each may use a share of a CPU, and takes a few MiB."""
SLOW_FACTOR = 4.0
"""A call is unusually slow if it takes this many times its function's mean, and more than MIN_SLOW_S."""
MIN_SLOW_S = 0.02
MAX_DEATHS = 2


class Supervisor:
    """Grades tasks in its own processes. Lives in an event loop, which it never blocks for longer than a fork."""

    def __init__(self, memory_gib: float | None, max_in_flight: int) -> None:
        """``memory_gib`` limits what each grading process may allocate, in GiB; None: no limit.

        At most ``max_in_flight`` calls of functions that are ``async def`` are under way at a time.
        """
        self._server = ForkServer(memory_gib)
        self._lane = Lane(memory_gib, max_in_flight, self._call_alone)
        self._waiting: frozenset[str] = frozenset()
        """Names of the ``async def`` functions."""
        self._means = RunningMeans()
        self._queue: deque[GradeTask] = deque()
        self._processes: list[GradingProcess] = []
        self._timer: asyncio.TimerHandle | None = None
        self.trouble: Exception | None = None
        """Why no process could be started, while there is none."""

    @property
    def pids(self) -> list[int]:
        """The living processes that it started: the fork server, then the grading processes."""
        return [self._server.pid, *(process.pid for process in self._processes), *self._lane.pids]

    def load(self, functions: Iterable[RewardFunction]) -> dict[str, Kind]:
        """Import functions before tasks ask for them, and return how each is called. Raises LoadError."""
        loaded = list(functions)
        kinds = self._server.load(loaded)
        self._waiting = frozenset(name for name, kind in kinds.items() if kind.is_async)
        for process in self._processes:
            process.is_outdated = True
        self._lane.load([function for function in loaded if function.name in self._waiting])
        return kinds

    def submit(self, tasks: Iterable[GradeTask], on_change: Callable[[], None]) -> None:
        """Queue tasks. ``on_change`` is called when one of them has an outcome more, or is set aside."""
        for task in tasks:
            task.on_change = on_change
            if self._waiting:
                task.set_apart(self._waiting)
            if task.remaining:
                self._queue.append(task)
            else:
                self._lane.submit(task)
        self._dispatch()
        if self._timer is None:
            self._tick()

    def close(self) -> None:
        """End all processes; tasks that are not done are dropped."""
        if self._timer is not None:
            self._timer.cancel()
        for process in list(self._processes):
            self._end(process)
        self._lane.close()
        self._server.close()

    def _dispatch(self) -> None:
        try:
            self._lane.advance()
        except (OSError, LoadError) as error:  # the next tick tries again
            self.trouble = error
        while self._queue and (process := self._free_process()) is not None:
            process.give(self._next_batch())

    def _next_batch(self) -> list[GradeTask]:
        batch: list[GradeTask] = []
        seconds = 0.0
        while self._queue and seconds < BATCH_S and len(batch) < MAX_BATCH:
            batch.append(self._queue.popleft())
            seconds += sum(self._means.mean(function.name) or BATCH_S for function in batch[-1].remaining)
        return batch

    def _free_process(self) -> GradingProcess | None:
        for process in [process for process in self._processes if not process.is_set_aside]:
            if process.tasks:
                return None
            if not process.is_outdated and not self._server.has_ended:
                return process
            self._end(process)
        return self._fork()

    def _fork(self) -> GradingProcess | None:
        try:
            pid, connection = self._server.fork()
        except (OSError, LoadError) as error:  # the next tick tries again
            self.trouble = error
            return None
        self.trouble = None
        for straggler in self._processes:
            straggler.lower_priority()
        process = GradingProcess(pid, connection, self._answered, self._died)
        self._processes.append(process)
        return process

    def _answered(self, process: GradingProcess, outcome: Outcome) -> None:
        if not process.tasks:  # an answer to nothing
            self._died(process)
            return
        self._means.record(process.function.name, outcome.seconds)
        self._record(process, outcome)
        if process.is_set_aside:  # it would go on at idle priority
            self._end(process)
            self._requeue(process.tasks)
        elif process.tasks:
            return
        self._dispatch()

    def _record(self, process: GradingProcess, outcome: Outcome) -> None:
        """Take the outcome of the function that a process was calling; those that are ``async def`` come last."""
        task = process.tasks[0]
        process.record(outcome)
        if task.concurrent and not task.remaining:
            self._lane.submit(task)

    def _call_alone(self, call: AsyncCall) -> None:
        """Call an ``async def`` function like others, in a process that does nothing else meanwhile."""
        task, function = call
        alone = GradeTask((function,), task.subject)

        def note() -> None:
            if alone.is_done:
                task.note(function.name, alone.found[function.name])

        alone.on_change = note
        self._queue.append(alone)

    def _died(self, process: GradingProcess) -> None:
        how = self._end(process)
        if process.tasks:
            task = process.tasks[0]
            task.num_deaths += 1
            task.is_set_aside = False
            if task.num_deaths == MAX_DEATHS:
                self._record(process, Outcome("error", {}, f"the process died while grading it: {how}"))
        self._requeue(process.tasks)
        self._dispatch()

    def _requeue(self, tasks: Iterable[GradeTask]) -> None:
        self._queue.extendleft(reversed(list(tasks)))

    def _end(self, process: GradingProcess) -> str:
        self._processes.remove(process)
        process.close()
        return self._server.end(process.pid)

    def _tick(self) -> None:
        """Look at the busy processes.

        What is readable was read before, so an answer in time counts however late it is looked at.
        """
        for process in [process for process in self._processes if process.tasks]:
            process.note_waiting()
            if process.is_late():
                self._time_out(process)
            elif self._is_unusually_slow(process):
                self._requeue(process.set_aside_straggler())
        self._dispatch()
        is_busy = self._queue or self._lane.is_busy or any(process.tasks for process in self._processes)
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick) if is_busy else None

    def _time_out(self, process: GradingProcess) -> None:
        process.read()  # it may have answered while the clock was looked at
        if process not in self._processes or not process.tasks or not process.is_late():
            return
        self._end(process)
        deadline_s = process.function.deadline_s
        self._record(process, Outcome("timeout", {}, f"not graded within {deadline_s:g} s", deadline_s))
        self._requeue(process.tasks)

    def _is_unusually_slow(self, process: GradingProcess) -> bool:
        mean = self._means.mean(process.function.name)
        return (
            not process.is_set_aside
            # Before anything is known about a function, what is slow is not known either.
            and mean is not None
            and process.elapsed() > max(MIN_SLOW_S, SLOW_FACTOR * mean)
            and sum(each.is_set_aside for each in self._processes) < MAX_SET_ASIDE
        )
