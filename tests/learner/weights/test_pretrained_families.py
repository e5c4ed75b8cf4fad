"""Pretrained models of other families than the built policy: they train as the sampler samples, and export whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from learner.config import LoraConfig, ModelConfig
from learner.model.policy import load_policy
from rollout.weights.staging import expected_shapes
from tests.support.learners import start, weights_of
from tests.support.tiny import learner_config, make_groups

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]

SHAPE = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2},
    **{"intermediate_size": 32, "max_position_embeddings": 128, "initializer_range": 0.2},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
}
EXPERTS = {
    "head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
FAMILIES = [
    ("gpt2", {}),
    ("falcon", {}),
    ("llama", {"attention_dropout": 0.3, "tie_word_embeddings": True}),
    ("glm4_moe", EXPERTS),
]
"""GPT-2 has dropout, and its tied embedding has another name than Llama's; GLM 4 chooses experts with a buffer."""
CONTRADICTORY = {"eos_token_id": [1, 5], "temperature": 0.6, "top_p": 0.9, "do_sample": False}


def write(built: Path, folder: Path, family: str, **settings: object) -> Path:
    """Write a model of ``family`` with the tokenizer of the built policy."""
    torch.manual_seed(0)
    vocab_size = len(AutoTokenizer.from_pretrained(built))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, vocab_size=vocab_size, **(SHAPE | settings)))
    for buffer in [tensor for name, tensor in model.state_dict().items() if name.endswith("correction_bias")]:
        buffer.uniform_(-1, 1)
    model.save_pretrained(folder)
    for file in built.glob("tokenizer*"):
        shutil.copy(file, folder)
    (folder / "generation_config.json").write_text(json.dumps(CONTRADICTORY))
    return folder


@pytest.mark.parametrize(("family", "settings"), FAMILIES)
def test_it_trains_as_it_is_sampled_and_exports_whole(
    folder: Path, family: str, settings: dict, tmp_path: Path
) -> None:
    base = write(folder, tmp_path / "base", family, **settings)
    config = learner_config(gradient_checkpointing=True, max_logprob_gap=1e-4)
    learner = start(base, config, ModelConfig(path=str(base), dtype="float32", attention="sdpa"))
    learner.update(1, make_groups(base, seed=1))  # raises ParityError if dropout or noise is on
    learner.export(tmp_path / "final")
    weights = weights_of(learner)
    assert {name: weight.shape for name, weight in weights.items()} == expected_shapes(base)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "final").state_dict()
    for name, weight in weights.items():
        np.testing.assert_array_equal(weight, exported[name], err_msg=name)
    trained = learner._backend.policy.model.state_dict()
    assert trained.keys() == exported.keys()
    assert all(torch.equal(trained[name], exported[name]) for name in trained)
    saved = json.loads((tmp_path / "final" / "generation_config.json").read_text())
    assert {name: saved[name] for name in CONTRADICTORY if name in saved} | {"do_sample": False} == CONTRADICTORY


def test_adapters_need_linear_layers(folder: Path, tmp_path: Path) -> None:
    base = write(folder, tmp_path / "base", "gpt2")
    with pytest.raises(ValueError, match=r"model\.lora is set.*GPT2LMHeadModel without linear layers.*unset"):
        load_policy(base, ModelConfig(path=str(base), dtype="float32", attention="sdpa", lora=LoraConfig()), 1.0)
