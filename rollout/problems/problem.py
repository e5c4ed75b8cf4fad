"""A question before it is put into words, and what gives such questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

QUESTION_FIELDS = ("question", "problem")
"""The fields that hold a question's text. Problems without one, such as Countdown's, are told apart by their keys."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A question before it is put into words."""

    fields: Mapping[str, str]
    """Text for each named field of the prompt template."""
    answer: Mapping[str, Any]
    """What the grader needs, as JSON would hold it. By convention ``answer["answer"]`` is the reference answer."""
    key: str
    """Two problems of a task with the same key are the same. No training problem has the key of a held-out one."""
    difficulty: str = ""
    """A label that evaluations group by, such as ``level 4``."""
    where: str = field(default="", compare=False)
    """The place it was read from, for messages, such as ``rows.jsonl, line 3``; empty where it was not read."""

    @property
    def question(self) -> str | None:
        """The text of the question; None where no field is called so."""
        return next((self.fields[name] for name in QUESTION_FIELDS if name in self.fields), None)


class ProblemSource(Protocol):
    """The problems of a task. Those to train on and the held-out ones are disjoint."""

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems kept aside for evaluation."""
        ...

    @property
    def num_problems(self) -> int | None:
        """The number of different problems to train on; None where they are endless."""
        ...

    def train(self, index: int) -> Problem:
        """Return the problem at a position of the endless, shuffled training order, always the same one."""
        ...
