"""A worker's environments without Ray: ask them as the driver does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from rewards.environments.processes import OpenEnvironments
from rewards.environments.registry import EnvironmentSpec, environment_spec
from rollout.types.environments import EnvironmentAnswer, EnvironmentRequest
from rollout.types.prompts import Prompt
from rollout.types.turns import SampledTurn

HOSTILE = "hostile_environments:Hostile"
NO_TOKENS = np.array([], dtype=np.int32)
NO_LOGPROBS = np.array([], dtype=np.float32)


def prompt_of(environment: str, **answer: Any) -> Prompt:
    return Prompt("train/7", np.array([1], dtype=np.int32), "question", "countdown", answer, environment=environment)


def turn_of(text: str, said: str = "") -> SampledTurn:
    """Return a turn of the policy, before which the environment said something."""
    return SampledTurn(said, NO_TOKENS, said, NO_TOKENS, NO_LOGPROBS, text, (0,))


@asynccontextmanager
async def opened(*specs: EnvironmentSpec, memory_gib: float | None = None) -> AsyncIterator[OpenEnvironments]:
    """Yield a worker's environments with classes loaded; end them afterwards."""
    environments = OpenEnvironments(memory_gib)
    try:
        await environments.load(specs)
        yield environments
    finally:
        environments.end()


async def play(
    environments: OpenEnvironments, prompt: Prompt, texts: Sequence[str], index: int = 0, seed: int = 5
) -> list[EnvironmentAnswer]:
    """Return what an environment says to the start and to turns with these texts, until it is over."""
    request = EnvironmentRequest((prompt.id, index), prompt, seed, None)
    answers = [await environments.answer(request, ())]
    turns: list[SampledTurn] = []
    for text in texts:
        if answers[-1].is_over:
            break
        turns.append(turn_of(text, answers[-1].text))
        answers.append(await environments.answer(request._replace(place=0), turns))
    return answers


def answers_of(
    spec: EnvironmentSpec, texts: Sequence[str], memory_gib: float | None = None, **answer: Any
) -> list[EnvironmentAnswer]:
    """Return what one environment says in a worker of its own."""

    async def run() -> list[EnvironmentAnswer]:
        async with opened(spec, memory_gib=memory_gib) as environments:
            return await play(environments, prompt_of(spec.name, **answer), texts)

    return asyncio.run(run())


def hostile(deadline_s: float = 20.0, max_bytes: int = 2**14, **parameters: Any) -> EnvironmentSpec:
    return environment_spec(HOSTILE, parameters, deadline_s, max_bytes)
