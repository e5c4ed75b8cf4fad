"""A pool of reward workers on CPUs, driven from one event loop, without threads.

    submit ──> queue ──> parcels of some groups ──> a worker, which reports as they are done ──> poll
                 ^                                    │ it died
                 └──────────── once more ─────────────┘

A worker survives the functions that it has called: they run in processes of its own (worker.py, supervisor.py), which also
keep the deadlines. What is left to the pool is to share out the work, and to replace a worker that is dead or silent.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import ray
from ray import ObjectRefGenerator
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from rewards.config import RewardsConfig
from rewards.function import RewardFunction
from rewards.workers.failures import RewardFailure
from rewards.workers.scheduler import Job, Ledger, Ticket
from rewards.workers.worker import Parcel, Progress, RewardWorker
from rollout.types.completions import Group

logger = logging.getLogger(__name__)

START_DEADLINE_S = 120.0
"""Seconds a worker may take to boot and to import its reward functions: generous, a cold machine reads from disk."""
MAX_FAILED_STARTS = 3
SILENCE_S = 60.0
"""Seconds without a word after which a worker is replaced; it has one every few (worker.py's HEARTBEAT_S)."""
PEAK_MEMORY_WAIT_S = 3.0
"""Seconds that workers have to report their memory. They need milliseconds."""


@dataclass(eq=False)
class _Call:
    """Jobs that a worker has, by position."""

    jobs: dict[int, Job]
    num_open: int
    """How many of their completions still cost it time, as far as it has reported."""


@dataclass(eq=False)
class _Slot:
    """One worker and what it is busy with."""

    index: int
    name: str
    actor: ActorHandle[RewardWorker]
    functions: dict[str, RewardFunction] = field(default_factory=dict)
    """What it has loaded, or is loading."""
    loading: ray.ObjectRef[Any] | None = None
    calls: dict[ObjectRefGenerator, _Call] = field(default_factory=dict)
    deadline: float = 0.0
    """When it has been silent for too long, in seconds of the monotonic clock."""

    @property
    def num_open(self) -> int:
        return sum(call.num_open for call in self.calls.values())

    @property
    def refs(self) -> list[Any]:
        return [*self.calls, *([self.loading] if self.loading is not None else [])]


class RewardPool:
    """Marks groups on CPU workers. ``ray.init`` must have been called."""

    def __init__(
        self,
        config: RewardsConfig,
        name_prefix: str = "reward",
        tasks: Sequence[str] = (),
        place: Callable[[int], Mapping[str, Any]] = lambda index: {},
    ) -> None:
        """Starts the workers, named ``{name_prefix}-0`` and so on; no two pools of a run may share a prefix.

        ``place`` gives Ray's options of a worker by its index: where it is scheduled, the first time and when it is replaced.
        The functions of ``tasks`` are loaded at once, those of others when they are first needed. Raises
        RewardConfigError when the settings cannot mark one of them.
        """
        self._config = config
        self._name_prefix = name_prefix
        self._place = place
        self._ledger = Ledger(config)
        self._functions = {function.name: function for task in tasks for function in self._ledger.functions_of(task)}
        self._failed_starts = 0
        self.restarts = 0
        """Workers replaced, silent or dead."""
        self._slots = [self._boot(index) for index in range(config.num_workers)]

    @property
    def num_pending(self) -> int:
        """Groups that were submitted and not handed back yet."""
        return self._ledger.num_pending

    @property
    def is_full(self) -> bool:
        """Whether so many groups are pending that no more should be sampled until some were polled."""
        return self.num_pending >= self._config.max_pending_groups

    @property
    def timeouts(self) -> int:
        """Completions of which a function passed its deadline, since the start."""
        return self._ledger.failures.timeouts

    @property
    def errors(self) -> int:
        """Completions that could not be marked for another reason, since the start."""
        return self._ledger.failures.errors

    def submit(self, group: Group) -> None:
        """Queues a group; returns at once. Raises RewardConfigError when the settings cannot mark its task."""
        self._enqueue(group)
        self._assign()

    def refs(self) -> list[Any]:
        """What to pass to ``ray.wait`` together with one's own refs; call ``poll`` when one of them is ready."""
        return [ref for slot in self._slots for ref in slot.refs]

    def next_deadline(self) -> float | None:
        """Seconds until ``poll`` has something to do even if no ref gets ready: the timeout for ``ray.wait``."""
        return 0.0 if self._ledger.finished else self._next_expiry()

    def poll(self) -> list[Group]:
        """Groups that were scored since the last call; never waits. Replaces dead and silent workers on the way.

        Raises RewardFailure when the recipe wants failures to stop the run, and when workers cannot start;
        RewardConfigError when the functions do not return what the settings weigh.
        """
        self._advance()
        return self._ledger.take_finished()

    def collect(self, groups: Sequence[Group]) -> list[Group]:
        """Scores ``groups`` and waits for them, in order. Others in flight are left for ``poll``. Raises as it does."""
        tickets = [self._enqueue(group) for group in groups]
        self._assign()
        for ticket in tickets:
            while not ticket.is_done:
                ray.wait(self.refs(), num_returns=1, timeout=self._next_expiry())
                self._advance()
        return self._ledger.take(tickets)

    def peak_memory_gib(self) -> dict[str, float]:
        """Largest resident memory of each worker and its processes so far, GiB, by a name such as ``reward-0``.

        Waits PEAK_MEMORY_WAIT_S at most; workers that are dead or starting are left out. A worker that was replaced
        reports its new processes.
        """
        family = self._name_prefix.rpartition("/")[2]
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
        self._functions |= {function.name: function for function in ticket.functions}
        return ticket

    def _next_expiry(self) -> float | None:
        deadlines = [slot.deadline for slot in self._slots if slot.refs]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _advance(self) -> None:
        # All that is ready is taken before deadlines are looked at: a driver that comes late must not punish a worker
        # that was in time.
        while (refs := self.refs()) and (ready := ray.wait(refs, num_returns=len(refs), timeout=0)[0]):
            for slot in list(self._slots):
                for ref in [ref for ref in slot.refs if ref in ready]:
                    if slot in self._slots:  # it is replaced when the first of its calls says that it died
                        self._receive(slot, ref)
        now = time.monotonic()
        for slot in [slot for slot in self._slots if slot.refs and slot.deadline < now]:
            self._expire(slot)
        self._assign()

    def _assign(self) -> None:
        for slot in self._slots:
            if slot.loading is not None or not self._ledger.queue:
                continue
            if self._functions.keys() <= slot.functions.keys():
                self._send(slot)
            else:
                self._load(slot)

    def _send(self, slot: _Slot) -> None:
        jobs = self._ledger.next_jobs(slot.num_open)
        if not jobs:
            return
        parcels = [Parcel(job.ticket.functions, job.texts, job.ticket.group.prompt.answer) for job in jobs]
        reports: ObjectRefGenerator = slot.actor.mark.options(num_returns="streaming").remote(parcels)
        if not slot.calls:
            slot.deadline = time.monotonic() + SILENCE_S
        slot.calls[reports] = _Call(dict(enumerate(jobs)), sum(len(job.indices) for job in jobs))

    def _load(self, slot: _Slot) -> None:
        slot.functions = dict(self._functions)
        slot.loading = slot.actor.load.remote(list(slot.functions.values()))
        slot.deadline = time.monotonic() + START_DEADLINE_S

    def _boot(self, index: int) -> _Slot:
        # A killed actor's name is not free at once, so a replacement gets its own.
        name = f"{self._name_prefix}-{index}" + (f"-restart-{self.restarts}" if self.restarts else "")
        options = {"name": name, "num_cpus": self._config.cpus_per_worker, **self._place(index)}
        actor = RewardActor.options(**options).remote(self._config.memory_gib, name)
        slot = _Slot(index, name, cast("ActorHandle[RewardWorker]", actor))
        self._load(slot)
        return slot

    def _receive(self, slot: _Slot, ref: Any) -> None:
        try:
            if isinstance(ref, ObjectRefGenerator):
                self._report(slot.calls[ref], ray.get(next(ref)))
            else:
                ray.get(ref)
                slot.loading = None
                self._failed_starts = 0
        except StopIteration:
            del slot.calls[ref]
        except RayTaskError as error:
            raise RewardFailure(f"{slot.name}: {error.cause}") from error
        except RayError as error:
            self._died(slot, error)
        slot.deadline = max(slot.deadline, time.monotonic() + SILENCE_S)  # an import may still be allowed longer

    def _report(self, call: _Call, progress: Progress) -> None:
        call.num_open = progress.num_open
        for index, outcomes in progress.done:
            self._ledger.settle(call.jobs.pop(index), outcomes)

    def _died(self, slot: _Slot, error: RayError) -> None:
        num_groups = sum(len(call.jobs) for call in slot.calls.values())
        reason = str(error).partition("\n")[0]
        logger.warning(
            "%s died and is replaced; %d groups that it had are marked again: %s", slot.name, num_groups, reason
        )
        self._replace(slot)
        # Backwards, as each goes to the front of the queue.
        for job in reversed([job for call in slot.calls.values() for job in call.jobs.values()]):
            self._ledger.died(job)
        self._failed_starts += slot.loading is not None
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise RewardFailure(
                f"{slot.name} died while loading {_paths(slot)}, as did {self._failed_starts - 1} before it: {error}"
            )

    def _expire(self, slot: _Slot) -> None:
        if slot.loading is not None:
            raise RewardFailure(
                f"{slot.name} did not start and load {_paths(slot)} in {START_DEADLINE_S:g} s. "
                f"Ray has {ray.available_resources().get('CPU', 0):g} CPUs free: lower rewards.num_workers or "
                "rewards.cpus_per_worker, or give Ray more CPUs"
            )
        self._died(slot, RayError(f"no word from it in {SILENCE_S:g} s"))

    def _replace(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        self.restarts += 1
        self._slots[slot.index] = self._boot(slot.index)


def _paths(slot: _Slot) -> list[str]:
    return sorted(function.path for function in slot.functions.values())


# A dead worker is replaced here, not by Ray: a replacement must load its functions before it is given work.
RewardActor = ray.remote(max_restarts=0, max_task_retries=0)(RewardWorker)
