"""Unfinished completions with an environment: turns of the policy, each a request to an engine."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.types.completions import Completion, FinishReason, Logprobs, Turn
from rollout.types.prompts import Prompt, Tokens
from rollout.types.sampling import SamplingSettings

TurnEnd = Literal["observation", "end_token", "stop", "length", "unreadable"]
"""Why a turn ended: a stop text of the environment; an end token; one of ``sampling.stop``; a limit on tokens; an
observation that the model's tokenizer cannot encode."""

CompletionKey = tuple[str, int]
"""A prompt's id, and the index of a completion in its group."""


class SampledTurn(NamedTuple):
    """An observation, if there was one, and the turn that the policy wrote after it."""

    said: str
    """The observation's text; empty without one."""
    observed_ids: Tokens
    """The observation as the policy read it: within its limit, with the chat template's frame."""
    observed_text: str
    token_ids: Tokens
    """The policy's own tokens."""
    logprobs: Logprobs
    text: str
    """The text of all its tokens. The last token may go on after the stop text, such as the `.` of SmolLM2's `>.`."""
    policy_versions: tuple[int, ...]
    stop: str = ""
    """The environment's stop text that ended it; empty if something else did."""

    @property
    def heard(self) -> str:
        """The text that the environment gets: up to the stop text, which does not occur before the turn's end."""
        before, found, _ = self.text.partition(self.stop) if self.stop else ("", "", "")
        return before + found if found else self.text


class TurnHeader(NamedTuple):
    """The facts about an unfinished completion, without tokens and texts."""

    key: CompletionKey
    num_turns: int
    num_tokens: int
    """Number of the policy's own tokens, of all turns."""
    end: TurnEnd
    """Why the last turn ended."""


@dataclass(frozen=True)
class PackedTurns:
    """All turns of a completion so far, packed, with their header outside. The last one contains all earlier turns."""

    header: TurnHeader
    content: NDArray[np.uint8]
    """The pickled turns. As an array they are not copied out of the object store to be read."""

    @classmethod
    def of(cls, key: CompletionKey, turns: Sequence[SampledTurn], end: TurnEnd) -> PackedTurns:
        header = TurnHeader(key, len(turns), sum(len(turn.token_ids) for turn in turns), end)
        return cls(header, np.frombuffer(pickle.dumps(tuple(turns), pickle.HIGHEST_PROTOCOL), dtype=np.uint8))

    def unpack(self) -> tuple[SampledTurn, ...]:
        turns: tuple[SampledTurn, ...] = pickle.loads(self.content.data)
        return turns


class NextTurn(NamedTuple):
    """A completion that needs its next turn."""

    prompt: Prompt
    position: int
    """Its position in the group."""
    place: int | None
    """Position of its turns among those that are sent with the request; None before the first turn."""
    said: str
    """The observation before the turn."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """Completions that need their next turn, and how it is sampled."""

    turns: tuple[NextTurn, ...]
    sampling: SamplingSettings
    seed: int
    """The run's seed."""


class CompletionEnd(NamedTuple):
    """How a completion ended."""

    finish_reason: FinishReason
    parts: Mapping[str, float]
    """The environment's reward parts."""


def completion_of(turns: Sequence[SampledTurn], ending: CompletionEnd) -> Completion:
    """Return the completion made of these turns in order. There must be at least one."""
    places, tokens, texts = [], 0, 0
    for turn in turns:
        start, text_start = tokens + len(turn.observed_ids), texts + len(turn.observed_text)
        tokens, texts = start + len(turn.token_ids), text_start + len(turn.text)
        places.append(Turn(start, tokens, text_start, texts))
    return Completion(
        token_ids=np.concatenate([ids for turn in turns for ids in (turn.observed_ids, turn.token_ids)]),
        rollout_logprobs=np.concatenate([turn.logprobs for turn in turns]),
        finish_reason=ending.finish_reason,
        policy_versions=tuple(sorted({version for turn in turns for version in turn.policy_versions})),
        text="".join(text for turn in turns for text in (turn.observed_text, turn.text)),
        turns=tuple(places) if len(turns) > 1 or len(turns[0].observed_ids) else (),
        parts=ending.parts,
    )
