"""Which actors there are, where they run, and when they share a device. The loop sees only the Protocol."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import ray

from learner.metrics import Update
from orchestrator.config import RunConfig, default_num_cpus
from orchestrator.learner_group import LearnerGroup
from orchestrator.publish import publish
from orchestrator.remote import RemoteCallError, wait_for
from orchestrator.stream import RolloutStream
from rewards.pool import RewardPool
from rollout.actor import MAX_CONCURRENCY, GeneratorActor, environment
from rollout.config import SamplingConfig
from rollout.types import EngineSpec, Group, Prompt


class Rollouts(Protocol):
    """Samples and scores."""

    def collect(self, prompts: Sequence[Prompt], sampling: SamplingConfig, group_size: int) -> list[Group]: ...
    def metrics(self) -> dict[str, float]: ...


class Learner(Protocol):
    """The group of learner ranks, as one."""

    def update(self, step: int, groups: Sequence[Group]) -> Update: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


class Fleet(Protocol):
    """What the loop needs, wherever it runs."""

    @property
    def rollouts(self) -> Rollouts: ...
    @property
    def learner(self) -> Learner: ...
    def generating(self) -> AbstractContextManager[None]: ...
    def learning(self) -> AbstractContextManager[None]: ...
    def publish(self, version: int) -> None: ...


class RolloutFleet:
    """Generators and reward workers on a Ray cluster: enough to evaluate a model. Closing it ends them all."""

    def __init__(self, config: RunConfig, engine: EngineSpec, *, gpus_per_generator: float) -> None:
        """Starts the actors without waiting for them; `wait_until_ready` does."""
        self._config = config
        self.generators: dict[str, Any] = {
            f"generator-{index}": GeneratorActor.options(
                name=f"{config.name}/generator-{index}",
                num_cpus=config.rollout.cpus_per_generator,
                num_gpus=gpus_per_generator,
                max_concurrency=MAX_CONCURRENCY,
                runtime_env={"env_vars": environment(config.rollout)},
            ).remote(engine, config.rollout)
            for index in range(config.rollout.num_generators)
        }
        tasks = {questions.marked_by for questions in config.prompts.kinds.values()}
        self.rewards = RewardPool(config.rewards, name_prefix=f"{config.name}/reward", tasks=sorted(tasks))
        self.rollouts = RolloutStream(
            self.generators, self.rewards, stall_timeout_s=config.rollout.stall_timeout_s, seed=config.seed
        )

    def wait_until_ready(self) -> None:
        """Returns when every generator can take prompts. Raises RemoteCallError past the deadline."""
        advice = "raise rollout.start_timeout_s if the model is large, or look at that generator's log"
        self._call_generators("ready", self._config.rollout.start_timeout_s, advice)

    def close(self) -> None:
        """End every actor."""
        for generator in self.generators.values():
            ray.kill(generator)
        self.rewards.close()

    def _call_generators(
        self, method: str, timeout_s: float = 120.0, advice: str = "look at that generator's log, it may hang"
    ) -> dict[str, Any]:
        calls = {name: getattr(actor, method).remote() for name, actor in self.generators.items()}
        return wait_for(calls, method, timeout_s, advice)


class RayFleet(RolloutFleet):
    """All the actors of a training run."""

    def __init__(self, config: RunConfig, engine: EngineSpec) -> None:
        """Raises RemoteCallError when the cluster is too small, before anything is started."""
        self._shares_gpu = is_colocated(config)
        check_resources(config, uses_gpu=self._shares_gpu)
        # Two that take turns on one GPU, to Ray's bookkeeping half of it each; memory fractions do the sharing.
        gpu_share = 0.5 if self._shares_gpu else 0.0
        super().__init__(config, engine, gpus_per_generator=gpu_share)
        if self._shares_gpu:
            # vLLM measures free memory while it starts: nobody else may use the GPU then.
            self.wait_until_ready()
        self._generators_awake = True
        self.learner = LearnerGroup(config, gpu_share)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Within it the generators are awake. On a shared GPU the learner empties its cache first."""
        if self._shares_gpu and not self._generators_awake:
            self.learner.release_memory()
            self._call_generators("wake")
            self._generators_awake = True
        yield

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within it the learner may use the whole device."""
        if self._shares_gpu and self._generators_awake:
            self._call_generators("sleep")
            self._generators_awake = False
        yield

    def publish(self, version: int) -> None:
        """Send the learner's weights to every generator as `version`; see orchestrator/publish.py."""
        publish(
            self.learner,
            self.generators,
            version,
            timeout_s=self._config.rollout.publish_timeout_s,
            bucket_bytes=self._config.rollout.publish_bucket_mib * 2**20,
        )

    def peak_memory_gib(self) -> dict[str, float]:
        """Largest resident memory of each process so far, GiB, by actor name."""
        generators: dict[str, float] = self._call_generators("peak_memory_gib")
        return generators | self.learner.peak_memory_gib() | self.rewards.peak_memory_gib()

    def close(self) -> None:
        super().close()
        self.learner.close()


def engine_spec(config: RunConfig, model: str, *, load_weights: bool) -> EngineSpec:
    """What the recipe's engines are built from."""
    return EngineSpec(
        model, config.model.dtype, config.max_model_len, load_weights, reads_text=bool(config.sampling.stop)
    )


def is_colocated(config: RunConfig) -> bool:
    """Whether generator and learner take turns on a GPU."""
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0
    return config.placement.mode == "colocated" or (config.placement.mode == "auto" and has_gpu)


def check_resources(config: RunConfig, *, uses_gpu: bool) -> None:
    """Raises RemoteCallError when the cluster can never place the actors, instead of waiting forever."""
    cpus = (
        config.rollout.num_generators * config.rollout.cpus_per_generator
        + config.learner.num_ranks * config.learner.cpus_per_rank
        + config.rewards.num_workers * config.rewards.cpus_per_worker
    )
    total = ray.cluster_resources()
    if cpus > total.get("CPU", 0) + 1e-9:
        raise RemoteCallError(
            f"the actors reserve {cpus:g} CPUs and Ray has {total.get('CPU', 0):g}: lower rollout.cpus_per_generator, "
            "learner.cpus_per_rank or rewards.cpus_per_worker (fractions share a core)"
        )
    if uses_gpu and total.get("GPU", 0) < 1:
        raise RemoteCallError('placement.mode = "colocated" and Ray sees no GPU: set placement.mode = "cpu"')


@contextmanager
def ray_cluster(config: RunConfig) -> Iterator[None]:
    """Joins the cluster that RAY_ADDRESS names (as in a submitted job), or starts one here and stops it afterwards."""
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    else:
        ray.init(
            address="local",
            num_cpus=default_num_cpus(),
            include_dashboard=config.placement.dashboard,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield
    finally:
        ray.shutdown()
