"""Small GGUF files, written as llama.cpp's converter writes those of Llama models."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

CONFIG = LlamaConfig(
    vocab_size=259,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=128,
    tie_word_embeddings=True,
)
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def llama(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(CONFIG).eval()


def write_gguf(
    file: Path,
    model: LlamaForCausalLM,
    architecture: str = "llama",
    *,
    without: Collection[str] = (),
    beside: Mapping[str, torch.Tensor] | None = None,
    num_blocks: int | None = None,
    claims: Mapping[str, int | float | str] | None = None,
) -> None:
    """Write the model with a tokenizer of bytes, one merge, and a chat template.

    Args:
        without: names of tensors that are left out.
        beside: tensors that are written too.
        num_blocks: what the header says of it; by default what is true.
        claims: further entries of the header, under the architecture where their names begin with a dot.
    """
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers if num_blocks is None else num_blocks)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(16)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*("<s>", "<end>"), *bytes_to_unicode().values(), "an"])
    writer.add_token_merges(["a n"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for key, value in (claims or {}).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture}{key}" if key.startswith(".") else key, value)
    tensors = {
        "token_embd.weight": weights["model.embed_tokens.weight"],
        "output_norm.weight": weights["model.norm.weight"],
        **(beside or {}),
    }
    for layer in range(config.num_hidden_layers):
        for name, theirs in LAYER.items():
            weight = weights[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name)
            if heads:  # llama.cpp rotates neighbours, transformers the two halves of a head
                weight = weight.reshape(heads, 2, -1, config.hidden_size).transpose(1, 2).reshape(weight.shape)
            tensors[f"blk.{layer}.{name}.weight"] = weight
    for name, tensor in tensors.items():
        if name not in without:
            writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
