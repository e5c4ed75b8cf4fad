"""Find the settings that differ from the settings at the start of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from orchestrator.config.schema import RunConfig
from orchestrator.records.files.strict_json import without_infinities

MAY_CHANGE = (
    *("num_steps", "runs_dir", "checkpoint", "tracking", "placement", "health"),
    # Not which problems are asked, nor at which temperature: the run's evaluations are compared with one another.
    *("evaluation.every_steps", "evaluation.completions_per_prompt", "evaluation.pass_at", "evaluation.formats"),
    *("rollout.num_generators", "rollout.cpus_per_generator", "rollout.gpu_memory_fraction", "rollout.max_restarts"),
    *("rollout.start_timeout_s", "rollout.hang_timeout_s", "rollout.stall_timeout_s", "rollout.publish_timeout_s"),
    *("rollout.publish_backend", "rollout.publish_bucket_mib", "rollout.tensor_parallel_size", "rollout.compile"),
    *("rollout.threads_per_generator", "rollout.cpu_kv_cache_gib", "rollout.max_batched_tokens"),
    *("learner.cpus_per_rank", "learner.threads_per_rank", "learner.gpu_memory_fraction"),
    *("rewards.num_workers", "rewards.cpus_per_worker", "rewards.memory_gib", "rewards.max_pending_groups"),
    # Errors advise changing these, so a run that stopped with such an error must be able to continue.
    *("learner.max_tokens_per_microbatch", "learner.gradient_checkpointing", "rollout.max_concurrent_completions"),
    *("learner.max_logprob_gap", "learner.max_skipped_updates", "prompts.max_prompt_tokens", "prompts.on_bad_rows"),
    *(
        "environment.deadline_s",
        "rewards.deadline_s",
        "rewards.deadlines_s",
        "rewards.on_timeout",
        "rewards.on_error",
        "rewards.max_failed_share",
    ),
)
"""Settings that a resumed run may change: its length, its records, how often it is evaluated and saved, the resources
that it uses, and the errors that it tolerates.
Another num_steps also stretches a decaying learning rate; another number of generators, threads or GPUs changes the
last bits of logprobs."""


def changed_settings(before: Mapping[str, Any], now: RunConfig) -> list[str]:
    """Return a line for each setting that differs from a run's config.json (`before`) and that a resume may not change.

    A setting that the run's version did not have counts as its default.
    """
    with suppress(ValidationError):  # `before` has settings that were removed, or values that are now refused
        before = RunConfig.model_validate(before).model_dump(mode="json")
    first, second = (without_infinities(each, as_text=True) for each in (before, now.model_dump(mode="json")))
    return list(differences(first, second, MAY_CHANGE))


def differences(before: Any, now: Any, may_change: Sequence[str] = (), key: str = "") -> Iterator[str]:
    """Yield a line for each setting that differs: `learner.learning_rate was 0.0004, now 0.001`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            path = f"{key}.{name}" if key else name
            if path not in may_change:
                yield from differences(before.get(name), now.get(name), may_change, path)
    elif before != now:
        yield f"{key} was {before!r}, now {now!r}"
