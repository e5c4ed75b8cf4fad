"""What a generator holds on its GPU, as vLLM 0.32.0 is written; no GPU has confirmed it."""

from __future__ import annotations

from orchestrator.config.schema import RunConfig
from orchestrator.plan.model_shapes import ModelShape
from orchestrator.plan.terms import ALWAYS, CONTEXT, GIB, Phase, Sizes, Term, dtype_bytes

CUDA_GRAPHS = GIB // 2
"""vLLM's graphs where ``rollout.compile`` is on; they stay on the GPU while it sleeps."""
KV_BLOCK = 16
"""Tokens of one block of vLLM's KV cache."""
SAMPLER_BYTES = 14
"""What vLLM's sampler holds of each logit: the model's own in 2 bytes, and 3 copies in float32."""


def generator_terms(config: RunConfig, sizes: Sizes) -> list[Term]:
    """Of one of a generator's GPUs, without its KV cache, which takes what is left of its share."""
    shape, b, rollout = sizes.shape, sizes.b, config.rollout
    ways = rollout.tensor_parallel_size
    over = " / tensor_parallel_size" if ways > 1 else ""
    tokens = max(rollout.max_batched_tokens, config.max_model_len)
    width = 2 * shape.hidden_size + 3 * shape.intermediate_size // ways
    forward = tokens * b * width + rollout.max_concurrent_completions * shape.vocab_size * SAMPLER_BYTES
    bucket = max(rollout.publish_bucket_mib * 2**20, b * shape.largest_tensor)
    graphs = [Term("generator", "CUDA graphs", CUDA_GRAPHS, ALWAYS, "0.5 GiB, stay while it sleeps")]
    during: tuple[Phase, ...] = ("generating",)
    return [
        Term("generator", "CUDA context", CONTEXT, ALWAYS, "about 800 MiB a process"),
        Term("generator", "publish bucket", bucket, during, "publish_bucket_mib, or the largest tensor"),
        Term("generator", "weights", b * shape.num_parameters / ways, during, f"{b} × the base's parameters{over}"),
        Term("generator", "forward pass", forward, during, f"batched tokens × {b} (2 H + 3 I) + completions × 14 V"),
        *(graphs if rollout.compile else []),
    ]


def kv_bytes_per_token(config: RunConfig, shape: ModelShape) -> int:
    """Keys and values of one token, on one GPU."""
    heads = max(1, shape.num_kv_heads // config.rollout.tensor_parallel_size)
    return 2 * shape.num_layers * heads * shape.head_size * dtype_bytes(config.model)
