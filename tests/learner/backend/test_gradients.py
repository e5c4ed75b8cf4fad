"""Gradients that are not finite: the update is skipped and said, and too many in a row end the run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from learner.backend.gradients import NonFiniteGradientError
from learner.learner import Learner
from rollout.types.completions import Group
from tests.support.learners import assert_close, start, weights_of
from tests.support.tiny import learner_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]


class Poison:
    """Give one backward pass of each step a gradient that is not a number, deep in the model, while it is on."""

    def __init__(self, learner: Learner, on: bool = True) -> None:
        self.on = on
        self._passes = 0
        learner._backend.policy.model.model.layers[0].register_forward_hook(self._after_layer)

    def _after_layer(self, module, inputs, output) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if self.on and hidden.requires_grad:
            self._passes += 1
            if self._passes == 2:
                hidden.register_hook(lambda gradient: gradient * torch.nan)

    def next_step(self) -> None:
        self._passes = 0


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_the_update_is_skipped_and_the_next_one_is_as_if_nothing_had_been(folder, groups, zero_stage: int) -> None:
    learner = start(folder, learner_config(zero_stage=zero_stage))
    before = weights_of(learner)
    poison = Poison(learner)
    update = learner.update(1, groups)
    assert_close(weights_of(learner), before, atol=0)
    assert update.metrics["optim/skipped_updates"] == 1
    assert update.metrics["optim/grad_norm"] == 0
    (notice,) = update.notices
    assert "step 1: the gradient is not finite in 1 microbatches: rank 0, prompts 1/" in notice
    assert "model.layers.0" in notice or "embed_tokens" in notice

    poison.on = False
    after = learner.update(2, groups)
    assert after.metrics["optim/skipped_updates"] == 0 and not after.notices
    undisturbed = start(folder, learner_config(zero_stage=zero_stage))
    undisturbed.update(2, groups)
    assert_close(weights_of(learner), weights_of(undisturbed), atol=0)


def test_a_few_in_a_row_stop_the_run_and_name_the_microbatch(folder, groups: list[Group]) -> None:
    learner = start(folder, learner_config(max_skipped_updates=2))
    poison = Poison(learner)
    for step in (1, 2):
        learner.update(step, groups)
        poison.next_step()
    with pytest.raises(NonFiniteGradientError, match=r"step 3: .*prompts 1/.*number 3 in a row.*is 2\.") as caught:
        learner.update(3, groups)
    assert "lower learner.learning_rate" in str(pickle.loads(pickle.dumps(caught.value))).lower()


def test_the_count_survives_a_checkpoint(folder: Path, groups: list[Group], tmp_path: Path) -> None:
    learner = start(folder, learner_config(max_skipped_updates=1))
    Poison(learner)
    learner.update(1, groups)
    learner.save(tmp_path)
    resumed = start(folder, learner_config(max_skipped_updates=1))
    resumed.load(tmp_path)
    Poison(resumed)
    with pytest.raises(NonFiniteGradientError):
        resumed.update(2, groups)
