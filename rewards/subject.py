"""The input of a reward function, one completion or a whole group, and its log. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rewards.signature import COLUMNS

MAX_LOGGED, MAX_NAME_CHARACTERS = 32, 80
"""Largest number of names that a call may log, and the largest length of a name."""


class Subject(NamedTuple):
    """The input of a grader: one completion, or a whole group."""

    texts: tuple[str, ...]
    """The assistant's text of each completion, without an environment's text."""
    answer: Mapping[str, Any]
    prompt: str = ""
    """The prompt's text."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The conversation from which a chat template made the prompt; empty for bare text."""
    token_ids: tuple[list[int], ...] = ()
    """The policy's tokens of each completion; only for a whole group."""
    prefix_characters: int | None = None
    """Length of the assistant prefix, after which markers are searched for. None: do not search."""

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns of a whole group in TRL's format: messages if there is a chat template, else texts."""
        size = len(self.texts)
        completions: list[Any] = list(self.texts)
        prompts: list[Any] = [self.prompt] * size
        if self.messages:
            completions = [[{"role": "assistant", "content": text}] for text in self.texts]
            prompts = [[dict(message) for message in self.messages] for _ in range(size)]
        ids = list(self.token_ids)
        entries = {str(name): [value] * size for name, value in self.answer.items()}
        return entries | dict(zip(COLUMNS, (prompts, completions, ids, ids), strict=True))


class FigureLog:
    """Collects the values that one call logs with ``log_metric``, which is TRL's name."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] | None = None  # most functions log nothing

    @property
    def offered(self) -> dict[str, Callable[..., None]]:
        """The functions for logging. TRL shows the values of ``log_extra`` in a table; here they are ignored."""
        return {"log_metric": self.add, "log_extra": lambda column, values: None}

    def add(self, name: str, value: float) -> None:
        """Add a value. Raises ValueError if the value is not finite, or there are too many names."""
        name, figure = str(name)[:MAX_NAME_CHARACTERS], float(value)
        if not math.isfinite(figure):
            raise ValueError(f"log_metric({name!r}, {value}): a figure must be finite")
        values = self._values = {} if self._values is None else self._values
        if len(values) >= MAX_LOGGED and name not in values:
            raise ValueError(f"log_metric({name!r}): more than {MAX_LOGGED} names in one call")
        values.setdefault(name, []).append(figure)

    def means(self) -> dict[str, float]:
        """Return the mean of the values of each name."""
        return {name: sum(values) / len(values) for name, values in self._values.items()} if self._values else {}
