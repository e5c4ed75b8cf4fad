"""Check, from its config alone, that a model fits a run: positions, adapters, and how it is split over GPUs."""

from __future__ import annotations

from contextlib import suppress

from orchestrator.config.schema import RunConfig
from orchestrator.model_source import PolicyError
from orchestrator.plan.model_shapes import CONFIG_KEYS, UnknownShapeError, check_adapters, check_split, shape_of


def max_positions(model: str) -> int | None:
    """Return the longest sequence, in tokens, for which the model has positions; None if its config has no limit."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model).get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    # With these two scalings of rotary embeddings, max_position_embeddings is the number before scaling.
    if positions is not None and rope.get("rope_type") in ("linear", "dynamic"):
        return int(positions * (rope.get("factor") or 1))
    return positions


def check_model_fits(config: RunConfig, base: str) -> None:
    """Check context, adapters and tensor parallelism now; engines and learner would refuse them only after minutes.

    Raises PolicyError or ConfigError.
    """
    from transformers import AutoConfig

    check_context(config, base)
    check_rotation(config, base)
    model_config = AutoConfig.from_pretrained(base).get_text_config()
    sizes = {key: getattr(model_config, key, None) for key in CONFIG_KEYS}
    check_split(sizes, config.rollout.tensor_parallel_size, base)
    if config.model.lora is not None:
        with suppress(UnknownShapeError):  # for other architectures only peft knows the layers
            check_adapters(shape_of(config.model), config.model.lora)


def check_context(config: RunConfig, model: str) -> None:
    """Raise PolicyError if the model does not have enough positions for the longest prompt and completion."""
    positions = max_positions(model)
    if positions is not None and config.max_model_len > positions:
        observed = config.environment.max_observed_tokens
        and_observed = f" and environment.max_observed_tokens = {observed}" if config.environments else ""
        raise PolicyError(
            f"{model!r} has positions for {positions} tokens (max_position_embeddings), but a prompt of up to "
            f"{config.prompts.max_prompt_tokens} and sampling.max_completion_tokens = "
            f"{config.sampling.max_completion_tokens}{and_observed} take {config.max_model_len}: lower "
            "sampling.max_completion_tokens, shorten the prompts (and prompts.max_prompt_tokens), or choose a model "
            "with a longer context"
        )


def check_rotation(config: RunConfig, model: str) -> None:
    """Raise PolicyError if the learner's positions would depend on the other sequences of a microbatch.

    Beyond a length, two scalings of rotary embeddings depend on the longest sequence that is computed at the same time.
    The sampler's do not.
    """
    from transformers import AutoConfig

    text_config = AutoConfig.from_pretrained(model).get_text_config()
    rope = getattr(text_config, "rope_parameters", None) or {}
    own = getattr(text_config, "max_position_embeddings", None)
    limits = {"dynamic": own, "longrope": rope.get("original_max_position_embeddings") or own}
    limit: int | None = limits.get(str(rope.get("rope_type")))
    if limit is not None and config.max_model_len > limit:
        raise PolicyError(
            f"{model!r} scales positions beyond {limit} tokens ({rope['rope_type']}): in transformers by the longest "
            f"sequence of a batch, in vLLM not. But a prompt and a completion take {config.max_model_len}: lower "
            f"sampling.max_completion_tokens and prompts.max_prompt_tokens to {limit} together, or use another model"
        )
