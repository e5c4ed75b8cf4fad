"""Estimate the memory of a learner rank, from the source code of DeepSpeed 0.19.8 and transformers 5.19.0.

It has not been confirmed on a GPU. The learner's own limits are here too, so that the plan can read them without
loading torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from learner.algorithm.settings import AlgorithmConfig
from learner.config import LearnerConfig, LoraConfig, ModelConfig
from rollout.types.memory_terms import CUDA_CONTEXT, GIB, LEARNING, WEIGHT_BYTES, MemoryTerm
from rollout.types.model_shape import ModelShape

REDUCE_BUCKET_ELEMENTS = 50_000_000
"""Elements reduced or gathered at a time; DeepSpeed's default of 500 million takes 1 to 2 GiB of a 24 GB card."""
LOGITS_PER_CHUNK = 2**24
"""Logits that are computed at a time: 64 MiB in float32."""
CHUNK_COPIES = 4
"""Tensors of that size that the plan counts: 3.25 were measured, in forward and backward together with their matrix
products. The exact KL to a reference takes one more. Source: benchmarks/results/logprob-memory-cpu.txt."""
NORM = 8
"""Bytes per element while a gradient's norm is computed: in float64, one tensor at a time."""
PROCESS = 3 * GIB
"""Bytes of host memory for the code and libraries of one rank."""


@dataclass(frozen=True, slots=True)
class LearnerSizes:
    """The variables of the formulas, by their letters."""

    shape: ModelShape
    P: int
    """Parameters, including the critic's."""
    T: int
    """Trained parameters."""
    largest: int
    """Elements of the largest trained tensor."""
    N: int
    """Ranks of the learner."""
    b: int
    """Bytes of one weight."""
    reference: ModelShape
    """The shape of the reference if one is used: the teacher's, or the policy's own."""

    @classmethod
    def of(
        cls, learner: LearnerConfig, model: ModelConfig, shape: ModelShape, teacher: ModelShape | None = None
    ) -> LearnerSizes:
        """Return the sizes of a model of ``shape``. Raises ValueError for adapters of a layer that it does not have."""
        hidden = shape.hidden_size
        critic = (hidden * hidden + 2 * hidden + 1) if learner.algorithm.uses_critic else 0
        if model.lora is None:
            trained, added, largest = shape.num_parameters, 0, shape.largest_tensor
        else:
            adapters = [math.prod(pair) for pair in adapter_shapes(shape, model.lora)]
            trained = added = sum(adapters)
            largest = max(adapters)
        parameters = shape.num_parameters + added + critic
        b = WEIGHT_BYTES[model.dtype]
        return cls(shape, parameters, trained + critic, largest, learner.num_ranks, b, teacher or shape)


def adapter_shapes(shape: ModelShape, lora: LoraConfig) -> list[tuple[int, int]]:
    """Return the shapes of the adapters of ``lora``. Raises ValueError for a layer that the model does not have."""
    targets = lora.target_modules
    for target in () if targets == "all-linear" else targets:
        if target.rpartition(".")[2] not in shape.linears:
            raise ValueError(
                f"model.lora.target_modules names {target!r}, which is not a linear layer that can have an adapter: "
                f'use some of {", ".join(shape.linears)}, or "all-linear"'
            )
    chosen = [
        size
        for name, size in shape.linears.items()
        if targets == "all-linear" or any(target.rpartition(".")[2] == name for target in targets)
    ]
    pairs = [pair for out, into in chosen for pair in ((lora.rank, into), (out, lora.rank))]
    return pairs * shape.num_layers


def reference_kind(algorithm: AlgorithmConfig, model: ModelConfig) -> Literal["none", "base", "copy", "offloaded"]:
    """Return the reference that the settings need, with ``auto`` resolved; ``none`` if ``kl_beta`` is 0.

    With a teacher it is never ``base``, which is the policy without its adapters.
    """
    if algorithm.kl_beta == 0:
        return "none"
    if algorithm.reference == "auto":
        return "base" if model.lora is not None and model.teacher is None else "copy"
    return algorithm.reference


def learner_terms(learner: LearnerConfig, model: ModelConfig, sizes: LearnerSizes) -> list[MemoryTerm]:
    """Return the memory terms of one rank on its GPU."""
    return [
        MemoryTerm("learner", "CUDA context", CUDA_CONTEXT, "about 800 MiB a process"),
        *_kept(learner, model, sizes),
        *_gradients(learner, sizes),
        *_activations(learner, model, sizes),
    ]


def _kept(learner: LearnerConfig, model: ModelConfig, sizes: LearnerSizes) -> list[MemoryTerm]:
    """Return the terms that are kept between steps, and an offloaded reference, which is here only during learning."""
    stage, b, P, T = learner.zero_stage, sizes.b, sizes.P, sizes.T
    N, over = (sizes.N, " / N") if stage > 0 else (1, "")
    share, over_share = (N, over) if stage == 3 else (1, "")
    terms = [MemoryTerm("learner", "weights", b * P / share, f"{b} P{over_share}")]
    if learner.offload_optimizer:
        terms.append(MemoryTerm("learner", "offload's buffer", b * sizes.largest, f"{b} × largest trained tensor"))
    else:
        if stage > 0:
            terms.append(MemoryTerm("learner", "master weights", 4 * T / N, f"4 T{over}, float32"))
        moment = 2 if learner.optimizer == "adamw_8bit" else 8
        terms.append(MemoryTerm("learner", "optimizer moments", moment * T / N, f"{moment} T{over}"))
    whole = b * sizes.reference.num_parameters
    formula = f"{b} × the {'base' if model.teacher is None else 'teacher'}'s parameters"
    match reference_kind(learner.algorithm, model):
        case "copy":
            terms.append(MemoryTerm("learner", "reference, copy", whole, formula))
        case "offloaded":
            terms.append(MemoryTerm("learner", "reference, offloaded", whole, formula, LEARNING))
    return terms


def _gradients(learner: LearnerConfig, sizes: LearnerSizes) -> list[MemoryTerm]:
    """Return the terms of gradients in the backward pass and in the optimizer step."""
    stage, offload = learner.zero_stage, learner.offload_optimizer
    b, T, N = sizes.b, sizes.T, sizes.N
    backward: float
    step: float
    if stage == 3:
        return _zero3_gradients(sizes, offload)
    if stage == 0:
        backward, formula = b * T, f"{b} T"
        step, step_formula = b * T + NORM * sizes.largest, f"{b} T + {NORM} × largest tensor"
    elif offload:
        # Stage 2 moves gradients to the host a bucket at a time, during the backward pass; stage 1 in the step.
        whole = b * T if stage == 1 else 0
        moving = b * REDUCE_BUCKET_ELEMENTS + 2 * b * sizes.largest
        moving_formula = f"bucket + {2 * b} × largest tensor"
        backward, formula = (whole, f"{b} T, not partitioned") if whole else (moving, moving_formula)
        step = whole + moving + NORM * sizes.largest
        step_formula = (f"{b} T + " if whole else "") + f"bucket + {2 * b + NORM} × largest tensor"
    else:
        # The rank's part, its flattened copy and its float32 copy exist at once.
        flat = (2 * b + (4 if b < 4 else 0)) * T / N
        if stage == 1:
            backward, formula = b * T, f"{b} T, not partitioned"
            step = max(b * T + b * T / N, flat) + b * REDUCE_BUCKET_ELEMENTS
            step_formula = f"max({b} T + {b} T / N, 8 T / N: part, flat, float32) + bucket"
        else:
            backward = 2 * b * T / N + b * REDUCE_BUCKET_ELEMENTS + b * sizes.largest
            formula = f"{2 * b} T / N: their sum, and those of a microbatch; + bucket + {b} × largest tensor"
            step, step_formula = flat, "8 T / N: part, flat, float32"
        step = max(step, b * T / N + NORM * sizes.largest)
    return [
        MemoryTerm("learner", "gradients", backward, formula, ("backward",)),
        MemoryTerm("learner", "gradients, applied", step, step_formula, ("optimizer step",)),
    ]


def _zero3_gradients(sizes: LearnerSizes, offload: bool) -> list[MemoryTerm]:
    """Return the terms of gradients in ZeRO 3, which are allocated once and kept.

    Complete layers are gathered when they are needed, up to DeepSpeed's limit.
    """
    b, part = sizes.b, sizes.T / sizes.N
    applied, formula = (0.0, "") if offload else (4 * part, "4 T / N, float32; or ")
    applied, formula = max(applied, NORM * sizes.largest), f"{formula}{NORM} × largest tensor"
    kept = [] if offload else [MemoryTerm("learner", "gradients, kept", b * part, f"{b} T / N")]
    return [
        *kept,
        MemoryTerm("learner", "gathered weights", b * min(sizes.P, 10**9), f"{b} × min(P, 1e9)", LEARNING),
        MemoryTerm("learner", "gradients", 2 * b * REDUCE_BUCKET_ELEMENTS, "2 buckets", ("backward",)),
        MemoryTerm("learner", "gradients, applied", applied, formula, ("optimizer step",)),
    ]


def _activations(learner: LearnerConfig, model: ModelConfig, sizes: LearnerSizes) -> list[MemoryTerm]:
    """Return the terms of activations and logits in one microbatch."""
    tokens, shape, b = learner.max_tokens_per_microbatch, sizes.shape, sizes.b
    layer = layer_bytes(shape, b)
    if learner.gradient_checkpointing:
        kept, formula = b * shape.hidden_size * shape.num_layers + 2 * layer, f"tokens × ({b} H L + 2 layers)"
    else:
        kept, formula = layer * (shape.num_layers + 1), "tokens × (L + 1) layers"
    kept += (8 + 4 * b) * shape.hidden_size
    formula += f"; a layer {layer:,} bytes a token"
    is_exact = reference_kind(learner.algorithm, model) != "none" and learner.algorithm.kl_estimator == "exact"
    copies = CHUNK_COPIES + is_exact
    chunk = copies * 4 * min(LOGITS_PER_CHUNK, tokens * shape.vocab_size)
    return [
        MemoryTerm("learner", "activations", tokens * kept, formula, ("backward",)),
        MemoryTerm("learner", "logits chunk", chunk, f"{copies} copies of 2^24 in float32", ("backward",)),
    ]


def layer_bytes(shape: ModelShape, b: int) -> int:
    """Return the bytes per token that a block of transformers keeps for its backward pass; ``b`` is bytes per weight.

    Each of two norms keeps its input in float32, the normalised input, and the output. Attention keeps queries, keys,
    values (repeated for every query head) and the output twice. The feed-forward layer keeps gate, its activation, up,
    and their product.
    """
    norms = 2 * (4 + 2 * b) * shape.hidden_size
    head_norms = (4 + b) * (shape.query_size + shape.kv_size) if shape.has_head_norms else 0
    return norms + head_norms + 5 * b * shape.query_size + 4 * b * shape.intermediate_size


def learner_host_terms(learner: LearnerConfig, model: ModelConfig, sizes: LearnerSizes) -> list[MemoryTerm]:
    """Return the terms of host memory, of all ranks together."""
    b, T, N = sizes.b, sizes.T, sizes.N
    base, reference = b * sizes.shape.num_parameters, b * sizes.reference.num_parameters
    terms = [
        MemoryTerm("learner", "processes", N * PROCESS, f"{N} × 3 GiB"),
        MemoryTerm("learner", "published weights", base, f"{b} P, in Ray's object store"),
    ]
    if learner.offload_optimizer:
        pinned = 2 * _pinned(4 * T / N) + _pinned(b * T / N)
        sums = b * T / N if learner.zero_stage > 1 else 0
        formula = f"N × (8 T / N + pinned 4 T / N, 4 T / N and {b} T / N, each rounded up to a power of 2)"
        terms.append(MemoryTerm("learner", "offloaded optimizer", N * (8 * T / N + pinned + sums), formula))
    if reference_kind(learner.algorithm, model) == "offloaded":
        whose = "base" if model.teacher is None else "teacher"
        terms.append(MemoryTerm("learner", "reference", N * reference, f"N × {b} × the {whose}'s parameters"))
    return terms


def _pinned(num_bytes: float) -> int:
    """Return the bytes that PyTorch's allocator of page-locked memory uses for ``num_bytes``."""
    return 1 << max(0, math.ceil(num_bytes) - 1).bit_length()
