"""A policy taught by another model: the exact KL to it at each token of the policy's own completions."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.checks import check_together
from learner.config import AlgorithmConfig, LearnerConfig, LoraConfig, ModelConfig
from learner.memory import reference_kind
from learner.model.build import build_model
from tests.support.gradients import TrainingStep
from tests.support.learners import assert_close, start, weights_of
from tests.support.oracle import oracle_update
from tests.support.tiny import BUILD, MODEL, learner_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]
DISTILL = AlgorithmConfig(preset="distill")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wider and shallower model with the policy's tokens, and return its folder."""
    folder = tmp_path_factory.mktemp("teacher")
    build_model(BUILD.model_copy(update={"hidden_size": 64, "num_layers": 1}), 7, folder)
    return folder


def taught_by(teacher: Path, **settings: object) -> ModelConfig:
    return MODEL.model_copy(update={"teacher": str(teacher), **settings})


@pytest.mark.parametrize("packing", [{}, {"break_even": 0}, {"layout": "flat"}], ids=["shared", "apart", "flat"])
def test_loss_and_gradient_are_those_of_the_exact_kl_in_float64(folder, groups, teacher, packing) -> None:
    step = TrainingStep(folder, groups[:3], DISTILL, teacher=teacher)
    found, expected = step.by_learner(**packing), step.by_plain_pytorch()
    assert found.loss == pytest.approx(expected.loss, abs=1e-9)
    assert (found.gradient - expected.gradient).norm() < 1e-7 * expected.gradient.norm()
    assert found.stats["reference_kl"] > 0


@pytest.mark.parametrize(
    ("reference", "settings"),
    [("auto", {"zero_stage": 0}), ("offloaded", {"zero_stage": 3, "updates_per_step": 2})],
)
def test_two_steps_equal_plain_pytorch(folder, groups, more_groups, teacher, reference, settings) -> None:
    config = learner_config(DISTILL.model_copy(update={"reference": reference}), **settings)
    learner = start(folder, config, taught_by(teacher))
    first = learner.update(1, groups).metrics
    last = learner.update(2, more_groups).metrics
    assert_close(weights_of(learner), oracle_update(folder, config, [groups, more_groups], teacher))
    assert 0 < last["optim/kl_exact"] < first["optim/kl_exact"]


def test_rewards_teach_nothing_and_every_completion_does(folder, groups, teacher) -> None:
    """Equal rewards or other ones: the same weights."""
    config = learner_config(DISTILL)
    alike = [group.scored(tuple(group.rewards[0] for _ in group.rewards)) for group in groups]
    trained = []
    for given in (groups, alike):
        learner = start(folder, config, taught_by(teacher))
        metrics = learner.update(1, given).metrics
        assert metrics["optim/trained_tokens"] == sum(group.num_completion_tokens for group in groups)
        trained.append(weights_of(learner))
    assert_close(*trained, atol=0)


def test_a_policy_with_adapters_is_taught_by_the_teacher_and_not_by_its_base(folder, groups, teacher) -> None:
    model = taught_by(teacher, lora=LoraConfig(rank=4))
    assert reference_kind(DISTILL, model) == "copy"
    metrics = start(folder, learner_config(DISTILL), model).update(1, groups).metrics
    assert metrics["optim/kl_exact"] > 0.01  # to its own base it would be 0


def test_a_teacher_beside_rewards_is_what_the_kl_is_measured_to(folder, groups, teacher) -> None:
    config = learner_config(AlgorithmConfig(kl_beta=0.5))
    learner = start(folder, config, taught_by(teacher))
    learner.update(1, groups[:2])
    assert_close(weights_of(learner), oracle_update(folder, config, [groups[:2]], teacher))


def test_a_teacher_of_another_vocabulary_is_refused(folder, tmp_path) -> None:
    build_model(BUILD.model_copy(update={"max_integer": 98}), 0, tmp_path)
    with pytest.raises(ValueError, match=r"model\.teacher = .* has a vocabulary of [0-9]+ tokens, the policy one of"):
        start(folder, learner_config(DISTILL), taught_by(tmp_path))


@pytest.mark.parametrize(
    ("algorithm", "teacher", "says"),
    [
        (AlgorithmConfig(), "t", r"model\.teacher is 't' with learner\.algorithm\.kl_beta 0"),
        (DISTILL, None, r"preset distill\) without model\.teacher"),
        (DISTILL.model_copy(update={"reference": "base"}), "t", r'reference is "base" with model\.teacher'),
    ],
)
def test_settings_that_do_not_go_together_are_refused(algorithm, teacher, says) -> None:
    model = MODEL.model_copy(update={"teacher": teacher})
    with pytest.raises(ValueError, match=says):
        check_together(LearnerConfig(algorithm=algorithm), model)


def test_the_kl_is_zero_where_the_policy_is_its_teacher(folder, groups) -> None:
    learner = start(folder, learner_config(DISTILL), taught_by(folder))
    before = weights_of(learner)
    assert learner.update(1, groups).metrics["optim/kl_exact"] == 0
    assert_close(weights_of(learner), before, atol=1e-12)
