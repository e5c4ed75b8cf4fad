"""One reward worker, seen from the pool: a Ray actor, its work, and the time until which it must send something."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import ObjectRefGenerator
from ray.actor import ActorHandle
from ray.exceptions import RayError

from rewards.config import RewardsConfig
from rewards.environments.registry import EnvironmentSpec
from rewards.function import RewardFunction
from rewards.signature import Kind
from rewards.workers.requests import GradedCompletion
from rewards.workers.scheduler import WorkItem
from rewards.workers.worker import RewardWorker

START_DEADLINE_S = 120.0
"""Seconds a worker may take to boot and to import its reward functions: generous, a cold machine reads from disk."""
SILENCE_S = 60.0
"""Seconds without any message after which a worker is replaced; it sends one every few (HEARTBEAT_S in worker.py)."""

PEAK_MEMORY_WAIT_S = 3.0
"""Seconds that workers have to report their memory. They need milliseconds."""

Graded = list[tuple[WorkItem, list[GradedCompletion]]]


@dataclass(eq=False)
class WorkBatch:
    """Work items of one call to a worker."""

    items: Sequence[WorkItem]
    num_open: int
    """How many of their completions still cost it time, as far as it has reported."""


@dataclass(eq=False)
class WorkerHandle:
    """One worker and its work."""

    index: int
    name: str
    actor: ActorHandle[RewardWorker]
    functions: Mapping[str, RewardFunction] = field(default_factory=dict)
    """The functions that it has loaded, or is loading."""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    """How each function is called, after they are loaded."""
    loading: ray.ObjectRef[Any] | None = None
    batches: dict[ObjectRefGenerator, WorkBatch] = field(default_factory=dict)
    deadline: float = 0.0
    """Time after which it counts as silent, in seconds of the monotonic clock."""
    peak_gib: float = 0.0
    """Largest memory that it has reported, GiB; 0 before the first report."""

    def __post_init__(self) -> None:
        self._grade: Any = self.actor.grade_groups.options(num_returns="streaming")

    @property
    def num_open(self) -> int:
        return sum(batch.num_open for batch in self.batches.values())

    @property
    def items(self) -> list[WorkItem]:
        """The items of its calls in flight."""
        return [item for batch in self.batches.values() for item in batch.items]

    @property
    def refs(self) -> list[Any]:
        """Its calls in flight; call ``receive`` when one of them is ready."""
        return [*self.batches, *([self.loading] if self.loading is not None else [])]

    @property
    def paths(self) -> list[str]:
        """The locations of its functions."""
        return sorted(function.path for function in self.functions.values())

    def load(
        self, functions: Mapping[str, RewardFunction], environments: Sequence[EnvironmentSpec], config: RewardsConfig
    ) -> None:
        """Have it import functions, and the classes of environments. It gets no work before that is done."""
        self.functions = dict(functions)
        self.loading = self.actor.load.remote(list(self.functions.values()), environments, config)
        self.deadline = time.monotonic() + START_DEADLINE_S

    def send(self, items: Sequence[WorkItem]) -> None:
        """Have it grade items."""
        references = list(dict.fromkeys(item.pending.group.reference for item in items))
        places = {reference: place for place, reference in enumerate(references)}
        requests = [tuple(item.request(places[item.pending.group.reference])) for item in items]
        reports: ObjectRefGenerator = self._grade.remote(pickle.dumps(requests), *references)
        if not self.batches:
            self.deadline = time.monotonic() + SILENCE_S
        self.batches[reports] = WorkBatch(items, sum(len(item.completions) for item in items))

    def receive(self, ref: Any) -> Graded:
        """Handle what is ready at one of ``refs``; return what was graded. Raises RayError if the worker failed."""
        graded: Graded = []
        if isinstance(ref, ObjectRefGenerator):
            try:
                pickled, num_open, peak_gib = ray.get(next(ref))
                self.peak_gib = max(self.peak_gib, peak_gib)
                batch = self.batches[ref]
                batch.num_open = num_open
                graded = [(batch.items[place], found) for place, found in pickle.loads(pickled)]
            except StopIteration:
                del self.batches[ref]
        else:
            self.kinds = ray.get(ref)
            self.loading = None
        self.deadline = max(self.deadline, time.monotonic() + SILENCE_S)  # an import may still be allowed longer
        return graded


def peak_memory_gib(family: str, workers: Sequence[WorkerHandle]) -> dict[str, float]:
    """Return the largest resident memory of each worker and its processes, GiB, by ``{family}-{index}``."""
    calls: dict[str, ray.ObjectRef[Any]] = {
        f"{family}-{worker.index}": worker.actor.peak_memory_gib.remote() for worker in workers
    }
    refs = list(calls.values())
    ready = set(ray.wait(refs, num_returns=len(refs), timeout=PEAK_MEMORY_WAIT_S)[0]) if refs else set()
    peaks: dict[str, float] = {}
    for name, call in calls.items():
        with contextlib.suppress(RayError):  # dead; the pool's `poll` finds out by itself and replaces it
            if call in ready:
                peaks[name] = ray.get(call)
    return peaks
