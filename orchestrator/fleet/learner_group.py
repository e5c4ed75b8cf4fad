"""The learner's ranks as one: every call goes to all of them, with a deadline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from learner.actor import LearnerActor, actor_options
from learner.config import LearnerConfig, ModelConfig
from learner.metrics import Update
from orchestrator.cluster.calls import Background, RemoteCallError, gather_calls, wait_for
from orchestrator.cluster.placement import Placement
from orchestrator.config.resolve import ResolvedRun
from orchestrator.fleet.generators import RestartBudgetExceededError
from rollout.types.completions import Group
from rollout.types.prompts import SupervisedExample

logger = logging.getLogger(__name__)

ADVICE = "raise placement.update_timeout_s if the model is large; else look at that rank's log, it may hang"
DEATH_IS_KNOWN_S = 5.0
"""Seconds after which Ray has reported a death for sure; it takes one."""


class LearnerLostError(RemoteCallError):
    """A rank died, or did not answer in time: the group is of no use any more."""


class LearnerGroup:
    """Calls every rank, with a deadline. All methods are collective, and raise LearnerLostError."""

    def __init__(self, run: ResolvedRun, placement: Placement, beside: Background | None = None) -> None:
        """Start the ranks. `beside`: what to look after while one waits for them."""
        self.run = run
        self._config = run.config
        self._placement = placement
        self._beside = beside
        self.restarts = 0
        """How often all ranks were replaced."""
        self._ranks = self._boot()

    def _boot(self) -> list[Any]:
        options = actor_options(self.run.learner, use_gpu=self.run.layout.mode != "cpu")
        # A killed actor's name is not free at once, so a successor gets its own.
        suffix = f"-restart-{self.restarts}" if self.restarts else ""
        return [
            LearnerActor.options(
                name=f"{self._config.name}/learner-{rank}{suffix}", **options | self._placement.learner_options(rank)
            ).remote()
            for rank in range(self.run.learner.num_ranks)
        ]

    def restart(self) -> None:
        """Replace all ranks; `start` gives the new ones their policy."""
        self.close()
        self.restarts += 1
        self._ranks = self._boot()

    def start(
        self,
        folder: Path | str,
        learner: LearnerConfig,
        num_steps: int,
        temperature: float,
        model: ModelConfig | None = None,
    ) -> None:
        """Build the policy from `folder` on every rank, in place of what an earlier start built.

        `model`: how it computes, where that is not as the recipe says.
        """
        reservation = {self._name(0): self._ranks[0].reserve_address.remote()}
        master = self._started(reservation, "reserve_address")[self._name(0)]
        calls = {
            self._name(rank): actor.start.remote(
                learner,
                model or self._config.model,
                folder,
                rank=rank,
                master=master,
                num_steps=num_steps,
                temperature=temperature,
                max_completion_tokens=self._config.sampling.max_completion_tokens,
            )
            for rank, actor in enumerate(self._ranks)
        }
        self._started(calls, "start")

    def update(self, step: int, groups: Sequence[Group]) -> Update:
        update = self._logged(self._call("update", step, ray.put(list(groups)))[0])
        return replace(update, metrics=update.metrics | {"system/learner_restarts": float(self.restarts)})

    def supervised_update(self, step: int, examples: Sequence[SupervisedExample]) -> dict[str, float]:
        return self._logged(self._call("supervised_update", step, list(examples))[0]).metrics

    def save(self, folder: Path) -> dict[str, str]:
        return self._call("save", folder)[0]

    def load(self, folder: Path) -> None:
        self._call("load", folder)

    def export(self, folder: Path) -> None:
        self._call("export", folder)

    def release_memory(self) -> None:
        """Give cached device memory back, so that vLLM's allocator sees it."""
        self._call("release_memory")

    def weight_buckets(self, max_bytes: int, timeout_s: float | None = None) -> list[Any]:
        """Return references to the buckets of rank 0. The other ranks take part because ZeRO 3 gathers from all.

        `timeout_s`: `placement.update_timeout_s` if none is given.
        """
        streams = [rank.weight_buckets.options(num_returns="streaming").remote(max_bytes) for rank in self._ranks]
        ends = {self._name(rank): stream.completed() for rank, stream in enumerate(streams)}
        answers(ends, "weight_buckets", timeout_s or self._config.placement.update_timeout_s)
        return list(streams[0])

    def call_ranks(self, method: str, *args: Any) -> dict[str, Any]:
        """Call a method of every rank. Returns the pending calls by the rank's name, for the caller to wait for."""
        return {self._name(rank): getattr(actor, method).remote(*args) for rank, actor in enumerate(self._ranks)}

    def peak_memory_gib(self) -> dict[str, float]:
        return {self._name(rank): gib for rank, gib in enumerate(self._call("peak_memory_gib"))}

    def close(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)

    def _started(self, calls: Mapping[str, Any], method: str) -> dict[str, Any]:
        """Wait for ranks that are starting, or that wait for a place to do so, and return their answers."""
        advice = "raise placement.start_timeout_s, or look at `ray status`: there may be no place for the rank"
        return answers(calls, method, self._config.placement.start_timeout_s, advice, self._beside)

    def _logged(self, update: Update) -> Update:
        """Log the notices of an update, and return it."""
        for notice in update.notices:
            logger.warning(notice)
        return update

    def _call(self, method: str, *args: Any) -> list[Any]:
        timeout_s = self._config.placement.update_timeout_s
        return list(answers(self.call_ranks(method, *args), method, timeout_s, beside=self._beside).values())

    def _name(self, rank: int) -> str:
        return f"learner-{rank}"


def answers(
    calls: Mapping[str, Any], method: str, timeout_s: float, advice: str = ADVICE, beside: Background | None = None
) -> dict[str, Any]:
    """Wait for the ranks' answers, and return them by name.

    Raises LearnerLostError when a rank is late or dead, else what a rank raised.
    """
    try:
        return wait_for(calls, method, timeout_s, advice, beside)
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
