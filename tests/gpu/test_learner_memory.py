"""The learner on a GPU: 8-bit moments, an offloaded reference, bf16, flash attention, memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from learner.algorithm.settings import AlgorithmConfig
from learner.backend.rank import release_memory
from learner.config import ModelConfig
from rollout.types.completions import Group
from tests.gpu.card import Card
from tests.support import learners
from tests.support.learners import assert_close, weights_of
from tests.support.tiny import BUILD, learner_config

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
BF16 = ModelConfig(build=BUILD, dtype="bfloat16")
start = partial(learners.start, model=BF16)


@pytest.mark.parametrize("zero_stage", [1, 2])
def test_eight_bit_moments_train_like_full_ones(folder: Path, groups: list[Group], zero_stage: int) -> None:
    pytest.importorskip("bitsandbytes")
    full = start(folder, learner_config(zero_stage=zero_stage))
    eight = start(folder, learner_config(zero_stage=zero_stage, optimizer="adamw_8bit"))
    for step in (1, 2):
        full.update(step, groups)
        eight.update(step, groups)
    assert_close(weights_of(eight), weights_of(full), atol=5e-3)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_an_offloaded_optimizer_trains_in_the_same_way(folder: Path, groups: list[Group], zero_stage: int) -> None:
    there, away = (
        start(folder, learner_config(zero_stage=zero_stage, offload_optimizer=offload)) for offload in (False, True)
    )
    there.update(1, groups)
    away.update(1, groups)
    assert_close(weights_of(away), weights_of(there), atol=1e-3)


def test_an_offloaded_reference_is_off_the_device_between_updates(
    folder: Path, groups: list[Group], card: Card, measured: Callable[..., None]
) -> None:
    held = {}
    for reference in ("copy", "offloaded"):
        learner = start(folder, learner_config(AlgorithmConfig(kl_beta=0.1, reference=reference)))
        learner.update(1, groups)
        release_memory()
        held[reference] = torch.cuda.memory_allocated()
        learner.close()
        del learner
        gc.collect()
        torch.cuda.empty_cache()
    for reference, allocated in held.items():
        measured(f"learner with a reference that is {reference}", f"{allocated / 2**20:.2f} MiB")
    assert held["offloaded"] < held["copy"] or not card.is_real


def test_flex_attention_computes_prompts_once_and_agrees_with_rows(
    folder: Path, groups: list[Group], measured: Callable[..., None]
) -> None:
    for model in (BF16, ModelConfig(build=BUILD, dtype="float32")):
        found = {}
        for attention in ("flex_attention", "sdpa"):
            learner = start(folder, learner_config(), model=model.model_copy(update={"attention": attention}))
            found[attention] = learner.update(1, groups).metrics
            begun = time.perf_counter()
            learner.update(2, groups)
            measured(f"{model.dtype}, second update with {attention}", f"{time.perf_counter() - begun:.2f} s")
        shared, rows = found["flex_attention"], found["sdpa"]
        assert shared["optim/microbatches"] <= rows["optim/microbatches"]
        tolerance = 0.05 if model.dtype == "bfloat16" else 1e-3
        assert shared["optim/grad_norm"] == pytest.approx(rows["optim/grad_norm"], rel=tolerance)
        assert shared["rollout/logprob_gap"] < 0.05


def test_flash_attention_in_one_packed_row_agrees_with_rows(
    folder: Path, groups: list[Group], measured: Callable[..., None]
) -> None:
    pytest.importorskip("flash_attn")
    packed, rows = (
        start(folder, learner_config(), model=BF16.model_copy(update={"attention": attention}))
        for attention in ("flash_attention_2", "sdpa")
    )
    first, second = packed.update(1, groups).metrics, rows.update(1, groups).metrics
    for name, found in (("flash_attention_2", first), ("sdpa", second)):
        measured(f"gradient norm with {name}", f"{found['optim/grad_norm']:.5f}")
    assert first["optim/grad_norm"] == pytest.approx(second["optim/grad_norm"], rel=0.05)
    assert first["rollout/logprob_gap"] < 0.05
