"""What runs in a reward worker's process: takes parcels of texts, gives back what their functions made of them.

No Ray here, pool.py makes an actor of it; and no reward function either, they run in child processes (supervisor.py). It
imports nothing but the standard library, so that it boots in a fraction of a second.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rewards.function import Outcome, RewardFunction
from rewards.workers.child import Mark
from rewards.workers.proc import peak_memory_gib
from rewards.workers.supervisor import Supervisor

HEARTBEAT_S = 5.0
"""Seconds after which a worker says that it is alive, when it has nothing else to say."""
GATHER_S = 0.01
"""Seconds to wait for more once something is done: what Ray needs to carry it is about as much."""


@dataclass(frozen=True)
class Parcel:
    """Completions of one prompt, to be marked by the same functions."""

    functions: tuple[RewardFunction, ...]
    texts: tuple[str, ...]
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """What became of some parcels since the last report on them."""

    done: Sequence[tuple[int, list[tuple[Outcome, ...]]]]
    """A parcel's position, and for each of its texts the functions' outcomes, in their order."""
    num_open: int
    """Completions that are still to be marked and are not held up; those that are cost the worker nothing."""


class RewardWorker:
    """Marks completions. Trusts neither the text nor the reward function to succeed, to return or to stay alive."""

    def __init__(self, memory_gib: float | None = None, name: str = "reward") -> None:
        """``memory_gib`` bounds what marking a completion may allocate, in GiB; None leaves it alone. Ray shows ``name`` with
        the actor, and its calls as ``countdown/reward-0.mark``."""
        self._supervisor = Supervisor(memory_gib)
        self._name = name

    def __repr__(self) -> str:
        return self._name

    async def load(self, functions: Sequence[RewardFunction]) -> int:
        """Imports functions, so that the time it takes is no completion's; returns this process's id. Raises LoadError."""
        self._supervisor.load(functions)
        return os.getpid()

    async def mark(self, parcels: Sequence[Parcel]) -> AsyncIterator[Progress]:
        """Reports until all parcels are done; those that hang come last. Their functions must have been loaded.

        Raises what keeps the machine from starting processes, once HEARTBEAT_S have passed without one.
        """
        news = asyncio.Event()
        marks = [_marks_of(parcel, news) for parcel in parcels]
        self._supervisor.submit(mark for parcel in marks for completion in parcel for mark in completion)
        waiting = set(range(len(parcels)))
        while waiting:
            await self._wait_for(news)
            ready = [index for index in sorted(waiting) if _is_done(marks[index])]
            waiting.difference_update(ready)
            num_open = sum(any(mark.is_open for mark in row) for index in waiting for row in marks[index])
            yield Progress([(index, _outcomes_of(marks[index])) for index in ready], num_open)

    async def peak_memory_gib(self) -> float:
        """Largest resident memory so far of this process and those it started that are alive, GiB, summed.

        What they share since they were forked is counted in each.
        """
        return sum(peak_memory_gib(pid) for pid in [os.getpid(), *self._supervisor.pids])

    async def close(self) -> None:
        """Ends the processes it started. They would also end with this one."""
        self._supervisor.close()

    async def _wait_for(self, news: asyncio.Event) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(news.wait(), HEARTBEAT_S)
            await asyncio.sleep(GATHER_S)
        if not news.is_set() and self._supervisor.trouble is not None:
            raise self._supervisor.trouble
        news.clear()


def _marks_of(parcel: Parcel, news: asyncio.Event) -> list[list[Mark]]:
    return [[Mark(function, text, parcel.answer, news.set) for function in parcel.functions] for text in parcel.texts]


def _outcomes_of(marks: list[list[Mark]]) -> list[tuple[Outcome, ...]]:
    return [tuple(mark.outcome for mark in row if mark.outcome is not None) for row in marks]


def _is_done(marks: list[list[Mark]]) -> bool:
    return all(mark.outcome is not None for row in marks for mark in row)
