"""Requests to a generator, the settings from which it is built, and its heartbeat."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rollout.types.prompts import Prompt
from rollout.types.publishing import TransportName

UNSHARED_FRACTION = 0.9
"""vLLM's share of a GPU without a learner, if no other share is set or planned."""

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 2.0
"""Temperatures that vLLM supports. It raises one between 0 and the smallest to the smallest, and only logs it."""


def check_temperature(temperature: float) -> float:
    """Return a temperature that sampler and learner can both use. Raises ValueError for one that vLLM would raise."""
    if 0 < temperature < MIN_TEMPERATURE:
        raise ValueError(
            f"temperature = {temperature:g}: vLLM samples with {MIN_TEMPERATURE:g} instead, and the learner would not; "
            f"set it to {MIN_TEMPERATURE:g} or more"
        )
    return temperature


def prompt_seed(seed: int, prompt_id: str) -> int:
    """Return a seed for one prompt, which does not depend on the engine or on the rest of its batch."""
    digest = hashlib.blake2b(f"{seed}/{prompt_id}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1  # a completion's index is added: stay within int32


class SamplingSettings(Protocol):
    """The sampling settings, as a protocol; a recipe's `[sampling]` section fits it."""

    @property
    def temperature(self) -> float:
        """Divides the logits; 0 takes the most likely token."""
        ...

    @property
    def max_completion_tokens(self) -> int:
        """Longest completion, in tokens."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end a completion, and stay in it."""
        ...


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """Prompts, and how to sample a group of completions for each of them."""

    prompts: tuple[Prompt, ...]
    sampling: SamplingSettings
    group_size: int
    """Completions of each prompt."""
    seed: int
    """Decides, with a prompt's id, what is drawn for it."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """How a run's completions are made of turns. Tokens are those of one completion."""

    stops: Mapping[str, tuple[str, ...]]
    """Texts that end a turn and stay in it, by the environment's name."""
    max_turns: int
    max_observed_tokens: int
    chat: bool
    """Whether an observation behind an end token is framed as the chat template frames a user's message."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a generation engine is built from, besides its settings."""

    model_folder: str
    dtype: str
    max_model_len: int
    """Longest prompt plus longest completion, in tokens."""
    load_weights: bool
    """False when the first weights will be published: the folder then only needs its config."""
    reads_text: bool = False
    """Whether the engine reads text while it samples, as `sampling.stop` needs."""
    gpu_memory_fraction: float = UNSHARED_FRACTION
    """vLLM's share of the GPU's memory, weights and KV cache together."""
    transport: TransportName = "ray"
    """How published weights reach the engine."""
    sleeps: bool = False
    """Whether it gives its GPU's memory to a learner in turns; the allocator that can do so is of no other use."""
    turns: TurnRules | None = None
    """Where an environment answers; `max_model_len` then has room for observations too."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life of a generator, answered beside its decoding.

    No heartbeat: the process hangs. Two heartbeats with unfinished prompts and equal `decoding_steps`: the engine
    hangs. Otherwise it works, be it slowly.
    """

    policy_version: int | None
    """As in use at this moment; None while there are no whole weights."""
    num_unfinished: int
    """Prompts that the engine has and did not finish."""
    decoding_steps: int
    """Done since the engine started."""
    peak_gib: float = 0.0
    """Largest resident memory of its process so far, GiB; 0 where it is not known."""
