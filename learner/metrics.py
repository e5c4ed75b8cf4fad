"""The metrics of a step, from totals over tokens. Pure. orchestrator/records/meanings/ explains each key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from learner.algorithm.settings import AlgorithmConfig
from learner.logprob_record import LogprobRecord
from learner.microbatches import Batch
from learner.sequences import TrainingSequence
from rollout.types.completions import Group

if TYPE_CHECKING:
    from learner.backend.optimizer import OptimizerStep

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Update:
    """The outcome of an update for its caller; the same on every rank."""

    metrics: Metrics
    advantages: list[list[float]] = field(default_factory=list)
    """The advantages of each group's completions; the mean over its tokens if they differ."""
    notices: list[str] = field(default_factory=list)
    """Sentences for a person to read, such as that an update was skipped."""
    logprobs: LogprobRecord | None = field(default=None, compare=False)
    """The record of the groups' tokens; None if logprobs are not recorded."""
    peak_gib: float = field(default=0.0, compare=False)
    """Largest resident memory of the rank's process so far, in GiB; not the same on every rank."""


def optimizer_metrics(
    batches: Sequence[Batch], totals: Metrics, applied: Sequence[OptimizerStep], learning_rate: float
) -> Metrics:
    """Return the metrics that every kind of update has; means over its optimizer steps if there were several."""
    grad_norms = [step.grad_norm for step in applied if step.grad_norm is not None]
    trained_tokens = _trained_tokens(batches)
    return {
        "optim/learning_rate": learning_rate,
        "optim/loss": totals["loss"] / len(batches),
        "optim/grad_norm": sum(grad_norms) / max(1, len(grad_norms)),
        "optim/skipped_updates": float(len(applied) - len(grad_norms)),
        "optim/entropy": totals["entropy"] / trained_tokens,
        "optim/trained_tokens": float(trained_tokens),
        "optim/microbatches": float(sum(len(batch.microbatches) for batch in batches)),
    }


def update_metrics(
    batches: Sequence[Batch], totals: Metrics, sequences: Sequence[TrainingSequence], groups: Sequence[Group]
) -> Metrics:
    """Return the metrics that only an update from rewards has; per-token means over the trained tokens, in nats."""
    trained_tokens = _trained_tokens(batches)
    num_compared = totals["compared_tokens"]
    by_group = advantages_by_group(sequences, groups)
    metrics = {
        "optim/clip_fraction": totals["clipped"] / trained_tokens,
        "optim/zero_advantage_groups": sum(not any(of_group) for of_group in by_group) / len(groups),
        "optim/masked_completions": sum(sequence.is_masked for sequence in sequences) / len(sequences),
        "rollout/logprob_gap": totals["logprob_gap"] / num_compared,
        "rollout/logprob_gap_max": totals["logprob_gap_max"],
        "rollout/mismatch_kl": totals["mismatch_kl"] / num_compared,
    }
    for third in ("first_third", "last_third"):
        if totals[third]:
            metrics[f"rollout/logprob_gap_{third}"] = totals[f"{third}_gap"] / totals[third]
    if "mismatch_weight" in totals:
        metrics["rollout/mismatch_weight"] = totals["mismatch_weight"] / trained_tokens
        metrics["rollout/mismatch_bounded"] = totals["mismatch_bounded"] / trained_tokens
    if len(batches) > 1:
        metrics["optim/update_kl_k3"] = totals["update_kl"] / trained_tokens
    return metrics


def reference_kl(
    batches: Sequence[Batch], totals: Metrics, kls: Sequence[np.ndarray], config: AlgorithmConfig
) -> float | None:
    """Return the mean KL to the reference in nats per token, by the recipe's estimator; None without a reference.

    ``kls``: each sequence's KL estimates, which are used if the KL is placed in the reward.
    """
    if config.kl_beta == 0:
        return None
    if config.kl_placement == "reward":
        return float(np.concatenate(list(kls)).mean())
    return totals["reference_kl"] / _trained_tokens(batches)


def critic_metrics(batches: Sequence[Batch], totals: Metrics, sequences: Sequence[TrainingSequence]) -> Metrics:
    """Return the critic's metrics. Explained variance is 1 for a perfect critic, 0 for a constant, or negative."""
    trained_tokens = _trained_tokens(batches)
    pairs = [(s.returns, s.old_values) for s in sequences if s.returns is not None and s.old_values is not None]
    returns, values = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*pairs, strict=True))
    return {
        "optim/value_loss": totals["value_loss"] / trained_tokens,
        "optim/value_clip_fraction": totals["value_clipped"] / trained_tokens,
        "optim/value_mean": float(values.mean()),
        "optim/value_explained_variance": 1 - float(np.var(returns - values)) / max(float(np.var(returns)), 1e-12),
    }


def advantages_by_group(sequences: Sequence[TrainingSequence], groups: Sequence[Group]) -> list[list[float]]:
    """Return each completion's advantage, the mean over its tokens."""
    of_completion = iter(float(sequence.advantages.mean()) for sequence in sequences)
    return [[next(of_completion) for _ in group.completions] for group in groups]


def notices_of(applied: Sequence[OptimizerStep]) -> list[str]:
    """Return the notices of the optimizer steps, without None."""
    return [step.notice for step in applied if step.notice is not None]


def _trained_tokens(batches: Sequence[Batch]) -> int:
    return sum(batch.computed_tokens for batch in batches)
