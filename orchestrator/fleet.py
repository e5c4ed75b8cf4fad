"""Which actors there are, where they run, and when they share a device. The loop sees only the Protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import ray

from learner.actor import LearnerActor, actor_options
from learner.config import LearnerConfig
from orchestrator.config import RunConfig, default_num_cpus
from orchestrator.publish import publish
from orchestrator.remote import RemoteCallError, wait_for
from orchestrator.stream import RolloutStream
from rewards.pool import RewardPool
from rollout.actor import GeneratorActor, environment
from rollout.config import SamplingConfig
from rollout.types import EngineSpec, Group, Prompt, SupervisedExample


class Rollouts(Protocol):
    """Samples and scores."""

    def collect(self, prompts: Sequence[Prompt], sampling: SamplingConfig, group_size: int) -> list[Group]: ...
    def metrics(self) -> dict[str, float]: ...


class Learner(Protocol):
    """The group of learner ranks, as one."""

    def update(self, step: int, groups: Sequence[Group]) -> dict[str, float]: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...
    def export(self, folder: Path) -> None: ...


class Fleet(Protocol):
    """What the loop needs, wherever it runs."""

    @property
    def rollouts(self) -> Rollouts: ...
    @property
    def learner(self) -> Learner: ...
    def generating(self) -> AbstractContextManager[None]: ...
    def learning(self) -> AbstractContextManager[None]: ...
    def publish(self, version: int) -> None: ...


class LearnerGroup:
    """Calls every rank, with a deadline. All methods are collective."""

    def __init__(self, config: RunConfig, num_gpus: float) -> None:
        self._config = config
        options = actor_options(config.learner, use_gpu=num_gpus > 0) | {"num_gpus": num_gpus}
        self._ranks = [
            LearnerActor.options(name=f"{config.name}/learner-{rank}", **options).remote()
            for rank in range(config.learner.num_ranks)
        ]

    def start(self, folder: Path | str, learner: LearnerConfig, num_steps: int, temperature: float) -> None:
        """Build the policy from `folder` on every rank; replaces what an earlier start built."""
        master = ray.get(self._ranks[0].reserve_address.remote(), timeout=self._config.placement.start_timeout_s)
        calls = {
            self._name(rank): actor.start.remote(
                learner,
                self._config.model,
                folder,
                rank=rank,
                master=master,
                num_steps=num_steps,
                temperature=temperature,
                max_completion_tokens=self._config.sampling.max_completion_tokens,
            )
            for rank, actor in enumerate(self._ranks)
        }
        wait_for(calls, "start", self._config.placement.start_timeout_s, "raise placement.start_timeout_s")

    def update(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        return cast("dict[str, float]", self._call("update", step, ray.put(list(groups)))[0])

    def supervised_update(self, step: int, examples: Sequence[SupervisedExample]) -> dict[str, float]:
        return cast("dict[str, float]", self._call("supervised_update", step, list(examples))[0])

    def save(self, folder: Path) -> None:
        self._call("save", folder)

    def load(self, folder: Path) -> None:
        self._call("load", folder)

    def export(self, folder: Path) -> None:
        self._call("export", folder)

    def release_memory(self) -> None:
        """Hand cached device memory back, where vLLM's allocator can see it."""
        self._call("release_memory")

    def weight_buckets(self, max_bytes: int) -> list[Any]:
        """References to the buckets, from rank 0; the other ranks take part because ZeRO 3 gathers from all."""
        streams = [rank.weight_buckets.options(num_returns="streaming").remote(max_bytes) for rank in self._ranks]
        return [list(stream) for stream in streams][0]

    def peak_memory_gib(self) -> dict[str, float]:
        return {self._name(rank): gib for rank, gib in enumerate(self._call("peak_memory_gib"))}

    def close(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)

    def _call(self, method: str, *args: Any) -> list[Any]:
        calls = {self._name(rank): getattr(actor, method).remote(*args) for rank, actor in enumerate(self._ranks)}
        advice = "raise placement.update_timeout_s if the model is large; else look at that rank's log, it may hang"
        return list(wait_for(calls, method, self._config.placement.update_timeout_s, advice).values())

    def _name(self, rank: int) -> str:
        return f"learner-{rank}"


class RayFleet:
    """The actors of one run on a Ray cluster. Closing it ends them all."""

    def __init__(self, config: RunConfig, engine: EngineSpec, *, with_learner: bool = True) -> None:
        """Starts the actors without waiting for them; `wait_until_ready` does.

        Raises RemoteCallError when the cluster is too small, before anything is started.
        """
        self._config = config
        self._shares_gpu = is_colocated(config)
        check_resources(config, self._shares_gpu, with_learner)
        self._generators_awake = True
        self.generators = {
            f"generator-{index}": GeneratorActor.options(
                name=f"{config.name}/generator-{index}",
                num_cpus=config.rollout.cpus_per_generator,
                num_gpus=self._gpu_share(with_learner),
                runtime_env={"env_vars": environment(config.rollout)},
            ).remote(engine, config.rollout)
            for index in range(config.rollout.num_generators)
        }
        if self._shares_gpu:
            # vLLM measures free memory while it starts: nobody else may use the GPU then.
            self._wait_for_generators()
        self.learner = LearnerGroup(config, self._gpu_share(with_learner)) if with_learner else None
        self.rewards = RewardPool(config.rewards, name_prefix=f"{config.name}/reward")
        self.rollouts = RolloutStream(
            self.generators, self.rewards, stall_timeout_s=config.rollout.stall_timeout_s, seed=config.seed
        )

    def wait_until_ready(self) -> None:
        """Returns when every generator can take prompts. Raises RemoteCallError past the deadline."""
        self._wait_for_generators()

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
        learner = self.learner.peak_memory_gib() if self.learner else {}
        return self._call_generators("peak_memory_gib") | learner | self.rewards.peak_memory_gib()

    def close(self) -> None:
        """End every actor of the run."""
        for generator in self.generators.values():
            ray.kill(generator)
        if self.learner:
            self.learner.close()
        self.rewards.close()

    def _gpu_share(self, with_learner: bool) -> float:
        """Of one GPU, for one actor: half for each of two that take turns. Ray only counts it."""
        return (0.5 if with_learner else 1.0) if self._shares_gpu else 0.0

    def _wait_for_generators(self) -> None:
        advice = "raise rollout.start_timeout_s if the model is large, or look at that generator's log"
        self._call_generators("ready", self._config.rollout.start_timeout_s, advice)

    def _call_generators(
        self, method: str, timeout_s: float = 120.0, advice: str = "look at that generator's log, it may hang"
    ) -> dict[str, Any]:
        calls = {name: getattr(actor, method).remote() for name, actor in self.generators.items()}
        return wait_for(calls, method, timeout_s, advice)


def is_colocated(config: RunConfig) -> bool:
    """Whether generator and learner take turns on a GPU."""
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0
    return config.placement.mode == "colocated" or (config.placement.mode == "auto" and has_gpu)


def check_resources(config: RunConfig, uses_gpu: bool, with_learner: bool) -> None:
    """Raises RemoteCallError when the cluster can never place the actors, instead of waiting forever."""
    ranks = config.learner.num_ranks if with_learner else 0
    cpus = (
        config.rollout.num_generators * config.rollout.cpus_per_generator
        + ranks * config.learner.cpus_per_rank
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
        ray.init(log_to_driver=False, logging_level="ERROR")
    else:
        ray.init(
            address="local",
            num_cpus=default_num_cpus(),
            include_dashboard=config.placement.dashboard,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level="ERROR",
        )
    try:
        yield
    finally:
        ray.shutdown()
