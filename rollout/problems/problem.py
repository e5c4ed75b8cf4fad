"""A problem before it becomes a prompt, and the interface of a source of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

QUESTION_FIELDS = ("question", "problem")
"""The fields that hold a question's text. Problems without one, such as Countdown's, are told apart by their keys."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem before it becomes a prompt."""

    fields: Mapping[str, str]
    """Text for each named field of the prompt template."""
    answer: Mapping[str, Any]
    """The data that the grader needs, as in JSON. By convention ``answer["answer"]`` is the reference answer."""
    key: str
    """Two problems of a task with the same key are the same. No training problem has the key of a held-out one."""
    difficulty: str = ""
    """A label that evaluations group by, such as ``level 4``."""
    where: str = field(default="", compare=False)
    """Where it was read, for messages, such as ``rows.jsonl, line 3``; empty if it was not read from a file."""

    @property
    def question(self) -> str | None:
        """The text of the question; None if no field has that name."""
        return next((self.fields[name] for name in QUESTION_FIELDS if name in self.fields), None)


class ProblemSource(Protocol):
    """The problems of a task. Those to train on and the held-out ones are disjoint."""

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems that are kept for evaluation."""
        ...

    @property
    def num_problems(self) -> int | None:
        """The number of different problems to train on; None if they are endless."""
        ...

    def train(self, index: int) -> Problem:
        """Return the problem at a position of the endless, shuffled training order, always the same one."""
        ...
