"""Whom a completion's environment is asked of, and what a worker's death costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError

from rewards.environments.registry import EnvironmentSpec
from rewards.workers import environment_calls
from rewards.workers.environment_calls import EnvironmentCalls
from rollout.types.environments import EnvironmentAnswer, EnvironmentRequest
from rollout.types.prompts import Prompt
from tests.support.arrived import Arrived

SPECS = {"guess": EnvironmentSpec("guess", "rewards.environments.guess:Guess")}


class FakeWorker:
    loading = None

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], tuple[Any, ...], Arrived]] = []
        self.closed: list[Any] = []
        self.actor = SimpleNamespace(
            answer_turns=SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=self._answer)),
            close_environments=SimpleNamespace(remote=self.closed.append),
        )

    def _answer(self, specs: Any, requests: list[Any], *turns: Any) -> Arrived:
        assert specs == SPECS
        stream = Arrived()
        self.calls.append(([EnvironmentRequest(*each) for each in requests], turns, stream))
        return stream


class FakePool:
    def __init__(self, count: int) -> None:
        self.workers = [FakeWorker() for _ in range(count)]

    def replace(self, worker: FakeWorker, error: Exception) -> None:
        self.workers[self.workers.index(worker)] = FakeWorker()


@pytest.fixture
def pool(monkeypatch) -> FakePool:
    def get(found: Any) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(environment_calls.ray, "get", get)
    return FakePool(2)


def ready(calls: EnvironmentCalls) -> list[Arrived]:
    return [stream for stream in calls.refs() if stream]


def request(index: int, turns: Any = None) -> tuple[EnvironmentRequest, Any]:
    prompt = Prompt("train/0", np.zeros(1, np.int32), "", "countdown", {}, environment="guess")
    return EnvironmentRequest(("train/0", index), prompt, 7, None), turns


def report(*indexes: int, **said: Any) -> list[tuple[Any, ...]]:
    return [tuple(EnvironmentAnswer(("train/0", index), **said)) for index in indexes]


def asked(worker: FakeWorker) -> list[list[int]]:
    return [[each.key[1] for each in requests] for requests, _, _ in worker.calls]


def test_environments_are_shared_out_and_stay_with_their_worker(pool) -> None:
    calls = EnvironmentCalls(pool, SPECS)
    calls.ask([request(index) for index in range(4)])
    first, second = pool.workers
    assert (asked(first), asked(second)) == ([[0, 2]], [[1, 3]])
    first.calls[0][2].append(report(0, 2, text="go"))
    assert [answer.key[1] for answer in calls.poll(ready(calls))] == [0, 2]
    calls.ask([request(2, "turns of 2"), request(0, "turns of 0")])
    requests, turns, _ = first.calls[1]
    assert [(each.key[1], turns[each.place]) for each in requests] == [(2, "turns of 2"), (0, "turns of 0")]


def test_what_a_dead_worker_had_is_asked_once_more_and_then_given_up(pool) -> None:
    calls = EnvironmentCalls(pool, SPECS)
    calls.ask([request(0, "turns"), request(1, "turns")])
    dead, other = pool.workers
    other.calls[0][2].append(report(1))
    dead.calls[0][2].append(RayActorError())
    assert [answer.key[1] for answer in calls.poll(ready(calls))] == [1]
    assert dead not in pool.workers
    (again,) = [worker for worker in pool.workers if [0] in asked(worker)]
    again.calls[-1][2].append(RayActorError())
    found = calls.poll(ready(calls)) + calls.poll()
    assert [(answer.key[1], answer.status) for answer in found] == [(0, "error")]
    assert "two workers in a row" in found[0].reason


def test_a_silent_worker_counts_as_dead_and_an_empty_report_as_a_sign_of_life(pool, monkeypatch) -> None:
    calls = EnvironmentCalls(pool, SPECS)
    calls.ask([request(0)])
    (silent, _) = pool.workers
    now = environment_calls.time.monotonic()
    monkeypatch.setattr(environment_calls.time, "monotonic", lambda: now + 40)
    silent.calls[0][2].append([])
    assert not calls.poll(ready(calls)) and silent in pool.workers
    monkeypatch.setattr(environment_calls.time, "monotonic", lambda: now + 80)
    assert not calls.poll() and silent in pool.workers
    monkeypatch.setattr(environment_calls.time, "monotonic", lambda: now + 101)
    assert not calls.poll() and silent not in pool.workers
    assert [[0]] in [asked(worker) for worker in pool.workers]


def test_a_closed_environment_is_asked_nothing_and_its_answer_is_not_heard(pool) -> None:
    calls = EnvironmentCalls(pool, SPECS)
    calls.ask([request(0), request(1)])
    first, second = pool.workers
    calls.close([("train/0", 0)])
    assert first.closed == [[("train/0", 0)]] and not second.closed
    first.calls[0][2].append(report(0))
    assert not calls.poll(ready(calls))
    calls.clear()
    assert first.closed[1:] == second.closed == [None] and not calls.refs()


def test_a_worker_that_ends_without_an_answer_has_failed(pool) -> None:
    calls = EnvironmentCalls(pool, SPECS)
    calls.ask([request(0)])
    (answer,) = calls.poll(calls.refs())
    assert answer.status == "error" and not calls.refs()
