"""What is recorded of each token of a step: the learner's logprob beside the sampler's, and what the update changed."""

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
    """Of completion tokens, one completion after the other; NaN for completions that the learner did not compute."""

    gaps: TokenNats
    """The learner's log-probability before the update minus the sampler's, nats."""
    changes: TokenNats | None = None
    """The learner's after the update minus that before it, nats; None where tokens were not scored again."""
    advantages: Float16[np.ndarray, " T"] | None = None
    """Of each token, where a critic or a KL in the reward makes those of one completion differ."""

    def split(self, lengths: Iterable[int]) -> Iterator[Self]:
        """Yield the records of parts of so many tokens, in order. Nothing is copied."""
        start = 0
        for length in lengths:
            part = slice(start, start + length)
            start += length
            parts = (None if each is None else each[part] for each in (self.changes, self.advantages))
            yield type(self)(self.gaps[part], *parts)
