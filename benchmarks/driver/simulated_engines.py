"""Engines that sleep, for benchmarks of the driver: a few Ray actors stand for many generators."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import ray

from rollout.types.completions import Completion, Group
from rollout.types.environments import EnvironmentAnswer, EnvironmentRequest
from rollout.types.packed import PackedGroup
from rollout.types.prompts import Prompt
from rollout.types.publishing import WeightBucket
from rollout.types.sampling import Heartbeat, SamplingRequest
from rollout.types.turns import CompletionEnd, PackedTurns, SampledTurn, TurnRequest, completion_of

COMPLETION_TOKENS = 500
TEXT = "Let me try 3 * 9 = 27, and 27 + 7 = 34.\n" * 50 + "</think><answer>{}</answer>"
"""About four characters a token."""
TURN_TOKENS = 50
SAID = "<result>34</result>"
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

    @ray.method(num_returns="streaming")
    async def sample_turns(self, index: int, request: TurnRequest, *past: PackedTurns) -> AsyncIterator[PackedTurns]:
        """Yield turns as they are sampled, at once."""
        for turn in request.turns:
            before = () if turn.place is None else past[turn.place].unpack()
            made = turn_of(turn.prompt, turn.said, (self._versions[index],))
            yield PackedTurns.of((turn.prompt.id, turn.position), (*before, made), "observation")

    @ray.method(num_returns="streaming")
    async def assemble(
        self, index: int, prompt: Prompt, endings: Sequence[CompletionEnd], *turns: PackedTurns
    ) -> AsyncIterator[PackedGroup]:
        made = (completion_of(each.unpack(), ending) for each, ending in zip(turns, endings, strict=True))
        yield PackedGroup.of(Group(prompt, tuple(made)))

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


def turn_of(prompt: Prompt, said: str, versions: tuple[int, ...]) -> SampledTurn:
    """Return a turn of TURN_TOKENS, behind what the environment said."""
    draws = np.random.default_rng(crc32(prompt.id.encode()))
    tokens = draws.integers(150_000, size=TURN_TOKENS, dtype=np.int32)
    logprobs = -draws.random(TURN_TOKENS, dtype=np.float32)
    return SampledTurn(said, tokens[: len(said) // 4], said, tokens, logprobs, TEXT[: 4 * TURN_TOKENS], versions)


class SimulatedEnvironments:
    """In place of a reward worker's environments: answers at once, and says after so many turns that it is over."""

    def __init__(self, num_turns: int) -> None:
        self._num_turns = num_turns

    async def answer_turns(
        self, specs: Mapping[str, Any], requests: Sequence[tuple[Any, ...]], *packed: PackedTurns
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """Yield the answers of one call together, as those are that come at the same time."""
        yield [tuple(self._answer(EnvironmentRequest(*request), packed)) for request in requests]

    async def close_environments(self, keys: Sequence[tuple[str, int]] | None) -> None:
        """Nothing is open."""

    def _answer(self, request: EnvironmentRequest, packed: Sequence[PackedTurns]) -> EnvironmentAnswer:
        num_turns = 0 if request.place is None else packed[request.place].header.num_turns
        return EnvironmentAnswer(request.key, SAID if num_turns else "", num_turns == self._num_turns)


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


EnvironmentsActor: Any = ray.remote(num_cpus=0)(SimulatedEnvironments)
HostActor: Any = ray.remote(num_cpus=0)(EngineHost).options(max_concurrency=MAX_CONCURRENCY)
