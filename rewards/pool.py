"""A pool of reward workers on CPUs, driven from one event loop, without threads.

A worker is handed one call at a time, and only once it is ready, so a call's deadline runs from when the worker could
start on it. A reward function may never return to Python (a backtracking pattern, a loop in C), so deadlines are kept
from outside: the driver kills the process. What happens to a group:

    one call for all completions ── returns ──> weighed, done
      │ late: worker killed                 │ worker died
      └──> one call for each completion <───┘
             │ late: that completion's parts get the status timeout
             │ worker died again: the status error
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from rewards.config import RewardsConfig
from rewards.ledger import Job, Ledger, RewardFailure, Ticket
from rewards.worker import RewardWorker
from rollout.types import Group

START_DEADLINE_S = 120.0
"""Seconds a worker may take to boot and to import its reward functions: generous, a cold machine reads from disk."""
MAX_FAILED_STARTS = 3
PEAK_MEMORY_WAIT_S = 3.0
"""Seconds that workers have to report their memory. An idle one needs milliseconds."""


@dataclass(eq=False)
class _Slot:
    """One worker and the call it is busy with."""

    index: int
    name: str
    actor: ActorHandle[RewardWorker]
    call: ray.ObjectRef[Any] | None = None
    deadline: float = 0.0
    """When the call is late, in seconds of the monotonic clock."""
    job: Job | None = None
    """None while the call loads reward functions."""
    paths: set[str] = field(default_factory=set)
    """Where the reward functions are that were loaded, or are being."""


class RewardPool:
    """Marks groups on CPU workers. ``ray.init`` must have been called."""

    def __init__(self, config: RewardsConfig, name_prefix: str = "reward") -> None:
        """Starts the workers, named ``{name_prefix}-0`` and so on; no two pools of a run may share a prefix."""
        self._config = config
        self._name_prefix = name_prefix
        self._ledger = Ledger(config)
        self._paths: set[str] = set()
        self._failed_starts = 0
        self.restarts = 0
        """Workers replaced, late or dead."""
        self._slots = [self._boot(index) for index in range(config.num_workers)]

    @property
    def num_pending(self) -> int:
        """Groups that were submitted and not handed back yet."""
        return self._ledger.num_pending

    @property
    def timeouts(self) -> int:
        """Completions that passed their deadline, since the start."""
        return self._ledger.timeouts

    @property
    def errors(self) -> int:
        """Completions that could not be marked for another reason, since the start."""
        return self._ledger.errors

    def submit(self, group: Group) -> None:
        """Queues a group; returns at once. Raises UnknownTaskError when nothing marks its task."""
        self._enqueue(group)
        self._assign()

    def refs(self) -> list[ray.ObjectRef[Any]]:
        """What to pass to ``ray.wait`` together with one's own refs; call ``poll`` when one of them is ready."""
        return [slot.call for slot in self._slots if slot.call is not None]

    def next_deadline(self) -> float | None:
        """Seconds until ``poll`` has something to do even if no ref gets ready: the timeout for ``ray.wait``."""
        if self._ledger.finished:
            return 0.0
        deadlines = [slot.deadline for slot in self._slots if slot.call is not None]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def poll(self) -> list[Group]:
        """Groups that were scored since the last call; never waits. Kills and replaces late workers on the way.

        Raises RewardFailure when the recipe wants failures to stop the run, and when workers cannot start;
        RewardConfigError when the weights do not fit what the reward function returns.
        """
        self._advance()
        return self._ledger.take_finished()

    def collect(self, groups: Sequence[Group]) -> list[Group]:
        """Scores ``groups`` and waits for them, in order. Others in flight are left for ``poll``. Raises as it does."""
        tickets = [self._enqueue(group) for group in groups]
        self._assign()
        while not all(ticket.is_done for ticket in tickets):
            ray.wait(self.refs(), num_returns=1, timeout=self.next_deadline())
            self._advance()
        return self._ledger.take(tickets)

    def peak_memory_gib(self) -> dict[str, float]:
        """Largest resident memory of each worker process so far, GiB, by a name such as ``reward-0``.

        Waits PEAK_MEMORY_WAIT_S at most; workers that are busy for longer or dead are left out. A worker that was
        replaced reports its new process.
        """
        family = self._name_prefix.rpartition("/")[2]
        # All are asked, also those whose last call ended but was not polled yet.
        calls: dict[str, ray.ObjectRef[Any]] = {
            f"{family}-{slot.index}": slot.actor.peak_memory_gib.remote() for slot in self._slots
        }
        refs = list(calls.values())
        ready = set(ray.wait(refs, num_returns=len(refs), timeout=PEAK_MEMORY_WAIT_S)[0]) if refs else set()
        peaks: dict[str, float] = {}
        for name, call in calls.items():
            with contextlib.suppress(RayError):  # dead; `poll` finds out by itself and replaces it
                if call in ready:
                    peaks[name] = ray.get(call)
        return peaks

    def close(self) -> None:
        """Kills the workers; what is pending is lost. May be called twice, and after ``ray.shutdown``."""
        if ray.is_initialized():
            for slot in self._slots:
                ray.kill(slot.actor)
        self._slots = []
        self._ledger = Ledger(self._config)

    def _enqueue(self, group: Group) -> Ticket:
        ticket = self._ledger.enqueue(group)
        self._paths.add(ticket.path)
        return ticket

    def _advance(self) -> None:
        refs = self.refs()
        # What is ready is taken before deadlines are looked at: a driver that comes late must not punish a worker
        # that was in time.
        ready = set(ray.wait(refs, num_returns=len(refs), timeout=0)[0]) if refs else set()
        for slot in [slot for slot in self._slots if slot.call in ready]:
            self._receive(slot)
        now = time.monotonic()
        for slot in [slot for slot in self._slots if slot.call is not None and slot.deadline < now]:
            self._expire(slot)
        self._assign()

    def _assign(self) -> None:
        for slot in self._slots:
            if slot.call is None and self._ledger.queue:
                self._start_next(slot)

    def _start_next(self, slot: _Slot) -> None:
        ticket = self._ledger.queue[0].ticket
        if ticket.path not in slot.paths:
            self._load(slot)
            return
        slot.job = self._ledger.queue.popleft()
        slot.call = slot.actor.score.remote(ticket.path, slot.job.texts, ticket.group.prompt.answer)
        slot.deadline = time.monotonic() + self._config.deadline_s

    def _load(self, slot: _Slot) -> None:
        slot.paths = set(self._paths)
        slot.call = slot.actor.load.remote(sorted(slot.paths))
        slot.deadline = time.monotonic() + START_DEADLINE_S

    def _boot(self, index: int) -> _Slot:
        # A killed actor's name is not free at once, so a replacement gets its own.
        name = f"{self._name_prefix}-{index}" + (f"-restart-{self.restarts}" if self.restarts else "")
        options = {"name": name, "num_cpus": self._config.cpus_per_worker}
        actor = RewardActor.options(**options).remote(self._config.memory_gib)
        slot = _Slot(index, name, cast("ActorHandle[RewardWorker]", actor))
        self._load(slot)
        return slot

    def _replace(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        self.restarts += 1
        self._slots[slot.index] = self._boot(slot.index)

    def _receive(self, slot: _Slot) -> None:
        call, job = slot.call, slot.job
        slot.call = slot.job = None
        assert call is not None
        try:
            outcomes = ray.get(call)
        except RayTaskError as error:
            raise RewardFailure(f"{slot.name} cannot use {sorted(slot.paths)}: {error.cause!r}") from error
        except RayError as error:
            self._replace(slot)
            self._died(slot, job, error)
            return
        self._failed_starts = 0
        if job is not None:
            self._ledger.settle(job, outcomes)

    def _died(self, slot: _Slot, job: Job | None, error: RayError) -> None:
        if job is not None:
            self._ledger.died(job)
            return
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise RewardFailure(
                f"{slot.name} died while loading {sorted(slot.paths)}, "
                f"as did {self._failed_starts - 1} before it: {error}"
            )

    def _expire(self, slot: _Slot) -> None:
        if slot.job is None:
            raise RewardFailure(
                f"{slot.name} did not start and load {sorted(slot.paths)} in {START_DEADLINE_S:g} s. "
                f"Ray has {ray.available_resources().get('CPU', 0):g} CPUs free: lower rewards.num_workers or "
                "rewards.cpus_per_worker, or give Ray more CPUs"
            )
        self._replace(slot)
        self._ledger.late(slot.job)


# A dead worker is replaced here, not by Ray: a replacement must load its functions before its deadlines run.
RewardActor = ray.remote(max_restarts=0, max_task_retries=0)(RewardWorker)
