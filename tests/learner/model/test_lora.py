"""Adapters: which layers get them, how they train, and how they are published and exported."""

from __future__ import annotations

import faulthandler
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from learner.backend import forward_backward
from learner.backend.rank import Rank
from learner.config import AlgorithmConfig, LoraConfig, ModelConfig
from learner.learner import Learner
from learner.model.lora import base_fingerprint, merged_weights
from learner.model.policy import load_policy
from learner.weights.gather import tensors_of
from rollout.types.completions import Group
from tests.support import learners, oracle
from tests.support.learners import assert_close, sharing_all, weights_of
from tests.support.tiny import MODEL, TEMPERATURE, free_port, learner_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]

STAGES = [{"zero_stage": stage} for stage in range(4)]
ALONE = Rank(master_port=free_port())


def adapted(**settings: Any) -> ModelConfig:
    return MODEL.model_copy(update={"lora": LoraConfig(**({"rank": 4, "alpha": 8} | settings))})


LORA = adapted()


def start(
    folder: Path,
    model: ModelConfig = LORA,
    algorithm: AlgorithmConfig | None = None,
    rank: Rank = ALONE,
    **settings: Any,
) -> Learner:
    config = learner_config(algorithm, num_ranks=rank.world_size, **settings)
    return learners.start(folder, config, model, rank=rank)


def published(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(2, 40)[None]).logits


@pytest.fixture(autouse=True)
def _nothing_is_too_small_to_share(monkeypatch) -> None:
    monkeypatch.setattr(forward_backward, "deepspeed_settings", sharing_all(forward_backward.deepspeed_settings))


def test_only_adapters_train_and_all_ranks_begin_with_the_same_ones_without_effect(folder) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    policy = load_policy(folder, LORA, TEMPERATURE)
    assert torch.equal(torch.rand(3), expected)
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2
    assert all("lora_" in name for name in trained)
    for name, parameter in load_policy(folder, LORA, TEMPERATURE).named_parameters():
        assert torch.equal(parameter, policy.get_parameter(name))
    base = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(logits(policy.model), logits(base))
    assert policy.base_fingerprint == base_fingerprint(base)
    assert type(policy.model) is type(base)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "proj", "w_7"])
def test_a_target_that_is_no_linear_layer_is_refused(folder, target: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.lora\.target_modules names '{target}'.*'down_proj', .*'v_proj'"):
        load_policy(folder, adapted(target_modules=("q_proj", target)), TEMPERATURE)


@pytest.mark.parametrize("settings", STAGES)
def test_export_and_buckets_are_the_merged_model(folder, groups, more_groups, settings, tmp_path) -> None:
    learner = start(folder, **settings)
    learner.update(1, groups)
    learner.update(2, more_groups)
    final = tmp_path / "final"
    learner.export(final)
    weights = weights_of(learner)

    base = AutoModelForCausalLM.from_pretrained(folder)
    assert_close(weights_of(start(folder, **settings)), published(base), atol=0)
    with_adapters = PeftModel.from_pretrained(base, final / "adapter")
    exact = logits(with_adapters)
    assert_close(weights, published(with_adapters.merge_and_unload()), atol=1e-6)

    assert_close(load_file(final / "model.safetensors"), weights, atol=0)
    merged = AutoModelForCausalLM.from_pretrained(final)
    torch.testing.assert_close(logits(merged), exact, rtol=0, atol=1e-5)
    assert (exact - logits(AutoModelForCausalLM.from_pretrained(folder))).abs().max() > 1e-3
    adapter_config = json.loads((final / "adapter" / "adapter_config.json").read_text())
    assert adapter_config["base_model_name_or_path"] == str(folder)
    assert (adapter_config["r"], adapter_config["lora_alpha"]) == (4, 8)


@pytest.mark.parametrize("settings", STAGES)
def test_two_steps_equal_plain_pytorch(folder, groups, more_groups, settings, monkeypatch) -> None:
    built: list[torch.nn.Module] = []

    def build(folder: Path) -> torch.nn.Module:
        built.append(load_policy(folder, LORA, TEMPERATURE).model)
        return built[-1]

    monkeypatch.setattr(oracle, "AutoModelForCausalLM", SimpleNamespace(from_pretrained=build))
    oracle.oracle_update(folder, learner_config(), [groups, more_groups])
    learner = start(folder, **settings)
    learner.update(1, groups)
    learner.update(2, more_groups)
    # The oracle's policy is the first that it builds.
    expected = {weight.name: weight.value().numpy() for weight in merged_weights(built[0])}
    assert_close(weights_of(learner), expected, atol=1e-5)


def test_bfloat16_rounds_the_sum_and_not_its_parts(folder, groups) -> None:
    learner = start(folder, LORA.model_copy(update={"dtype": "bfloat16"}))
    learner.update(1, groups)
    (bucket,) = learner.weight_buckets(10**9)
    assert set(bucket.dtypes) == {"bfloat16"}
    layer = learner._backend.policy.model.model.layers[0].self_attn.q_proj
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert down.dtype == up.dtype == torch.bfloat16
    expected = (layer.base_layer.weight.double() + 2 * up.double() @ down.double()).bfloat16()
    weight = dict(tensors_of(bucket))["model.layers.0.self_attn.q_proj.weight"]
    assert (weight != expected).float().mean() < 0.01
    assert not torch.equal(weight, layer.base_layer.weight)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(300)
def test_two_ranks_train_save_and_export_as_one(folder, groups, more_groups, tmp_path) -> None:
    ranks = torch.multiprocessing.spawn(
        be_rank, (free_port(), folder, groups, more_groups, tmp_path), nprocs=2, join=False
    )
    while len(list(tmp_path.glob("done*"))) < 2:
        ranks.join(timeout=0.1)  # raises what a rank has raised
    # Killed, as Ray kills those of a run: gloo's threads now and then abort a rank that the other has left, or that
    # ends.
    for process in ranks.processes:
        process.kill()
    alone = start(folder)
    alone.update(1, groups)
    alone.update(2, more_groups)
    for stage in range(4):
        whole, resumed = (tmp_path / f"{name}{stage}" for name in ("whole", "resumed"))
        assert_close(load_file(whole / "model.safetensors"), weights_of(alone), atol=1e-5)
        for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
            assert_close(load_file(resumed / file), load_file(whole / file), atol=0)


def be_rank(index: int, port: int, folder: Path, groups: list[Group], more_groups: list[Group], out: Path) -> None:
    faulthandler.enable()  # should a rank crash, the test says where
    forward_backward.deepspeed_settings = sharing_all(forward_backward.deepspeed_settings)
    for stage in range(4):
        whole, resumed = (start(folder, rank=Rank(index, 2, master_port=port), zero_stage=stage) for _ in range(2))
        whole.update(1, groups)
        whole.save(out / f"checkpoint{stage}")
        resumed.load(out / f"checkpoint{stage}")
        for name, learner in (("whole", whole), ("resumed", resumed)):
            learner.update(2, more_groups)
            learner.export(out / f"{name}{stage}")
            learner.close()
    (out / f"done{index}").touch()
    time.sleep(300)
