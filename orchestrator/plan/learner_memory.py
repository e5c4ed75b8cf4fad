"""What a rank of the learner holds on its GPU, as DeepSpeed 0.19.8 and transformers 5.19.0 are written.

No GPU has confirmed it.
"""

from __future__ import annotations

from orchestrator.config.schema import RunConfig
from orchestrator.plan.model_shapes import ModelShape
from orchestrator.plan.terms import ALWAYS, CONTEXT, LEARNING, Sizes, Term, reference_kind

REDUCE_BUCKET = 50_000_000
"""Gradients on their way, elements; as learner/backend/backend.py sets it."""
LOGITS_PER_CHUNK = 2**24
"""Logits of one chunk; as learner/model/logprobs.py sets it."""
NORM = 8
"""Bytes of an element while a gradient's norm is taken: in float64, a tensor at a time."""


def learner_terms(config: RunConfig, sizes: Sizes) -> list[Term]:
    """Of one rank, on its GPU."""
    return [
        Term("learner", "CUDA context", CONTEXT, ALWAYS, "about 800 MiB a process"),
        *_kept(config, sizes),
        *_gradients(config, sizes),
        *_activations(config, sizes),
    ]


def _kept(config: RunConfig, sizes: Sizes) -> list[Term]:
    """What stays from step to step, but for a reference that waits in host memory."""
    stage, offload = config.learner.zero_stage, config.learner.offload_optimizer
    b, P, T = sizes.b, sizes.P, sizes.T
    N, over = (sizes.N, " / N") if stage > 0 else (1, "")
    share, over_share = (N, over) if stage == 3 else (1, "")
    terms = [Term("learner", "weights", b * P / share, ALWAYS, f"{b} P{over_share}")]
    if offload:
        terms.append(Term("learner", "offload's buffer", b * sizes.largest, ALWAYS, f"{b} × largest trained tensor"))
    else:
        if stage > 0:
            terms.append(Term("learner", "master weights", 4 * T / N, ALWAYS, f"4 T{over}, float32"))
        moment = 2 if config.learner.optimizer == "adamw_8bit" else 8
        terms.append(Term("learner", "optimizer moments", moment * T / N, ALWAYS, f"{moment} T{over}"))
    reference = reference_kind(config)
    if reference in ("copy", "offloaded"):
        phases = ALWAYS if reference == "copy" else LEARNING
        whole = b * sizes.shape.num_parameters
        terms.append(Term("learner", f"reference, {reference}", whole, phases, f"{b} × the base's parameters"))
    return terms


def _gradients(config: RunConfig, sizes: Sizes) -> list[Term]:
    """Gradients, and what becomes of them in the optimizer step."""
    stage, offload = config.learner.zero_stage, config.learner.offload_optimizer
    b, T, N = sizes.b, sizes.T, sizes.N
    backward: float
    step: float
    if stage == 3:
        return _zero3_gradients(sizes, offload)
    if stage == 0:
        backward, formula = b * T, f"{b} T"
        step, step_formula = b * T + NORM * sizes.largest, f"{b} T + {NORM} × largest tensor"
    elif offload:
        # Stage 2 hands gradients to the host as they come, a bucket at a time, stage 1 all of them in the step.
        whole = b * T if stage == 1 else 0
        moving, moving_formula = b * REDUCE_BUCKET + 2 * b * sizes.largest, f"bucket + {2 * b} × largest tensor"
        backward, formula = (whole, f"{b} T, whole") if whole else (moving, moving_formula)
        step = whole + moving + NORM * sizes.largest
        step_formula = (f"{b} T + " if whole else "") + f"bucket + {2 * b + NORM} × largest tensor"
    else:
        # The rank's part, flattened, and in float32: all three at once.
        flat = (2 * b + (4 if b < 4 else 0)) * T / N
        if stage == 1:
            backward, formula = b * T, f"{b} T, whole"
            step = max(b * T + b * T / N, flat) + b * REDUCE_BUCKET
            step_formula = f"max({b} T + {b} T / N, 8 T / N: part, flat, float32) + bucket"
        else:
            backward = 2 * b * T / N + b * REDUCE_BUCKET + b * sizes.largest
            formula = f"{2 * b} T / N: the sum, and a microbatch's; + bucket + {b} × largest tensor"
            step, step_formula = flat, "8 T / N: part, flat, float32"
        step = max(step, b * T / N + NORM * sizes.largest)
    return [
        Term("learner", "gradients", backward, ("backward",), formula),
        Term("learner", "gradients, applied", step, ("optimizer step",), step_formula),
    ]


def _zero3_gradients(sizes: Sizes, offload: bool) -> list[Term]:
    """Allocated once and kept; whole layers are gathered as they are needed, up to DeepSpeed's limit."""
    b, part = sizes.b, sizes.T / sizes.N
    applied, formula = (0.0, "") if offload else (4 * part, "4 T / N, float32; or ")
    terms = [
        Term("learner", "gathered weights", b * min(sizes.P, 10**9), LEARNING, f"{b} × min(P, 1e9)"),
        Term("learner", "gradients", 2 * b * REDUCE_BUCKET, ("backward",), "2 buckets"),
        Term("learner", "gradients, applied", max(applied, NORM * sizes.largest), ("optimizer step",),
             f"{formula}{NORM} × largest tensor"),
    ]  # fmt: skip
    return terms if offload else [Term("learner", "gradients, kept", b * part, ALWAYS, f"{b} T / N"), *terms]


def _activations(config: RunConfig, sizes: Sizes) -> list[Term]:
    """Of one microbatch."""
    tokens, shape, b = config.learner.max_tokens_per_microbatch, sizes.shape, sizes.b
    layer = layer_bytes(shape, b)
    if config.learner.gradient_checkpointing:
        kept, formula = b * shape.hidden_size * shape.num_layers + 2 * layer, f"tokens × ({b} H L + 2 layers)"
    else:
        kept, formula = layer * (shape.num_layers + 1), "tokens × (L + 1) layers"
    kept += (8 + 4 * b) * shape.hidden_size
    is_exact = reference_kind(config) != "none" and config.learner.algorithm.kl_estimator == "exact"
    copies = 5 if is_exact else 4
    chunk = min(LOGITS_PER_CHUNK, tokens * shape.vocab_size)
    return [
        Term("learner", "activations", tokens * kept, ("backward",), f"{formula}; a layer {layer:,} bytes a token"),
        Term("learner", "logits chunk", copies * 4 * chunk, ("backward",), f"{copies} copies of 2^24 in float32"),
    ]


def layer_bytes(shape: ModelShape, b: int) -> int:
    """Bytes a token that a block of transformers' keeps for its backward pass.

    Two norms: the input in float32, normalised, and the output. Attention: queries, keys, values (repeated for every
    query head) and the output twice. The feed-forward: gate, its activation, up, and their product.
    """
    norms = 2 * (4 + 2 * b) * shape.hidden_size
    head_norms = (4 + b) * (shape.query_size + shape.kv_size) if shape.has_head_norms else 0
    return norms + head_norms + 5 * b * shape.query_size + 4 * b * shape.intermediate_size
