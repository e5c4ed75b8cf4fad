"""Compute advantages of completions and tokens from rewards. Pure numpy, float64.

Shape legend: ``_P`` groups of a step (a list), ``_G`` completions of a group, ``_T`` tokens of a completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

ADVANTAGE_EPS = 1e-4
"""Added to standard deviations, so that nearly equal rewards do not give large advantages."""

Array = np.ndarray
PerToken = Float[np.ndarray, " T"]


def group_advantages(
    rewards_PG: Sequence[Float[Array, " G"]],
    *,
    baseline: Literal["group_mean", "leave_one_out"],
    scale: Literal["group_std", "batch_std", "none"],
) -> list[Float[Array, " G"]]:
    """Return the advantage of each completion relative to its group.

    A group without spread, including a group of one, gets exactly 0.

    Args:
        baseline: ``group_mean`` subtracts the group's mean (GRPO, arXiv:2402.03300, section 4.1.2). ``leave_one_out``
            subtracts the mean of the other completions (RLOO, arXiv:2402.14740, section 2.3), which gives
            ``G / (G - 1)`` times the advantage of ``group_mean``.
        scale: ``group_std`` divides by the sample standard deviation of the group's rewards plus 1e-4 (GRPO),
            ``batch_std`` by that of all rewards of the step (Lite PPO, arXiv:2508.08221), ``none`` does not divide
            (Dr. GRPO, arXiv:2503.20783, section 3.2).
    """
    batch_std = _sample_std(np.concatenate([np.asarray(rewards_G) for rewards_G in rewards_PG]))
    advantages_PG = []
    for rewards_G in rewards_PG:
        if np.ptp(rewards_G) == 0:
            advantages_PG.append(np.zeros(len(rewards_G)))
            continue
        credit_G = rewards_G - np.mean(rewards_G)
        if baseline == "leave_one_out":
            credit_G = credit_G * (len(rewards_G) / (len(rewards_G) - 1))
        divisor = {"group_std": _sample_std(rewards_G), "batch_std": batch_std}.get(scale)
        advantages_PG.append(credit_G if divisor is None else credit_G / (divisor + ADVANTAGE_EPS))
    return advantages_PG


def token_rewards(reward: float, kl_T: PerToken, kl_beta: float) -> PerToken:
    """Return each token's reward: minus ``kl_beta`` times its KL, plus ``reward`` on the last token.

    arXiv:2203.02155, section 3.5, equation 2, without its pretraining term.
    """
    rewards_T = -kl_beta * kl_T
    rewards_T[-1] += reward
    return rewards_T


def returns_to_go(rewards_T: PerToken) -> PerToken:
    """Return for each token the sum of its own and all later rewards: REINFORCE++, arXiv:2501.03262v9, equation 4."""
    return np.cumsum(rewards_T[::-1])[::-1]


def gae(rewards_T: PerToken, values_T: PerToken, *, gamma: float, lam: float) -> tuple[PerToken, PerToken]:
    """Return the advantages of generalized advantage estimation, and the returns, which are the critic's targets.

    ``delta_t = r_t + gamma V_{t+1} - V_t`` and ``A_t = delta_t + gamma lam A_{t+1}``, with V and A 0 after the last
    token: arXiv:1506.02438, equation 16. With ``lam`` 0 the advantage is the one-step estimate, with 1 the return minus
    the value. The returns are ``A + V``.
    """
    advantages_T = np.zeros(len(rewards_T))
    following_advantage = following_value = 0.0
    for t in reversed(range(len(rewards_T))):
        delta = rewards_T[t] + gamma * following_value - values_T[t]
        following_advantage = advantages_T[t] = delta + gamma * lam * following_advantage
        following_value = values_T[t]
    return advantages_T, advantages_T + values_T


def standardized(advantages: Sequence[PerToken], *, centre: bool, scale: bool) -> list[PerToken]:
    """Center advantages at their mean over all tokens of the step, and divide by their sample deviation plus 1e-4.

    ``centre`` and ``scale`` turn either on: REINFORCE++, arXiv:2501.03262v9, equation 5; PPO's advantage normalisation.
    Equal advantages become exactly 0 if centred.
    """
    all_tokens = np.concatenate(list(advantages))
    if centre and np.ptp(all_tokens) == 0:  # the mean is rounded, and the difference would not be exactly 0
        return [np.zeros(len(advantages_T)) for advantages_T in advantages]
    mean = all_tokens.mean() if centre else 0.0
    divisor = _sample_std(all_tokens) + ADVANTAGE_EPS if scale else 1.0
    return [(advantages_T - mean) / divisor for advantages_T in advantages]


def soft_overlong_punishment(length: int, *, max_tokens: int, buffer_tokens: int) -> float:
    """Return the penalty of a length: 0 until ``buffer_tokens`` before the limit, then falling linearly to -1.

    DAPO, arXiv:2503.14476, equation 13.
    """
    return -min(1.0, max(0.0, (length - (max_tokens - buffer_tokens)) / buffer_tokens))


def adapted_kl_beta(kl_beta: float, kl: float, target: float) -> float:
    """Return the KL's weight for the next step, by proportional control towards ``target`` (in the unit of ``kl``).

    ``beta * (1 + 0.1 * clip((kl - target) / target, -0.2, 0.2))``: arXiv:1909.08593, section 2.2.
    """
    return kl_beta * (1 + 0.1 * float(np.clip((kl - target) / target, -0.2, 0.2)))


def _sample_std(values: Array) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
