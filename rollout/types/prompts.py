"""A prompt: a question as the policy reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
"""Token ids, shape ``[T]``."""

PromptFormat = Literal["zero_shot", "one_shot", "natural"]
"""How a prompt is written: the question alone, after a worked example, or without asking for tags."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered question as token ids, and the data that verifies an answer to it."""

    id: str
    """Unique in a run, the same after a resume: ``train/000123`` or ``held_out/000017``."""
    token_ids: Tokens
    text: str
    grader: str
    """Grader of the answers: a module of ``rewards/tasks`` by its name, or a user's by its dotted path."""
    answer: Mapping[str, Any]
    """What the grader needs; for Countdown ``{"numbers": [3, 7, 9], "target": 33}``."""
    assistant_prefix: str = ""
    """The text that the assistant's turn starts with, including what a chat template writes there. Graders see it
    before the completion, markers do not."""
    format: PromptFormat = "zero_shot"
    source: str = ""
    """The entry of ``prompts.mixture`` that it comes from; the task's name without a mixture."""
    key: str = ""
    """Two prompts of one source with the same key ask the same problem, in any wording."""
    difficulty: str = ""
    """A label that evaluations group by, such as ``3 numbers``; empty if the task has none."""
    environment: str = ""
    """The environment that answers the completion's turns: a shipped one of ``rewards/environments`` by its name, or a
    user's ``module:Class``. Empty: no environment, and a completion is one turn."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The conversation from which a chat template made the text; none for plain text."""


@dataclass(frozen=True, slots=True)
class SupervisedExample:
    """A prompt and the completion that the warm start teaches, as token ids."""

    prompt_ids: Tokens
    completion_ids: Tokens
    policy_tokens: NDArray[np.int64] | None = None
    """Index of the completion's tokens that are taught; the others are observations. None: all."""
