"""What answers a policy's turns: the protocol of an environment, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from rollout.types.prompts import Prompt

CUT = " [… cut]"
"""Stands where the rest of an observation was cut off."""


class Observation(NamedTuple):
    """What an environment says after a turn."""

    text: str
    """Plain text: a chat template's tokens in it, such as `<|im_end|>`, stay text."""
    is_over: bool = False
    """Whether the completion ends here. The text then goes nowhere, as nothing is sampled behind it."""
    parts: Mapping[str, float] = {}
    """Reward parts by name, finite. Those of the last observation count."""


class Environment(Protocol):
    """A plain class of which each completion has an object of its own, in a process of its own.

    Two class attributes are optional: `stop: tuple[str, ...]`, texts that end a turn and stay in it, such as
    `</calc>`; `parts: tuple[str, ...]`, names of the reward parts that it gives, so that a recipe can weigh them.
    """

    def start(self, prompt: Prompt, seed: int) -> Observation:
        """Begin, once, before the first turn; a text, if any, stands before that turn. Randomness comes from `seed`."""
        ...

    def step(self, text: str) -> Observation:
        """Answer a turn of the policy. `text` is what it wrote in that turn, up to the stop text that ended it."""
        ...

    def close(self) -> None:
        """Release what the environment holds. Not called where its process was killed."""
        ...


class EnvironmentRequest(NamedTuple):
    """What a reward worker is asked to have a completion's environment do: to begin, or to answer the newest turn."""

    key: tuple[str, int]
    """The prompt's id and the completion's position in the group."""
    prompt: Prompt
    """Its `environment` names the environment."""
    seed: int
    place: int | None
    """Position of the turns so far among those that come with the call; None: begin."""


class EnvironmentAnswer(NamedTuple):
    """What came of it."""

    key: tuple[str, int]
    text: str = ""
    is_over: bool = False
    """Whether the completion ends here, which it also does where the status is not ok."""
    parts: Mapping[str, float] = {}
    status: Literal["ok", "timeout", "error"] = "ok"
    reason: str = ""
    """For people, when the status is not ok."""
    seconds: float = 0.0
    """How long the environment took."""
