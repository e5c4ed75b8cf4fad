"""What a reward function reads: one completion, or a whole group; and what it may log with. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rewards.signature import COLUMNS

MAX_LOGGED, MAX_NAME_CHARACTERS = 32, 80
"""Figures that a call may log, and the length of their names."""


class Subject(NamedTuple):
    """What is graded: one completion, or a whole group."""

    texts: tuple[str, ...]
    """What the assistant says in each; nothing of an environment."""
    answer: Mapping[str, Any]
    prompt: str = ""
    """The prompt's text."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The conversation that a chat template made it of; none for bare text."""
    token_ids: tuple[list[int], ...] = ()
    """What the policy wrote in each, of a whole group."""
    prefix_characters: int | None = None
    """Length of the assistant prefix, after which markers are searched for. None: do not search."""

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns of a whole group, as TRL gives them: messages where there was a chat template."""
        size = len(self.texts)
        said: list[Any] = list(self.texts)
        asked: list[Any] = [self.prompt] * size
        if self.messages:
            said = [[{"role": "assistant", "content": text}] for text in self.texts]
            asked = [[dict(message) for message in self.messages] for _ in range(size)]
        ids = list(self.token_ids)
        found = {str(name): [value] * size for name, value in self.answer.items()}
        return found | dict(zip(COLUMNS, (asked, said, ids, ids), strict=True))


class FigureLog:
    """Figures that one call logs, by ``log_metric``, TRL's name for it."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] | None = None  # most functions log nothing

    @property
    def offered(self) -> dict[str, Callable[..., None]]:
        """What a function is given to log with. TRL shows what ``log_extra`` gets in a table; here it is ignored."""
        return {"log_metric": self.add, "log_extra": lambda column, values: None}

    def add(self, name: str, value: float) -> None:
        """Take note of a figure. Raises ValueError for a value that is not finite, and for too many names."""
        name, figure = str(name)[:MAX_NAME_CHARACTERS], float(value)
        if not math.isfinite(figure):
            raise ValueError(f"log_metric({name!r}, {value}): a figure must be finite")
        values = self._values = {} if self._values is None else self._values
        if len(values) >= MAX_LOGGED and name not in values:
            raise ValueError(f"log_metric({name!r}): more than {MAX_LOGGED} names in one call")
        values.setdefault(name, []).append(figure)

    def means(self) -> dict[str, float]:
        """Return the mean of each figure."""
        return {name: sum(values) / len(values) for name, values in self._values.items()} if self._values else {}
