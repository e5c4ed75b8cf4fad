"""Decide every setting that a recipe leaves open, once: from the user's configuration to what will happen."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from learner.algorithm.settings import AlgorithmConfig
from learner.config import LearnerConfig, ModelConfig
from orchestrator.cluster.layout import Layout, with_counts
from orchestrator.config.checks import resolve_transport
from orchestrator.config.environments import turn_rules
from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.memory_plan import memory_plan, planned_fraction, planned_learner_fraction
from orchestrator.plan.model_shapes import shape_of
from rollout.types.publishing import TransportName
from rollout.types.sampling import UNSHARED_FRACTION, EngineSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """The final settings of a run. `resolve` creates them before any actor starts, and nothing changes them."""

    config: RunConfig
    """The user's settings. If a setting was left open, its resolved value is in one of the fields below."""
    layout: Layout
    """The actors, their places, and whether two of them share a GPU."""
    engine: EngineSpec
    """The settings of each generator's engine, with its share of the GPU and its transport."""
    learner: LearnerConfig
    """The settings of each learner rank, with mismatch correction, share of the GPU and number of ranks decided."""
    model: ModelConfig
    """The settings of the learner's models, with the path of the teacher."""

    @property
    def fixes_kernels(self) -> bool:
        """Whether actors must select deterministic kernels. On the CPU all kernels are deterministic."""
        return self.config.deterministic and self.layout.mode != "cpu"


def resolve(
    config: RunConfig,
    layout: Layout,
    model: str,
    gpu_gib: Callable[[], float],
    free_share: Callable[[], float] = lambda: 1.0,
    rank_cores: Callable[[], int] = lambda: 1,
    teacher: str | None = None,
) -> ResolvedRun:
    """Decide what `config` leaves open, for actors in the given `layout`.

    Args:
        model: folder or hub name of the policy with which generators and learner begin.
        gpu_gib: measures the memory of the smallest GPU in GiB; called only if a share of it has to be planned.
        free_share: measures the free share of a GPU; called only if nothing is trained.
        rank_cores: counts the cores for each learner rank; called only if the optimizer runs on the CPU.
        teacher: folder or hub name of the model in `model.teacher`; None without a teacher.

    Raises ConfigError if the memory of a shared GPU cannot be planned for the model, ValueError if the transport does
    not work in the layout.
    """
    is_training = bool(layout.generators and layout.ranks)
    laid_out = with_counts(config, len(layout.generators), len(layout.ranks))
    generator_fraction, learner_fraction = config.rollout.gpu_memory_fraction, config.learner.gpu_memory_fraction
    transport: TransportName = "ray"  # if nothing is published, any transport will do, and this one needs no setup
    if is_training:
        transport = resolve_transport(config.rollout.publish_backend, layout.mode)
        generator_fraction, learner_fraction = plan_fractions(laid_out, layout, gpu_gib)
    elif layout.generators and layout.gpus and generator_fraction is None:
        generator_fraction = fraction_of_free(free_share())
    return ResolvedRun(
        config,
        layout,
        replace(
            engine_spec(config, model, load_weights=not layout.ranks, fraction=generator_fraction),
            transport=transport,
            sleeps=layout.mode == "colocated",
        ),
        laid_out.learner.model_copy(
            update={
                "algorithm": corrected_algorithm(config),
                "gpu_memory_fraction": learner_fraction,
                "threads_per_rank": num_threads(config.learner, layout, rank_cores),
            }
        ),
        config.model.model_copy(update={"teacher": teacher}),
    )


def engine_spec(config: RunConfig, model: str, *, load_weights: bool, fraction: float | None = None) -> EngineSpec:
    """Return the settings of an engine for `model`. `fraction` is its share of the GPU, if it is set or planned."""
    turns = turn_rules(config)
    return EngineSpec(
        model,
        config.model.dtype,
        config.max_model_len,
        load_weights,
        reads_text=bool(config.sampling.stop) or (turns is not None and any(turns.stops.values())),
        gpu_memory_fraction=UNSHARED_FRACTION if fraction is None else fraction,
        turns=turns,
    )


def fraction_of_free(share: float) -> float:
    """Return vLLM's share of a GPU whose free share is `share`. vLLM refuses to start with more than is free."""
    fraction = max(0.01, math.floor(100 * UNSHARED_FRACTION * share + 1e-6) / 100)
    if share < UNSHARED_FRACTION:
        logger.warning("others hold %.0f%% of the GPU: rollout.gpu_memory_fraction = %g", 100 * (1 - share), fraction)
    return fraction


def num_threads(learner: LearnerConfig, layout: Layout, rank_cores: Callable[[], int]) -> int:
    """Return a rank's threads. With one thread, a 1.5B model's optimizer in host memory would take 15 s per step."""
    if learner.threads_per_rank is not None:
        return learner.threads_per_rank
    if not (learner.offload_optimizer and layout.ranks and layout.gpus):
        return 1
    threads = rank_cores()
    logger.info("learner.threads_per_rank = %d, each rank's share of its machine's cores", threads)
    return threads


def corrected_algorithm(config: RunConfig) -> AlgorithmConfig:
    """Return the algorithm, with `mismatch_correction = "auto"` decided: it is on if sampling runs ahead."""
    algorithm = config.learner.algorithm
    if config.max_staleness == 0 or algorithm.mismatch_correction != "auto":
        return algorithm
    return algorithm.model_copy(update={"mismatch_correction": "truncated"})


def plan_fractions(
    config: RunConfig, layout: Layout, gpu_gib: Callable[[], float]
) -> tuple[float | None, float | None]:
    """Return the generator's and the learner's share of a GPU's memory; None for no limit.

    Shares in the recipe are kept; the others come from the memory plan. Raises ConfigError if the memory of a shared
    GPU cannot be planned for the model.
    """
    generator, learner = config.rollout.gpu_memory_fraction, config.learner.gpu_memory_fraction
    plans_learner = layout.mode == "colocated" and learner is None
    if layout.mode == "cpu" or not (plans_learner or generator is None):
        return generator, learner
    try:
        shape = shape_of(config.model)
    except ConfigError as error:
        if layout.mode == "pods":
            return generator, learner
        raise ConfigError(
            f"{error}; or set rollout.gpu_memory_fraction and learner.gpu_memory_fraction, which the plan "
            "computes otherwise"
        ) from error
    config = config.model_copy(update={"placement": config.placement.model_copy(update={"mode": layout.mode})})
    gpu = GpuModel(f"{(gib := gpu_gib()):.2f} GiB", gib)
    fraction = None
    if generator is None:
        fraction = planned_fraction(config, shape, gib)
        logger.info("rollout.gpu_memory_fraction = %g, on GPUs of %s: %s", fraction.value, gpu.name, fraction.reason)
        generator = fraction.value
    if plans_learner:
        planned = planned_learner_fraction(config, shape, gib)
        logger.info("learner.gpu_memory_fraction = %g: %s", planned.value, planned.reason)
        learner = planned.value
    for problem in memory_plan(config, shape, gpu, fraction).problems():
        logger.warning("the memory plan says that %s; `rayzero plan` says what to change", problem)
    return generator, learner
