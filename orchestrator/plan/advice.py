"""Find changes that make a run fit on its GPU, cheapest first. Each one is checked with a new memory plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from learner.memory import reference_kind
from orchestrator.config.recipe import apply_overrides, validate
from orchestrator.config.schema import RunConfig
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.memory_plan import MemoryPlan, memory_plan, planned_fraction
from orchestrator.plan.model_shapes import PUBLISHED, shape_of
from rollout.types.memory_terms import ALWAYS, GIB, LEARNING

SMALLEST_SAVING = GIB / 10
"""Bytes; a change that saves less is not proposed."""


@dataclass(frozen=True, slots=True)
class Change:
    """Settings that need less memory, and their cost, in words."""

    overrides: tuple[str, ...]
    cost: str


@dataclass(frozen=True, slots=True)
class AdviceStep:
    """A change, added to the changes before it. Without overrides, only vLLM's share changes."""

    change: Change
    before: MemoryPlan
    after: MemoryPlan
    """The plan with the change, and with vLLM's share computed again."""

    @property
    def saved_gib(self) -> dict[str, float]:
        """GiB saved in each phase; negative if the change needs more.

        The KV cache does not count, because it takes all free memory.
        """
        before, after = (_needed_bytes(plan) for plan in (self.before, self.after))
        return {phase: (before[phase] - after[phase]) / GIB for phase in before}


def _needed_bytes(plan: MemoryPlan) -> dict[str, float]:
    """Return the bytes that each phase needs, and the warm start in its largest."""
    needed: dict[str, float] = {phase: plan.needed_bytes(phase) for phase in ALWAYS}
    return needed | {"warm start": max(map(plan.warm_start_bytes, LEARNING))}


def advice(config: RunConfig, gpu: GpuModel) -> list[AdviceStep]:
    """Return changes that make the run fit, or all that help if none suffice. Empty if the run fits already."""
    plan = memory_plan(config, shape_of(config.model), gpu)
    if plan.fits:
        return []
    chosen = _drop_needless(config, gpu, _choose(config, gpu)) or [Change((), "nothing")]
    plans = [plan, *(_plan_with(config, gpu, chosen[:number]) for number in range(1, len(chosen) + 1))]
    return [AdviceStep(*parts) for parts in zip(chosen, plans[:-1], plans[1:], strict=True)]


def overrides_of(steps: Sequence[AdviceStep]) -> list[str]:
    """Return the overrides of all steps and vLLM's share, for the command line."""
    share = f"rollout.gpu_memory_fraction={steps[-1].after.fraction.value:g}"
    return [*(override for step in steps for override in step.change.overrides), share]


def _choose(config: RunConfig, gpu: GpuModel) -> list[Change]:
    """Collect changes that reduce the excess memory, until the run fits."""
    chosen: list[Change] = []
    plan = _plan_with(config, gpu, chosen)
    for candidates in CANDIDATES:
        best = None
        for change in candidates(config):
            after = _plan_with(config, gpu, [*chosen, change])
            if plan.fits or not (after.fits or plan.excess_bytes - after.excess_bytes > SMALLEST_SAVING):
                break
            best, plan = change, after
        if best is not None:
            chosen.append(best)
    return chosen


def _drop_needless(config: RunConfig, gpu: GpuModel, chosen: Sequence[Change]) -> list[Change]:
    """Return ``chosen`` without unnecessary changes. Tries to drop the most expensive ones first."""
    kept = list(chosen)
    for change in reversed(chosen):
        rest = [other for other in kept if other is not change]
        if _plan_with(config, gpu, rest).fits:
            kept = rest
    return kept


def _plan_with(config: RunConfig, gpu: GpuModel, changes: Sequence[Change]) -> MemoryPlan:
    """Plan ``config`` with ``changes``, and with the planned share for vLLM."""
    settings = config.model_dump()
    apply_overrides(settings, [override for change in changes for override in change.overrides])
    changed = validate(settings)
    shape = shape_of(changed.model)
    return memory_plan(changed, shape, gpu, planned_fraction(changed, shape, gpu.gib))


def _microbatch(config: RunConfig) -> Iterator[Change]:
    tokens = config.learner.max_tokens_per_microbatch
    # The longest sequence must fit in one microbatch.
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
    if reference_kind(config.learner.algorithm, config.model) == "copy":
        overrides = ("learner.algorithm.reference=offloaded",)
        yield Change(overrides, "host memory, and two copies of the reference per step")


def _no_warm_start(config: RunConfig) -> Iterator[Change]:
    """With LoRA `rayzero sft` trains the adapters, but a warm start all weights."""
    if config.model.lora is not None and config.warm_start.num_steps:
        yield Change(("warm_start.num_steps=0",), "a run of `rayzero sft` before, whose final/ is then model.path")


def _optimizer(config: RunConfig) -> Iterator[Change]:
    learner = config.learner
    if learner.offload_optimizer or config.model.lora is not None:
        return
    if learner.optimizer == "adamw":
        yield Change(("learner.optimizer=adamw_8bit",), "moments in 8 bits; needs bitsandbytes")
    own = () if learner.optimizer == "adamw" else ("learner.optimizer=adamw",)
    stage = ("learner.zero_stage=1",) if learner.zero_stage == 0 else ()
    yield Change((*own, *stage, "learner.offload_optimizer=true"), "host memory, and a slower optimizer step")


def _no_reference(config: RunConfig) -> Iterator[Change]:
    kind = reference_kind(config.learner.algorithm, config.model)
    if config.model.teacher is None and kind in ("copy", "offloaded"):
        overrides = ("learner.algorithm.kl_beta=0",)
        yield Change(overrides, "a different algorithm: nothing keeps the policy near its initial weights")


def _lora(config: RunConfig) -> Iterator[Change]:
    if config.model.lora is None:
        uses_base = config.model.teacher or config.learner.algorithm.reference in ("auto", "base")
        reference = () if uses_base else ("learner.algorithm.reference=base",)
        yield Change(("model.lora={rank=16}", *reference), "training of adapters only, not of all weights")


def _smaller_model(config: RunConfig) -> Iterator[Change]:
    size = shape_of(config.model).num_parameters
    for name, shape in sorted(PUBLISHED.items(), key=lambda item: -item[1].num_parameters):
        if config.model.build is None and config.model.teacher is None and shape.num_parameters < size:
            yield Change((f"model.path={name}",), "a different model")


CANDIDATES = (
    _microbatch,
    _checkpointing,
    _concurrency,
    _offloaded_reference,
    _no_warm_start,
    _optimizer,
    _no_reference,
    _lora,
    _smaller_model,
)
"""In order of cost. Each yields alternatives, the mildest first; the last one that helps is chosen."""
