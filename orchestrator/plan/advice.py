"""What to change where a run does not fit, cheapest first, each change proven by planning again with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.recipe import apply_overrides, parse_value, validate
from orchestrator.config.schema import RunConfig
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.memory_plan import MemoryPlan, memory_plan, planned_fraction
from orchestrator.plan.model_shapes import PUBLISHED, shape_of
from orchestrator.plan.terms import ALWAYS, GIB, reference_kind

SMALLEST_SAVING = GIB / 10
"""Bytes; a change that brings less is not worth a line."""


@dataclass(frozen=True, slots=True)
class Change:
    """Settings that need less memory, and what they cost instead."""

    overrides: tuple[str, ...]
    cost: str


@dataclass(frozen=True, slots=True)
class Step:
    """A change, on top of those before it; without overrides it is vLLM's share alone."""

    change: Change
    before: MemoryPlan
    after: MemoryPlan
    """With vLLM's share planned anew."""

    @property
    def saved_gib(self) -> dict[str, float]:
        """By phase; below 0 where the change needs more. The KV cache, which takes what is left, does not count."""
        return {phase: (self.before.needed_bytes(phase) - self.after.needed_bytes(phase)) / GIB for phase in ALWAYS}


def advice(config: RunConfig, gpu: GpuModel) -> list[Step]:
    """Changes that end with a run that fits, or as many as there are. Nothing for one that fits."""
    plan = memory_plan(config, shape_of(config.model), gpu)
    if plan.fits:
        return []
    chosen = _needed(config, gpu, _chosen(config, gpu))
    chosen = [_news(_changed(config, chosen[:number]), change) for number, change in enumerate(chosen)]
    plans = [plan, *(_planned(_changed(config, chosen[:number]), gpu) for number in range(1, len(chosen) + 1))]
    if not chosen:
        return [Step(Change((), "none"), plan, _planned(config, gpu))]
    return [Step(*parts) for parts in zip(chosen, plans[:-1], plans[1:], strict=True)]


def overrides_of(steps: Sequence[Step]) -> list[str]:
    """All of the advice, for the command line."""
    share = f"rollout.gpu_memory_fraction={steps[-1].after.fraction.value:g}"
    # What a later change sets again counts there.
    settings = dict(override.split("=", 1) for step in steps for override in step.change.overrides)
    return [*(f"{key}={value}" for key, value in settings.items()), share]


def _chosen(config: RunConfig, gpu: GpuModel) -> list[Change]:
    """Every change that brings the run nearer to fitting, until it fits."""
    chosen: list[Change] = []
    changed, plan = config, _planned(config, gpu)
    for candidates in CANDIDATES:
        # Where one setting has several values, only the last counts.
        last = None
        for change in candidates(changed):
            after = _planned(_changed(config, [*chosen, change]), gpu)
            if plan.fits or not (after.fits or plan.excess_bytes - after.excess_bytes > SMALLEST_SAVING):
                break
            last, plan = change, after
        if last is not None:
            chosen.append(last)
            changed = _changed(config, chosen)
    return chosen


def _needed(config: RunConfig, gpu: GpuModel, chosen: Sequence[Change]) -> list[Change]:
    """``chosen`` without what later changes have made needless, the costliest first."""
    kept = list(chosen)
    for change in reversed(chosen):
        rest = [other for other in kept if other is not change]
        if _planned(_changed(config, rest), gpu).fits:
            kept = rest
    return kept


def _news(config: RunConfig, change: Change) -> Change:
    """``change`` without overrides that say what ``config`` does."""

    def is_new(override: str) -> bool:
        key, _, text = override.partition("=")
        value: Any = config.model_dump()
        for part in key.split("."):
            value = value[part]
        return bool(value != parse_value(text))

    return Change(tuple(filter(is_new, change.overrides)), change.cost)


def _changed(config: RunConfig, changes: Sequence[Change]) -> RunConfig:
    """``config`` with overrides as the command line takes them. Raises ConfigError."""
    settings = config.model_dump()
    apply_overrides(settings, [override for change in changes for override in change.overrides])
    return validate(settings)


def _planned(config: RunConfig, gpu: GpuModel) -> MemoryPlan:
    """The plan with vLLM's share as large as it may be."""
    shape = shape_of(config.model)
    return memory_plan(config, shape, gpu, planned_fraction(config, shape, gpu.gib))


def _microbatch(config: RunConfig) -> Iterator[Change]:
    tokens = config.learner.max_tokens_per_microbatch
    # The longest sequence has to fit one.
    while tokens // 2 >= config.max_model_len:
        tokens //= 2
        yield Change((f"learner.max_tokens_per_microbatch={tokens}",), "smaller matrix products")


def _checkpointing(config: RunConfig) -> Iterator[Change]:
    if not config.learner.gradient_checkpointing:
        yield Change(("learner.gradient_checkpointing=true",), "about a third more time for the update")


def _concurrency(config: RunConfig) -> Iterator[Change]:
    completions = config.rollout.max_concurrent_completions
    while completions > 16:
        completions //= 2
        yield Change((f"rollout.max_concurrent_completions={completions}",), "slower sampling")


def _offloaded_reference(config: RunConfig) -> Iterator[Change]:
    if reference_kind(config) == "copy":
        overrides = ("learner.algorithm.reference=offloaded",)
        yield Change(overrides, "host memory, and the reference travels twice a step")


def _adamw_8bit(config: RunConfig) -> Iterator[Change]:
    if config.learner.optimizer == "adamw" and not config.learner.offload_optimizer:
        yield Change(("learner.optimizer=adamw_8bit",), "moments in 8 bits; needs bitsandbytes")


def _no_reference(config: RunConfig) -> Iterator[Change]:
    if reference_kind(config) in ("copy", "offloaded"):
        overrides = ("learner.algorithm.kl_beta=0",)
        yield Change(overrides, "another algorithm: nothing holds the policy near its beginning")


def _offload(config: RunConfig) -> Iterator[Change]:
    """Stage 1 first: stage 2 sends gradients to the host with every microbatch."""
    if config.model.lora is not None:
        return
    if not config.learner.offload_optimizer:
        overrides = ("learner.optimizer=adamw", "learner.offload_optimizer=true", "learner.zero_stage=1")
        yield Change(overrides, "host memory, and a slower optimizer step")
    if config.learner.zero_stage < 2:
        overrides = ("learner.optimizer=adamw", "learner.offload_optimizer=true", "learner.zero_stage=2")
        yield Change(overrides, "host memory; gradients travel there with every microbatch")


def _lora(config: RunConfig) -> Iterator[Change]:
    if config.model.lora is None:
        no_copy = () if reference_kind(config) == "none" else ("learner.algorithm.reference=base",)
        no_offload = ("learner.offload_optimizer=false",)
        overrides = ("model.lora={rank=16}", *no_copy, *no_offload)
        yield Change(overrides, "adapters are trained, not the weights")


def _smaller_model(config: RunConfig) -> Iterator[Change]:
    size = shape_of(config.model).num_parameters
    for name, shape in sorted(PUBLISHED.items(), key=lambda item: -item[1].num_parameters):
        if config.model.build is None and shape.num_parameters < size:
            yield Change((f"model.path={name}",), "another model")


CANDIDATES = (
    _microbatch,
    _checkpointing,
    _concurrency,
    _offloaded_reference,
    _adamw_8bit,
    _no_reference,
    _offload,
    _lora,
    _smaller_model,
)
"""In order of cost. Each yields what it has to offer, mildest first."""
