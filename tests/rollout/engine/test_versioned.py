"""An engine whose batches run beside the caller, as vLLM's do on a GPU: no batch computes with two versions.

And each completion names the versions that sampled it, also where a batch was scheduled before the publish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rollout.config import RolloutConfig
from rollout.engine import versioned
from rollout.engine.versioned import SampledRequest, VersionedEngine
from rollout.types.sampling import EngineSpec

Token = tuple[int, int]
"""The versions of the first and of the second layer that computed it."""


@dataclass
class Batch:
    """Has read the first layer when it is scheduled, and reads the second when it ends."""

    request_ids: list[str]
    first: int
    second: int | None = None

    def end(self, second: int) -> None:
        if self.second is None:
            self.second = second


@dataclass
class Tracked:
    """A request: the tokens that are still to be scheduled, those that were returned, and vLLM's labels of them."""

    left: int
    tokens: list[Token] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


class AsynchronousEngine:
    """Orders what it does as vLLM's LLMEngine with asynchronous scheduling: after a step the next batch runs."""

    vllm_config = SimpleNamespace(max_concurrent_batches=2)

    def __init__(self) -> None:
        self.layers = [0, 0]
        self.requests: dict[str, Tracked] = {}
        self.batches: list[Batch] = []
        self.touched_too_early: list[str] = []
        self._label = "default"
        self._is_paused = self._is_asleep = False

    def add_request(self, request_id: str, prompt: Any, params: int) -> None:
        self.requests[request_id] = Tracked(params)

    def abort_request(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.requests.pop(request_id, None)

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def step(self) -> list[Any]:
        ready = [name for name, request in self.requests.items() if request.left and not self._is_paused]
        if ready:
            for name in ready:
                self.requests[name].left -= 1
            self.batches.append(Batch(ready, self.layers[0]))
            if len(self.batches) < 2:
                return []
        if not self.batches:
            return []
        batch = self.batches.pop(0)
        batch.end(self.layers[1])
        return [output for name in batch.request_ids if (output := self._returned(name, batch)) is not None]

    def _returned(self, name: str, batch: Batch) -> Any:
        request = self.requests.get(name)
        if request is None:
            return None
        request.tokens.append((batch.first, batch.second))  # type: ignore[arg-type]
        request.labels.append(self._label)
        if request.left or any(name in other.request_ids for other in self.batches):
            return None
        del self.requests[name]
        return SimpleNamespace(request_id=name, outputs=[request], finished=True)

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> None:
        if method == "synchronize_device":
            for batch in self.batches:
                batch.end(self.layers[1])
        else:
            self._touch(method)
        if method == "update_weights":
            self.layers = [args[0]["version"]] * 2

    def set_weight_version(self, version: str) -> None:
        self._label = version

    def reset_prefix_cache(self) -> None:
        """Change only what is scheduled next."""

    def is_sleeping(self) -> bool:
        return self._is_paused or self._is_asleep

    def sleep(self, level: int, mode: str = "abort") -> None:
        self._is_paused = True
        if level:
            self._touch("sleep")
            self._is_asleep = True

    def wake_up(self, tags: list[str] | None = None) -> None:
        self._is_asleep = self._is_asleep and bool(tags)
        self._is_paused = self._is_paused and self._is_asleep

    def _touch(self, method: str) -> None:
        if any(batch.second is None for batch in self.batches):
            self.touched_too_early.append(method)


def engine_at(version: int) -> tuple[VersionedEngine, AsynchronousEngine]:
    engine = VersionedEngine.__new__(VersionedEngine)
    engine._engine = asynchronous = AsynchronousEngine()  # type: ignore[assignment]
    engine._unfinished, engine._early, engine.is_updating = set(), [], False
    engine.replace_weights([{"version": version}], version)
    return engine, asynchronous


def bucket_by_bucket(engine: VersionedEngine, version: int) -> None:
    engine.begin_update()
    engine.load({"version": version})
    engine.finish_update(version)


def commit(engine: VersionedEngine, version: int) -> None:
    engine.replace_weights([{"version": version}], version)


def drained(engine: VersionedEngine) -> dict[str, Tracked]:
    """The requests, run to their ends."""
    sampled: list[SampledRequest] = []
    while engine.has_unfinished_requests():
        sampled += engine.step()
    return {each.request_id: each.outputs[0] for each in sampled}


@pytest.mark.parametrize("publish", [commit, bucket_by_bucket])
@pytest.mark.parametrize("steps_before", range(6))
def test_no_token_is_of_two_versions_and_each_is_labelled_with_its_own(
    publish: Callable[[VersionedEngine, int], None], steps_before: int
) -> None:
    engine, asynchronous = engine_at(1)
    engine.add_request("short", {"prompt_token_ids": [2]}, 2)
    engine.add_request("long", {"prompt_token_ids": [2]}, 5)
    sampled: list[SampledRequest] = []
    for _ in range(steps_before):
        sampled += engine.step()
    publish(engine, 2)
    engine.add_request("later", {"prompt_token_ids": [2]}, 2)
    done = {each.request_id: each.outputs[0] for each in sampled} | drained(engine)
    assert {name: len(request.tokens) for name, request in done.items()} == {"short": 2, "long": 5, "later": 2}
    for request in done.values():
        assert [str(first) for first, _ in request.tokens] == request.labels
        assert all(first == second for first, second in request.tokens)
    assert {*done["later"].labels} == {"2"} and not asynchronous.touched_too_early


def test_weights_touched_under_a_running_batch_make_a_token_of_two_versions() -> None:
    """So that the test above means something."""
    engine, asynchronous = engine_at(1)
    engine.add_request("long", {"prompt_token_ids": [2]}, 5)
    engine.step()
    engine.step()
    asynchronous.collective_rpc("update_weights", ({"version": 2},))
    assert (1, 2) in drained(engine)["long"].tokens and asynchronous.touched_too_early == ["update_weights"]


@pytest.mark.parametrize(
    "action", [lambda engine: engine.drop_update(), lambda engine: engine.sleep()], ids=["drop", "sleep"]
)
def test_memory_is_touched_when_no_batch_is_in_flight(action: Callable[[VersionedEngine], Any]) -> None:
    engine, asynchronous = engine_at(1)
    engine.add_request("long", {"prompt_token_ids": [2]}, 5)
    engine.step()
    action(engine)
    assert not asynchronous.touched_too_early


def test_after_a_dropped_update_nothing_of_before_comes_and_the_next_version_samples() -> None:
    engine, _ = engine_at(1)
    engine.add_request("ends now", {"prompt_token_ids": [2]}, 1)
    engine.step()
    engine.begin_update()
    engine.drop_update()
    assert not engine.has_unfinished_requests() and engine.step() == []
    commit(engine, 3)
    engine.add_request("again", {"prompt_token_ids": [2]}, 2)
    assert {*drained(engine)["again"].labels} == {"3"}


@pytest.mark.parametrize("sleeps", [True, False])
def test_only_an_engine_that_takes_turns_can_sleep(sleeps: bool, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(versioned, "has_gpu", lambda: True)
    spec = EngineSpec(str(tiny_model), "bfloat16", 64, load_weights=False, sleeps=sleeps)
    assert versioned.engine_args(spec, RolloutConfig()).enable_sleep_mode == sleeps


def test_an_engine_that_is_asleep_takes_weights_and_samples_when_it_is_awake() -> None:
    engine, asynchronous = engine_at(1)
    engine.sleep()
    commit(engine, 2)
    engine.add_request("asked", {"prompt_token_ids": [2]}, 1)
    assert asynchronous.is_sleeping() and engine.step() == []
    engine.wake()
    assert drained(engine)["asked"].tokens == [(2, 2)]
