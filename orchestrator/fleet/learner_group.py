"""All ranks of the learner as one object: every call goes to all of them, with a deadline."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray

from learner.actor import LearnerActor, actor_options
from learner.config import LearnerConfig, ModelConfig
from learner.metrics import Update
from orchestrator.cluster.calls import Background, gather_calls, wait_for
from orchestrator.cluster.placement import Placement
from orchestrator.cluster.results import RemoteCallError
from orchestrator.config.resolve import ResolvedRun
from orchestrator.fleet.generators import RestartBudgetExceededError
from orchestrator.fleet.heartbeats import Listener
from rollout.types.completions import RemoteGroup
from rollout.types.prompts import SupervisedExample

logger = logging.getLogger(__name__)
T = TypeVar("T")

ADVICE = "raise placement.update_timeout_s if the model is large; else look at that rank's log, it may hang"
DEATH_IS_KNOWN_S = 5.0
"""Seconds after which Ray has certainly reported a death; it usually takes one second."""


class LearnerLostError(RemoteCallError):
    """A rank died, or did not answer in time: the group cannot be used any more."""


class LearnerGroup:
    """Calls every rank, with a deadline; a rank that does not even answer a heartbeat is not waited for so long.

    All methods are collective, and raise LearnerLostError; `start` and `persist` replace ranks that are lost.
    """

    def __init__(self, run: ResolvedRun, placement: Placement, beside: Background | None = None) -> None:
        """Start the ranks. `beside`: other work to look after while waiting for them."""
        self.run = run
        self._config = run.config
        self._placement = placement
        self._beside = beside
        self.restarts = 0
        """How often all ranks were replaced."""
        self._build: Callable[[], object] = self._await_processes
        """A function that builds the policy of the last `start`."""
        self._boot()

    @property
    def ranks(self) -> Mapping[str, Any]:
        """Actor handles by name, rank 0 first."""
        return self._ranks

    def _boot(self) -> None:
        fixes_kernels = self.run.fixes_kernels
        use_gpu = self.run.layout.mode != "cpu"
        options = actor_options(self.run.learner, use_gpu=use_gpu, fixes_kernels=fixes_kernels)
        # A killed actor's name is not free at once, so a successor gets its own.
        suffix = f"-restart-{self.restarts}" if self.restarts else ""
        self._ranks: dict[str, Any] = {
            f"learner-{rank}": LearnerActor.options(
                name=f"{self._config.name}/learner-{rank}{suffix}", **options | self._placement.learner_options(rank)
            ).remote(fixes_kernels)
            for rank in range(self.run.learner.num_ranks)
        }

    def persist(self, attempt: Callable[[], T], roll_back: Callable[[], None]) -> T:
        """Return what `attempt` returns. When a rank is lost in it, replace all ranks and attempt it again.

        One rank alone cannot be replaced: the others hang in a collective call with it, or hold another step's weights.

        Args:
            attempt: work with the policy of the last `start`, which the new ranks have too, as it was then.
            roll_back: undoes what a lost attempt has done elsewhere.

        Raises LearnerLostError after `placement.max_learner_restarts`.
        """
        while True:
            try:
                return attempt()
            except LearnerLostError as error:
                self._replace(error, roll_back)

    def start(
        self,
        folder: Path | str,
        learner: LearnerConfig,
        num_steps: int,
        temperature: float,
        model: ModelConfig | None = None,
    ) -> None:
        """Build the policy from `folder` on every rank, and replace the policy of an earlier start.

        `model`: how it computes, where that is not as the recipe says. A rank that is lost meanwhile is replaced.
        """
        self._build = partial(self._start, folder, learner, num_steps, temperature, model or self.run.model)
        try:
            self._build()
        except LearnerLostError as error:
            self._replace(error)

    def update(self, step: int, groups: Sequence[RemoteGroup]) -> Update:
        totals = ray.put([[reward.total for reward in group.rewards] for group in groups])  # once for all ranks
        records = self._config.tracking.save_rollouts
        update = self._updated("update", step, totals, records, *(group.reference for group in groups))
        return replace(update, metrics=update.metrics | {"system/learner_restarts": float(self.restarts)})

    def score_again(self, update: Update) -> Update:
        assert update.logprobs is not None, "the update recorded no logprobs"
        return replace(update, logprobs=replace(update.logprobs, changes=self._call("score_again")[0]))

    def supervised_update(self, step: int, examples: Sequence[SupervisedExample]) -> dict[str, float]:
        return self._updated("supervised_update", step, list(examples)).metrics

    def save(self, folder: Path) -> dict[str, str]:
        return self._call("save", folder)[0]

    def load(self, folder: Path) -> None:
        self._call("load", folder)

    def export(self, folder: Path) -> None:
        self._call("export", folder)

    def release_memory(self) -> None:
        """Free cached device memory, so that vLLM's allocator can use it."""
        self._call("release_memory")

    def weight_buckets(self, max_bytes: int, timeout_s: float | None = None) -> list[Any]:
        """Return references to the buckets of rank 0. The other ranks take part because ZeRO 3 gathers from all.

        `timeout_s`: `placement.update_timeout_s` if none is given.
        """
        streams = {
            name: rank.weight_buckets.options(num_returns="streaming").remote(max_bytes)
            for name, rank in self._ranks.items()
        }
        ends = {name: stream.completed() for name, stream in streams.items()}
        deadline_s = timeout_s or self._config.placement.update_timeout_s
        answers(ends, "weight_buckets", deadline_s, liveness=self._listener())
        return list(next(iter(streams.values())))

    def call_ranks(self, method: str, *args: Any) -> dict[str, Any]:
        """Call a method of every rank. Returns the pending calls by the rank's name, for the caller to wait for."""
        return {name: getattr(actor, method).remote(*args) for name, actor in self._ranks.items()}

    def peak_memory_gib(self) -> dict[str, float]:
        return dict(zip(self._ranks, self._call("peak_memory_gib"), strict=True))

    def close(self) -> None:
        for rank in self._ranks.values():
            ray.kill(rank)

    def _replace(self, error: LearnerLostError, roll_back: Callable[[], None] = lambda: None) -> None:
        """Replace all ranks, and give the new ones the policy of the last `start`. Ranks may be lost here, too."""
        while True:
            if self.restarts == self._config.placement.max_learner_restarts:
                raise error
            self.restarts += 1
            logger.warning(
                "the learner is lost: %s. It is started again (restart %d of at most %d)",
                error,
                self.restarts,
                self._config.placement.max_learner_restarts,
            )
            roll_back()
            self.close()
            self._boot()
            try:
                self._build()
            except LearnerLostError as again:
                error = again
            else:
                return

    def _start(
        self, folder: Path | str, learner: LearnerConfig, num_steps: int, temperature: float, model: ModelConfig
    ) -> None:
        master = self._await_processes()
        calls = {
            name: actor.start.remote(
                learner,
                model,
                folder,
                rank=rank,
                master=master,
                num_steps=num_steps,
                temperature=temperature,
                max_completion_tokens=self._config.sampling.max_completion_tokens,
            )
            for rank, (name, actor) in enumerate(self._ranks.items())
        }
        self._started(calls, "start", self._listener())

    def _await_processes(self) -> tuple[str, int]:
        """Return rank 0's address, when each rank has a process with its libraries: from then on it has a heartbeat."""
        return next(iter(self._started(self.call_ranks("reserve_address"), "reserve_address").values()))

    def _started(self, calls: Mapping[str, Any], method: str, liveness: Listener | None = None) -> dict[str, Any]:
        """Wait for ranks that are starting, or that wait for resources, and return their answers."""
        advice = "raise placement.start_timeout_s, or look at `ray status`: the cluster may have no room for the rank"
        return answers(calls, method, self._config.placement.start_timeout_s, advice, self._beside, liveness)

    def _updated(self, method: str, *args: Any) -> Update:
        """Update, log its notices, and return it with the memory of the largest rank."""
        updates = self._call(method, *args)
        for notice in updates[0].notices:
            logger.warning(notice)
        peak = {"system/learner_peak_gib": max(update.peak_gib for update in updates)}
        return replace(updates[0], metrics=updates[0].metrics | peak)

    def _call(self, method: str, *args: Any) -> list[Any]:
        timeout_s = self._config.placement.update_timeout_s
        calls = self.call_ranks(method, *args)
        return list(answers(calls, method, timeout_s, beside=self._beside, liveness=self._listener()).values())

    def _listener(self) -> Listener:
        return Listener(self._ranks, self._config.rollout.hang_timeout_s)


def answers(
    calls: Mapping[str, Any],
    method: str,
    timeout_s: float,
    advice: str = ADVICE,
    beside: Background | None = None,
    liveness: Listener | None = None,
) -> dict[str, Any]:
    """Wait for the ranks' answers, and return them by name.

    Raises LearnerLostError when a rank is late, hangs or is dead, else what a rank raised.
    """
    try:
        return wait_for(calls, method, timeout_s, advice, beside, liveness)
    except RestartBudgetExceededError:  # of what goes on beside
        raise
    except RemoteCallError as error:
        raise LearnerLostError(str(error)) from error
    except Exception as error:
        # A rank whose peer dies in a collective call says so at once, which may be before Ray tells of the death.
        died = gather_calls(calls, method, DEATH_IS_KNOWN_S).died
        if died:
            raise LearnerLostError("; ".join(died.values())) from error
        raise
