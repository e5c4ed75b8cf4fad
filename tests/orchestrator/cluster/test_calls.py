"""Waiting for calls of actors: whoever answers is taken, whoever is late, hangs, refuses or died is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from orchestrator.cluster import calls
from orchestrator.cluster.calls import gather_calls, wait_for
from orchestrator.cluster.results import RemoteCallError


class Ref:
    """A call that is ready after so many looks, never by default, and what comes of it."""

    def __init__(self, result: Any = None, after: int | None = None) -> None:
        self.result, self.after = result, after


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes by one second a look."""
    now, looks = [0.0], [0]

    def ready_of(refs: Sequence[Ref], timeout_s: float, pause_s: float = 0.0) -> list[Ref]:
        looks[0] += 1
        now[0] += 1.0
        return [ref for ref in refs if ref.after is not None and ref.after < looks[0]]

    def result_of(ref: Ref, name: str, call: str) -> Any:
        if isinstance(ref.result, Exception):
            raise ref.result
        return ref.result

    def results_at_once(refs: Sequence[Ref]) -> dict[Ref, Any]:
        failed = any(isinstance(ref.result, Exception) for ref in refs)
        return {} if failed else {ref: ref.result for ref in refs}

    monkeypatch.setattr(calls, "ready_of", ready_of)
    monkeypatch.setattr(calls, "results_at_once", results_at_once)
    monkeypatch.setattr(calls, "result_of", result_of)
    monkeypatch.setattr("orchestrator.cluster.calls.time.monotonic", lambda: now[0])
    return now


class AlwaysBusy:
    """Work beside a call that has something ready at every look."""

    def __init__(self) -> None:
        self.passes = 0

    def refs(self) -> list[Ref]:
        return [Ref(after=0)]

    def advance(self, ready: Sequence[Ref]) -> None:
        self.passes += bool(ready)


def test_results_come_in_the_order_of_the_calls_and_what_goes_on_beside_is_looked_after() -> None:
    beside = AlwaysBusy()
    assert [*wait_for({"a": Ref(1, after=3), "b": Ref(2, after=1)}, "update", 60, "", beside).items()] == [
        ("a", 1),
        ("b", 2),
    ]
    assert beside.passes == 4


def test_the_first_failure_is_raised_while_others_still_wait() -> None:
    with pytest.raises(ValueError, match="peer is gone"):
        wait_for({"a": Ref(), "b": Ref(ValueError("the peer is gone"), after=1)}, "update", 60, "")


@pytest.mark.parametrize("beside", [None, AlwaysBusy()], ids=["nothing beside", "work beside that never rests"])
def test_who_is_late_is_named_with_the_call_and_the_advice(beside: AlwaysBusy | None, now: list[float]) -> None:
    with pytest.raises(RemoteCallError, match=r"^b, c did not answer update within 5 s: look at its log$"):
        wait_for({"a": Ref(1, after=1), "c": Ref(), "b": Ref()}, "update", 5, "look at its log", beside)
    assert now[0] < 10


class Listening:
    """Finds that the actor of that name hangs, after three seconds."""

    def __init__(self, name: str, now: list[float]) -> None:
        self._name, self._now = name, now

    def hanging(self, pending: Collection[str]) -> Mapping[str, str]:
        return {self._name: "no heartbeat for 3 s"} if self._now[0] > 3 and self._name in pending else {}

    def progress(self, name: str) -> str:
        return "" if name == self._name else f"{self._now[0] // 40:g} microbatches done"


def test_of_several_each_has_its_own_outcome_and_one_that_hangs_is_waited_for_no_longer(now: list[float]) -> None:
    outcomes = gather_calls(
        {
            "late": Ref(),
            "silent": Ref(after=1000),
            "good": Ref(7, after=2),
            "refuses": Ref(ValueError("no such layer"), after=2),
            "dead": Ref(RemoteCallError("dead died during stage"), after=6),
        },
        "stage",
        10,
        "raise the deadline",
        Listening("silent", now),
    )
    assert outcomes.answered == {"good": 7}
    assert outcomes.refused == {"refuses": "refuses refused stage: ValueError: no such layer"}
    assert outcomes.died == {"dead": "dead died during stage", "silent": "silent hangs in stage: no heartbeat for 3 s"}
    assert outcomes.late == {"late": "late did not answer stage within 10 s: raise the deadline"}


def test_with_all_others_hanging_nobody_waits_for_the_deadline(now: list[float]) -> None:
    gather_calls({"silent": Ref()}, "stage", 1000, liveness=Listening("silent", now))
    assert now[0] < 5


def test_one_that_hangs_is_named_at_once_by_who_wants_every_answer(now: list[float]) -> None:
    with pytest.raises(RemoteCallError, match=r"^silent hangs in update: no heartbeat for 3 s$"):
        wait_for({"good": Ref(), "silent": Ref()}, "update", 1000, "", liveness=Listening("silent", now))
    assert now[0] < 5


def test_who_is_slow_is_waited_for_to_the_deadline_and_its_progress_is_told(now: list[float], caplog) -> None:
    with pytest.raises(RemoteCallError, match=r"^slow \(5 microbatches done\) did not answer update within 200 s"):
        wait_for({"slow": Ref()}, "update", 200, "", liveness=Listening("another", now))
    assert "nothing has moved" not in caplog.text  # for the 60 s that a line takes


def test_who_does_not_move_is_told_of_in_the_log(now: list[float], caplog) -> None:
    with pytest.raises(RemoteCallError):
        wait_for({"stuck": Ref()}, "update", 200, "", liveness=Listening("stuck", [0.0]))
    assert "nothing has moved for 60 s: waiting for stuck to answer update" in caplog.text
