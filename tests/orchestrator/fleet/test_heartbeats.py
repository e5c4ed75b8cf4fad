"""When an actor counts as one that hangs, by a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from orchestrator.fleet import heartbeats
from orchestrator.fleet.heartbeats import Heartbeats, Listener
from rollout.types.sampling import Heartbeat

LOOK_S = 1.0
"""Between two looks, as where calls are waited for."""


@dataclass(eq=False)
class Ref:
    ready_at: float
    answer: Any


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def actor(self, answer: Any, delay_s: float = 0.1, stops_after: float = 1e9) -> SimpleNamespace:
        """Return one that answers a heartbeat after so many seconds, and none that it would answer after it stops."""
        begin = self.now

        def asked() -> Ref:
            is_answered = self.now + delay_s < begin + stops_after
            return Ref(self.now + delay_s if is_answered else 1e9, answer)

        return SimpleNamespace(heartbeat=SimpleNamespace(remote=asked))

    def found(self, look: Callable[[], dict[str, str]], within_s: float) -> tuple[float, dict[str, str]]:
        """Look on until somebody hangs. Return after how many seconds, and who."""
        begin = self.now
        while not (hanging := look()) and self.now - begin < within_s:
            self.now += LOOK_S
        return self.now - begin, hanging


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()

    def result_of(ref: Ref, *_: str) -> Any:
        if isinstance(ref.answer, Exception):
            raise ref.answer
        return ref.answer

    monkeypatch.setattr(heartbeats.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(heartbeats, "result_of", result_of)
    monkeypatch.setattr(heartbeats, "ready_of", lambda refs, _: [ref for ref in refs if ref.ready_at <= clock.now])
    return clock


@pytest.mark.parametrize("hang_timeout_s", [0.5, 1, 2, 3, 60])
@pytest.mark.parametrize("delay_s", [0.1, 0.9])
def test_one_that_answers_never_hangs_however_short_the_time_that_is_allowed(clock, hang_timeout_s, delay_s) -> None:
    listener = Listener({"learner-0": clock.actor(7, delay_s)}, hang_timeout_s)
    assert clock.found(lambda: listener.hanging(["learner-0"]), 300)[1] == {}
    assert listener.progress("learner-0") == "7 microbatches done"


@pytest.mark.parametrize("hang_timeout_s", [1, 3, 10, 60])
@pytest.mark.parametrize("stops_after", [0, 0.5, 1.5, 20, 21.5])
def test_one_that_stops_is_found_in_time(clock, hang_timeout_s, stops_after) -> None:
    actors = {"learner-0": clock.actor(7), "learner-1": clock.actor(7, stops_after=stops_after)}
    listener = Listener(actors, hang_timeout_s)
    after, found = clock.found(lambda: listener.hanging(actors), 300)
    assert found == {"learner-1": f"its process has not answered for {hang_timeout_s} s (rollout.hang_timeout_s)"}
    assert after <= stops_after + hang_timeout_s + heartbeats.EVERY_S + LOOK_S


def test_one_whose_heartbeats_fail_is_silent_and_its_reason_needs_no_answer(clock) -> None:
    actors = {"generator-0": clock.actor(ActorUnavailableError("its node cannot be reached", None))}
    beats = Heartbeats(10)
    after, found = clock.found(lambda: beats.hanging(actors), 300)
    assert found == {"generator-0": "its process has not answered for 10 s (rollout.hang_timeout_s)"} and after <= 13


@pytest.mark.parametrize(("num_unfinished", "hangs"), [(3, True), (0, False)])
def test_an_engine_that_answers_and_decodes_nothing_hangs_where_it_has_prompts(clock, num_unfinished, hangs) -> None:
    actors = {"generator-0": clock.actor(Heartbeat(policy_version=1, num_unfinished=num_unfinished, decoding_steps=5))}
    beats = Heartbeats(10)
    _, found = clock.found(lambda: beats.hanging(actors), 300)
    assert bool(found) is hangs
    if hangs:
        assert (
            "(weights of version 1) has 3 unfinished prompts and has decoded nothing for 10 s" in found["generator-0"]
        )


def test_a_computer_that_slept_while_a_heartbeat_was_on_its_way_blames_nobody(clock) -> None:
    actors = {"learner-0": clock.actor(7, delay_s=3602)}
    listener = Listener(actors, 10)
    clock.now += heartbeats.EVERY_S
    listener.hanging(actors)
    clock.now += 3600
    assert listener.hanging(actors) == {}
    clock.now += 2
    assert listener.hanging(actors) == {} and listener.progress("learner-0") == "7 microbatches done"


def test_a_short_call_costs_no_heartbeat_and_one_who_is_often_busy_only_one_in_two_seconds(clock) -> None:
    asked = []
    actor = SimpleNamespace(heartbeat=SimpleNamespace(remote=lambda: asked.append(clock.now) or Ref(clock.now, 7)))
    Listener({"generator-0": actor}, 10).hanging(["generator-0"])
    assert asked == []
    beats = Heartbeats(10, must_decode=False)
    for _ in range(100):
        clock.now += 0.1
        beats.hanging({"generator-0": actor})
        beats.hanging({})
    assert len(asked) == pytest.approx(10 / heartbeats.EVERY_S, abs=1)
