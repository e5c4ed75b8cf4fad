"""Load a Hugging Face model, and refuse weights of which transformers would silently make a different model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import find_adapter_config_file

from learner.parity import first_names

OTHER = "Give the folder of a complete model"


def load_whole(folder: Path | str, **settings: Any) -> PreTrainedModel:
    """Return the model in ``folder``, a Hugging Face folder or hub name. ``settings``: those of ``from_pretrained``.

    Raises ValueError for weights that lack some, from which transformers would make a model with random weights in
    their place, other ones each time; for biases that it would ignore; for an LM head that only its config ties to the
    embedding; for adapters beside the weights; and for quantized weights.
    """
    if quantization := getattr(AutoConfig.from_pretrained(folder), "quantization_config", None):
        raise ValueError(
            f"{folder} is quantized ({_method(quantization)}), and the learner cannot update quantized weights: give "
            "the model before quantization, which the card of a quantized model names"
        )
    if find_adapter_config_file(str(folder)) is not None:
        raise ValueError(
            f"{folder} has adapters of peft (adapter_config.json), which the generators do not load: merge them into "
            "the model with peft's merge_and_unload, save it, and give its folder; or remove adapter_config.json"
        )
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **settings)
    model, info = loaded
    if lacking := sorted(info["missing_keys"]):
        raise ValueError(f"{folder} lacks weights of a {type(model).__name__}: {first_names(lacking)}. {OTHER}")
    if ignored := _ignored(model, info["unexpected_keys"]):
        raise ValueError(
            f"{folder} has weights that a {type(model).__name__} with this config.json ignores: "
            f"{first_names(ignored)}. {OTHER}, or correct its config.json"
        )
    if _has_own_head(model) and _should_be_tied(model):
        raise ValueError(
            f"{folder} has an LM head of its own, but its config.json says that it is the embedding, which the "
            "generators use: set tie_word_embeddings to false there, or remove lm_head.weight from its weights"
        )
    return model


def _method(quantization: Any) -> str:
    settings = quantization if isinstance(quantization, dict) else vars(quantization)
    return str(settings.get("quant_method", "by an unknown method"))


def _ignored(model: PreTrainedModel, names: Collection[str]) -> list[str]:
    """Return the names that are weights of linear layers of ``model``. Others may belong to an additional head."""
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return sorted(name for name in names if name.rpartition(".")[0] in layers)


def _has_own_head(model: PreTrainedModel) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return getattr(head, "weight", None) is not embedding.weight


def _should_be_tied(model: PreTrainedModel) -> bool:
    declared = getattr(model, "_tied_weights_keys", None) or {}
    return "lm_head.weight" in declared and bool(getattr(model.config, "tie_word_embeddings", False))
