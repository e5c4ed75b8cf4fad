"""The record of each token of a step: the learner's logprob against the sampler's, and its change by the update."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float16

TokenNats = Float16[np.ndarray, " T"]
"""A number of nats for each completion token."""


@dataclass(frozen=True, slots=True)
class LogprobRecord:
    """Values for the tokens of all completions in order; NaN for completions that the learner did not compute."""

    gaps: TokenNats
    """The learner's log-probability before the update minus the sampler's, in nats."""
    changes: TokenNats | None = None
    """The learner's log-probability after the update minus the one before it, in nats; None if tokens were not scored
    again."""
    advantages: Float16[np.ndarray, " T"] | None = None
    """Each token's advantage, if a critic or a KL in the reward gives tokens of one completion different ones."""

    def split(self, lengths: Iterable[int]) -> Iterator[Self]:
        """Yield the records of consecutive parts with these numbers of tokens. Nothing is copied."""
        start = 0
        for length in lengths:
            part = slice(start, start + length)
            start += length
            optional = (None if array is None else array[part] for array in (self.changes, self.advantages))
            yield type(self)(self.gaps[part], *optional)
