"""The actors of a run: started, published to, put to sleep, replaced and ended. The loop sees only the Protocols."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from orchestrator.base_model import written_folders
from orchestrator.cluster.calls import TICK_S, gather_calls, ready_of
from orchestrator.cluster.placement import Placement
from orchestrator.cluster.shared_folders import check_folders
from orchestrator.config.environments import environment_specs
from orchestrator.config.resolve import ResolvedRun, resolve
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.generators import Generators
from orchestrator.fleet.learner_group import LearnerGroup
from orchestrator.fleet.publish import PublishError, publish
from orchestrator.fleet.rollouts import RolloutStream
from orchestrator.fleet.scale import requested_generators
from orchestrator.fleet.transports import Transport, make_transport
from orchestrator.fleet.turn_calls import turn_calls
from rewards.workers.environment_calls import EnvironmentCalls
from rewards.workers.pool import RewardPool
from rollout.actor import GeneratorActor, environment

logger = logging.getLogger(__name__)

CONTROL_TIMEOUT_S = 120.0
"""Deadline in seconds of a call that a generator answers quickly."""


class RolloutFleet:
    """Generators and reward workers on a Ray cluster: enough to evaluate a model. Closing it ends all of them."""

    def __init__(self, run: ResolvedRun, placement: Placement) -> None:
        """Start the actors in their `placement`, without waiting; `wait_until_ready` waits."""
        self.run = run
        self._config = config = run.config
        self.placement = placement
        rollout = config.rollout.model_copy(update={"num_generators": len(run.layout.generators)})
        self.generators = Generators(
            self._boot, rollout, have_weights=run.engine.load_weights, retire=placement.remove_generator
        )
        graders = {task.grader for task in config.prompts.tasks.values()}
        environments = environment_specs(config)
        self.rewards = RewardPool(
            config.rewards, f"{config.name}/reward", sorted(graders), placement.reward_options, environments
        )
        self.rollouts = RolloutStream(
            self.generators,
            self.rewards,
            config.rollout,
            serve_restarted=self._serve_restarted,
            calls=turn_calls(run, EnvironmentCalls(self.rewards, environments)),
        )

    def wait_until_ready(self) -> None:
        """Return when every generator can take prompts. Raises RemoteCallError past the deadline.

        If reward workers cannot grade, RewardFailure is raised before that.
        """
        self.rewards.wait_until_loaded({})
        self.generators.wait_until_ready()

    def close(self) -> None:
        """End every actor."""
        self.generators.close()
        self.rewards.close()

    def _boot(self, index: int, restarts: int) -> Any:
        """Start the actor of a generator. A killed actor's name is not free at once, so a replacement gets its own."""
        return GeneratorActor.options(
            name=f"{self._config.name}/generator-{index}" + (f"-restart-{restarts}" if restarts else ""),
            runtime_env={"env_vars": environment(self._config.rollout, self.run.fixes_kernels)},
            **self.placement.generator_options(index),
        ).remote(self.run.engine, self._config.rollout)

    def _serve_restarted(self) -> None:
        """Do nothing: engines that load weights by themselves serve as soon as they are ready."""

    def _call_generators(self, method: str, but: Container[str] = ()) -> dict[str, Any]:
        """Call a method of each generator that is ready, `but` some, and return the answers by name.

        A generator that does not answer is lost. Its replacement is not called.
        """
        standing = self.generators.standing.items()
        calls = {name: getattr(actor, method).remote() for name, actor in standing if name not in but}
        outcomes = gather_calls(calls, method, CONTROL_TIMEOUT_S)
        for name, reason in (outcomes.failed | outcomes.died).items():
            self.rollouts.lose(name, reason)
        return outcomes.answered


class RayFleet(RolloutFleet):
    """All actors of a training run."""

    def __init__(self, run: ResolvedRun, placement: Placement) -> None:
        """Start all actors; `placement` is given back when the fleet is closed."""
        self._shares_gpu = run.layout.mode == "colocated"
        self._version: int | None = None
        self._refused: int | None = None
        """The last requested number of generators that was not possible."""
        super().__init__(run, placement)
        self._transport = self._new_transport()
        if self._shares_gpu:
            # vLLM measures free memory while it starts: nobody else may use the GPU then.
            self.wait_until_ready()
        self._generators_awake = True
        self.learner = LearnerGroup(run, placement, beside=self.rollouts)

    @classmethod
    def start(cls, config: RunConfig, model: str, teacher: str | None = None) -> Self:
        """Reserve resources on the cluster, decide what the recipe does not set, and start all actors.

        Before any actor starts, raises PlacementError when the cluster is too small or busy, GpuMemoryError when others
        hold the memory of its GPUs, or a node lacks a folder that all share, and what `resolve` raises.
        """
        placement = Placement.of(config)
        try:
            rank_cores = placement.rank_cores
            run = resolve(config, placement.layout, model, placement.gpu_gib, rank_cores=rank_cores, teacher=teacher)
            check_folders(placement, model, written_folders(config))
            if teacher is not None:
                check_folders(placement, teacher, {})
            placement.await_memory(run.engine.gpu_memory_fraction, shares_buffers=run.engine.transport == "ipc")
            return cls(run, placement)
        except BaseException:
            placement.close()
            raise

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Keep the generators awake within the context. On a shared GPU the learner empties its cache first."""
        if self._shares_gpu and not self._generators_awake:
            self.learner.release_memory()
            self._call_generators("wake")
            self._generators_awake = True
        yield

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Let the learner use the whole device within the context."""
        if self._shares_gpu and self._generators_awake:
            self._put_to_sleep()
            self._generators_awake = False
        yield

    def publish(self, version: int) -> None:
        """Send the learner's weights to every generator as `version`; see orchestrator/fleet/publish.py.

        Generators that were restarted or added and are ready by then get the weights too, and sample from then on.
        """
        self._follow_scale()
        targets = self.generators.standing
        try:
            lost = publish(
                self.learner,
                targets,
                version,
                timeout_s=self._config.rollout.publish_timeout_s,
                bucket_bytes=self._config.rollout.publish_bucket_mib * 2**20,
                hang_timeout_s=self._config.rollout.hang_timeout_s,
                transport=self._transport,
            )
        except PublishError:
            lost = self._unresponsive(targets)
            if lost.keys() != targets.keys():
                raise  # some live, and yet nobody got the weights: that would happen to their successors too
        self._version = version
        for name, reason in lost.items():
            self.rollouts.lose(name, reason)
        self.generators.serve(name for name in targets if name not in lost)

    def forget_learner(self) -> None:
        """Prepare for other learner ranks: drop what is in flight, and leave them the device."""
        self.rollouts.abandon()
        # Generators that were in a group with the old ranks have to join one with the new.
        self._transport = self._new_transport()
        with self.learning():
            pass

    def _new_transport(self) -> Transport:
        return make_transport(self.run.engine.transport, self._config.rollout.tensor_parallel_size)

    def _put_to_sleep(self) -> None:
        """Put all generators to sleep, also those being started again, which take their share of the GPU awake.

        A start that takes longer than `rollout.start_timeout_s` is not waited for: it may have no resources.
        """
        deadline = time.monotonic() + self._config.rollout.start_timeout_s
        asleep: set[str] = set()
        while not asleep >= {*self.generators.names} and time.monotonic() < deadline:
            asleep |= self._call_generators("sleep", but=asleep).keys()
            if starts := self.generators.refs():
                ready_of(starts, TICK_S)

    def _unresponsive(self, generators: Mapping[str, Any]) -> dict[str, str]:
        """Return which generators are dead or do not answer a heartbeat, and why."""
        heartbeats = {name: actor.heartbeat.remote() for name, actor in generators.items()}
        outcomes = gather_calls(heartbeats, "heartbeat", self._config.rollout.hang_timeout_s)
        return outcomes.died | outcomes.failed

    def _serve_restarted(self) -> None:
        """Publish again: if no generator samples, restarted ones cannot wait for the end of the step."""
        if self._version is not None:
            self.publish(self._version)

    def _follow_scale(self) -> None:
        """Start or end generators as `rayzero scale` asked, between two steps."""
        wanted = requested_generators(self._config)
        if wanted is None or wanted == len(self.generators.names):
            return
        if self._shares_gpu:
            if wanted != self._refused:
                logger.warning(
                    "%d generators were requested, but each shares a GPU with a learner rank: "
                    "their number stays the same",
                    wanted,
                )
            self._refused = wanted
            return
        logger.info("%d generators were requested, there are %d", wanted, len(self.generators.names))
        for name in self.generators.names[wanted:]:
            self.rollouts.requeue(name)
        self.generators.resize(wanted)

    def peak_memory_gib(self) -> dict[str, float]:
        """Return the largest resident memory of each process so far, GiB, by actor name."""
        generators: dict[str, float] = self._call_generators("peak_memory_gib")
        return generators | self.learner.peak_memory_gib() | self.rewards.peak_memory_gib()

    def close(self) -> None:
        super().close()
        self.learner.close()
        self.placement.close()
