"""The protocol of an environment, which answers a policy's turns, and its observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from rollout.types.prompts import Prompt

CUT = " [… cut]"
"""Mark at the end of an observation that was cut."""


class Observation(NamedTuple):
    """The answer of an environment after a turn."""

    text: str
    """Plain text: a chat template's tokens in it, such as `<|im_end|>`, stay text."""
    is_over: bool = False
    """Whether the completion ends here. Then the text is not used, because nothing is sampled after it."""
    parts: Mapping[str, float] = {}
    """Reward parts by name, finite. Those of the last observation count."""


class Environment(Protocol):
    """A plain class; each completion has its own object, in its own process.

    Two class attributes are optional: `stop: tuple[str, ...]`, texts that end a turn and stay in it, such as
    `</calc>`; `parts: tuple[str, ...]`, names of the reward parts that it gives, so that a recipe can weigh them.
    """

    def start(self, prompt: Prompt, seed: int) -> Observation:
        """Start, once, before the first turn. A text is placed before that turn. Take randomness from `seed`."""
        ...

    def step(self, text: str) -> Observation:
        """Answer a turn of the policy. `text` is what it wrote in that turn, up to the stop text that ended it."""
        ...

    def close(self) -> None:
        """Release resources. Not called if the process was killed."""
        ...


class EnvironmentRequest(NamedTuple):
    """A request to a reward worker: start a completion's environment, or have it answer the newest turn."""

    key: tuple[str, int]
    """The prompt's id and the completion's position in the group."""
    prompt: Prompt
    """Its `environment` names the environment."""
    seed: int
    place: int | None
    """Position of the turns so far among those that come with the call; None: start."""


class EnvironmentAnswer(NamedTuple):
    """What came of it."""

    key: tuple[str, int]
    text: str = ""
    is_over: bool = False
    """Whether the completion ends here; also true if the status is not ok."""
    parts: Mapping[str, float] = {}
    status: Literal["ok", "timeout", "error"] = "ok"
    reason: str = ""
    """A message for people if the status is not ok."""
    seconds: float = 0.0
    """How long the environment took."""
