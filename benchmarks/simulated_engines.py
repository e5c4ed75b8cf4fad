"""Engines that sleep, for benchmarks of the driver: a few Ray actors stand for many generators."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from zlib import crc32

import numpy as np
import ray

from rollout.types.completions import Completion, Group
from rollout.types.packed import PackedGroup
from rollout.types.prompts import Prompt
from rollout.types.publishing import WeightBucket
from rollout.types.sampling import Heartbeat, SamplingRequest

COMPLETION_TOKENS = 500
TEXT = "Let me try 3 * 9 = 27, and 27 + 7 = 34.\n" * 50 + "</think><answer>{}</answer>"
"""About four characters a token."""
MAX_CONCURRENCY = 10_000


class EngineHost:
    """Stands for several generators, told apart by the index that each call begins with. Its engines sleep."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: median time of a group; the tail is long."""
        self._seconds = seconds
        self._versions: dict[int, int] = {}
        self._staged: dict[int, int] = {}
        self._unfinished: Counter[int] = Counter()
        self._abandoned: Counter[int] = Counter()

    async def ready(self, index: int) -> int:
        return os.getpid()

    @ray.method(num_returns="streaming")
    async def generate(self, index: int, request: SamplingRequest) -> AsyncIterator[PackedGroup]:
        """Yield groups as they finish. All prompts begin at once, as in vLLM."""
        draws = np.random.default_rng([request.seed, index]).lognormal(0.0, 0.7, len(request.prompts))
        first, abandoned, now = self._versions[index], self._abandoned[index], 0.0
        self._unfinished[index] += len(request.prompts)
        for prompt, moment in zip(request.prompts, np.sort(self._seconds * draws), strict=True):
            await asyncio.sleep(float(moment) - now)
            now = float(moment)
            if self._abandoned[index] != abandoned:
                return
            self._unfinished[index] -= 1
            versions = tuple(range(first, self._versions[index] + 1))
            yield PackedGroup.of(group_of(prompt, request.group_size, versions))

    async def heartbeat(self, index: int) -> Heartbeat:
        return Heartbeat(self._versions.get(index), self._unfinished[index], time.monotonic_ns())

    async def abandon(self, index: int) -> int:
        self._abandoned[index] += 1
        return self._unfinished.pop(index, 0)

    async def stage_weights(self, index: int, attempt_id: int, version: int, *buckets: WeightBucket) -> None:
        self._staged[index] = version

    async def commit_weights(self, index: int, attempt_id: int) -> int:
        self._versions[index] = self._staged.pop(index)
        return self._versions[index]

    async def drop_weights(self, index: int, attempt_id: int) -> None:
        self._staged.pop(index, None)


def group_of(prompt: Prompt, size: int, versions: tuple[int, ...]) -> Group:
    """Every second completion is right."""
    draws = np.random.default_rng(crc32(prompt.id.encode()))
    tokens = draws.integers(150_000, size=(size, COMPLETION_TOKENS), dtype=np.int32)
    logprobs = -draws.random((size, COMPLETION_TOKENS), dtype=np.float32)
    texts = [TEXT.format("3 * 9 + 7" if index % 2 else "3 * 9 - 7") for index in range(size)]
    rows = zip(tokens, logprobs, texts, strict=True)
    return Group(prompt, tuple(Completion(ids, found, "stop", versions, text) for ids, found, text in rows))


class HostedGenerator:
    """What the driver holds for a generator: `handle.method.remote(…)` goes to its host, with its index."""

    def __init__(self, host: Any, index: int) -> None:
        self._host, self._index = host, index

    def __getattr__(self, method: str) -> HostedMethod:
        return HostedMethod(getattr(self._host, method), self._index)


class HostedMethod:
    def __init__(self, method: Any, index: int) -> None:
        self._method, self._index = method, index

    def remote(self, *args: Any) -> Any:
        return self._method.remote(self._index, *args)


HostActor: Any = ray.remote(num_cpus=0)(EngineHost).options(max_concurrency=MAX_CONCURRENCY)
