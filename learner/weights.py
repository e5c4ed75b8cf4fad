"""The learner's end of publishing: whole weights under their Hugging Face names, gathered from any ZeRO stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import deepspeed
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer

from learner.backend import Backend
from rollout.types import WeightBucket

EXPORT_BUCKET_BYTES = 2**30
"""Weights gathered at a time for an export."""


def weight_buckets(backend: Backend, max_bytes: int) -> Iterator[WeightBucket]:
    """Yields the weights on rank 0, in buckets of at most ``max_bytes`` or one parameter; elsewhere nothing.

    Every rank must exhaust it, for ZeRO 3 gathers each bucket from all of them. A tied LM head is the embedding and
    comes once, under the embedding's name.
    """
    for parameters in _buckets(backend, max_bytes):
        with deepspeed.zero.GatheredParameters(list(parameters.values()), enabled=backend.zero_stage == 3):
            gathered = {name: _to_numpy(tensor) for name, tensor in parameters.items()} if backend.rank.is_first else {}
        if gathered:
            yield WeightBucket(
                names=tuple(gathered),
                dtypes=tuple(str(tensor.dtype).removeprefix("torch.") for tensor in parameters.values()),
                arrays=tuple(gathered.values()),
            )


def export(backend: Backend, tokenizer_folder: Path | str, folder: Path) -> None:
    """Writes a Hugging Face folder, model and tokenizer, from any ZeRO stage. Collective; rank 0 writes."""
    state = dict(pair for bucket in weight_buckets(backend, EXPORT_BUCKET_BYTES) for pair in tensors_of(bucket))
    if not backend.rank.is_first:
        return
    model = backend.policy.model
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.save_pretrained(folder, state_dict=state)
    AutoTokenizer.from_pretrained(tokenizer_folder).save_pretrained(folder)


def _buckets(backend: Backend, max_bytes: int) -> Iterator[dict[str, Tensor]]:
    bucket: dict[str, Tensor] = {}
    size = 0
    for name, parameter in backend.policy.model.named_parameters():
        num_bytes = getattr(parameter, "ds_numel", parameter.numel()) * parameter.element_size()
        if bucket and size + num_bytes > max_bytes:
            yield bucket
            bucket, size = {}, 0
        bucket[name] = parameter
        size += num_bytes
    yield bucket


def _to_numpy(tensor: Tensor) -> NDArray:
    # A copy: the optimizer writes the next step's weights over the original while a bucket is still in flight.
    copy = tensor.detach().to("cpu", copy=True)
    return copy.view(torch.uint16).numpy() if copy.dtype == torch.bfloat16 else copy.numpy()


def tensors_of(bucket: WeightBucket) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a bucket, without copying."""
    for name, dtype, array in zip(bucket.names, bucket.dtypes, bucket.arrays, strict=True):
        yield name, torch.from_numpy(array).view(getattr(torch, dtype))
