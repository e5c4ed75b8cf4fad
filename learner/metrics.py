"""Totals over tokens to the metrics of a step. Pure. What each key means is said in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learner.packing import Batch

Metrics = dict[str, float]


def optimizer_metrics(
    batches: Sequence[Batch], totals: Metrics, grad_norms: Sequence[float], learning_rate: float
) -> Metrics:
    """What every kind of update reports; means over the optimizer steps where there were several."""
    trained_tokens = _trained_tokens(batches)
    return {
        "optim/learning_rate": learning_rate,
        "optim/loss": totals["loss"] / len(batches),
        "optim/grad_norm": sum(grad_norms) / len(batches),
        "optim/entropy": totals["entropy"] / trained_tokens,
        "optim/trained_tokens": float(trained_tokens),
        "optim/microbatches": float(sum(len(batch.microbatches) for batch in batches)),
    }


def update_metrics(batches: Sequence[Batch], totals: Metrics, advantages: Sequence[NDArray[np.float64]]) -> Metrics:
    """What an update from rewards reports besides; per-token means over the trained tokens, in nats.

    ``optim/kl_k3`` is there with a reference, ``optim/update_kl_k3`` with several optimizer steps, else it is 0.
    """
    trained_tokens = _trained_tokens(batches)
    metrics = {
        "optim/clip_fraction": totals["clipped"] / trained_tokens,
        "optim/zero_advantage_groups": sum(not credit.any() for credit in advantages) / len(advantages),
        "rollout/logprob_gap": totals["logprob_gap"] / trained_tokens,
        "rollout/logprob_gap_max": totals["logprob_gap_max"],
        "rollout/mismatch_kl": totals["mismatch_kl"] / trained_tokens,
    }
    if "reference_kl" in totals:
        metrics["optim/kl_k3"] = totals["reference_kl"] / trained_tokens
    if len(batches) > 1:
        metrics["optim/update_kl_k3"] = totals["update_kl"] / trained_tokens
    return metrics


def _trained_tokens(batches: Sequence[Batch]) -> int:
    return sum(batch.computed_tokens for batch in batches)
