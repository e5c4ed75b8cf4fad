"""The limits of a healthy run, from `[health]` and other settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from learner.parity import STALE_LIMIT
from orchestrator.config.schema import RunConfig

ENOUGH_GROUPS = 64
"""Number of groups that an alarm needs as evidence."""
MIN_STEPS = 5
RARELY_RIGHT = 0.01
"""A pass rate that is low but can be trained. The limit on groups without spread allows for this rate."""
NEARLY_ALL = 0.9
"""Lowest limit on the share of groups without spread; it applies to large groups."""
KL_LIMIT = 1.0
"""KL to the reference, in nats per token, above which a policy without a `kl_target` writes entirely different text."""


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """The settings of `[health]` with all defaults computed. Shares are from 0 to 1."""

    steps: int
    without_spread: float
    truncated: float
    failed: float
    factor: float
    gap: float
    """Mean logprob gap in nats above which its growth is reported: a quarter of the limit that stops the run."""
    kl: float
    """KL to the reference in nats per token."""

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        health, size, algorithm = config.health, config.group_size, config.learner.algorithm
        without_spread = max(NEARLY_ALL, (1 - RARELY_RIGHT) ** size + RARELY_RIGHT**size)
        limit = config.learner.parity_limit(config.model.dtype)
        return cls(
            steps=health.steps or max(MIN_STEPS, math.ceil(ENOUGH_GROUPS / config.prompts_per_step)),
            without_spread=without_spread if health.without_spread is None else health.without_spread,
            truncated=health.truncated,
            failed=config.rewards.max_failed_share / 4 if health.failed is None else health.failed,
            factor=health.factor,
            gap=(max(limit, STALE_LIMIT) if config.max_staleness else limit) / 4,
            kl=KL_LIMIT if algorithm.kl_target is None else health.factor * algorithm.kl_target,
        )
