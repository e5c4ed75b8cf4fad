"""Checkpoints of a learner with adapters: they hold what is trained, and load onto the weights it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from learner.algorithm.settings import AlgorithmConfig
from learner.model.build import build_model
from tests.learner.model.test_lora import LORA, STAGES, adapted, start
from tests.support.learners import assert_close, weights_of
from tests.support.tiny import BUILD, MODEL

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]

CRITIC = AlgorithmConfig(preset="ppo", kl_beta=0)


@pytest.mark.parametrize("settings", [*STAGES, {"algorithm": CRITIC}, {"algorithm": AlgorithmConfig(kl_beta=0.5)}])
def test_a_checkpoint_of_adapters_goes_on_bit_for_bit(folder, groups, more_groups, settings, tmp_path) -> None:
    whole = start(folder, **settings)
    whole.update(1, groups)
    whole.save(tmp_path)
    saved = weights_of(whole)
    expected = whole.update(2, more_groups)

    resumed = start(folder, **settings)
    resumed.load(tmp_path)
    assert_close(weights_of(resumed), saved, atol=0)
    assert resumed.update(2, more_groups).metrics == expected.metrics
    assert_close(weights_of(resumed), weights_of(whole), atol=0)


@pytest.mark.parametrize("settings", STAGES)
def test_a_checkpoint_of_adapters_holds_no_base(folder, groups, settings, tmp_path) -> None:
    learner = start(folder, adapted(target_modules=("q_proj",), rank=1), **settings)
    learner.update(1, groups)
    learner.save(tmp_path)
    num_trained = 2 * (32 + 2 * 32)
    elements = [tensor.numel() for tensor in tensors_in(tmp_path / "deepspeed")]
    # Weights, and the optimizer's own copy and two moments, padded.
    assert num_trained <= sum(elements) <= 5 * num_trained
    assert max(elements) <= num_trained + 8


def tensors_in(folder: Path) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []

    def walk(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, dict):
            list(map(walk, value.values()))
        elif isinstance(value, list | tuple):
            list(map(walk, value))

    for path in folder.iterdir():
        walk(torch.load(path, weights_only=False))
    return found


@pytest.fixture(scope="module")
def saved(folder, tmp_path_factory) -> Path:
    """Save a checkpoint of untrained adapters, without a critic."""
    path = tmp_path_factory.mktemp("saved")
    start(folder).save(path)
    return path


@pytest.mark.parametrize(
    ("model", "algorithm", "message"),
    [
        (
            MODEL,
            None,
            r'model\.lora is unset, but .*set model\.lora = \{ rank = 4, alpha = 8\.0, target_modules = \["d',
        ),
        (adapted(rank=2), None, r"model\.lora is \{ rank = 2, .* was saved with \{ rank = 4, .*set model\.lora = "),
        (adapted(target_modules=("q_proj",)), None, r'target_modules = \["q_proj"\] \}, but'),
        (LORA, CRITIC, r'learner\.algorithm\.baseline is "value", but .* without a critic: set learner\.algorithm'),
    ],
)
def test_a_checkpoint_is_refused_by_another_kind_of_learner(folder, saved, model, algorithm, message) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*or start a new run from the final/ folder"):
        start(folder, model, algorithm).load(saved)


def test_a_checkpoint_with_critic_or_without_adapters_is_refused(folder, tmp_path) -> None:
    start(folder, MODEL, CRITIC).save(tmp_path)
    with pytest.raises(ValueError, match=r'is not "value", but .* with a critic: .* = "value" or preset = "ppo"'):
        start(folder, MODEL).load(tmp_path)
    with pytest.raises(ValueError, match=r"model\.lora is \{ .* was saved with unset: leave model\.lora unset"):
        start(folder, LORA, CRITIC).load(tmp_path)


def test_adapters_are_refused_on_another_base_and_on_the_merged_one(folder, groups, tmp_path) -> None:
    learner = start(folder, adapted(target_modules=("q_proj",)))
    learner.update(1, groups)
    learner.save(tmp_path / "checkpoint")
    learner.export(tmp_path / "final")
    build_model(BUILD, 7, tmp_path / "other")
    for base in ("other", "final"):
        resumed = start(tmp_path / base, adapted(target_modules=("q_proj",)))
        with pytest.raises(ValueError, match=r"the weights under model\.lora are not those .* set model\.path or"):
            resumed.load(tmp_path / "checkpoint")


def test_other_names_for_the_same_layers_load_too(folder, saved) -> None:
    names = ("v_proj", "up_proj", "q_proj", "o_proj", "k_proj", "gate_proj", "down_proj")
    start(folder, adapted(target_modules=names)).load(saved)
