"""Read the shape of a model from its config alone, without loading weights."""

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
"""Each ``model_type`` that can be planned; their layers differ only in biases and norms."""

CONFIG_KEYS = (
    *("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("intermediate_size", "vocab_size", "tie_word_embeddings", "attention_bias", "mlp_bias"),
)
"""The keys that are read from a transformers config."""


class UnknownShapeError(ConfigError):
    """The plan does not support the model's architecture."""


def check_split(model_config: Mapping[str, Any], size: int, model: str) -> None:
    """Raise ConfigError if vLLM cannot split a model across ``size`` GPUs. Sizes that are None are not checked.

    Each GPU gets complete attention heads, complete key-value heads or a copy of one, and an equal part of the
    feed-forward layers and of the vocabulary. The vocabulary size is rounded up to a multiple of 64.
    """
    if reason := _uneven(model_config, size):
        candidates = divisors(model_config["num_attention_heads"] or 1)
        fitting = ", ".join(str(each) for each in candidates if not _uneven(model_config, each))
        raise ConfigError(f"rollout.tensor_parallel_size = {size} {reason} of {model}: set it to one of {fitting}")


def _uneven(model_config: Mapping[str, Any], size: int) -> str:
    """Return the part of a model that cannot be split across ``size`` GPUs, in words; empty if there is none."""
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
"""Published configs, for machines that cannot reach the hub. The -Instruct, -Base and -Coder versions have the same
sizes."""


def check_adapters(shape: ModelShape, lora: LoraConfig) -> None:
    """Raise ConfigError if ``lora`` names a layer that the model does not have."""
    try:
        adapter_shapes(shape, lora)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def shape_of(model: ModelConfig) -> ModelShape:
    """Return the shape of the recipe's policy, from ``model.build`` or from the config at ``model.path``.

    Raises ConfigError if the config cannot be read, UnknownShapeError if its family is not in ``FAMILIES``.
    """
    if model.build is not None:
        build = model.build
        # As in learner/model/build.py: the integers from 0, the words, and two special tokens.
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
    """Return the shape of ``model.teacher``; None without a teacher. Raises the same errors as ``shape_of``."""
    if model.teacher is None:
        return None
    try:
        return shape_of(model.model_copy(update={"path": model.teacher, "build": None}))
    except ConfigError as error:
        raise type(error)(str(error).replace("model.path", "model.teacher")) from error


def shape_from(config: Mapping[str, Any], name: str) -> ModelShape:
    """Return the shape that a transformers config with all ``CONFIG_KEYS`` describes. Raises UnknownShapeError."""
    family = config["model_type"]
    has_biases = family in ("qwen3", "llama") and (config.get("attention_bias") or config.get("mlp_bias"))
    if family not in FAMILIES or has_biases:
        what = "attention or MLP biases" if has_biases else f"model_type {family!r}"
        raise UnknownShapeError(
            f"model.path = {name!r} has {what}, which the memory plan does not support: use a model of one of the "
            f"families {', '.join(FAMILIES)}, without such biases"
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

    source = Path(located(path))
    try:
        is_file = is_gguf(str(source)) and source.is_file()
        config = _gguf_config(source, path) if is_file else AutoConfig.from_pretrained(path)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the config of model.path = {path!r} is neither in a folder with that name nor reachable on the hub: "
            "set model.path to a folder that holds the model's config.json, no other file is needed; models that "
            f"need no config: {', '.join(PUBLISHED)} and their -Instruct and -Base ({type(error).__name__})"
        ) from error
    # Read as attributes: a config file omits keys with default values.
    return {key: getattr(config.get_text_config(), key, None) for key in CONFIG_KEYS}


def _gguf_config(file: Path, path: str) -> Any:
    # Imported here because it loads torch, which other plans do not need.
    from learner.model.gguf import GgufError, gguf_config

    try:
        return gguf_config(file)
    except GgufError as error:
        raise ConfigError(f"model.path = {path!r}: {error}") from error
