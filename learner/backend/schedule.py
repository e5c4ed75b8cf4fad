"""The learning rate, a pure function of the optimizer step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from learner.config import OptimizerConfig


def learning_rate(
    config: OptimizerConfig, optimizer_step: int, num_optimizer_steps: int, *, may_end_at_zero: bool = False
) -> float:
    """Return the learning rate of optimizer step ``optimizer_step``; the first is 1.

    It rises linearly over ``warmup_steps``, stays at the peak until ``lr_hold_fraction`` of the run, then decays to
    ``lr_min_ratio`` of the peak at ``num_optimizer_steps``, and stays there. A decay to 0 ends one step later, so that
    the last step still changes the weights; with ``may_end_at_zero`` it ends at the last step, as in version 0.1.0.
    """
    if optimizer_step <= config.warmup_steps:
        return config.learning_rate * optimizer_step / config.warmup_steps
    hold_steps = max(config.warmup_steps, round(config.lr_hold_fraction * num_optimizer_steps))
    end = num_optimizer_steps if may_end_at_zero or config.lr_min_ratio > 0 else num_optimizer_steps + 1
    progress = (optimizer_step - hold_steps) / max(1, end - hold_steps)
    decay = _decay(config.lr_schedule, min(1.0, max(0.0, progress)))
    return config.learning_rate * (config.lr_min_ratio + (1 - config.lr_min_ratio) * decay)


def _decay(schedule: str, progress: float) -> float:
    """Return the decay factor: it falls from 1 to 0 while ``progress`` goes from 0 to 1, unless constant."""
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - progress
    return 0.5 * (1 + math.cos(math.pi * progress))
