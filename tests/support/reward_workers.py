"""A reward worker without Ray, and what it makes of hostile texts."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rewards.config import RewardsConfig
from rewards.function import MAX_IN_FLIGHT, Outcome, RewardFunction
from rewards.subject import Subject
from rewards.workers.processes import GradeTask
from rewards.workers.scheduler import Scheduler
from rewards.workers.worker import RewardWorker
from rollout.types.completions import Group, RemoteGroup, Reward
from rollout.types.packed import PackedGroup

DEADLINE_S = 0.5
GUARDED = RewardFunction("guarded", "hostile_rewards:guarded", ("guarded",), deadline_s=DEADLINE_S)


def act(deadline_s: float = DEADLINE_S) -> RewardFunction:
    return RewardFunction("hostile", "hostile_rewards:act", ("correctness", "tidy"), True, deadline_s=deadline_s)


@asynccontextmanager
async def working(
    *functions: RewardFunction, memory_gib: float | None = None, max_in_flight: int = MAX_IN_FLIGHT
) -> AsyncIterator[RewardWorker]:
    worker = RewardWorker(memory_gib, max_in_flight=max_in_flight)
    try:
        assert {*await worker.load(functions)} == {function.name for function in functions}
        yield worker
    finally:
        await worker.close()


def tasks_of(texts: Iterable[str], *functions: RewardFunction, answer: Any = None) -> list[GradeTask]:
    return [GradeTask(functions, Subject((text,), answer or {})) for text in texts]


async def grade(worker: RewardWorker, tasks: Sequence[GradeTask]) -> list[tuple[Outcome, ...]]:
    """Return the functions' outcomes for each task."""
    found: dict[int, tuple[Outcome, ...]] = {}
    async for progress in worker.grade(tasks):
        for position, outcomes in progress.done:
            assert position not in found, "a task came back twice"
            found[position] = outcomes
    return [found[position] for position in range(len(tasks))]


def rewards_of(config: RewardsConfig, *groups: Group, **settings: Any) -> list[tuple[Reward, ...]]:
    """Return what a recipe pays for groups: a driver's scheduler and one worker, without Ray."""

    async def run() -> list[RemoteGroup]:
        scheduler = Scheduler(config)
        pending = [scheduler.enqueue(group) for group in groups]
        functions = {function.name: function for each in pending for function in each.functions}
        async with working(*functions.values(), **settings) as worker:
            kinds = await worker.load([*functions.values()], config=config)
            scheduler.learn(kinds)
            packed = [PackedGroup.of(group) for group in groups]
            while scheduler.queue:
                items = scheduler.next_items(0)
                requests = [tuple(item.request(groups.index(item.pending.group))) for item in items]
                async for report, _, _ in worker.grade_groups(pickle.dumps(requests), *packed):
                    for place, found in pickle.loads(report):
                        scheduler.record(items[place], found)
        return scheduler.take(pending)

    return [group.rewards for group in asyncio.run(run())]


def statuses_of(graded: Iterable[Sequence[Outcome]]) -> list[list[str]]:
    return [[outcome.status for outcome in outcomes] for outcomes in graded]


def statuses(texts: list[str], *functions: RewardFunction, answer: Any = None, **settings: Any) -> list[list[str]]:
    async def run() -> list[list[str]]:
        async with working(*functions, **settings) as worker:
            return statuses_of(await grade(worker, tasks_of(texts, *functions, answer=answer)))

    return asyncio.run(run())
