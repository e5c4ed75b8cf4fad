"""Completions of several turns: an environment's tokens are context, and count for nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from learner.algorithm.presets import PRESETS
from learner.config import AlgorithmConfig
from learner.parity import ParityError
from rollout.types.completions import Group, Turn
from tests.support.gradients import TrainingStep
from tests.support.learners import assert_close, start, weights_of
from tests.support.oracle import oracle_update
from tests.support.paths import ROOT
from tests.support.tiny import OBSERVED, learner_config, with_observations

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]
SINGLE_TURN = ROOT / "tests" / "data" / "single_turn_losses.json"
"""Loss and gradient norm of each preset, as the version before completions had turns computed them."""


@pytest.fixture(scope="module")
def turns(folder, groups) -> list[Group]:
    return with_observations(folder, groups)


def settings_of(preset: str) -> AlgorithmConfig:
    return AlgorithmConfig(
        preset=preset, kl_beta=0.5, entropy_beta=0.1, mismatch_correction="truncated", overlong="keep"
    )


@pytest.mark.parametrize(
    ("algorithm", "others"),
    [
        *((settings_of(preset), {}) for preset in PRESETS),
        (settings_of("grpo"), {"packing": {"break_even": 0}}),
        (settings_of("gspo"), {"packing": {"layout": "flat"}}),
        (settings_of("dapo"), {"lora": True}),
        (AlgorithmConfig(kl_beta=0.5, kl_estimator="exact"), {}),
    ],
    ids=[*PRESETS, "prompts_apart", "flat", "lora", "exact_kl"],
)
def test_turns_train_as_the_same_tokens_under_a_mask(folder, turns, algorithm, others) -> None:
    """The expected loss masks the log-probabilities of all tokens, one sequence at a time."""
    step = TrainingStep(folder, turns[:3], algorithm, lora="lora" in others)
    found, expected = step.by_learner(**others.get("packing", {})), step.by_plain_pytorch()
    assert found.loss == pytest.approx(expected.loss, abs=1e-6)
    assert (found.gradient - expected.gradient).norm() < 1e-6 * expected.gradient.norm()
    assert any(each.parts is not None for each in found.microbatches) == ("packing" not in others)
    for microbatch, gradients in zip(found.microbatches, found.hidden_gradients, strict=True):
        assert (microbatch.targets < OBSERVED).all() and (microbatch.token_ids >= OBSERVED).any()
        is_predictor = np.isin(np.arange(len(gradients)), microbatch.predictors)
        assert not gradients[~is_predictor].any()
        assert gradients[is_predictor].any()


def test_a_completion_without_observations_trains_as_it_always_did(folder, groups) -> None:
    """To the last bit as one turn; and as an earlier version, to what machines differ by."""
    expected = json.loads(SINGLE_TURN.read_text())
    for preset in expected:
        found = TrainingStep(folder, groups[:3], settings_of(preset)).by_learner()
        assert [found.loss, float(found.gradient.norm())] == pytest.approx(expected[preset], rel=1e-6)
    in_one = [
        replace(g, completions=tuple(replace(c, turns=(Turn(0, c.num_tokens, 0, 0),)) for c in g.completions))
        for g in groups
    ]
    again = TrainingStep(folder, in_one[:3], settings_of(preset)).by_learner()
    assert again.loss == found.loss and again.gradient.equal(found.gradient)


def test_a_learner_updates_on_turns_as_plain_pytorch_does(folder, turns) -> None:
    config = learner_config(AlgorithmConfig(preset="ppo", kl_beta=0.5), updates_per_step=2)
    learner = start(folder, config)
    metrics = learner.update(1, turns[:2]).metrics
    assert_close(weights_of(learner), oracle_update(folder, config, [turns[:2]]))
    completions = [completion for group in turns[:2] for completion in group.completions]
    assert metrics["optim/trained_tokens"] == sum(int((c.token_ids < OBSERVED).sum()) for c in completions)
    assert metrics["rollout/logprob_gap_max"] < 1e-5


def test_the_parity_of_each_turn_is_proven(folder, turns) -> None:
    """Half a nat on the tokens after the first observation alone ends the update."""
    completions = tuple(
        replace(c, rollout_logprobs=c.rollout_logprobs - np.float32(0.5) * (np.arange(c.num_tokens) >= c.turns[0].end))
        for group in turns
        for c in group.completions
        if c.turns and c.turns[0].end < c.num_tokens
    )
    group = replace(turns[0], completions=completions[:4])
    with pytest.raises(ParityError):
        start(folder, learner_config(max_logprob_gap=1e-3)).update(1, [group])
