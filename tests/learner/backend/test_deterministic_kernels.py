"""The setting `deterministic` on a learner: it is asked for, and an update has no operation that it would refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from learner.actor import LearnerRank, actor_options
from learner.algorithm.settings import AlgorithmConfig
from rollout.types.completions import Group
from tests.support import learners
from tests.support.tiny import learner_config

NOT_DETERMINISTIC = ("put_", "histc", "bincount", "median", "nll_loss2d", "grid_sampler", "cumsum", "nll_loss_forward")
"""Beginnings of names of operations that `torch.use_deterministic_algorithms` refuses on CUDA, and that a learner
might come to use; see its documentation."""


class Operations(TorchDispatchMode):
    """Notes which operations run, and on which dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, bool]] = set()
        """Names, and whether an argument is floating point."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        floats = any(isinstance(each, Tensor) and each.is_floating_point() for each in args)
        self.found.add((func._schema.name.rpartition("::")[2], floats))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("preset", ["grpo", "ppo"])
def test_an_update_is_made_of_operations_that_have_deterministic_kernels(
    folder: Path, groups: list[Group], preset: str
) -> None:
    learner = learners.start(folder, learner_config(AlgorithmConfig(preset=preset, kl_beta=0.1)))
    with Operations() as operations:
        learner.update(1, groups)
    learner.close()
    assert ("mm", True) in operations.found
    refused = {name for name, floats in operations.found if floats and name.startswith(NOT_DETERMINISTIC)}
    assert not refused


def test_deterministic_kernels_are_asked_for_where_a_rank_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    ask: Callable[[bool], None] = asked.append
    monkeypatch.setattr(torch, "use_deterministic_algorithms", ask)
    LearnerRank()
    assert asked == []
    LearnerRank(fixes_kernels=True)
    assert asked == [True]
    plain = actor_options(learner_config(), use_gpu=True)["runtime_env"]["env_vars"]
    fixed = actor_options(learner_config(), use_gpu=True, fixes_kernels=True)["runtime_env"]["env_vars"]
    assert fixed == plain | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}
