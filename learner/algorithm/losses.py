"""Losses of the policy and the critic: surrogates, KL, mismatch weights, aggregation. Pure: tensors in, tensors out.

Shape legend: ``_T`` the completion tokens of a microbatch, ``_S`` its completions.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Stats = dict[str, Tensor]
"""Scalar sums over tokens by name, or maxima if the name ends in ``_max``; without gradient. The sums of an optimizer
step are the sums over its microbatches and ranks."""

PerToken = Float[Tensor, " T"]


def mean_by_completion(values_T: PerToken, completion_T: Int[Tensor, " T"], num_completions: int) -> PerToken:
    """Return for each token the mean of ``values_T`` over its completion; ``completion_T`` has completion indices."""
    ones_T = torch.ones_like(values_T)
    sums_S = values_T.new_zeros(num_completions).index_add(0, completion_T, values_T)
    lengths_S = values_T.new_zeros(num_completions).index_add(0, completion_T, ones_T)
    return (sums_S / lengths_S.clamp(min=1))[completion_T]


def clipped_surrogate(
    log_ratio_T: PerToken,
    advantages_T: PerToken,
    *,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None = None,
) -> tuple[PerToken, Bool[Tensor, " T"]]:
    """Return per token ``-min(r A, clip(r, 1 - eps_low, 1 + eps_high) A)`` with ``r = exp(log_ratio)``.

    PPO, arXiv:1707.06347, equation 7, with the decoupled bounds of DAPO, arXiv:2503.14476, equation 8. With the mean of
    the log ratio over each completion it is GSPO, arXiv:2507.18071, equations 5 and 7. With ``dual_clip`` the loss of a
    negative advantage is at most ``-dual_clip A``: arXiv:1912.09729, equation 5.

    Returns:
        The loss, and whether a token is clipped, so that its gradient is 0.
    """
    ratio_T = torch.exp(log_ratio_T)
    free_T = ratio_T * advantages_T
    bounded_T = ratio_T.clamp(1 - eps_low, 1 + eps_high) * advantages_T
    objective_T, clipped_T = torch.minimum(free_T, bounded_T), bounded_T < free_T
    if dual_clip is not None:
        floor_T = torch.where(advantages_T < 0, dual_clip * advantages_T, torch.full_like(advantages_T, -torch.inf))
        clipped_T = clipped_T | (objective_T < floor_T)
        objective_T = torch.maximum(objective_T, floor_T)
    return -objective_T, clipped_T


def cispo(
    logprobs_T: PerToken, log_ratio_T: PerToken, advantages_T: PerToken, *, eps_low: float, eps_high: float
) -> tuple[PerToken, Bool[Tensor, " T"]]:
    """Return per token ``-sg(clip(r, 1 - eps_low, 1 + eps_high)) A logprob``: every token keeps its gradient.

    MiniMax-M1, arXiv:2506.13585, equations 4 and 5; ``sg`` stops the gradient.

    Returns:
        The loss, and whether a token's weight is clipped.
    """
    ratio_T = torch.exp(log_ratio_T.detach())
    weight_T = ratio_T.clamp(1 - eps_low, 1 + eps_high)
    return -weight_T * advantages_T * logprobs_T, weight_T != ratio_T


def policy_gradient(logprobs_T: PerToken, advantages_T: PerToken) -> PerToken:
    """Return per token ``-A logprob``: REINFORCE (Williams 1992), without a ratio."""
    return -advantages_T * logprobs_T


def kl_estimate(logprobs_T: PerToken, other_logprobs_T: PerToken, estimator: Literal["k1", "k2", "k3"]) -> PerToken:
    """Return the per-token estimate in nats of KL(p || q), from tokens sampled by p.

    ``logprobs_T`` are p's, ``other_logprobs_T`` q's. With ``d = log q - log p``: k1 is ``-d``, k2 is ``d**2 / 2``,
    k3 is ``exp(d) - 1 - d`` (J. Schulman, "Approximating KL divergence", 2020; k3 is equation 4 of
    arXiv:2402.03300). As values k1 and k3 are unbiased; k2 and k3 are never negative.
    """
    difference_T = other_logprobs_T - logprobs_T
    if estimator == "k1":
        return -difference_T
    if estimator == "k2":
        return difference_T.square() / 2
    return torch.expm1(difference_T) - difference_T


def mismatch_weights(
    log_weight_T: PerToken,
    completion_T: Int[Tensor, " T"],
    num_completions: int,
    *,
    correction: Literal["truncated", "masked", "sequence"],
    low: float,
    high: float,
) -> tuple[PerToken, Bool[Tensor, " T"]]:
    """Return importance weights of tokens that another distribution sampled, and whether each was bounded. No gradient.

    ``log_weight_T`` is ``old_logprobs - rollout_logprobs``, in nats, and w its exponential. ``truncated`` is
    ``min(w, high)`` (TIS, F. Yao et al., "Your efficient RL framework secretly brings you off-policy RL training",
    2025); ``masked`` is w within ``low..high`` and 0 outside (IcePop, arXiv:2510.18855, section 2.3.2, equation 2);
    ``sequence`` is ``min(w, high)`` with the product of w over the tokens of a completion.
    """
    log_weight_T = log_weight_T.detach()
    if correction == "sequence":
        ones_T = torch.ones_like(log_weight_T)
        lengths_S = log_weight_T.new_zeros(num_completions).index_add(0, completion_T, ones_T)
        log_weight_T = mean_by_completion(log_weight_T, completion_T, num_completions) * lengths_S[completion_T]
    weight_T = torch.exp(log_weight_T)
    if correction == "masked":
        outside_T = (weight_T < low) | (weight_T > high)
        return weight_T.masked_fill(outside_T, 0.0), outside_T
    return weight_T.clamp(max=high), weight_T > high


def value_loss(
    values_T: PerToken, old_values_T: PerToken, returns_T: PerToken, *, clip_eps: float | None
) -> tuple[PerToken, Bool[Tensor, " T"]]:
    """Return per token half the squared error of the critic, and whether the error of the clipped value was used.

    With ``clip_eps`` the loss is the larger of two errors: that of the value, and that of the value clipped to within
    ``clip_eps`` of ``old_values_T``. This is the clipped value loss of PPO's original implementation (Engstrom et al.,
    arXiv:2005.12729, "value function clipping").
    """
    free_T = (values_T - returns_T).square() / 2
    if clip_eps is None:
        return free_T, torch.zeros_like(values_T, dtype=torch.bool)
    clipped_values_T = old_values_T + (values_T - old_values_T).clamp(-clip_eps, clip_eps)
    bounded_T = (clipped_values_T - returns_T).square() / 2
    # Compare the distance too: within the bounds both errors are equal, but rounding may make either larger.
    clipped_T = (bounded_T > free_T) & ((values_T - old_values_T).abs() > clip_eps)
    return torch.maximum(free_T, bounded_T), clipped_T


def aggregate(
    loss_T: PerToken,
    completion_lengths_T: PerToken,
    *,
    mode: Literal["token_mean", "sequence_mean", "constant"],
    total_tokens: int,
    total_completions: int,
    max_completion_tokens: int,
) -> Float[Tensor, ""]:
    """Return this microbatch's part of the loss; the loss is the sum over all microbatches and ranks.

    The denominators count the complete optimizer step over all ranks, not only this microbatch.

    Args:
        completion_lengths_T: number of tokens in each token's completion.
        mode: ``token_mean`` divides by all tokens (DAPO, arXiv:2503.14476, equation 8); ``sequence_mean`` takes the
            mean over each completion, then over completions (GRPO, arXiv:2402.03300, equation 3); ``constant`` divides
            by the number of completions times ``max_completion_tokens`` (Dr. GRPO, arXiv:2503.20783, listing 1).
        total_tokens: number of completion tokens in the optimizer step.
        total_completions: number of completions in the optimizer step.
        max_completion_tokens: the sampling limit of one completion.
    """
    if mode == "token_mean":
        return loss_T.sum() / total_tokens
    if mode == "sequence_mean":
        return (loss_T / completion_lengths_T).sum() / total_completions
    return loss_T.sum() / (total_completions * max_completion_tokens)


def mismatch_stats(old_logprobs_T: PerToken, rollout_logprobs_T: PerToken) -> Stats:
    """Return the differences between learner and sampler, in nats.

    ``logprob_gap`` is the sum of absolute differences, ``logprob_gap_max`` the largest one, ``mismatch_kl`` the sum of
    k3 estimates of KL(sampler || learner).
    """
    gap_T = (old_logprobs_T - rollout_logprobs_T).abs()
    return {
        "logprob_gap": gap_T.sum(),
        "logprob_gap_max": gap_T.max() if len(gap_T) else gap_T.sum(),
        "mismatch_kl": kl_estimate(rollout_logprobs_T, old_logprobs_T, "k3").sum(),
    }
