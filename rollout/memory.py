"""The memory that a generator needs, derived from vLLM 0.32.0's source code. No GPU has confirmed it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from rollout.config import RolloutConfig
from rollout.types.memory_terms import CUDA_CONTEXT, GIB, MemoryTerm, Phase
from rollout.types.model_shape import ModelShape
from rollout.types.publishing import NcclGroup, TransportName

CUDA_GRAPHS = GIB // 2
"""Bytes of vLLM's graphs where ``rollout.compile`` is on; they stay on the GPU while the generator sleeps."""
KV_BLOCK = 16
"""Tokens in one block of vLLM's KV cache."""
SAMPLER_BYTES = 14
"""Bytes that vLLM's sampler holds of each logit: the model's own in 2 bytes, and 3 copies in float32."""
OUTSIDE_SHARE = ("CUDA context", "publish buffers")
"""Names of the terms that vLLM does not count in its share of the GPU."""
PROCESS = 4 * GIB
"""Bytes of host memory for the code and libraries of one generator."""


@dataclass(frozen=True, slots=True)
class KvCache:
    """The part of vLLM's share that is left for the KV cache, on one GPU."""

    num_bytes: float
    """Negative if the weights alone are too large."""
    bytes_per_token: int
    tokens_per_completion: int
    """Longest prompt and completion together, in whole blocks."""
    wanted_completions: int
    """``rollout.max_concurrent_completions``."""

    @property
    def num_tokens(self) -> int:
        """Tokens that the cache holds, in whole blocks."""
        return max(0, int(self.num_bytes // self.bytes_per_token)) // KV_BLOCK * KV_BLOCK

    @property
    def bytes_of_one(self) -> int:
        """Bytes of one completion of full length, its prompt included."""
        return self.bytes_per_token * self.tokens_per_completion

    @property
    def wanted_bytes(self) -> int:
        """Bytes of all wanted completions at full length."""
        return self.wanted_completions * self.bytes_of_one

    @property
    def num_completions(self) -> int:
        """Completions of full length at once. Shared prompts and shorter completions leave room for more."""
        return self.num_tokens // self.tokens_per_completion


def generator_terms(rollout: RolloutConfig, shape: ModelShape, b: int, max_model_len: int) -> list[MemoryTerm]:
    """Return the terms of one GPU of a generator, without the KV cache, which takes what is left of vLLM's share.

    Args:
        b: bytes of one weight.
        max_model_len: longest prompt and completion together, in tokens.
    """
    ways = rollout.tensor_parallel_size
    over = " / tensor_parallel_size" if ways > 1 else ""
    tokens = max(rollout.max_batched_tokens, max_model_len)
    width = 2 * shape.hidden_size + 3 * shape.intermediate_size // ways
    forward = tokens * b * width + rollout.max_concurrent_completions * shape.vocab_size * SAMPLER_BYTES
    graphs = [MemoryTerm("generator", "CUDA graphs", CUDA_GRAPHS, "0.5 GiB, stay while it sleeps")]
    awake: tuple[Phase, ...] = ("generating",)
    return [
        MemoryTerm("generator", "CUDA context", CUDA_CONTEXT, "about 800 MiB a process"),
        MemoryTerm(
            "generator", "weights", b * shape.num_parameters / ways, f"{b} × the base's parameters{over}", awake
        ),
        MemoryTerm(
            "generator", "forward pass", forward, f"batched tokens × {b} (2 H + 3 I) + completions × 14 V", awake
        ),
        *(graphs if rollout.compile else []),
    ]


def publish_terms(rollout: RolloutConfig, shape: ModelShape, b: int, transport: TransportName) -> list[MemoryTerm]:
    """Return the buffers of a publish, during which generator and learner hold all that they hold while generating.

    The generator copies what comes, and vLLM puts each layer together beside the one that is in use. With ``ipc`` the
    learner packs one bucket at a time, with ``nccl`` both ends have ``NUM_BUFFERS`` on their way, each of which a
    tensor may overfill.
    """
    bucket, largest = rollout.publish_bucket_mib * 2**20, b * shape.largest_tensor
    phases: tuple[Phase, ...] = ("generating",)
    if transport == "ray":
        return [MemoryTerm("generator", "publish buffers", 2 * largest, "2 × the largest tensor", phases)]
    if transport == "ipc":
        one, formula = max(bucket, largest), "publish_bucket_mib, or the largest tensor"
        return [
            MemoryTerm("generator", "publish buffers", 2 * one, f"2 × {formula}", phases),
            MemoryTerm("learner", "publish buffer", one, formula, phases),
        ]
    moving, formula = NcclGroup.NUM_BUFFERS * (bucket + largest), "2 × (publish_bucket_mib + the largest tensor)"
    return [
        MemoryTerm("generator", "publish buffers", moving + largest, f"{formula} + that", phases),
        MemoryTerm("learner", "publish buffers", moving, formula, phases),
    ]


def share_bytes(terms: Iterable[MemoryTerm]) -> float:
    """Return the bytes of the terms that vLLM counts in its share of the GPU."""
    return sum(term.num_bytes for term in terms if term.name not in OUTSIDE_SHARE)


def kv_cache(rollout: RolloutConfig, shape: ModelShape, b: int, max_model_len: int, num_bytes: float) -> KvCache:
    """Return a KV cache of `num_bytes` on one GPU; `b` and `max_model_len` are those of `generator_terms`."""
    heads = max(1, shape.num_kv_heads // rollout.tensor_parallel_size)
    return KvCache(
        num_bytes,
        bytes_per_token=2 * shape.num_layers * heads * shape.head_size * b,
        tokens_per_completion=math.ceil(max_model_len / KV_BLOCK) * KV_BLOCK,
        wanted_completions=rollout.max_concurrent_completions,
    )


def generator_host_terms(rollout: RolloutConfig, shape: ModelShape, b: int, *, sleeps: bool) -> list[MemoryTerm]:
    """Return the terms of all generators together in host memory; `sleeps` when the learner takes turns with them."""
    count = rollout.num_generators
    asleep = MemoryTerm("generators", "weights while asleep", count * b * shape.num_parameters, f"{count} × {b} P")
    return [
        MemoryTerm("generators", "processes", count * PROCESS, f"{count} × 4 GiB"),
        *([asleep] if sleeps else []),
    ]
