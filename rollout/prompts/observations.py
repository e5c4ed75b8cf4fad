"""Encode observations as tokens that follow the policy's sampled tokens, which are never encoded again."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from rollout.prompts.chat import WORDS, encode, worded
from rollout.prompts.decoding import end_tokens
from rollout.types.environments import CUT
from rollout.types.prompts import Tokens

SAID = "environment"
"""Placeholder for an observation, to find where its text starts."""


class ObservationEncoder:
    """Encodes observations, each behind a turn of the policy, so that the next turn can follow.

    A turn that ended with an end token is followed by a message of its own, as the chat template writes a user's, and
    so is the prompt, whose assistant then has said nothing; one that ended by a stop string, or of a model without
    chat, by the observation's text alone.
    """

    def __init__(self, tokenizer: Any, *, chat: bool) -> None:
        """Raise ValueError for a chat template that shows no earlier turns."""
        self._tokenizer = tokenizer
        self._ends = end_tokens(tokenizer)
        self._before, self._after = map(self._tokens, turn_frame(tokenizer)) if chat else ([], [])

    def encode(self, text: str, last_token: int | None, limit: int | None = None) -> Tokens | None:
        """Return the tokens of an observation behind a turn that ended with ``last_token``; None: before any turn.

        What looks like a special token in ``text`` is text. Of more than ``limit`` tokens the end of the text is cut
        off, which the text then says; None where nothing of it fits into the frame. Raises ValueError for text that a
        tokenizer of whole words does not know.
        """
        before = self._before if last_token is None else self._after_end if last_token in self._ends else []
        after = self._after if last_token is None or last_token in self._ends else []
        said = [token for piece in self._pieces(text) for token in self._tokens(piece)]
        room = len(said) if limit is None else limit - len(before) - len(after)
        if len(said) > room:
            if room <= len(self._cut):
                return None
            said = said[: room - len(self._cut)] + self._cut
        return np.array([*before, *said, *after], dtype=np.int32)

    @property
    def least(self) -> int:
        """Number of tokens of the shortest cut observation: its frame, the mark of the cut, and one token."""
        return len(self._before) + len(self._after) + len(self._cut) + 1

    @cached_property
    def _cut(self) -> list[int]:
        try:
            return self._tokens(CUT)
        except ValueError:  # a built tokenizer knows no such word
            return []

    @cached_property
    def _after_end(self) -> list[int]:
        """What a chat template writes between a turn's end token, which was sampled, and the next message's text."""
        ends = [position for position, token in enumerate(self._before) if token in self._ends]
        return self._before[ends[0] + 1 :] if ends else self._before

    def _pieces(self, text: str) -> list[str]:
        """Split the text inside everything that the tokenizer would read as one of its added tokens."""
        cuts = [found.start() + 1 for found in self._added(text)]
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if start < end]

    @cached_property
    def _added(self) -> Callable[[str], Any]:
        # Looked ahead for, so that one that begins within another is found too.
        names = [re.escape(str(token.content)) for token in self._tokenizer.added_tokens_decoder.values()]
        return re.compile(f"(?={'|'.join(names)})" if names else "(?!)").finditer

    def _tokens(self, text: str) -> list[int]:
        return encode(self._tokenizer, text, "an observation", add_special_tokens=False).tolist()


def turn_frame(tokenizer: Any) -> tuple[str, str]:
    """Return what a chat template writes between an assistant's text and the next user's text, and after that.

    Raises ValueError for a template that shows no earlier turns.
    """
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": WORDS}]
    try:
        (text,) = worded(tokenizer, [[*said, {"role": "user", "content": SAID}]])
    except Exception as error:  # templates raise what they like, about turns that they do not allow
        raise ValueError(
            f"the model's chat template allows one turn only ({error}): set prompts.chat = false"
        ) from error
    _, found, behind = text.rpartition(WORDS)
    before, said_too, after = behind.partition(SAID)
    if not found or not said_too:
        raise ValueError("the model's chat template leaves out earlier turns: set prompts.chat = false")
    return before, after
