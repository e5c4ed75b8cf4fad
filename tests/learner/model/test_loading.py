"""Folders of which transformers would silently make a different model are refused, others are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from learner.model.loading import load_whole

SHAPE = {
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    **{"intermediate_size": 32, "vocab_size": 96, "max_position_embeddings": 32, "tie_word_embeddings": True},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
DOWN = "model.layers.1.mlp.down_proj"


def write(folder: Path, family: str = "llama", **settings: object) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SHAPE | settings))).save_pretrained(folder)
    return folder


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("tied", "edit", "says"),
    [
        (True, lambda weights: weights.pop(f"{DOWN}.weight"), rf"lacks weights of a LlamaForCausalLM: {DOWN}\.weight"),
        (False, lambda weights: weights.pop(HEAD), "lacks weights of a LlamaForCausalLM: lm_head.weight"),
        (True, lambda weights: weights.pop(EMBEDDING), f"lacks weights of a LlamaForCausalLM: .*{EMBEDDING}"),
        (True, lambda weights: weights.update({f"{DOWN}.bias": torch.ones(32)}), rf"ignores: {DOWN}\.bias"),
        (True, lambda weights: weights.update({HEAD: weights[EMBEDDING] + 1}), "set tie_word_embeddings to false"),
    ],
)
def test_weights_that_would_become_another_model_are_refused(tied: bool, edit, says: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", tie_word_embeddings=tied)
    change(folder, edit)
    with pytest.raises(ValueError, match=rf"{folder}.*{says}"):
        load_whole(folder)


def test_adapters_beside_the_weights_are_refused(tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(write(tmp_path / "model"))
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"adapter_config\.json.*merge_and_unload"):
        load_whole(tmp_path / "model")
    (tmp_path / "model" / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"or remove adapter_config\.json"):
        load_whole(tmp_path / "model")


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    settings = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (folder / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(ValueError, match=rf"{folder} is quantized \(bitsandbytes\).*before quantization"):
        load_whole(folder)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma", "phi3", "smollm3", "gpt2"])
def test_whole_models_are_loaded_as_they_are(family: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", family)
    expected = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, tensor in load_whole(folder).state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_a_second_copy_of_a_tied_head_and_a_head_for_other_uses_are_no_fault(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    change(
        folder, lambda weights: weights.update({HEAD: weights[EMBEDDING].clone(), "v_head.weight": torch.ones(1, 32)})
    )
    model = load_whole(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_an_untied_head_needs_a_config_that_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    change(folder, lambda weights: weights.update({HEAD: weights[EMBEDDING] + 1}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    model = load_whole(folder)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight + 1)
