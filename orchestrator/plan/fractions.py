"""Shares of GPU memory that a recipe leaves open, as the memory plan has them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from orchestrator.cluster.layout import Mode
from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.plan.gpu_models import GpuModel
from orchestrator.plan.memory_plan import memory_plan, planned_fraction, planned_learner_fraction
from orchestrator.plan.model_shapes import shape_of

logger = logging.getLogger(__name__)


def with_fractions(config: RunConfig, mode: Mode, gpu_gib: Callable[[], float]) -> RunConfig:
    """``config`` as it runs in ``mode``, with ``rollout.`` and ``learner.gpu_memory_fraction`` set where GPUs are shared.

    ``gpu_gib`` measures a GPU's memory and is called only where it matters. Raises ConfigError for a shared GPU and a model
    whose memory cannot be planned; on a GPU of its own, such a model's generator takes vLLM's usual share.
    """
    rollout, learner = config.rollout, config.learner
    placement = config.placement.model_copy(update={"mode": mode})
    config = config.model_copy(update={"placement": placement})
    plans_learner = mode == "colocated" and learner.gpu_memory_fraction is None
    if mode == "cpu" or not (plans_learner or rollout.gpu_memory_fraction is None):
        return config
    try:
        shape = shape_of(config.model)
    except ConfigError as error:
        if mode == "pods":
            return config
        raise ConfigError(
            f"{error}; or give rollout.gpu_memory_fraction and learner.gpu_memory_fraction, which are planned otherwise"
        ) from error
    gpu = GpuModel(f"{(gib := gpu_gib()):.2f} GiB", gib)
    if rollout.gpu_memory_fraction is None:
        fraction = planned_fraction(config, shape, gib)
        logger.info("rollout.gpu_memory_fraction = %g, on GPUs of %s: %s", fraction.value, gpu.name, fraction.reason)
        rollout = rollout.model_copy(update={"gpu_memory_fraction": fraction.value})
    if plans_learner:
        fraction = planned_learner_fraction(config, shape, gib)
        logger.info("learner.gpu_memory_fraction = %g: %s", fraction.value, fraction.reason)
        learner = learner.model_copy(update={"gpu_memory_fraction": fraction.value})
    config = config.model_copy(update={"rollout": rollout, "learner": learner})
    for problem in memory_plan(config, shape, gpu).problems():
        logger.warning("the memory plan says that %s; `rayzero plan` says what to change", problem)
    return config
