"""Losses of the policy: clipped surrogate, KL estimators, aggregation. Pure: tensors in, ``(loss, stats)`` out.

Shape legend: ``_T`` the completion tokens of a microbatch. Stats are sums over tokens, so that adding them over
microbatches and ranks gives the sums of the whole optimizer step; those named ``…_max`` are maxima.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Stats = dict[str, Tensor]
"""Name to a scalar sum, or maximum where the name ends in ``_max``; without gradient."""


def clipped_surrogate(
    logprobs_T: Float[Tensor, " T"],
    old_logprobs_T: Float[Tensor, " T"],
    advantages_T: Float[Tensor, " T"],
    *,
    eps_low: float,
    eps_high: float,
) -> tuple[Float[Tensor, " T"], Bool[Tensor, " T"]]:
    """Per token ``-min(r A, clip(r, 1 - eps_low, 1 + eps_high) A)`` with ``r = exp(logprobs - old_logprobs)``.

    PPO, arXiv:1707.06347, equation 7, with the decoupled bounds of DAPO, arXiv:2503.14476, equation 8.

    Returns:
        The loss, and where the clipped branch was taken, that is where the gradient is 0.
    """
    ratio_T = torch.exp(logprobs_T - old_logprobs_T)
    free_T = ratio_T * advantages_T
    bounded_T = ratio_T.clamp(1 - eps_low, 1 + eps_high) * advantages_T
    return -torch.minimum(free_T, bounded_T), bounded_T < free_T


def kl_estimate(
    logprobs_T: Float[Tensor, " T"], other_logprobs_T: Float[Tensor, " T"], estimator: Literal["k1", "k2", "k3"]
) -> Float[Tensor, " T"]:
    """Per-token estimate in nats of KL(p || q), from tokens sampled by p.

    ``logprobs_T`` are p's, ``other_logprobs_T`` q's. With ``d = log q - log p``: k1 is ``-d``, k2 is ``d**2 / 2``,
    k3 is ``exp(d) - 1 - d`` (J. Schulman, "Approximating KL divergence", 2020; k3 is equation 4 of
    arXiv:2402.03300). k1 and k3 are unbiased; k2 and k3 are never negative.
    """
    difference_T = other_logprobs_T - logprobs_T
    if estimator == "k1":
        return -difference_T
    if estimator == "k2":
        return difference_T.square() / 2
    return torch.expm1(difference_T) - difference_T


def aggregate(
    loss_T: Float[Tensor, " T"],
    completion_lengths_T: Float[Tensor, " T"],
    *,
    mode: Literal["token_mean", "sequence_mean", "constant"],
    total_tokens: int,
    total_completions: int,
    max_completion_tokens: int,
) -> Float[Tensor, ""]:
    """This microbatch's part of the loss; parts of all microbatches and ranks add up to the loss.

    The denominators are those of the whole optimizer step, over all ranks, whatever this microbatch holds.

    Args:
        completion_lengths_T: for each token, how many tokens its completion has.
        mode: ``token_mean`` divides by all tokens (DAPO, arXiv:2503.14476, equation 8); ``sequence_mean`` takes the
            mean over each completion, then over completions (GRPO, arXiv:2402.03300, equation 3); ``constant``
            divides by completions times ``max_completion_tokens`` (Dr. GRPO, arXiv:2503.20783, listing 1).
        total_tokens: completion tokens of the optimizer step.
        total_completions: completions of the optimizer step.
        max_completion_tokens: the sampling limit of one completion.
    """
    if mode == "token_mean":
        return loss_T.sum() / total_tokens
    if mode == "sequence_mean":
        return (loss_T / completion_lengths_T).sum() / total_completions
    return loss_T.sum() / (total_completions * max_completion_tokens)


def policy_loss(
    logprobs_T: Float[Tensor, " T"],
    old_logprobs_T: Float[Tensor, " T"],
    advantages_T: Float[Tensor, " T"],
    ref_logprobs_T: Float[Tensor, " T"] | None,
    *,
    eps_low: float,
    eps_high: float,
    kl_beta: float,
) -> tuple[Float[Tensor, " T"], Stats]:
    """Per-token loss, to be aggregated: the clipped surrogate, plus ``kl_beta`` times the k3 KL to the reference.

    GRPO, arXiv:2402.03300, equation 3. Without reference logprobs there is no KL term. The sums: tokens
    ``clipped``, ``update_kl`` the k3 KL(old || current), and with a reference ``reference_kl`` the k3
    KL(current || reference).
    """
    loss_T, clipped_T = clipped_surrogate(logprobs_T, old_logprobs_T, advantages_T, eps_low=eps_low, eps_high=eps_high)
    stats = {
        "clipped": clipped_T.sum(),
        "update_kl": kl_estimate(old_logprobs_T, logprobs_T.detach(), "k3").sum(),
    }
    if ref_logprobs_T is not None:
        kl_T = kl_estimate(logprobs_T, ref_logprobs_T, "k3")
        loss_T = loss_T + kl_beta * kl_T
        stats["reference_kl"] = kl_T.detach().sum()
    return loss_T, stats


def mismatch_stats(old_logprobs_T: Float[Tensor, " T"], rollout_logprobs_T: Float[Tensor, " T"]) -> Stats:
    """How far the learner is from the sampler, in nats.

    ``logprob_gap`` is the sum of absolute differences, ``logprob_gap_max`` the largest of them, ``mismatch_kl`` the
    sum of k3 estimates of KL(sampler || learner).
    """
    gap_T = (old_logprobs_T - rollout_logprobs_T).abs()
    return {
        "logprob_gap": gap_T.sum(),
        "logprob_gap_max": gap_T.max() if len(gap_T) else gap_T.sum(),
        "mismatch_kl": kl_estimate(rollout_logprobs_T, old_logprobs_T, "k3").sum(),
    }
