"""Compute one microbatch's part of the loss: combine the formulas of losses.py as the recipe says.

Shape legend: ``_T`` the completion tokens of a microbatch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from learner.algorithm.losses import (
    Stats,
    aggregate,
    cispo,
    clipped_surrogate,
    kl_estimate,
    mean_by_completion,
    mismatch_stats,
    mismatch_weights,
    policy_gradient,
    value_loss,
)
from learner.algorithm.settings import AlgorithmConfig
from learner.microbatches import Batch, Microbatch

if TYPE_CHECKING:
    from learner.model.policy import PolicyOutput

PerToken = Float[Tensor, " T"]
ObjectiveFunction = Callable[["PolicyOutput", Microbatch], tuple[Tensor, Stats]]
"""Computes a microbatch's part of the loss, and sums over its tokens, from the policy's output."""


class Objective:
    """The loss of the policy, and of the critic if one is used, over one optimizer step.

    Args:
        config: the algorithm's settings.
        batch: the totals of the optimizer step, which are the loss's denominators.
        kl_beta: current weight of the KL; it may have been adapted.
        max_completion_tokens: the sampling limit; a factor of the denominator if the aggregation is ``constant``.
    """

    def __init__(self, config: AlgorithmConfig, batch: Batch, *, kl_beta: float, max_completion_tokens: int) -> None:
        self._config = config
        self._batch = batch
        self._kl_beta = kl_beta
        self._max_completion_tokens = max_completion_tokens

    def __call__(self, output: PolicyOutput, microbatch: Microbatch) -> tuple[Float[Tensor, ""], Stats]:
        """Return this microbatch's part of the loss, and sums over its tokens."""
        stats: Stats = {"entropy": output.entropy_T.detach().sum()}
        old_logprobs_T = output.logprobs_T.detach()
        if not self._batch.knows_old_logprobs:  # with one optimizer step a step, the old policy is the current one
            stats |= mismatch_totals(old_logprobs_T, microbatch)
        else:
            assert microbatch.old_logprobs is not None
            old_logprobs_T = _like(microbatch.old_logprobs, old_logprobs_T)
        loss_T = self._surrogate(output.logprobs_T, old_logprobs_T, microbatch, stats)
        loss_T = loss_T - self._config.entropy_beta * output.entropy_T
        loss_T = loss_T + self._kl(output, microbatch, stats)
        loss_T = loss_T + self._critic(output.values_T, microbatch, stats)
        loss = aggregate(
            loss_T * _like(microbatch.loss_mask, loss_T),
            _like(microbatch.completion_lengths, loss_T),
            mode=self._config.loss_aggregation,
            total_tokens=self._batch.total_tokens,
            total_completions=self._batch.total_completions,
            max_completion_tokens=self._max_completion_tokens,
        )
        return loss, stats | {"loss": loss.detach()}

    def _surrogate(
        self, logprobs_T: PerToken, old_logprobs_T: PerToken, microbatch: Microbatch, stats: Stats
    ) -> PerToken:
        config = self._config
        advantages_T = _like(microbatch.advantages, logprobs_T)
        log_ratio_T = logprobs_T - old_logprobs_T
        completion_T = torch.from_numpy(microbatch.completion).to(logprobs_T.device)
        if config.ratio_level == "sequence":
            log_ratio_T = mean_by_completion(log_ratio_T, completion_T, len(microbatch.sequences))
        bounds = {"eps_low": config.clip_eps_low, "eps_high": config.clip_eps_high}
        clipped_T = torch.zeros_like(logprobs_T, dtype=torch.bool)
        if config.surrogate == "ppo_clip":
            loss_T, clipped_T = clipped_surrogate(log_ratio_T, advantages_T, **bounds, dual_clip=config.dual_clip)
        elif config.surrogate == "cispo":
            loss_T, clipped_T = cispo(logprobs_T, log_ratio_T, advantages_T, **bounds)
        elif config.surrogate == "policy_gradient":
            loss_T = policy_gradient(logprobs_T, advantages_T)
        else:
            loss_T = torch.zeros_like(logprobs_T)
        stats["clipped"] = clipped_T.sum()
        stats["update_kl"] = kl_estimate(old_logprobs_T, logprobs_T.detach(), "k3").sum()
        if config.mismatch_correction == "off" or config.mismatch_correction == "auto":
            return loss_T
        weights_T, bounded_T = mismatch_weights(
            old_logprobs_T - _like(microbatch.rollout_logprobs, logprobs_T),
            completion_T,
            len(microbatch.sequences),
            correction=config.mismatch_correction,
            low=config.mismatch_low,
            high=config.mismatch_high,
        )
        stats |= {"mismatch_weight": weights_T.sum(), "mismatch_bounded": bounded_T.sum()}
        return weights_T * loss_T

    def _kl(self, output: PolicyOutput, microbatch: Microbatch, stats: Stats) -> PerToken | float:
        config = self._config
        if config.kl_beta == 0 or config.kl_placement == "reward":
            return 0.0
        if config.kl_estimator == "exact":
            kl_T = output.reference_kl_T
        else:
            assert microbatch.ref_logprobs is not None, "the reference has computed no logprobs"
            ref_logprobs_T = _like(microbatch.ref_logprobs, output.logprobs_T)
            kl_T = kl_estimate(output.logprobs_T, ref_logprobs_T, config.kl_estimator)
        stats["reference_kl"] = kl_T.detach().sum()
        return self._kl_beta * kl_T

    def _critic(self, values_T: PerToken, microbatch: Microbatch, stats: Stats) -> PerToken | float:
        if not self._config.uses_critic:
            return 0.0
        assert microbatch.old_values is not None and microbatch.returns is not None, "the critic has computed no values"
        loss_T, clipped_T = value_loss(
            values_T,
            _like(microbatch.old_values, values_T),
            _like(microbatch.returns, values_T),
            clip_eps=self._config.value_clip_eps,
        )
        stats |= {"value_loss": loss_T.detach().sum(), "value_clipped": clipped_T.sum()}
        return self._config.value_loss_weight * loss_T


def mismatch_totals(old_logprobs_T: PerToken, microbatch: Microbatch) -> Stats:
    """Return ``mismatch_stats`` with the number of tokens, and gap and number of three subsets of tokens.

    The subsets are the tokens on policy, and the first and the last third of each completion.
    """
    rollout_logprobs_T = _like(microbatch.rollout_logprobs, old_logprobs_T)
    gap_T = (old_logprobs_T - rollout_logprobs_T).abs()
    third_T = microbatch.thirds()
    parts = {"on_policy": microbatch.on_policy, "first_third": third_T == 0, "last_third": third_T == 2}
    stats = mismatch_stats(old_logprobs_T, rollout_logprobs_T)
    stats["compared_tokens"] = old_logprobs_T.new_tensor(len(old_logprobs_T))
    for name, part in parts.items():
        part_T = _like(part, old_logprobs_T)
        stats |= {name: part_T.sum(), f"{name}_gap": (gap_T * part_T).sum()}
    return stats


def cross_entropy(batch: Batch) -> ObjectiveFunction:
    """Return the loss of a supervised update: the mean over all completion tokens of the optimizer step."""

    def objective(output: PolicyOutput, microbatch: Microbatch) -> tuple[Float[Tensor, ""], Stats]:
        loss = -output.logprobs_T.sum() / batch.total_tokens
        return loss, {"loss": loss.detach(), "entropy": output.entropy_T.detach().sum()}

    return objective


def _like(array: NDArray, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor)
