"""What a task's module hands to the prompt stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Problem:
    """A question before it is worded."""

    fields: Mapping[str, str]
    """Named fields of the prompt template."""
    answer: Mapping[str, Any]
    """What the reward needs."""


class ProblemSource(Protocol):
    """Where a task's problems come from. Train and held-out problems are disjoint."""

    @property
    def held_out(self) -> Sequence[Problem]:
        """The problems kept aside for evaluation."""
        ...

    def train(self, index: int) -> Problem:
        """The problem at a position of the endless, shuffled training order. The same index, the same problem."""
        ...
