"""The learner's ranks as one: every call goes to all of them, with a deadline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from learner.actor import LearnerActor, actor_options
from learner.config import LearnerConfig, ModelConfig
from learner.metrics import Update
from orchestrator.config import RunConfig
from orchestrator.remote import RemoteCallError, wait_for
from rollout.types import Group, SupervisedExample

logger = logging.getLogger(__name__)

ADVICE = "raise placement.update_timeout_s if the model is large; else look at that rank's log, it may hang"


class LearnerGroup:
    """Calls every rank, with a deadline. All methods are collective."""

    def __init__(self, config: RunConfig, num_gpus: float) -> None:
        self._config = config
        options = actor_options(config.learner, use_gpu=num_gpus > 0) | {"num_gpus": num_gpus}
        self._ranks: list[Any] = [
            LearnerActor.options(name=f"{config.name}/learner-{rank}", **options).remote()
            for rank in range(config.learner.num_ranks)
        ]

    def start(
        self,
        folder: Path | str,
        learner: LearnerConfig,
        num_steps: int,
        temperature: float,
        model: ModelConfig | None = None,
    ) -> None:
        """Build the policy from `folder` on every rank; replaces what an earlier start built. `model`: else the run's."""
        master = ray.get(self._ranks[0].reserve_address.remote(), timeout=self._config.placement.start_timeout_s)
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
        wait_for(calls, "start", self._config.placement.start_timeout_s, "raise placement.start_timeout_s")

    def update(self, step: int, groups: Sequence[Group]) -> Update:
        return self._told(self._call("update", step, ray.put(list(groups)))[0])

    def supervised_update(self, step: int, examples: Sequence[SupervisedExample]) -> dict[str, float]:
        return self._told(self._call("supervised_update", step, list(examples))[0]).metrics

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
        first, *_ = [list(stream) for stream in streams]
        return first

    def peak_memory_gib(self) -> dict[str, float]:
        return {self._name(rank): gib for rank, gib in enumerate(self._call("peak_memory_gib"))}

    def close(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)

    def _told(self, update: Update) -> Update:
        for notice in update.notices:
            logger.warning(notice)
        return update

    def _call(self, method: str, *args: Any) -> list[Any]:
        calls = {self._name(rank): getattr(actor, method).remote(*args) for rank, actor in enumerate(self._ranks)}
        return list(wait_for(calls, method, self._config.placement.update_timeout_s, ADVICE).values())

    def _name(self, rank: int) -> str:
        return f"learner-{rank}"


def check_fits(config: RunConfig, num_gpus: float) -> None:
    """Raises RemoteCallError when the cluster can never place the learner's ranks alone, instead of waiting forever."""
    ranks, total = config.learner.num_ranks, ray.cluster_resources()
    cpus = ranks * config.learner.cpus_per_rank
    if cpus > total.get("CPU", 0) + 1e-9:
        raise RemoteCallError(
            f"the learner reserves {cpus:g} CPUs and Ray has {total.get('CPU', 0):g}: lower learner.cpus_per_rank "
            "(fractions share a core) or learner.num_ranks"
        )
    if ranks * num_gpus > total.get("GPU", 0):
        raise RemoteCallError(
            f"learner.num_ranks = {ranks} needs as many GPUs and Ray sees {total.get('GPU', 0):g}: lower it, or set "
            'placement.mode = "cpu"'
        )
