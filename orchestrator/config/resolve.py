"""From what the user said to what will happen: every setting that a recipe leaves open is decided here, once."""

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
from orchestrator.config.precision import slow_bfloat16
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
    """What will happen in a run. Made by `resolve` before any actor starts, and never changed."""

    config: RunConfig
    """What the user said. Where a setting was left open, its resolved value is in one of the fields below."""
    layout: Layout
    """Which actors there are, where, and whether two of them share a GPU."""
    engine: EngineSpec
    """What each generator's engine is built from, with its share of the GPU and its transport."""
    learner: LearnerConfig
    """The settings that each learner rank trains with: mismatch correction, share of the GPU and number decided."""
    model: ModelConfig
    """What the learner's models are and how they compute, with the teacher where it was found."""

    @property
    def fixes_kernels(self) -> bool:
        """Whether actors compute by deterministic kernels: what runs on cores has no others."""
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
    """Decide what `config` leaves open, for actors placed as `layout` says.

    Args:
        model: folder or hub name of the policy that generators and learner begin with.
        gpu_gib: measures the memory of the smallest GPU, GiB; called only where a share of it has to be planned.
        free_share: measures the share of a GPU that is free; called only where nothing is trained.
        rank_cores: counts the cores that each learner rank can have; called only where the optimizer is stepped there.
        teacher: folder or hub name of the model that `model.teacher` names; None where nothing is trained by it.

    Raises ConfigError for a shared GPU and a model whose memory cannot be planned, ValueError for a transport that does
    not work where the actors are.
    """
    if config.placement.mode == "auto" and (slow := slow_bfloat16(config.model.dtype, layout.mode)):
        logger.warning("%s", slow)  # where the mode is named, the plan has said so
    is_training = bool(layout.generators and layout.ranks)
    laid_out = with_counts(config, len(layout.generators), len(layout.ranks))
    generator_fraction, learner_fraction = config.rollout.gpu_memory_fraction, config.learner.gpu_memory_fraction
    transport: TransportName = "ray"  # where nothing is published, the one that needs nothing
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
    """Return what an engine for `model` is built from. `fraction`: its share of the GPU, if one is given or planned."""
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
    """Return vLLM's share of a GPU of which others leave `share` free. It refuses to start with more than is free."""
    fraction = max(0.01, math.floor(100 * UNSHARED_FRACTION * share + 1e-6) / 100)
    if share < UNSHARED_FRACTION:
        logger.warning("others hold %.0f%% of the GPU: rollout.gpu_memory_fraction = %g", 100 * (1 - share), fraction)
    return fraction


def num_threads(learner: LearnerConfig, layout: Layout, rank_cores: Callable[[], int]) -> int:
    """Return a rank's threads: with one a 1.5B model's optimizer would take 15 s a step in host memory."""
    if learner.threads_per_rank is not None:
        return learner.threads_per_rank
    if not (learner.offload_optimizer and layout.ranks and layout.gpus):
        return 1
    threads = rank_cores()
    logger.info("learner.threads_per_rank = %d, each rank's share of its machine's cores", threads)
    return threads


def corrected_algorithm(config: RunConfig) -> AlgorithmConfig:
    """Return the algorithm to train with: `mismatch_correction = "auto"` corrects where sampling runs ahead."""
    algorithm = config.learner.algorithm
    if config.max_staleness == 0 or algorithm.mismatch_correction != "auto":
        return algorithm
    return algorithm.model_copy(update={"mismatch_correction": "truncated"})


def plan_fractions(
    config: RunConfig, layout: Layout, gpu_gib: Callable[[], float]
) -> tuple[float | None, float | None]:
    """Return the generator's and the learner's share of a GPU's memory; None where nothing limits it.

    A share that the recipe gives stands, and the others come from the memory plan. Raises ConfigError for a shared GPU
    and a model whose memory cannot be planned.
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
