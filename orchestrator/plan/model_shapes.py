"""The shape of a model from its config alone: nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner.config import LoraConfig, ModelConfig
from learner.memory import adapter_shapes
from orchestrator.config.checks import divisors
from orchestrator.config.recipe import ConfigError
from orchestrator.model_source import is_gguf, located
from rollout.types.model_shape import ModelShape

FAMILIES = ("qwen2", "qwen3", "llama", "mistral")
"""The ``model_type`` that a plan knows; their layers differ in biases and norms only."""

CONFIG_KEYS = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("intermediate_size", "vocab_size", "tie_word_embeddings", "attention_bias", "mlp_bias"),
)
"""The keys that are read of a config of transformers."""


class UnknownShapeError(ConfigError):
    """The model is of an architecture whose memory is not planned."""


def check_split(model_config: Mapping[str, Any], size: int, model: str) -> None:
    """Raise ConfigError when vLLM cannot share a model among ``size`` GPUs. Sizes that are None are not checked.

    Each GPU gets whole attention heads, whole key-value heads or a copy of one, and equal parts of the feed-forward
    layers and of the vocabulary, which is rounded up to a multiple of 64.
    """
    if reason := _uneven(model_config, size):
        candidates = divisors(model_config["num_attention_heads"] or 1)
        fitting = ", ".join(str(each) for each in candidates if not _uneven(model_config, each))
        raise ConfigError(f"rollout.tensor_parallel_size = {size} {reason} of {model}: set it to one of {fitting}")


def _uneven(model_config: Mapping[str, Any], size: int) -> str:
    """Return which part of a model ``size`` GPUs cannot share; empty where they can share all."""
    heads, kv_heads = model_config["num_attention_heads"], model_config["num_key_value_heads"]
    inner, vocabulary = model_config["intermediate_size"], model_config["vocab_size"]
    if heads and heads % size:
        return f"does not divide the {heads} attention heads"
    if kv_heads and kv_heads % size and size % kv_heads:
        return f"is neither a divisor nor a multiple of the {kv_heads} key-value heads"
    if inner and inner % size:
        return f"does not divide intermediate_size = {inner}"
    if vocabulary and (padded := -(-vocabulary // 64) * 64) % size:
        return f"does not divide the vocabulary, {padded} with its padding,"
    return ""


def _qwen(family: str, hidden: int, layers: int, heads: tuple[int, int, int], inner: int) -> ModelShape:
    return ModelShape(family, hidden, layers, *heads, inner, 151_936, True)


PUBLISHED: dict[str, ModelShape] = {
    "Qwen/Qwen2.5-0.5B": _qwen("qwen2", 896, 24, (14, 2, 64), 4864),
    "Qwen/Qwen2.5-1.5B": _qwen("qwen2", 1536, 28, (12, 2, 128), 8960),
    "Qwen/Qwen2.5-3B": _qwen("qwen2", 2048, 36, (16, 2, 128), 11_008),
    "Qwen/Qwen2.5-7B": ModelShape("qwen2", 3584, 28, 28, 4, 128, 18_944, 152_064, tie_embeddings=False),
    "Qwen/Qwen3-0.6B": _qwen("qwen3", 1024, 28, (16, 8, 128), 3072),
    "Qwen/Qwen3-1.7B": _qwen("qwen3", 2048, 28, (16, 8, 128), 6144),
}
"""Configs as published, for machines that cannot reach the hub. Their -Instruct, -Base and -Coder versions are of the
same sizes."""


def check_adapters(shape: ModelShape, lora: LoraConfig) -> None:
    """Raise ConfigError when ``lora`` names a layer that the model does not have."""
    try:
        adapter_shapes(shape, lora)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def shape_of(model: ModelConfig) -> ModelShape:
    """Return the shape of the recipe's policy: as built, or as the config of the model at ``model.path`` says.

    Raises ConfigError for a model whose config cannot be had, UnknownShapeError for one that is none of ``FAMILIES``.
    """
    if model.build is not None:
        build = model.build
        # learner/model/build.py: the integers from 0, the words, and two special tokens.
        vocabulary = build.max_integer + 1 + len(build.words) + 2
        heads = (build.num_heads, build.num_kv_heads, build.head_size)
        size = (build.hidden_size, build.num_layers, *heads, build.intermediate_size, vocabulary)
        return ModelShape(build.architecture, *size, tie_embeddings=build.tie_embeddings)
    assert model.path is not None
    published = PUBLISHED.get(_without_version(model.path))
    if published is not None and not Path(model.path).exists():
        return published
    return shape_from(_hugging_face_config(model.path), model.path)


def teacher_shape(model: ModelConfig) -> ModelShape | None:
    """Return the shape of ``model.teacher``; None where there is none. Raises as ``shape_of`` does."""
    if model.teacher is None:
        return None
    try:
        return shape_of(model.model_copy(update={"path": model.teacher, "build": None}))
    except ConfigError as error:
        raise type(error)(str(error).replace("model.path", "model.teacher")) from error


def shape_from(config: Mapping[str, Any], name: str) -> ModelShape:
    """Return the shape that a config of transformers describes, with all ``CONFIG_KEYS``. Raises UnknownShapeError."""
    family = config["model_type"]
    has_biases = family in ("qwen3", "llama") and (config.get("attention_bias") or config.get("mlp_bias"))
    if family not in FAMILIES or has_biases:
        what = "attention or MLP biases" if has_biases else f"model_type {family!r}"
        raise UnknownShapeError(
            f"model.path = {name!r} has {what}, whose memory is not planned: known are {', '.join(FAMILIES)}"
        )
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return ModelShape(
        family,
        hidden,
        config["num_hidden_layers"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
        config["intermediate_size"],
        config["vocab_size"],
        config["tie_word_embeddings"],
    )


def _without_version(path: str) -> str:
    return path.removesuffix("-Instruct").removesuffix("-Base").replace("Qwen2.5-Coder-", "Qwen2.5-")


def _hugging_face_config(path: str) -> dict[str, Any]:
    from transformers import AutoConfig

    found = Path(located(path))
    try:
        is_file = is_gguf(str(found)) and found.is_file()
        config = _gguf_config(found, path) if is_file else AutoConfig.from_pretrained(path)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the config of model.path = {path!r} is neither in a folder of that name nor on the hub as seen from "
            "here: set model.path to a folder that holds the model's config.json, nothing else is read; without a "
            f"config known are {', '.join(PUBLISHED)} and their -Instruct and -Base ({type(error).__name__})"
        ) from error
    # As attributes: a config file leaves out what is at its default.
    return {key: getattr(config.get_text_config(), key, None) for key in CONFIG_KEYS}


def _gguf_config(file: Path, path: str) -> Any:
    # Imported here: it loads torch, which no other plan needs.
    from learner.model.gguf import GgufError, gguf_config

    try:
        return gguf_config(file)
    except GgufError as error:
        raise ConfigError(f"model.path = {path!r}: {error}") from error
