"""The memory plan: what a run will hold on a GPU and in host memory, from settings and the model's config alone.

What each term is, and how sure: docs/memory.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.plan.generator_memory import KV_BLOCK, generator_terms, kv_bytes_per_token
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.host_memory import host_terms
from orchestrator.plan.learner_memory import learner_terms
from orchestrator.plan.model_shapes import ModelShape, check_split
from orchestrator.plan.terms import ALWAYS, CONTEXT, GIB, HostTerm, Phase, Sizes, Term, is_colocated

MARGIN = 0.05
"""Share of a GPU that a plan leaves free: for fragmentation, and for what estimates miss."""
OUTSIDE_SHARE = ("CUDA context", "publish bucket")
"""Terms of a generator that vLLM does not count in its share."""


@dataclass(frozen=True, slots=True)
class Fraction:
    """A share of a GPU's memory."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class KvCache:
    """What is left of vLLM's share, on one GPU."""

    num_bytes: float
    """Below 0 where the weights alone are too much."""
    bytes_per_token: int
    tokens_per_completion: int
    """Longest prompt and completion, in whole blocks."""
    wanted_completions: int
    """``rollout.max_concurrent_completions``."""

    @property
    def num_tokens(self) -> int:
        return max(0, int(self.num_bytes // self.bytes_per_token)) // KV_BLOCK * KV_BLOCK

    @property
    def bytes_of_one(self) -> int:
        """A completion of full length."""
        return self.bytes_per_token * self.tokens_per_completion

    @property
    def num_completions(self) -> int:
        """Completions of full length at once; shared prompts and shorter ones leave room for more."""
        return self.num_tokens // self.tokens_per_completion


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What one GPU holds in each phase; where generator and learner do not share one, each of the two."""

    gpu: GpuModel
    sizes: Sizes
    colocated: bool
    fraction: Fraction
    terms: tuple[Term, ...]
    """The KV cache among them."""
    kv_cache: KvCache
    host: tuple[HostTerm, ...]

    @property
    def usable_bytes(self) -> float:
        """The GPU, but for the margin."""
        return self.gpu.gib * GIB * (1 - MARGIN)

    def num_bytes(self, phase: Phase) -> float:
        """What the GPU of a phase holds: the shared one, or that of who works in it."""
        works = "generator" if phase == "generating" else "learner"
        return sum(
            term.num_bytes for term in self.terms if phase in term.phases and (self.colocated or term.actor == works)
        )

    def needed_bytes(self, phase: Phase) -> float:
        """The same, with no more KV cache than one completion takes."""
        if phase != "generating":
            return self.num_bytes(phase)
        return self.num_bytes(phase) - max(0.0, self.kv_cache.num_bytes) + self.kv_cache.bytes_of_one

    @property
    def excess_bytes(self) -> float:
        """By how much the phases exceed the GPU, all together."""
        return sum(max(0.0, self.needed_bytes(phase) - self.usable_bytes) for phase in ALWAYS)

    @property
    def host_bytes(self) -> float:
        return sum(term.num_bytes for term in self.host)

    def problems(self) -> Iterator[str]:
        """Why it does not fit; nothing if it does."""
        if self.kv_cache.num_completions < 1:
            yield "generating: vLLM's share does not hold its weights, its work and one completion of full length"
        for phase in ALWAYS:
            over = self.num_bytes(phase) - self.usable_bytes
            if over > 0:
                yield f"{phase}: {over / GIB:.2f} GiB too much"

    @property
    def fits(self) -> bool:
        return not any(self.problems())


def memory_plan(config: RunConfig, shape: ModelShape, gpu: GpuModel, fraction: Fraction | None = None) -> MemoryPlan:
    """The plan of ``config`` with a model of ``shape`` on GPUs like ``gpu``, and vLLM's share as given, else the recipe's,
    else as planned. Raises ConfigError for a run on cores."""
    if config.placement.mode == "cpu":
        raise ConfigError(
            'placement.mode = "cpu": this run uses no GPU; to plan it on one, set placement.mode=colocated'
        )
    check_split(shape.num_heads, config.rollout.tensor_parallel_size, config.model.path or "the model")
    sizes = Sizes.of(config, shape)
    if fraction is None:
        given = config.rollout.gpu_memory_fraction
        fraction = planned_fraction(config, shape, gpu.gib) if given is None else Fraction(given, "as the recipe says")
    generator, learner = generator_terms(config, sizes), learner_terms(config, sizes)
    inside = sum(term.num_bytes for term in generator if term.name not in OUTSIDE_SHARE)
    kv_cache = KvCache(
        fraction.value * gpu.gib * GIB - inside,
        kv_bytes_per_token(config, shape),
        tokens_per_completion(config),
        config.rollout.max_concurrent_completions,
    )
    formula = (
        f"fraction {fraction.value:g} × {gpu.gib:g} GiB - weights - forward pass" + " - graphs" * config.rollout.compile
    )
    generator.append(Term("generator", "KV cache", max(0.0, kv_cache.num_bytes), ("generating",), formula))
    host = tuple(host_terms(config, sizes))
    return MemoryPlan(gpu, sizes, is_colocated(config), fraction, (*learner, *generator), kv_cache, host)


def planned_fraction(config: RunConfig, shape: ModelShape, gpu_gib: float) -> Fraction:
    """What ``rollout.gpu_memory_fraction`` should be on a GPU of ``gpu_gib``: enough for
    ``max_concurrent_completions`` of full length, as far as the learner leaves room for them; in hundredths."""
    sizes, gpu = Sizes.of(config, shape), gpu_gib * GIB
    generator = generator_terms(config, sizes)
    outside = sum(term.num_bytes for term in generator if term.name in OUTSIDE_SHARE)
    inside = sum(term.num_bytes for term in generator) - outside
    stays = sum(term.num_bytes for term in learner_terms(config, sizes) if "generating" in term.phases)
    left = gpu * (1 - MARGIN) - outside - (stays if is_colocated(config) else 0)
    completions = config.rollout.max_concurrent_completions
    cache = completions * tokens_per_completion(config) * kv_bytes_per_token(config, shape)
    # The margin is vLLM's too: what its own work takes is an estimate, and would be missing from the KV cache.
    wanted = inside + cache + MARGIN * gpu
    value = min(math.ceil(100 * wanted / gpu), math.floor(100 * left / gpu)) / 100
    room = f"the learner leaves {max(0.0, left) / GIB:.1f}" if is_colocated(config) else f"{left / GIB:.1f} are free"
    reason = f"{completions} completions of full length want {wanted / GIB:.1f} GiB, {room}"
    return Fraction(min(max(value, 0.01), 0.99), reason)


def planned_learner_fraction(config: RunConfig, shape: ModelShape, gpu_gib: float) -> Fraction:
    """What ``learner.gpu_memory_fraction`` should be on a GPU of ``gpu_gib`` that it shares: all that a sleeping generator and
    the CUDA contexts, which PyTorch's limit does not count, leave; in hundredths."""
    sizes, gpu = Sizes.of(config, shape), gpu_gib * GIB
    asleep = sum(term.num_bytes for term in generator_terms(config, sizes) if "backward" in term.phases)
    left = gpu * (1 - MARGIN) - asleep - CONTEXT
    reason = (
        f"the sleeping generator keeps {asleep / GIB:.1f} GiB, the learner's CUDA context takes {CONTEXT / GIB:.1f}"
    )
    return Fraction(min(max(math.floor(100 * left / gpu) / 100, 0.01), 0.99), reason)


def tokens_per_completion(config: RunConfig) -> int:
    return math.ceil(config.max_model_len / KV_BLOCK) * KV_BLOCK
