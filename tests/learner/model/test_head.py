"""Models whose logits are more than LM head times hidden state are refused when they are loaded, others are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from learner.config import ModelConfig
from learner.model.head import check_head
from learner.model.policy import load_policy

SHAPE = {
    **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    **{"intermediate_size": 32, "vocab_size": 96, "max_position_embeddings": 32},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}


def made(family: str, **settings: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SHAPE | settings))).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        *[(family, {}) for family in ("qwen2", "qwen3", "llama", "mistral", "gemma", "phi3", "smollm3", "gpt2")],
        ("qwen3", {"tie_word_embeddings": True}),
        ("qwen3_moe", {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}),
        ("granite", {"logits_scaling": 1.0}),
    ],
)
def test_plain_heads_pass_and_leave_no_trace(family: str, settings: dict, dtype: torch.dtype) -> None:
    model = made(family, **settings).to(dtype)
    state = torch.get_rng_state()
    token_ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(input_ids=token_ids).logits
        check_head(model, "folder")
        assert torch.equal(model(input_ids=token_ids).logits, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "settings", "cause"),
    [
        ("gemma2", {}, r"final_logit_softcapping = 30\.0\. Use another"),
        ("nanochat", {}, "final_logit_softcapping = 15"),
        ("cohere", {}, r"logit_scale = 0\.0625"),
        ("granite", {"logits_scaling": 8.0}, "logits_scaling = 8"),
        ("falcon_h1", {"lm_head_multiplier": 0.5}, r"lm_head_multiplier = 0\.5"),
        ("phi", {}, "a bias of the LM head"),
        ("minicpm3", {}, "its own code for logits"),
        ("bert", {"is_decoder": True}, "without a linear lm_head"),
    ],
)
def test_anything_between_head_and_logits_is_refused(family: str, settings: dict, cause: str, dtype) -> None:
    model = made(family, **settings).to(dtype)
    with pytest.raises(ValueError, match=cause):
        check_head(model, "folder")


def test_a_policy_is_not_loaded_with_the_wrong_loss(tmp_path: Path) -> None:
    made("cohere").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"are not its LM head times the last hidden state.*Use another model"):
        load_policy(tmp_path, ModelConfig(path=str(tmp_path), dtype="float32", attention="sdpa"), temperature=1.0)
