"""A start in a process: with its threads, and with the memory of a learner that was there before."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from learner import learner as learner_module
from learner.actor import LearnerRank
from learner.algorithm.settings import AlgorithmConfig
from rollout.types.completions import Group
from tests.support import learners
from tests.support.tiny import MAX_COMPLETION_TOKENS, MODEL, TEMPERATURE, free_port, learner_config


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_the_first_learner_is_gone_when_the_second_is_built(
    folder: Path, groups: list[Group], zero_stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = LearnerRank()
    first: list[weakref.ref[Any]] = []
    alive: list[int] = []

    class Watched(learner_module.Learner):
        def __init__(self, *args: Any, **settings: Any) -> None:
            alive.append(sum(reference() is not None for reference in first))
            super().__init__(*args, **settings)

    monkeypatch.setattr(learner_module, "Learner", Watched)
    for _ in range(2):
        config = learner_config(AlgorithmConfig(kl_beta=0.1), zero_stage=zero_stage)
        rank.start(
            config,
            MODEL,
            folder,
            rank=0,
            master=("127.0.0.1", free_port()),
            num_steps=10,
            temperature=TEMPERATURE,
            max_completion_tokens=MAX_COMPLETION_TOKENS,
        )
        rank.learner.update(1, groups)
        first += [weakref.ref(tensor) for tensor in tensors_of(rank)]
    assert alive == [0, 0] and len(first) > 10


def test_a_learner_has_its_threads_whatever_the_process_began_with(folder: Path) -> None:
    """A rank's process begins with one, as OMP_NUM_THREADS says."""
    before = torch.get_num_threads()
    try:
        learners.start(folder, learner_config(threads_per_rank=before + 1)).close()
        assert torch.get_num_threads() == before + 1
        learners.start(folder, learner_config()).close()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def tensors_of(rank: LearnerRank) -> list[torch.Tensor]:
    """The weights, at ZeRO 3 this rank's part of them, and what the optimizer keeps of each."""
    engine = rank.learner._backend.engine
    weights = [getattr(parameter, "ds_tensor", parameter) for parameter in engine.module.parameters()]
    masters = getattr(engine.optimizer, "fp32_partitioned_groups_flat", [])
    states = [tensor for state in engine.optimizer.state.values() for tensor in state.values()]
    return [*weights, *masters, *(tensor for tensor in states if isinstance(tensor, torch.Tensor))]
