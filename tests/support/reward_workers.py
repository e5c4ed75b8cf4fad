"""A reward worker without Ray, and what it makes of hostile texts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from rewards.function import Outcome, RewardFunction
from rewards.workers.processes import GradeTask
from rewards.workers.worker import RewardWorker

DEADLINE_S = 0.5
GUARDED = RewardFunction("guarded", "hostile_rewards:guarded", ("guarded",), deadline_s=DEADLINE_S)


def act(deadline_s: float = DEADLINE_S) -> RewardFunction:
    return RewardFunction("hostile", "hostile_rewards:act", ("correctness", "tidy"), True, deadline_s=deadline_s)


@asynccontextmanager
async def working(*functions: RewardFunction, memory_gib: float | None = None) -> AsyncIterator[RewardWorker]:
    worker = RewardWorker(memory_gib)
    try:
        assert await worker.load(functions) == os.getpid()
        yield worker
    finally:
        await worker.close()


def tasks_of(texts: Iterable[str], *functions: RewardFunction, answer: Any = None) -> list[GradeTask]:
    return [GradeTask(functions, text, answer or {}) for text in texts]


async def grade(worker: RewardWorker, tasks: Sequence[GradeTask]) -> list[tuple[Outcome, ...]]:
    """Return the functions' outcomes for each task."""
    found: dict[int, tuple[Outcome, ...]] = {}
    async for progress in worker.grade(tasks):
        for position, outcomes in progress.done:
            assert position not in found, "a task came back twice"
            found[position] = outcomes
    return [found[position] for position in range(len(tasks))]


def statuses_of(graded: Iterable[Sequence[Outcome]]) -> list[list[str]]:
    return [[outcome.status for outcome in outcomes] for outcomes in graded]


def statuses(texts: list[str], *functions: RewardFunction, answer: Any = None, **settings: Any) -> list[list[str]]:
    async def run() -> list[list[str]]:
        async with working(*functions, **settings) as worker:
            return statuses_of(await grade(worker, tasks_of(texts, *functions, answer=answer)))

    return asyncio.run(run())
