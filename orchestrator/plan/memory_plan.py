"""Plan the GPU and host memory of a run, from its settings and the model's config alone.

rollout/memory.py and learner/memory.py compute the terms. docs/memory.md explains them and says how reliable each is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from learner.config import WarmStartConfig
from learner.memory import LearnerSizes, learner_host_terms, learner_terms
from orchestrator.cluster.layout import can_share
from orchestrator.config.checks import BEST_TRANSPORT
from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.model_shapes import check_adapters, check_split, teacher_shape
from rollout.memory import (
    OUTSIDE_SHARE,
    KvCache,
    generator_host_terms,
    generator_terms,
    kv_cache,
    publish_terms,
    share_bytes,
)
from rollout.types.memory_terms import ALWAYS, CUDA_CONTEXT, GIB, LEARNING, MemoryTerm, Phase
from rollout.types.model_shape import ModelShape

MARGIN = 0.05
"""Share of a GPU that a plan leaves free, for fragmentation and for errors of the estimates."""
HOST_DRIVER, HOST_REWARD_WORKER = 2 * GIB, GIB // 4
"""Bytes of host memory for code and libraries: of the driver with Ray, and of one reward worker."""


@dataclass(frozen=True, slots=True)
class MemoryFraction:
    """A share of a GPU's memory."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of one GPU in each phase; of one generator GPU and one learner GPU if they are not shared."""

    gpu: GpuModel
    sizes: LearnerSizes
    colocated: bool
    fraction: MemoryFraction
    terms: tuple[MemoryTerm, ...]
    """The terms in GPU memory, including the KV cache."""
    kv_cache: KvCache
    host: tuple[MemoryTerm, ...]
    """The terms in host memory, of all actors together."""
    warm_start: MemoryPlan | None = None
    """The plan of the warm start if it needs more than the run: before a run with LoRA it trains all weights."""

    @property
    def usable_bytes(self) -> float:
        """The GPU's memory without the margin."""
        return self.gpu.gib * GIB * (1 - MARGIN)

    def num_bytes(self, phase: Phase) -> float:
        """Return the memory in use in a phase: of the shared GPU, or of a GPU of the actor that works in the phase."""
        actor = "generator" if phase == "generating" else "learner"
        return sum(
            term.num_bytes for term in self.terms if phase in term.phases and (self.colocated or term.actor == actor)
        )

    def needed_bytes(self, phase: Phase) -> float:
        """Return ``num_bytes`` with a KV cache for one completion only."""
        if phase != "generating":
            return self.num_bytes(phase)
        return self.num_bytes(phase) - max(0.0, self.kv_cache.num_bytes) + self.kv_cache.bytes_of_one

    def warm_start_bytes(self, phase: Phase) -> float:
        """Return the memory in use in a phase of the warm start; 0 if it needs no more than the run."""
        return 0.0 if self.warm_start is None else self.warm_start.num_bytes(phase)

    @property
    def excess_bytes(self) -> float:
        """The bytes by which the phases exceed the usable memory, summed over the phases."""
        needed = [*map(self.needed_bytes, ALWAYS), *map(self.warm_start_bytes, LEARNING)]
        return sum(max(0.0, num_bytes - self.usable_bytes) for num_bytes in needed)

    @property
    def host_bytes(self) -> float:
        return sum(term.num_bytes for term in self.host)

    def problems(self) -> Iterator[str]:
        """Yield the reasons why the run does not fit; nothing if it fits."""
        if self.kv_cache.num_completions < 1:
            yield (
                "generating: vLLM's share is too small for the weights, the forward pass and one completion of full "
                "length"
            )
        for phase in ALWAYS:
            over = self.num_bytes(phase) - self.usable_bytes
            if over > 0:
                yield f"{phase}: {over / GIB:.2f} GiB too much"
        for phase in LEARNING:
            over = self.warm_start_bytes(phase) - self.usable_bytes
            if over > 0:
                yield f"warm start, which trains all weights, {phase}: {over / GIB:.2f} GiB too much"

    @property
    def fits(self) -> bool:
        return not any(self.problems())


def memory_plan(
    config: RunConfig, shape: ModelShape, gpu: GpuModel, fraction: MemoryFraction | None = None
) -> MemoryPlan:
    """Plan ``config`` with a model of ``shape`` on GPUs like ``gpu``.

    vLLM's share is ``fraction``, else the recipe's setting, else the planned one. Raises ConfigError for a run on the
    CPU, and for a tensor-parallel size or adapters that are impossible with this model.
    """
    if config.placement.mode == "cpu":
        raise ConfigError(
            'placement.mode = "cpu": this run uses no GPU; to plan it on one, set placement.mode=colocated'
        )
    split = {
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
    }
    check_split(split, config.rollout.tensor_parallel_size, config.model.path or "the model")
    sizes = _sizes(config, shape)
    if fraction is None:
        share = config.rollout.gpu_memory_fraction
        fraction = (
            planned_fraction(config, shape, gpu.gib) if share is None else MemoryFraction(share, "set in the recipe")
        )
    learner, generator = _gpu_terms(config, shape, sizes)
    cache = kv_cache(
        config.rollout, shape, sizes.b, config.max_model_len, fraction.value * gpu.gib * GIB - share_bytes(generator)
    )
    graphs = " - graphs" * config.rollout.compile
    formula = f"fraction {fraction.value:g} × {gpu.gib:g} GiB - weights - forward pass{graphs}"
    generator.append(MemoryTerm("generator", "KV cache", max(0.0, cache.num_bytes), formula, ("generating",)))
    return MemoryPlan(
        gpu,
        sizes,
        is_colocated(config),
        fraction,
        (*learner, *generator),
        cache,
        tuple(_host_terms(config, sizes)),
        _warm_start_plan(config, shape, gpu, fraction),
    )


def _warm_start_plan(
    config: RunConfig, shape: ModelShape, gpu: GpuModel, fraction: MemoryFraction
) -> MemoryPlan | None:
    """Plan the warm start of a run with LoRA; None for other runs, which need as much themselves.

    A recipe without steps is one of `rayzero sft`, which trains the adapters.
    """
    if config.model.lora is None or not (config.num_steps and config.warm_start.num_steps):
        return None
    settings = {
        "model": config.model.model_copy(update={"lora": None, "teacher": None}),
        "learner": config.warm_start.applied_to(config.learner),
        "warm_start": WarmStartConfig(),
    }
    return memory_plan(config.model_copy(update=settings), shape, gpu, fraction)


def planned_fraction(config: RunConfig, shape: ModelShape, gpu_gib: float) -> MemoryFraction:
    """Return the best ``rollout.gpu_memory_fraction`` on a GPU of ``gpu_gib``, rounded to hundredths.

    It suffices for ``max_concurrent_completions`` of full length, if the learner leaves enough memory.
    """
    sizes, gpu = _sizes(config, shape), gpu_gib * GIB
    learner, generator = _gpu_terms(config, shape, sizes)
    outside = sum(term.num_bytes for term in generator if term.name in OUTSIDE_SHARE)
    stays = sum(term.num_bytes for term in learner if "generating" in term.phases)
    left = gpu * (1 - MARGIN) - outside - (stays if is_colocated(config) else 0)
    cache = kv_cache(config.rollout, shape, sizes.b, config.max_model_len, 0.0)
    # vLLM's share includes the margin: if its forward pass takes more than estimated, the KV cache would be smaller.
    wanted = share_bytes(generator) + cache.wanted_bytes + MARGIN * gpu
    value = min(math.ceil(100 * wanted / gpu), math.floor(100 * left / gpu)) / 100
    room = f"the learner leaves {max(0.0, left) / GIB:.1f}" if is_colocated(config) else f"{left / GIB:.1f} are free"
    reason = f"{cache.wanted_completions} completions of full length need {wanted / GIB:.1f} GiB, {room}"
    return MemoryFraction(min(max(value, 0.01), 0.99), reason)


def planned_learner_fraction(config: RunConfig, shape: ModelShape, gpu_gib: float) -> MemoryFraction:
    """Return the best ``learner.gpu_memory_fraction`` on a shared GPU of ``gpu_gib``, rounded to hundredths.

    It is the memory that a sleeping generator and the CUDA contexts leave. PyTorch's limit does not count contexts.
    """
    sizes, gpu = _sizes(config, shape), gpu_gib * GIB
    generator = generator_terms(config.rollout, shape, sizes.b, config.max_model_len)
    asleep = sum(term.num_bytes for term in generator if "backward" in term.phases)
    left = gpu * (1 - MARGIN) - asleep - CUDA_CONTEXT
    context = f"the learner's CUDA context takes {CUDA_CONTEXT / GIB:.1f}"
    reason = f"the sleeping generator keeps {asleep / GIB:.1f} GiB, {context}"
    return MemoryFraction(min(max(math.floor(100 * left / gpu) / 100, 0.01), 0.99), reason)


def is_colocated(config: RunConfig) -> bool:
    """Return True if generator and learner take turns on the same GPU."""
    mode = config.placement.mode
    return mode == "colocated" or (mode == "auto" and can_share(config))


def _gpu_terms(config: RunConfig, shape: ModelShape, sizes: LearnerSizes) -> tuple[list[MemoryTerm], list[MemoryTerm]]:
    """Return the terms of a learner's GPU, and the terms of a generator's GPU without the KV cache."""
    setting = config.rollout.publish_backend
    transport = BEST_TRANSPORT["colocated" if is_colocated(config) else "pods"] if setting == "auto" else setting
    publish = publish_terms(config.rollout, shape, sizes.b, transport)
    learner = learner_terms(config.learner, config.model, sizes)
    generator = generator_terms(config.rollout, shape, sizes.b, config.max_model_len)
    return (
        [*learner, *(term for term in publish if term.actor == "learner")],
        [*generator, *(term for term in publish if term.actor == "generator")],
    )


def _sizes(config: RunConfig, shape: ModelShape) -> LearnerSizes:
    if config.model.lora is not None:
        check_adapters(shape, config.model.lora)
    return LearnerSizes.of(config.learner, config.model, shape, teacher_shape(config.model))


def _host_terms(config: RunConfig, sizes: LearnerSizes) -> Iterator[MemoryTerm]:
    """Yield the terms in host memory, of all actors together."""
    workers = config.rewards.num_workers
    yield MemoryTerm("driver", "Ray and the loop", HOST_DRIVER, "2 GiB")
    yield from generator_host_terms(config.rollout, sizes.shape, sizes.b, sleeps=is_colocated(config))
    yield from learner_host_terms(config.learner, config.model, sizes)
    yield MemoryTerm("rewards", "workers", workers * HOST_REWARD_WORKER, f"{workers} × 0.25 GiB")
