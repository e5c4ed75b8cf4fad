"""The memory of a run's processes while it goes on: told with what they answer anyway."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from learner.metrics import Update
from orchestrator.fleet import heartbeats
from orchestrator.fleet.learner_group import LearnerGroup
from orchestrator.fleet.rollouts import RolloutStream
from rollout.config import RolloutConfig
from rollout.types.sampling import Heartbeat


def generator(peak_gib: float) -> SimpleNamespace:
    """One that is asked for prompts, and whose heartbeat is there at once."""
    beat = Heartbeat(policy_version=1, num_unfinished=1, decoding_steps=1, peak_gib=peak_gib)
    return SimpleNamespace(heartbeat=SimpleNamespace(remote=lambda: beat))


class FakePool:
    num_pending, restarts, is_full = 0, 0, False

    def __init__(self) -> None:
        self.peak_gib = 0.0

    def poll(self) -> list[Any]:
        return []


class FakeGenerators:
    restarts = 0

    def __init__(self, *peaks: float) -> None:
        self.serving = {f"generator-{index}": generator(peak) for index, peak in enumerate(peaks)}

    def collect_started(self) -> None: ...


def test_generators_tell_it_with_their_heartbeats_and_reward_workers_with_their_grades(monkeypatch) -> None:
    monkeypatch.setattr(heartbeats, "ready_of", lambda refs, _: list(refs))
    monkeypatch.setattr(heartbeats, "result_of", lambda ref, *_: ref)
    monkeypatch.setattr(heartbeats, "EVERY_S", 0.0)
    generators, pool = FakeGenerators(1.5, 2.5), FakePool()
    stream = RolloutStream(generators, pool, RolloutConfig(), serve_restarted=lambda: None)
    assert not [key for key in stream.metrics() if key.endswith("_gib")]  # nobody told: 0 would be a lie
    stream._in_flight = {name: {"train/0": SimpleNamespace()} for name in generators.serving}
    for _ in range(2):  # asked, and heard
        stream.advance([])
    pool.peak_gib = 0.25
    stream._in_flight = {}
    stream.advance([])  # idle ones are not asked, and what they told stays
    peaks = {key: value for key, value in stream.metrics().items() if key.endswith("_gib")}
    assert peaks == {"system/generator_peak_gib": 2.5, "system/reward_worker_peak_gib": 0.25}


class Ranks(LearnerGroup):
    """Two ranks whose updates are there."""

    def __init__(self) -> None:
        pass

    def _call(self, method: str, *args: Any) -> list[Any]:
        return [Update({"optim/loss": 1.0}, peak_gib=gib) for gib in (1.5, 3.5)]


def test_ranks_tell_it_with_their_updates() -> None:
    assert Ranks().supervised_update(1, []) == {"optim/loss": 1.0, "system/learner_peak_gib": 3.5}


def test_it_is_no_part_of_what_ranks_must_agree_on() -> None:
    assert Update({}, peak_gib=1.0) == Update({}, peak_gib=2.0)


@pytest.mark.parametrize("module", ["rollout.actor.Generator", "learner.actor.LearnerRank"])
def test_a_process_measures_itself(module: str) -> None:
    name, _, actor = module.rpartition(".")
    kind = getattr(__import__(name, fromlist=[actor]), actor)
    assert 0.01 < kind.peak_memory_gib(SimpleNamespace()) < 100
