"""Completions of a prompt, and their rewards.

Shape legend, used everywhere: ``P`` prompts, ``G`` completions of a group, ``T`` tokens, those that the policy wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rollout.types.prompts import Prompt, Tokens

Logprobs = NDArray[np.float32]
"""Natural-log probabilities of the tokens that were sampled, shape ``[T]``, in nats."""

FinishReason = Literal["stop", "length", "turns", "timeout", "error"]
"""Why a completion ended: by the policy or its environment, by a limit on tokens or turns, or by a failed
environment."""
TRUNCATED, FAILED = ("length", "turns"), ("timeout", "error")
PartStatus = Literal["ok", "timeout", "error"]


class Turn(NamedTuple):
    """One turn of the policy: a range of its completion's tokens, and the range of their characters."""

    start: int
    end: int
    text_start: int
    text_end: int


class CompletionHeader(NamedTuple):
    """The facts about a completion that the driver keeps, without tokens and text."""

    num_tokens: int
    """Number of tokens that the policy wrote."""
    finish_reason: FinishReason
    policy_versions: tuple[int, ...]
    parts: Mapping[str, float] = {}
    """Reward parts from its environment."""
    num_turns: int = 1
    num_observed_tokens: int = 0
    """Number of tokens that an environment wrote."""

    @property
    def is_truncated(self) -> bool:
        return self.finish_reason in TRUNCATED

    @property
    def has_failed(self) -> bool:
        """Whether its environment failed or was late: nothing is learned from it."""
        return self.finish_reason in FAILED


@dataclass(frozen=True, slots=True)
class Completion:
    """The text after a prompt: the policy's turns, and an environment's observations between them.

    An observation is context, like the prompt: it has no log-probabilities, and is not counted, graded or trained on.
    """

    token_ids: Tokens
    """All token ids, with those of observations."""
    rollout_logprobs: Logprobs
    """Log-probabilities of the policy's own tokens when they were sampled, under the sampling distribution (with
    temperature)."""
    finish_reason: FinishReason
    policy_versions: tuple[int, ...]
    """The policy versions that sampled its tokens, oldest first; one unless weights changed midway."""
    text: str
    """The whole text, with observations."""
    turns: tuple[Turn, ...] = ()
    """The policy's turns in order; empty without an environment: then every token is the policy's."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Reward parts from its environment, by name."""

    def __post_init__(self) -> None:
        written = len(self.token_ids)
        if self.turns:
            written = sum(turn.end - turn.start for turn in self.turns)
            ends = [0, *(end for turn in self.turns for end in turn[:2]), len(self.token_ids)]
            text_ends = [0, *(end for turn in self.turns for end in turn[2:]), len(self.text)]
            if any(before > after for before, after in [*pairwise(ends), *pairwise(text_ends)]):
                raise ValueError(
                    f"the turns {[tuple(turn) for turn in self.turns]} do not follow one another in a completion of "
                    f"{len(self.token_ids)} tokens and {len(self.text)} characters"
                )
        if written != len(self.rollout_logprobs):
            raise ValueError(f"a completion of {written} tokens carries {len(self.rollout_logprobs)} logprobs")

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the policy wrote."""
        return len(self.rollout_logprobs)

    @property
    def policy_tokens(self) -> slice | NDArray[np.int64]:
        """Index of the policy's own tokens among all: ``token_ids[policy_tokens]`` has shape ``[T]``."""
        return np.concatenate([np.arange(turn.start, turn.end) for turn in self.turns]) if self.turns else slice(None)

    @property
    def policy_text(self) -> str:
        """The policy's text, one line for each turn, so that words of two turns do not run together."""
        if not self.turns:
            return self.text
        return "\n".join(self.text[turn.text_start : turn.text_end] for turn in self.turns)

    @property
    def is_truncated(self) -> bool:
        return self.header.is_truncated

    @property
    def has_failed(self) -> bool:
        return self.header.has_failed

    @property
    def header(self) -> CompletionHeader:
        turns, observed = max(1, len(self.turns)), len(self.token_ids) - self.num_tokens
        return CompletionHeader(self.num_tokens, self.finish_reason, self.policy_versions, self.parts, turns, observed)


class RewardPart(NamedTuple):
    """One named component of a reward.

    A part that is not ``ok`` has the value 0. The value of an ensemble is then computed from its other parts.
    """

    name: str
    value: float
    status: PartStatus = "ok"


@dataclass(frozen=True)
class Reward:
    """The scalar that is trained on, and its parts."""

    total: float
    parts: tuple[RewardPart, ...]
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    """How long each function took for the completion, by its name; the deadline if it was late."""
    markers: tuple[str, ...] | None = field(default=None, compare=False)
    """Behaviours that the completion's text shows; None if it was not searched."""
    logged: Mapping[str, float] = field(default_factory=dict, compare=False)
    """Values that reward functions logged for it, by name."""

    def value(self, name: str) -> float | None:
        """Return the value of the part of that name; None when the reward has none."""
        for part in self.parts:
            if part.name == name:
                return part.value
        return None

    @property
    def status(self) -> PartStatus:
        """``ok``, or the first status of a part that is not."""
        return next((part.status for part in self.parts if part.status != "ok"), "ok")

    def __reduce__(self) -> tuple[Any, ...]:
        # The driver receives and sends every reward. pickle takes nearly three times as long for named tuples.
        return _unpickled, (self.total, tuple(map(tuple, self.parts)), self.seconds, self.markers, self.logged)


def _unpickled(
    total: float,
    parts: Iterable[tuple[Any, ...]],
    seconds: Mapping[str, float],
    markers: tuple[str, ...] | None,
    logged: Mapping[str, float],
) -> Reward:
    reward = object.__new__(Reward)  # the constructor of a frozen dataclass takes twice as long
    made = tuple(map(_new_part, parts))
    reward.__dict__.update(total=total, parts=made, seconds=seconds, markers=markers, logged=logged)
    return reward


_new_part = partial(tuple.__new__, RewardPart)


@dataclass(frozen=True)
class GroupHeader:
    """The facts about the completions of one prompt, without tokens and texts, and their rewards once graded."""

    prompt: Prompt
    completions: tuple[Completion, ...] | tuple[CompletionHeader, ...]
    rewards: tuple[Reward, ...] = ()

    def scored(self, rewards: tuple[Reward, ...]) -> Self:
        """Return this group with ``rewards``, one for each completion. Raises ValueError for another number of them."""
        if len(rewards) != len(self.completions):
            raise ValueError(f"group {self.prompt.id}: {len(self.completions)} completions, {len(rewards)} rewards")
        return replace(self, rewards=rewards)

    @property
    def totals(self) -> NDArray[np.float64]:
        """Total rewards, shape ``[G]``."""
        return np.array([reward.total for reward in self.rewards], dtype=np.float64)

    @property
    def has_spread(self) -> bool:
        """True when rewards differ. Without spread, advantages that compare completions are all 0."""
        totals = [reward.total for reward in self.rewards]
        return max(totals) > min(totals)

    @property
    def pass_rate(self) -> float | None:
        """Share of completions known to be right; None if no reward has a part ``correctness``."""
        known = [found for found in (reward.value("correctness") for reward in self.rewards) if found is not None]
        return known.count(1.0) / len(self.rewards) if known else None

    @property
    def num_completion_tokens(self) -> int:
        return sum(completion.num_tokens for completion in self.completions)


@dataclass(frozen=True)
class Group(GroupHeader):
    """The completions of one prompt, and their rewards once they are graded."""

    completions: tuple[Completion, ...]


@dataclass(frozen=True)
class RemoteGroup(GroupHeader):
    """A group whose tokens and texts stay on the node where they were sampled until another process needs them."""

    completions: tuple[CompletionHeader, ...]
    reference: Any = None
    """Reference to a `PackedGroup` in the object store."""
