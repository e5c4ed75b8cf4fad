"""A pool of reward workers on CPUs, driven from one event loop, without threads.

    submit ──> queue ──> batches of completions ──> a worker, which reports as they are done ──> poll
                 ^                                    │ it died
                 └──────────── once more ─────────────┘

A worker survives the functions that it has called: they run in processes of its own (worker.py, supervisor.py), which
also keep the deadlines. What is left to the pool is to share out the work, and to replace a worker that is dead or
silent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from rewards.config import RewardConfigError, RewardsConfig
from rewards.environments.registry import EnvironmentSpec
from rewards.function import missing_column
from rewards.workers import worker_handle
from rewards.workers.failures import RewardFailure
from rewards.workers.scheduler import PendingGroup, Scheduler
from rewards.workers.worker import RewardWorker
from rewards.workers.worker_handle import WorkerHandle, peak_memory_gib
from rollout.types.completions import Group, RemoteGroup
from rollout.types.packed import PackedGroup

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3


class RewardPool:
    """Grades groups on CPU workers. ``ray.init`` must have been called."""

    def __init__(
        self,
        config: RewardsConfig,
        name_prefix: str = "reward",
        tasks: Sequence[str] = (),
        place: Callable[[int], Mapping[str, Any]] = lambda index: {},
        environments: Mapping[str, EnvironmentSpec] | None = None,
    ) -> None:
        """Start the workers, named ``{name_prefix}-0`` and so on; no two pools of a run may share a prefix.

        ``place`` gives Ray's options of a worker by its index, also when it is replaced. The functions of ``tasks`` are
        loaded at once, others when they are needed. ``environments`` give parts too; by ``Prompt.environment``. Raises
        RewardConfigError when the settings cannot grade one of the tasks.
        """
        self._config = config
        self._name_prefix = name_prefix
        self._place = place
        self._scheduler = Scheduler(config, environments)
        self._environments = [*(environments or {}).values()]
        self._functions = {function.name: function for task in tasks for function in self._scheduler.functions_of(task)}
        self._failed_starts = 0
        self.restarts = 0
        """Number of workers that were replaced because they were silent or dead."""
        self.peak_gib = 0.0
        """Largest memory that a worker, with its processes, has reported, GiB; 0 before the first report."""
        self.workers = [self._start(index) for index in range(config.num_workers)]

    @property
    def num_pending(self) -> int:
        """Number of groups that were submitted and not returned yet."""
        return self._scheduler.num_pending

    @property
    def is_full(self) -> bool:
        """Whether too many groups are pending to sample more before some were polled."""
        return self.num_pending >= self._config.max_pending_groups

    @property
    def timeouts(self) -> int:
        """Completions for which a function missed its deadline, since the start."""
        return self._scheduler.failures.timeouts

    @property
    def errors(self) -> int:
        """Completions that could not be graded for another reason, since the start."""
        return self._scheduler.failures.errors

    def wait_until_loaded(self, columns: Mapping[str, Collection[str]]) -> None:
        """Return when the workers have loaded the functions, or after START_DEADLINE_S.

        ``columns`` are the entries of the answers, by the prompts' sources. Raises RewardFailure for functions that
        cannot be loaded, or called with these columns.
        """
        loading = {worker.loading: worker for worker in self.workers if worker.loading is not None}
        while loading and (ready := ray.wait([*loading], timeout=worker_handle.START_DEADLINE_S)[0]):
            self._receive(loading.pop(ready[0]), ready[0])
        for worker in self.workers:
            if missing := missing_column(self._functions, worker.kinds, columns):
                raise RewardFailure(missing)

    def submit(self, *groups: RemoteGroup) -> None:
        """Queue groups and return at once. Raises RewardConfigError when the settings cannot grade a group's task."""
        for group in groups:
            self._enqueue(group)
        self._assign()

    def refs(self) -> list[Any]:
        """Return what to pass to ``ray.wait`` together with one's own refs; call ``poll`` when one of them is ready."""
        return [ref for worker in self.workers for ref in worker.refs]

    def next_deadline(self) -> float | None:
        """Return the seconds until ``poll`` must run even if no ref gets ready: the timeout for ``ray.wait``."""
        return 0.0 if self._scheduler.finished else self._next_expiry()

    def poll(self) -> list[RemoteGroup]:
        """Return groups that were scored since the last call, without waiting. Replaces dead and silent workers.

        Raises RewardFailure if failures stop the run by the recipe, and when workers cannot start; RewardConfigError
        when the functions do not return what the settings weigh.
        """
        self._advance()
        return self._scheduler.take_finished()

    def collect(self, groups: Sequence[Group]) -> list[Group]:
        """Score ``groups``, wait for them and return them in order. Others are left for ``poll``. Raises as it does."""
        pending = [self._enqueue(stored(group)) for group in groups]
        self._assign()
        for each in pending:
            while not each.is_done:
                ray.wait(self.refs(), num_returns=1, timeout=self._next_expiry())
                self._advance()
        found = zip(groups, self._scheduler.take(pending), strict=True)
        return [group.scored(graded.rewards) for group, graded in found]

    def peak_memory_gib(self) -> dict[str, float]:
        """Return the largest resident memory of each worker and its processes so far, GiB, by a name like ``reward-0``.

        Waits PEAK_MEMORY_WAIT_S at most, leaves out workers that are dead or starting, and forgets replaced ones.
        """
        return peak_memory_gib(self._name_prefix.rpartition("/")[2], self.workers)

    def replace(self, worker: WorkerHandle, error: RayError) -> None:
        """End a worker that is dead or silent, and start another. Raises RewardFailure when workers cannot start."""
        reason = str(error).partition("\n")[0]
        logger.warning(
            "%s died and is replaced; %d completions that it had are graded again: %s",
            worker.name,
            sum(len(item.ungraded) for item in worker.items),
            reason,
        )
        ray.kill(worker.actor)
        self.restarts += 1
        self.workers[worker.index] = self._start(worker.index)
        self._scheduler.retry(worker.items)
        self._failed_starts += worker.loading is not None
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise RewardFailure(
                f"{worker.name} died while loading {worker.paths}, as did {self._failed_starts - 1} before it: {error}"
            )

    def close(self) -> None:
        """Kill the workers; pending groups are lost. May be called twice, and after ``ray.shutdown``."""
        if ray.is_initialized():
            for worker in self.workers:
                ray.kill(worker.actor)
        self.workers = []
        self._scheduler = Scheduler(self._config)

    def _enqueue(self, group: RemoteGroup) -> PendingGroup:
        pending = self._scheduler.enqueue(group)
        self._functions |= {function.name: function for function in pending.functions}
        return pending

    def _next_expiry(self) -> float | None:
        deadlines = [worker.deadline for worker in self.workers if worker.refs]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _advance(self) -> None:
        # All that is ready is taken first: a driver that comes late must not punish a worker that was in time.
        while (refs := self.refs()) and (ready := ray.wait(refs, num_returns=len(refs), timeout=0)[0]):
            for worker in list(self.workers):
                for ref in [ref for ref in worker.refs if ref in ready]:
                    if worker in self.workers:  # it is replaced when the first of its calls says that it died
                        self._receive(worker, ref)
        now = time.monotonic()
        for worker in [worker for worker in self.workers if worker.refs and worker.deadline < now]:
            self._expire(worker)
        self._assign()

    def _assign(self) -> None:
        for worker in self.workers:
            if worker.loading is not None or not self._scheduler.queue:
                continue
            if not self._functions.keys() <= worker.functions.keys():
                worker.load(self._functions, self._environments, self._config)
            elif items := self._scheduler.next_items(worker.num_open):
                worker.send(items)

    def _start(self, index: int) -> WorkerHandle:
        # A killed actor's name is not free at once, so a replacement gets its own.
        name = f"{self._name_prefix}-{index}" + (f"-restart-{self.restarts}" if self.restarts else "")
        options = {"name": name, "num_cpus": self._config.cpus_per_worker, **self._place(index)}
        actor = RewardActor.options(**options).remote(self._config.memory_gib, name, self._config.max_in_flight)
        worker = WorkerHandle(index, name, cast("ActorHandle[RewardWorker]", actor))
        worker.load(self._functions, self._environments, self._config)
        return worker

    def _receive(self, worker: WorkerHandle, ref: Any) -> None:
        was_loading = worker.loading is not None
        try:
            graded = worker.receive(ref)
        except RayTaskError as error:
            is_config = isinstance(error.cause, RewardConfigError)
            raise error.cause if is_config else RewardFailure(f"{worker.name}: {error.cause}") from error
        except ObjectLostError as error:  # the worker is well
            raise RewardFailure(
                f"groups that {worker.name} was to grade are lost, as a node of the cluster is: {error}. Start the "
                "same command again to resume from the last checkpoint"
            ) from error
        except RayError as error:
            self.replace(worker, error)
            return
        if was_loading and worker.loading is None:
            self._failed_starts = 0
            self._scheduler.learn(worker.kinds)
        self.peak_gib = max(self.peak_gib, worker.peak_gib)
        for item, found in graded:
            self._scheduler.record(item, found)

    def _expire(self, worker: WorkerHandle) -> None:
        if worker.loading is not None:
            raise RewardFailure(
                f"{worker.name} did not start and load {worker.paths} in {worker_handle.START_DEADLINE_S:g} s. "
                f"Ray has {ray.available_resources().get('CPU', 0):g} CPUs free: lower rewards.num_workers or "
                "rewards.cpus_per_worker, or give Ray more CPUs"
            )
        self.replace(worker, RayError(f"no word from it in {worker_handle.SILENCE_S:g} s"))


def stored(group: Group) -> RemoteGroup:
    """Put a local group into the object store, for workers to read."""
    packed = PackedGroup.of(group)
    return replace(packed.remote(group.prompt, ray.put(packed)), rewards=group.rewards)


# A dead worker is replaced here, not by Ray: a replacement must load its functions before it is given work.
RewardActor = ray.remote(max_restarts=0, max_task_retries=0)(RewardWorker)
