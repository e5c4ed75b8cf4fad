"""Start a tiny learner in this process, and compare weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from learner.backend.rank import Rank
from learner.config import LearnerConfig, ModelConfig
from learner.learner import Learner
from learner.weights.gather import tensors_of
from tests.support.tiny import MAX_COMPLETION_TOKENS, MODEL, TEMPERATURE, free_port


def start(
    folder: Path,
    config: LearnerConfig,
    model: ModelConfig = MODEL,
    temperature: float = TEMPERATURE,
    rank: Rank | None = None,
) -> Learner:
    """Return a learner of the policy in ``folder``, for ten steps; by default on one rank."""
    return Learner(
        config,
        model,
        folder,
        rank or Rank(master_port=free_port()),
        num_steps=10,
        temperature=temperature,
        max_completion_tokens=MAX_COMPLETION_TOKENS,
    )


def weights_of(learner: Learner) -> dict[str, np.ndarray]:
    """Return the weights that a publish would send, by name."""
    pairs = [pair for bucket in learner.weight_buckets(10_000) for pair in tensors_of(bucket)]
    return {name: tensor.float().numpy().copy() for name, tensor in pairs}


def assert_close(weights: dict[str, np.ndarray], expected: dict[str, np.ndarray], atol: float = 1e-5) -> None:
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=atol, err_msg=name)


def sharing_all(settings: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """DeepSpeed keeps parameters below 100,000 elements whole at ZeRO 3, which all are of the tiny model: not here."""

    def changed(*args: Any) -> dict[str, Any]:
        found = settings(*args)
        return found | {"zero_optimization": found["zero_optimization"] | {"stage3_param_persistence_threshold": 0}}

    return changed
