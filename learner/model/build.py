"""Build a policy from a config: a Hugging Face folder with random weights and a word-level tokenizer."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from learner.config import BuildConfig
from learner.model.folder import save_model


def build_model(config: BuildConfig, seed: int, folder: Path) -> None:
    """Write a model and its tokenizer to ``folder``, for AutoModelForCausalLM, AutoTokenizer and vLLM to load.

    The weights are float32 and depend only on ``config`` and ``seed``; the caller's random state does not change.
    Raises OSError if writing fails.
    """
    tokenizer = _tokenizer(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(_model_config(config, tokenizer))
    save_model(model, tokenizer, folder)


def _model_config(config: BuildConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_size,
        intermediate_size=config.intermediate_size,
        initializer_range=config.init_std,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        max_position_embeddings=config.max_position_embeddings,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def _tokenizer(config: BuildConfig) -> PreTrainedTokenizerFast:
    integers = tuple(str(integer) for integer in range(config.max_integer + 1))
    texts = (config.pad, config.eos, *integers, *config.words)
    # The unknown token is deliberately not in the vocabulary: unknown text raises an error, instead of becoming tokens
    # that decode to another text.
    tokenizer = Tokenizer(models.WordLevel({text: index for index, text in enumerate(texts)}, unk_token="<|unknown|>"))
    longest_first = sorted(config.words, key=len, reverse=True)
    pieces = Regex("|".join([*(re.escape(word) for word in longest_first), "[0-9]+"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=config.eos,
        pad_token=config.pad,
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
    )
