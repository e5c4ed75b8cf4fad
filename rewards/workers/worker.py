"""The part of a reward worker in its own process: it takes groups and reports their completions' rewards.

No Ray here, pool.py makes an actor of it; and no reward function either, they run in grading processes (supervisor.py).
It imports nothing but the standard library, so that it boots in a fraction of a second; pydantic comes with the
settings, numpy with the first group.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewards.function import MAX_IN_FLIGHT, Outcome, RewardFunction
from rewards.signature import Kind
from rewards.workers.children.kernel_counts import peak_memory_gib
from rewards.workers.processes import GradeTask
from rewards.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from rewards.config import RewardsConfig
    from rewards.environments.processes import OpenEnvironments
    from rewards.environments.registry import EnvironmentSpec
    from rollout.types.packed import PackedGroup
    from rollout.types.turns import PackedTurns

HEARTBEAT_S = 5.0
"""Seconds after which a worker sends a sign of life if it has nothing else to send."""
GATHER_S = 0.01
"""Seconds to wait for more once something is done: what Ray needs to carry it is about as much."""
MAX_GATHERS = 10
"""How often it waits for that, unless all is done: a report costs the driver as much as reading ten completions."""


@dataclass(frozen=True)
class GradingProgress:
    """A report on some tasks: those done since the last one."""

    done: Sequence[tuple[int, tuple[Outcome, ...]]]
    """A task's position and its functions' outcomes, in their order."""
    num_open: int
    """Tasks that are neither done nor set aside; those that are set aside cost the worker nothing."""
    peak_gib: float = 0.0
    """As `RewardWorker.peak_memory_gib`, with the last report on some tasks; 0 with others."""


class RewardWorker:
    """Grades completions. Trusts neither the text nor the reward function to succeed, to return or to stay alive."""

    def __init__(
        self, memory_gib: float | None = None, name: str = "reward", max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        """``memory_gib`` limits what grading a completion may allocate, in GiB; None: no limit.

        At most ``max_in_flight`` calls of functions that are ``async def`` are under way at a time.

        Ray shows ``name`` with the actor, and its calls as ``countdown/reward-0.grade``.
        """
        self._supervisor = Supervisor(memory_gib, max_in_flight)
        self._memory_gib = memory_gib
        self._environments: OpenEnvironments | None = None
        self._name = name
        self._config: RewardsConfig | None = None
        self._whole: frozenset[str] = frozenset()
        """Names of the functions that are called once for a whole group."""

    def __repr__(self) -> str:
        return self._name

    async def load(
        self,
        functions: Sequence[RewardFunction],
        environments: Sequence[EnvironmentSpec] = (),
        config: RewardsConfig | None = None,
    ) -> dict[str, Kind]:
        """Import functions before any deadline starts; return how each is called.

        ``config`` says how rewards are composed, which only ``grade_groups`` needs. Raises LoadError, also for an
        environment that cannot be made.
        """
        kinds = self._supervisor.load(functions)
        self._config = config
        self._whole = frozenset(name for name, kind in kinds.items() if kind.is_whole)
        if environments:
            await self._opened().load(environments)
        return kinds

    async def grade_groups(self, pickled: bytes, *packed: PackedGroup) -> AsyncIterator[tuple[bytes, int, float]]:
        """Grade completions of groups that are arguments so that Ray fetches them, and report as ``grade`` does.

        ``pickled`` holds the fields of each GradeRequest. A report has, pickled, (position of the request, its new
        GradedCompletions) for each request that has any, then ``num_open`` and ``peak_gib`` of a GradingProgress. Ray
        itself would take much longer to pickle every function and every reward. Raises RewardConfigError.
        """
        from rewards.workers.requests import GradeRequest, GroupGrading  # with pydantic and numpy

        assert self._config is not None, "load was not given the settings"
        groups = [each.unpack() for each in packed]
        requests = [GradeRequest(*fields) for fields in pickle.loads(pickled)]
        gradings = [GroupGrading(request, groups, self._whole, self._config) for request in requests]

        def report(progress: GradingProgress) -> tuple[bytes, int, float]:
            graded = [(place, found) for place, grading in enumerate(gradings) if (found := grading.take_ready())]
            return pickle.dumps(graded), progress.num_open, progress.peak_gib

        tasks = [task for grading in gradings for task in grading.tasks]
        if not tasks:  # environments alone gave the parts
            yield report(GradingProgress((), 0))
        async for progress in self.grade(tasks):
            yield report(progress)

    async def grade(self, tasks: Sequence[GradeTask]) -> AsyncIterator[GradingProgress]:
        """Report until all tasks are done; those that hang come last. Their functions must have been loaded.

        Raises the error for which the machine cannot start processes, after HEARTBEAT_S without one.
        """
        news = asyncio.Event()
        self._supervisor.submit(tasks, news.set)
        waiting = dict(enumerate(tasks))
        while waiting:
            await self._wait_for(news, waiting.values())
            done = [(position, task.outcomes) for position, task in waiting.items() if task.is_done]
            for position, _ in done:
                del waiting[position]
            peak_gib = 0.0 if waiting else await self.peak_memory_gib()
            yield GradingProgress(done, sum(not task.is_set_aside for task in waiting.values()), peak_gib)

    async def answer_turns(
        self, specs: Mapping[str, EnvironmentSpec], requests: Sequence[tuple[Any, ...]], *packed: PackedTurns
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """Have completions' environments begin, or answer turns that are arguments so that Ray fetches them.

        Each request has the fields of an EnvironmentRequest, each report those of the EnvironmentAnswers since the last
        one; an empty report says that the worker is alive. Raises LoadError.
        """
        from rollout.types.environments import EnvironmentRequest  # with numpy, which a worker boots without

        environments = self._opened()
        await environments.load(specs.values())
        turns = [each.unpack() for each in packed]
        asked = [EnvironmentRequest(*request) for request in requests]
        waiting = {
            asyncio.create_task(environments.answer(each, () if each.place is None else turns[each.place]))
            for each in asked
        }
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if done and waiting:
                await asyncio.sleep(GATHER_S)
                done |= {task for task in waiting if task.done()}
                waiting -= done
            yield [tuple(task.result()) for task in done]

    async def close_environments(self, keys: Sequence[tuple[str, int]] | None = None) -> None:
        """Close the environments of these completions, or all. Returns at once."""
        if self._environments is not None:
            self._environments.close(keys)

    async def peak_memory_gib(self) -> float:
        """Return the largest resident memory so far of this process and the live ones it started, GiB, summed.

        What they share since they were forked is counted in each.
        """
        return sum(peak_memory_gib(pid) for pid in [os.getpid(), *self._pids])

    async def close(self) -> None:
        """End the processes that it started. They would also end with this process."""
        self._supervisor.close()
        if self._environments is not None:
            self._environments.end()

    @property
    def _pids(self) -> list[int]:
        return [*self._supervisor.pids, *(self._environments.pids if self._environments is not None else [])]

    def _opened(self) -> OpenEnvironments:
        if self._environments is None:
            from rewards.environments.processes import OpenEnvironments

            self._environments = OpenEnvironments(self._memory_gib)
        return self._environments

    async def _wait_for(self, news: asyncio.Event, tasks: Collection[GradeTask]) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(news.wait(), HEARTBEAT_S)
            for _ in range(MAX_GATHERS):
                await asyncio.sleep(GATHER_S)
                if all(task.is_done for task in tasks):
                    break
        if not news.is_set() and self._supervisor.trouble is not None:
            raise self._supervisor.trouble
        news.clear()
