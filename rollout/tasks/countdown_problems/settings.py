"""Settings of Countdown problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from rollout.types.paths import from_home

MAX_COUNTED = 4
"""Most numbers of a problem whose solutions are counted; with five it takes too long for hundreds of problems."""

LARGEST = 10**9
"""Largest number in a generated problem: nine digits, as many as `rayzero solve` reads."""


class CountdownConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Countdown: combine the numbers with arithmetic so that they make the target."""

    source: str = "generated"
    """`generated`, a local .jsonl or .parquet file, or a hub data set such as
    `Jiayi-Pan/Countdown-Tasks-3to4`. Files and data sets need the columns `nums` and `target`."""
    subset: str = ""
    """Subset (configuration) of the hub data set `source`. Empty: its only one."""
    split: str = "train"
    """Split of the hub data set; the held-out problems are drawn from it and left out of training."""
    numbers_per_problem: int = Field(default=3, ge=2, le=6)
    """How many numbers a generated problem has."""
    min_numbers_per_problem: int | None = Field(default=None, ge=2, le=6)
    """Draw between this number and `numbers_per_problem` numbers, each count equally often."""
    min_number: int = Field(default=1, ge=1, le=LARGEST)
    """Smallest number of a generated problem."""
    max_number: int = Field(default=10, ge=1, le=LARGEST)
    """Largest number of a generated problem."""
    number_choices: tuple[Annotated[int, Field(ge=1, le=LARGEST)], ...] = ()
    """Draw numbers from this list, such as [1, 2, 5, 10, 25, 50, 75, 100], instead of from `min_number` to
    `max_number`."""
    repeat_numbers: bool = True
    """Whether a number may occur twice in a generated problem. If not, it occurs at most as often as in
    `number_choices`."""
    min_target: int = Field(default=1, ge=0, le=LARGEST)
    """Smallest target of a generated problem."""
    max_target: int = Field(default=40, ge=1, le=LARGEST)
    """Largest target of a generated problem."""
    operators: str = "+-*"
    """Operators with which a generated problem must be solvable, from `+-*/` (exact division)."""
    max_intermediate: int = Field(default=60, ge=1, le=LARGEST)
    """A generated problem has a solution whose intermediate results are all between 0 and this."""
    min_solutions: int = Field(default=1, ge=1)
    """Smallest number of different solutions of a generated problem; rollout/tasks/countdown_problems/solver.py says
    what counts as one."""
    max_solutions: int | None = Field(default=None, ge=1)
    """Largest number of different solutions of a generated problem. 1: only hard problems."""
    num_problems: int | None = Field(default=None, ge=1, le=1_000_000)
    """Generate this number of different problems and train on them epoch after epoch. Not set: endless problems."""
    even_held_out: bool = False
    """Held-out problems have only even numbers, and training problems never do: a test of generalization."""
    must_use_all: bool = True
    """Whether an answer must use every number exactly once (true), or each at most once (false)."""
    exact_division: bool = False
    """Whether an answer with a quotient that is not whole is wrong, as in the television game."""

    @field_validator("source")
    @classmethod
    def _expand_home(cls, source: str) -> str:
        return from_home(source)

    @property
    def number_range(self) -> Sequence[int]:
        """The numbers that a generated problem is drawn from."""
        return self.number_choices or range(self.min_number, self.max_number + 1)

    @property
    def largest_integer(self) -> int:
        """The largest number in a generated problem, or in a solution within `max_intermediate`."""
        largest_number = max(self.number_choices, default=self.max_number)
        return max(largest_number, self.max_target, self.max_intermediate)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for mistake in self._mistakes():
            raise ValueError(mistake)
        return self

    def _mistakes(self) -> Iterator[str]:
        for low, high in (
            ("min_number", "max_number"),
            ("min_target", "max_target"),
            ("min_numbers_per_problem", "numbers_per_problem"),
            ("min_solutions", "max_solutions"),
        ):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                yield f"{low} = {least} is above {high} = {most}: lower it or raise {high}"
        if unknown := set(self.operators) - set("+-*/"):
            yield f"operators = {self.operators!r} holds {sorted(unknown)}: use only + - * /"
        if not self.repeat_numbers and len(self.number_range) < self.numbers_per_problem:
            yield (
                f"repeat_numbers = false with {len(self.number_range)} numbers to draw numbers_per_problem = "
                f"{self.numbers_per_problem} from: set it to true, or give more numbers"
            )
        counts_solutions = self.min_solutions > 1 or self.max_solutions is not None
        if counts_solutions and self.numbers_per_problem > MAX_COUNTED:
            yield (
                f"min_solutions = {self.min_solutions} and max_solutions = {self.max_solutions} with "
                f"numbers_per_problem = {self.numbers_per_problem}: counting takes too long above {MAX_COUNTED} "
                "numbers; lower it or leave them out"
            )
        if self.source != "generated" and (counts_solutions or self.num_problems is not None):
            yield (
                "num_problems, min_solutions and max_solutions are for generated problems: leave them out with source "
                f"= {self.source!r}"
            )
