"""Gather weights under their Hugging Face names, from any ZeRO stage, with merged adapters, to publish or export them.

Training is not affected: adapters are added to copies, a bucket at a time, never to the weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import deepspeed
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer

from learner.backend.forward_backward import Backend
from learner.model.folder import any_generation_config, disk_errors
from learner.model.lora import ADAPTER, Weight, adapter_weights, merged_weights
from learner.parity import SMALLER_UPDATES
from rollout.types.publishing import WeightBucket, WeightManifest

if TYPE_CHECKING:
    from peft import PeftModel

EXPORT_BUCKET_BYTES = 2**30
"""Bytes of weights that an export gathers at a time."""
ADAPTER_FOLDER = "adapter"
"""Sub-folder in which an export also writes the adapters alone."""


def weight_buckets(backend: Backend, max_bytes: int) -> Iterator[WeightBucket]:
    """Yield the weights on rank 0, in buckets of at most ``max_bytes`` or one parameter; nothing on other ranks.

    Every rank must iterate to the end, because ZeRO 3 gathers each bucket from all ranks. A tied LM head is yielded
    once, under the embedding's name. Adapters are merged into the weights. A critic is left out.

    Arrays may be views of the weights, which the next update changes. Ray copies a bucket when it is yielded.
    """
    return _gathered(backend, merged_weights(backend.policy.model), max_bytes)


def manifest(backend: Backend) -> WeightManifest:
    """Return the names, dtypes and shapes of the weights that ``device_weights`` yields, without gathering them."""
    weights = list(merged_weights(backend.policy.model))
    return WeightManifest(
        names=tuple(weight.name for weight in weights),
        dtypes=tuple(str(weight.parameter.dtype).removeprefix("torch.") for weight in weights),
        shapes=tuple(tuple(getattr(weight.parameter, "ds_shape", weight.parameter.shape)) for weight in weights),
    )


def device_weights(backend: Backend) -> Iterator[tuple[str, Tensor]]:
    """Yield names and complete weights on this rank's device, with merged adapters. Collective with ZeRO 3.

    A weight stays valid until the next update: ZeRO 3 releases gathered weights, but does not overwrite them.
    """
    for weight in merged_weights(backend.policy.model):
        with deepspeed.zero.GatheredParameters(weight.parts, enabled=backend.zero_stage == 3):
            value = weight.value()
        yield weight.name, value


def export(backend: Backend, base_folder: Path | str, folder: Path) -> None:
    """Write a Hugging Face folder with model and tokenizer, from any ZeRO stage. Collective; rank 0 writes.

    Adapters are merged into the model. They are also written alone to the sub-folder ``adapter``, in peft's format, for
    the model in ``base_folder``. The tokenizer is also from ``base_folder``.

    Raises NonFiniteError, before anything is written, if weights are not finite, and OSError if writing fails.
    """
    backend.prove_finite("the policy", f"It was not exported. {SMALLER_UPDATES}")
    model = backend.policy.model
    state = _all_tensors(backend, merged_weights(model))
    adapters_state = _all_tensors(backend, adapter_weights(model))
    if not backend.rank.is_first:
        return
    embedding = model.get_input_embeddings().weight
    if model.lm_head.weight is embedding:
        name = next(name for name, parameter in model.named_parameters() if parameter is embedding)
        state["lm_head.weight"] = state[name]
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    with disk_errors(folder), any_generation_config(model, folder):
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
        if backend.policy.adapters is not None:
            _write_adapters(backend.policy.adapters, adapters_state, base_folder, folder / ADAPTER_FOLDER)


def _write_adapters(adapters: PeftModel, state: dict[str, Tensor], base_folder: Path | str, folder: Path) -> None:
    from peft import get_peft_model_state_dict

    folder.mkdir(exist_ok=True)
    config = copy(adapters.peft_config[ADAPTER])
    # Exported adapters are usually loaded for inference, not for more training.
    config.inference_mode = True
    config.base_model_name_or_path = str(base_folder)
    config.save_pretrained(str(folder))
    # Not PeftModel.save_pretrained, which needs complete parameters on this rank and writes a model card.
    named = {f"base_model.model.{name}": tensor for name, tensor in state.items()}
    state = get_peft_model_state_dict(adapters, state_dict=named, save_embedding_layers=False)
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _all_tensors(backend: Backend, weights: Iterable[Weight]) -> dict[str, Tensor]:
    """Return all ``weights`` by name in CPU memory on rank 0, and an empty dict on other ranks. Collective."""
    buckets = _gathered(backend, weights, EXPORT_BUCKET_BYTES)
    return dict(pair for bucket in buckets for pair in tensors_of(bucket))


def _gathered(backend: Backend, weights: Iterable[Weight], max_bytes: int) -> Iterator[WeightBucket]:
    for bucket in _buckets(weights, max_bytes):
        parts = [part for weight in bucket for part in weight.parts]
        with deepspeed.zero.GatheredParameters(parts, enabled=backend.zero_stage == 3):
            # ZeRO 3 releases the gathered weights when this context ends.
            copies = backend.zero_stage == 3
            arrays = tuple(_to_numpy(each.value(), copies) for each in bucket) if backend.rank.is_first else ()
        if arrays:
            yield WeightBucket.of(
                names=tuple(weight.name for weight in bucket),
                dtypes=tuple(str(weight.parameter.dtype).removeprefix("torch.") for weight in bucket),
                arrays=arrays,
            )


def _buckets(weights: Iterable[Weight], max_bytes: int) -> Iterator[list[Weight]]:
    bucket: list[Weight] = []
    size = 0
    for weight in weights:
        parameter = weight.parameter
        num_bytes = getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size()
        if bucket and size + num_bytes > max_bytes:
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += num_bytes
    if bucket:
        yield bucket


def _to_numpy(tensor: Tensor, copies: bool) -> NDArray:
    """Return the array of a tensor; without `copies` it is a view if the tensor is in CPU memory."""
    on_cpu = tensor.to("cpu", copy=copies)
    return on_cpu.view(torch.uint16).numpy() if on_cpu.dtype == torch.bfloat16 else on_cpu.numpy()


def tensors_of(bucket: WeightBucket) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of a bucket, without copying."""
    for name, dtype, array in zip(bucket.names, bucket.dtypes, bucket.arrays, strict=True):
        yield name, torch.from_numpy(array).view(getattr(torch, dtype))
