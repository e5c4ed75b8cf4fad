"""What the log says when nothing moves, and when that ends a run."""

import logging

import pytest

from orchestrator.cluster.watchdog import Watchdog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which only the test moves."""
    now = [100.0]
    monkeypatch.setattr("orchestrator.cluster.watchdog.time.monotonic", lambda: now[0])
    return now


def test_it_says_who_waits_for_whom_after_a_minute_and_each_minute_after(clock, caplog) -> None:
    watchdog = Watchdog(lambda: "generator-1 (3 prompts)", quiet_s=60)
    told = []
    for seconds in (0, 59, 2, 30, 31, 10):
        clock[0] += seconds
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            watchdog.look()
        told.append(caplog.messages)
    waiting = "waiting for generator-1 (3 prompts)"
    assert told == [
        [],
        [],
        [f"nothing has moved for 61 s: {waiting}"],
        [],
        [f"nothing has moved for 122 s: {waiting}"],
        [],
    ]


def test_whatever_moves_keeps_it_quiet(clock, caplog) -> None:
    watchdog = Watchdog(lambda: "nobody", quiet_s=60)
    for _ in range(5):
        clock[0] += 50
        watchdog.moved()
        watchdog.look()
    assert not caplog.messages and watchdog.quiet_for_s == 0
