"""The driver's calls of environments, which live with a pool's workers: each completion's with the same worker always.

ask ──> the worker that has the completion's environment ──> poll
^                 │ it died
└─────────────────┘  once: another worker starts the environment again, and steps it through the turns so far
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray import ObjectRefGenerator
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from rewards.environments.registry import EnvironmentSpec
from rewards.workers.failures import RewardFailure
from rewards.workers.pool import RewardPool
from rewards.workers.worker_handle import SILENCE_S, START_DEADLINE_S, WorkerHandle
from rollout.types.environments import EnvironmentAnswer, EnvironmentRequest

Key = tuple[str, int]

MAX_OPEN = 256
"""Largest number of open environments of one worker; each is a process."""


class _Asked(NamedTuple):
    request: EnvironmentRequest
    turns: Any
    may_retry: bool = True


@dataclass(eq=False)
class _Call:
    """Requests of one call to a worker."""

    worker: WorkerHandle
    waiting: dict[Key, _Asked]
    deadline: float
    """Time after which the worker counts as silent, in seconds of the monotonic clock."""


class EnvironmentCalls:
    """Sends requests to environments. Each request is answered exactly once, even if its worker dies."""

    def __init__(self, pool: RewardPool, specs: Mapping[str, EnvironmentSpec]) -> None:
        """`specs`: the run's environments, by name."""
        self._pool = pool
        self._specs = dict(specs)
        self._homes: dict[Key, WorkerHandle] = {}
        self._calls: dict[ObjectRefGenerator, _Call] = {}
        self._failed: list[EnvironmentAnswer] = []

    @property
    def max_open(self) -> int:
        """Largest number of completions that may have an environment at the same time."""
        return MAX_OPEN * len(self._pool.workers)

    def ask(self, calls: Iterable[tuple[EnvironmentRequest, Any]]) -> None:
        """Have environments start, or answer the last of the turns behind a reference. Returns at once."""
        self._send([_Asked(request, turns) for request, turns in calls])

    def refs(self) -> list[Any]:
        """Return the references of which one is ready when there is something to poll."""
        return list(self._calls)

    def poll(self, ready: Iterable[Any] = ()) -> list[EnvironmentAnswer]:
        """Return what has come, without waiting. Has workers replaced that are dead or silent.

        Raises RewardFailure where an environment cannot be loaded, and when workers cannot start.
        """
        answers, self._failed = self._failed, []
        for stream in ready:
            if (call := self._calls.get(stream)) is not None:
                answers += self._receive(stream, call)
        now = time.monotonic()
        for call in [call for call in self._calls.values() if call.deadline < now]:
            self._lose(call.worker, RayError(f"no word from it in {SILENCE_S:g} s"))
        for key in [answer.key for answer in answers if answer.is_over or answer.status != "ok"]:
            self._homes.pop(key, None)
        return answers

    def close(self, keys: Sequence[Key]) -> None:
        """Close the environments of these completions; pending requests are not answered."""
        by_worker: dict[WorkerHandle, list[Key]] = {}
        for key in keys:
            if (worker := self._homes.pop(key, None)) is not None:
                by_worker.setdefault(worker, []).append(key)
        for call in self._calls.values() if keys else ():
            for key in keys:
                call.waiting.pop(key, None)
        for worker, found in by_worker.items():
            worker.actor.close_environments.remote(found)

    def clear(self) -> None:
        """Close all environments; pending requests are not answered."""
        for worker in self._pool.workers if self._homes or self._calls else ():
            worker.actor.close_environments.remote(None)
        self._homes.clear()
        self._calls.clear()
        self._failed.clear()

    def _send(self, asked: Sequence[_Asked]) -> None:
        """Send each worker, in one call, the requests to its environments."""
        loads = Counter(self._homes.values())
        shares: dict[WorkerHandle, list[_Asked]] = {}
        for each in asked:
            worker = self._homes.get(each.request.key)
            if worker is None or worker not in self._pool.workers:
                worker = min(self._pool.workers, key=lambda other: loads[other])
                self._homes[each.request.key] = worker
                loads[worker] += 1
            shares.setdefault(worker, []).append(each)
        for worker, share in shares.items():
            self._call(worker, share)

    def _call(self, worker: WorkerHandle, asked: Sequence[_Asked]) -> None:
        turns = [each.turns for each in asked if each.turns is not None]
        places = iter(range(len(turns)))
        requests = [tuple(each.request._replace(place=None if each.turns is None else next(places))) for each in asked]
        names = {each.request.prompt.environment for each in asked}
        specs = {name: self._specs[name] for name in names}
        answering: Any = worker.actor.answer_turns.options(num_returns="streaming")
        stream = answering.remote(specs, requests, *turns)
        wait_s = SILENCE_S if worker.loading is None else START_DEADLINE_S
        waiting = {each.request.key: each for each in asked}
        self._calls[stream] = _Call(worker, waiting, time.monotonic() + wait_s)

    def _receive(self, stream: ObjectRefGenerator, call: _Call) -> list[EnvironmentAnswer]:
        """Return everything that is ready in a stream."""
        answers: list[EnvironmentAnswer] = []
        call.deadline = max(call.deadline, time.monotonic() + SILENCE_S)
        try:
            is_ready = True
            while is_ready:
                found = map(EnvironmentAnswer._make, ray.get(next(stream)))
                answers += [answer for answer in found if call.waiting.pop(answer.key, None) is not None]
                is_ready = stream.next_ready()
        except StopIteration:
            del self._calls[stream]
            answers += [failed(key, "the worker gave no answer") for key in call.waiting]
        except RayTaskError as error:
            raise RewardFailure(f"{call.worker.name}: {error.cause}") from error
        except ObjectLostError as error:  # the worker is well
            raise RewardFailure(
                f"turns that environments of {call.worker.name} were to answer are lost, as a node of the cluster is: "
                f"{error}. Start the same command again to resume from the last checkpoint"
            ) from error
        except RayError as error:
            self._lose(call.worker, error)
        return answers

    def _lose(self, worker: WorkerHandle, error: RayError) -> None:
        """Have a worker replaced, and send its pending requests to others."""
        if worker in self._pool.workers:
            self._pool.replace(worker, error)
        lost = [(stream, call) for stream, call in self._calls.items() if call.worker is worker]
        for stream, _ in lost:
            del self._calls[stream]
        waiting = [each for _, call in lost for each in call.waiting.values()]
        twice = [each.request.key for each in waiting if not each.may_retry]
        self._failed += [failed(key, "two workers in a row died while they had it") for key in twice]
        self._send([each._replace(may_retry=False) for each in waiting if each.may_retry])


def failed(key: Key, reason: str) -> EnvironmentAnswer:
    return EnvironmentAnswer(key, status="error", reason=reason)
