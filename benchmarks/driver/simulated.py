"""A fleet for the real loop whose engines and learner sleep: the driver sees many generators, without their machines.

Real: Ray, Generators, RolloutStream with its Heartbeats, publish by the ray transport, and the RewardPool if given.
Simulated: engines, which sleep and yield groups of realistic size; the learner, which sleeps; prompts, numbered. A few
Ray actors host all generators: the driver has the calls, streams and references of as many, but not their connections.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import numpy as np
import ray

from benchmarks.driver.simulated_engines import EnvironmentsActor, HostActor, HostedGenerator
from learner.backend.file_digests import file_digest
from learner.logprob_record import LogprobRecord
from learner.metrics import Update
from orchestrator.cluster.calls import wait_for
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.generators import Generators
from orchestrator.fleet.publish import publish
from orchestrator.fleet.rollouts import RolloutStream
from orchestrator.fleet.turn_calls import TurnCalls
from orchestrator.fleet.turns import TurnRouter
from rewards.environments.registry import EnvironmentSpec
from rewards.workers.environment_calls import EnvironmentCalls
from rewards.workers.pool import RewardPool
from rollout.types.completions import GroupHeader, RemoteGroup, Reward, RewardPart
from rollout.types.packed import PackedGroup
from rollout.types.prompts import Prompt
from rollout.types.publishing import WeightBucket

NUM_HOSTS = 4
"""Ray actors that the generators share."""
ENVIRONMENT_WORKERS = 64
"""As many as have room for the environments of a step."""
TIMEOUT_S = 60.0
ANSWER = {"numbers": [3, 7, 9], "target": 34}

AnyGroup = TypeVar("AnyGroup", bound=GroupHeader)
Lap = Callable[[str], None]
"""Told when a phase of the loop has ended."""


class SimulatedRank:
    """The learner's actor: takes the groups, and sleeps."""

    def update(self, seconds: float, totals: Sequence[Sequence[float]], *groups: PackedGroup) -> Update:
        time.sleep(seconds)
        num_tokens = sum(completion.num_tokens for group in groups for completion in group.completions)
        gaps = np.random.default_rng(num_tokens).normal(0, 0.01, num_tokens).astype(np.float16)
        return Update({}, [[0.0] * len(group.completions) for group in groups], logprobs=LogprobRecord(gaps))


class SimulatedLearner:
    """The driver's side of it, as LearnerGroup is."""

    def __init__(self, lap: Lap, seconds: float, beside: RolloutStream) -> None:
        self.rank: Any = RankActor.remote()
        self._lap, self._seconds, self._beside = lap, seconds, beside
        self._bucket = WeightBucket.of(("weight",), ("float32",), (np.zeros(1000, np.float32),))
        self.trained_on: list[str] = []
        """Prompt ids, in order."""

    def update(self, step: int, groups: Sequence[RemoteGroup]) -> Update:
        self._lap("sample")
        self.trained_on += [group.prompt.id for group in groups]
        totals = ray.put([[reward.total for reward in group.rewards] for group in groups])
        calls = {"learner-0": self.rank.update.remote(self._seconds, totals, *(group.reference for group in groups))}
        update: Update = wait_for(calls, "update", TIMEOUT_S, "", self._beside)["learner-0"]
        self._lap("update")
        return update

    def score_again(self, update: Update) -> Update:
        return update

    @property
    def ranks(self) -> dict[str, Any]:
        return {}

    def weight_buckets(self, max_bytes: int, timeout_s: float | None = None) -> list[Any]:
        return [ray.put(self._bucket)]

    def call_ranks(self, method: str, *args: Any) -> dict[str, Any]:
        return {}

    def save(self, folder: Path) -> dict[str, str]:
        folder.mkdir()
        (folder / "nothing").touch()
        return {"nothing": file_digest(folder / "nothing")}

    def load(self, folder: Path) -> None:
        """Nothing was learned."""


class ScoredAtOnce:
    """In place of the reward pool: costs next to nothing, so what is left is the stream."""

    num_pending, is_full, restarts, peak_gib = 0, False, 0, 0.0

    def __init__(self) -> None:
        self._scored: list[RemoteGroup] = []

    def submit(self, *groups: RemoteGroup) -> None:
        self._scored += map(graded, groups)

    def poll(self) -> list[RemoteGroup]:
        scored, self._scored = self._scored, []
        return scored

    def refs(self) -> list[Any]:
        return []

    def next_deadline(self) -> float | None:
        return 0.0 if self._scored else None


def graded(group: AnyGroup) -> AnyGroup:
    """Return the group with the rewards that its texts deserve."""
    right = [index % 2 for index in range(len(group.completions))]
    parts = [(RewardPart("correctness", float(each)), RewardPart("answer_tags", 1.0)) for each in right]
    return group.scored(tuple(Reward(1.0 if each else 0.1, part) for each, part in zip(right, parts, strict=True)))


class CountingStream(RolloutStream):
    """Counts its passes."""

    passes = 0

    def advance(self, ready: Sequence[Any]) -> None:
        self.passes += 1
        super().advance(ready)


class SimulatedFleet:
    """A fleet as the loop wants it."""

    def __init__(
        self,
        config: RunConfig,
        lap: Lap,
        pool: RewardPool | None,
        engine_s: float,
        update_s: float,
        num_turns: int = 1,
    ) -> None:
        """`pool`: None scores at once. `engine_s` and `update_s`: what a group and an update take, seconds.

        With more turns than one, an environment that costs nothing answers each.
        """
        self._lap = lap
        self._environments: Any = EnvironmentsActor.remote(num_turns) if num_turns > 1 else None
        self._hosts: list[Any] = [
            HostActor.remote(engine_s) for _ in range(min(NUM_HOSTS, config.rollout.num_generators))
        ]
        self.generators = Generators(self._boot, config.rollout, have_weights=False)
        self.rollouts = CountingStream(
            self.generators,
            pool or cast(RewardPool, ScoredAtOnce()),
            config.rollout,
            serve_restarted=lambda: None,
            calls=simulated_turns(self._environments, num_turns) if num_turns > 1 else None,
        )
        self.learner = SimulatedLearner(lap, update_s, self.rollouts)
        self.generators.wait_until_ready()

    def _boot(self, index: int, restarts: int) -> HostedGenerator:
        return HostedGenerator(self._hosts[index % len(self._hosts)], index)

    def generating(self) -> AbstractContextManager[None]:
        return nullcontext()

    def learning(self) -> AbstractContextManager[None]:
        return nullcontext()

    def publish(self, version: int) -> None:
        targets = self.generators.standing
        lost = publish(self.learner, targets, version, timeout_s=TIMEOUT_S, bucket_bytes=2**28)
        assert not lost
        self.generators.serve(targets)
        self._lap("publish")

    def close(self) -> None:
        """End its actors."""
        for actor in (*self._hosts, self.learner.rank, *filter(None, [self._environments])):
            ray.kill(actor)


@dataclass(frozen=True, eq=False)
class SimulatedWorker:
    """In place of a reward worker's handle."""

    actor: Any
    loading: None = None


def simulated_turns(actor: Any, num_turns: int) -> TurnCalls:
    """Return the real calls for turns, with one actor in place of the workers that host environments."""
    pool = cast(RewardPool, SimpleNamespace(workers=[SimulatedWorker(actor)] * ENVIRONMENT_WORKERS))
    specs = {"simulated": EnvironmentSpec("simulated", "benchmarks.driver.simulated_engines:SimulatedEnvironments")}
    return TurnCalls(TurnRouter(num_turns, in_rounds=False), EnvironmentCalls(pool, specs), max_failed_share=0.0)


class NumberedPrompts:
    """In place of PromptStream."""

    def __init__(self, environment: str = "") -> None:
        self._position = 0
        self._environment = environment

    def take(self, count: int) -> list[Prompt]:
        self._position += count
        numbers = range(self._position - count, self._position)
        return [prompt_of(f"train/{number:06d}", self._environment) for number in numbers]

    def held_out(self, format: str) -> list[Prompt]:
        return [prompt_of("held_out/000000", self._environment)]

    def observe(self, groups: Sequence[GroupHeader]) -> None:
        """There is no curriculum."""

    def metrics(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"position": self._position}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._position = state["position"]


def prompt_of(name: str, environment: str = "") -> Prompt:
    text = "Numbers: 3 7 9\nTarget: 34\n" * 8
    return Prompt(name, np.arange(60, dtype=np.int32), text, "countdown", ANSWER, environment=environment)


RankActor: Any = ray.remote(num_cpus=0)(SimulatedRank)
