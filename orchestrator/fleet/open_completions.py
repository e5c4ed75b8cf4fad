"""Unfinished completions that move between generators and environments, and the calls for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from orchestrator.fleet.assignment import PromptRequest
from rollout.types.environments import EnvironmentRequest
from rollout.types.sampling import prompt_seed
from rollout.types.turns import CompletionEnd, CompletionKey, NextTurn, TurnRequest

Stage = Literal["asked", "ready", "sampled", "ended"]
"""State of a completion: its environment works on it, it waits, a generator works on it, or it has ended."""
BUSY = ("asked", "sampled")


class TurnCall(NamedTuple):
    """Turns to be sampled by one call of a generator."""

    generator: str
    request: TurnRequest
    past: list[Any]
    """References to the turns so far, at the positions that the request names."""


class AssemblyCall(NamedTuple):
    """A group whose completions have ended, for a generator to assemble."""

    generator: str
    request: PromptRequest
    endings: list[CompletionEnd]
    turns: list[Any]
    """A reference for each completion."""


class EnvironmentCall(NamedTuple):
    """A request to an environment, with the turns so far."""

    request: EnvironmentRequest
    turns: Any
    """A reference; None before the first turn."""


@dataclass(eq=False)
class Wave:
    """Groups that one generator got together."""

    generator: str
    num_groups: int
    num_busy: int = 0
    """Number of completions that a generator or an environment works on."""
    ready: list[OpenCompletion] = field(default_factory=list)


@dataclass(eq=False)
class OpenGroup:
    request: PromptRequest
    completions: list[OpenCompletion] = field(default_factory=list)
    wave: Wave | None = None
    """None while no generator has it."""
    position: int = 0
    """In its wave."""

    @property
    def num_busy(self) -> int:
        return sum(each.stage in BUSY for each in self.completions)

    @property
    def is_done(self) -> bool:
        return all(completion.stage == "ended" for completion in self.completions)


@dataclass(eq=False)
class OpenCompletion:
    group: OpenGroup
    index: int
    stage: Stage = "ready"
    turns: Any = None
    num_turns: int = 0
    num_tokens: int = 0
    said: str = ""
    """The last observation, if no turn has followed it yet."""
    parts: Mapping[str, float] = field(default_factory=dict)
    ending: CompletionEnd | None = None
    """Known before it has ended where its environment failed before the first turn, which is sampled all the same: no
    completion is without tokens."""

    @property
    def key(self) -> CompletionKey:
        return self.group.request.prompt.id, self.index

    @property
    def place(self) -> tuple[int, int]:
        return self.group.position, self.index


def turn_call(generator: str, ready: Sequence[OpenCompletion]) -> TurnCall:
    """Return the call for turns that are sampled under the same settings."""
    past = [each.turns for each in ready if each.turns is not None]
    places = iter(range(len(past)))
    turns = tuple(
        NextTurn(each.group.request.prompt, each.index, None if each.turns is None else next(places), each.said)
        for each in ready
    )
    settings = ready[0].group.request.settings
    return TurnCall(generator, TurnRequest(turns, settings.sampling, settings.seed), past)


def environment_call(each: OpenCompletion) -> EnvironmentCall:
    """Return the call for an environment, whose seed depends on nothing but the run and the completion."""
    prompt, seed = each.group.request.prompt, each.group.request.settings.seed
    request = EnvironmentRequest(each.key, prompt, prompt_seed(seed, f"{prompt.id}/{each.index}/environment"), None)
    return EnvironmentCall(request, each.turns)
