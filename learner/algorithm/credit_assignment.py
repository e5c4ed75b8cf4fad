"""Compute the advantages of a step's completions: combine the formulas of advantages.py as the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from learner.algorithm.advantages import (
    gae,
    group_advantages,
    returns_to_go,
    soft_overlong_punishment,
    standardized,
    token_rewards,
)
from learner.algorithm.losses import kl_estimate
from learner.algorithm.settings import AlgorithmConfig
from learner.sequences import TrainingSequence
from rollout.types.completions import Completion, Group

Arrays = list[NDArray[np.float64]]


def assign_advantages(
    sequences: Sequence[TrainingSequence],
    groups: Sequence[Group],
    config: AlgorithmConfig,
    *,
    kl_beta: float,
    max_completion_tokens: int,
) -> list[TrainingSequence]:
    """Return ``sequences``, which are those of ``groups`` in order, with advantages, the critic's returns, and masks.

    A completion whose environment failed is masked; so is a truncated one if ``config.overlong`` is ``mask``. Rewards
    of masked completions still count in the group's mean.

    If ``config.advantages_need_logprobs``, the sequences must already have the log-probabilities and values.
    """
    completions = [completion for group in groups for completion in group.completions]
    rewards = [float(reward) for group in groups for reward in group.totals]
    punishments = [overlong_punishment(completion, config, max_completion_tokens) for completion in completions]
    rewards = [reward + punishment for reward, punishment in zip(rewards, punishments, strict=True)]
    kls = [kl_to_reference(sequence, config) for sequence in sequences]
    returns: Sequence[NDArray | None] = [None] * len(sequences)
    if config.needs_groups:
        advantages = _against_group(sequences, groups, rewards, kls, kl_beta, config)
    else:
        advantages, returns = _against_step(sequences, rewards, kls, kl_beta, config)
    return [
        replace(
            sequence,
            advantages=advantages_T.astype(np.float32),
            returns=None if returns_T is None else returns_T.astype(np.float32),
            is_masked=completion.has_failed or (config.overlong == "mask" and completion.is_truncated),
        )
        for sequence, completion, advantages_T, returns_T in zip(
            sequences, completions, advantages, returns, strict=True
        )
    ]


def _against_group(
    sequences: Sequence[TrainingSequence],
    groups: Sequence[Group],
    rewards: Sequence[float],
    kls: Arrays,
    kl_beta: float,
    config: AlgorithmConfig,
) -> Arrays:
    """Return advantages relative to the group: the same for all tokens of a completion."""
    assert config.baseline in ("group_mean", "leave_one_out")
    penalized = np.array([reward - kl_beta * kl_T.sum() for reward, kl_T in zip(rewards, kls, strict=True)])
    ends = np.cumsum([len(group.completions) for group in groups])
    advantages_PG = group_advantages(
        np.split(penalized, ends[:-1]), baseline=config.baseline, scale=config.advantage_scale
    )
    return [
        np.full(sequence.num_completion_tokens, advantage)
        for sequence, advantage in zip(sequences, np.concatenate(advantages_PG), strict=True)
    ]


def _against_step(
    sequences: Sequence[TrainingSequence],
    rewards: Sequence[float],
    kls: Arrays,
    kl_beta: float,
    config: AlgorithmConfig,
) -> tuple[Arrays, Sequence[NDArray | None]]:
    """Return an advantage for each token, relative to the step or the critic, and the critic's returns if any."""
    by_token = [token_rewards(reward, kl_T, kl_beta) for reward, kl_T in zip(rewards, kls, strict=True)]
    scale = config.advantage_scale == "batch_std"
    if not config.uses_critic:
        to_go = [returns_to_go(rewards_T) for rewards_T in by_token]
        return standardized(to_go, centre=True, scale=scale), [None] * len(sequences)
    estimates = [
        gae(rewards_T, sequence.old_values.astype(np.float64), gamma=config.gae_gamma, lam=config.gae_lambda)
        for rewards_T, sequence in zip(by_token, sequences, strict=True)
        if sequence.old_values is not None
    ]
    advantages = [advantages_T for advantages_T, _ in estimates]
    return standardized(advantages, centre=scale, scale=scale), [returns_T for _, returns_T in estimates]


def overlong_punishment(completion: Completion, config: AlgorithmConfig, max_completion_tokens: int) -> float:
    """Return the penalty of a completion's length, from -1 to 0; 0 unless ``overlong`` is ``soft_punish``."""
    if config.overlong != "soft_punish":
        return 0.0
    buffer_tokens = config.overlong_buffer_tokens or max(1, max_completion_tokens // 5)
    return soft_overlong_punishment(
        completion.num_tokens, max_tokens=max_completion_tokens, buffer_tokens=buffer_tokens
    )


def kl_to_reference(sequence: TrainingSequence, config: AlgorithmConfig) -> NDArray[np.float64]:
    """Return each token's KL for the reward, in nats, shape [T]; zeros if the KL is not placed in the reward."""
    if config.kl_beta == 0 or config.kl_placement == "loss":
        return np.zeros(sequence.num_completion_tokens)
    assert config.kl_estimator != "exact" and sequence.old_logprobs is not None and sequence.ref_logprobs is not None
    old_T, ref_T = (torch.from_numpy(array).double() for array in (sequence.old_logprobs, sequence.ref_logprobs))
    return kl_estimate(old_T, ref_T, config.kl_estimator).numpy()
