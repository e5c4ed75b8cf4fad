"""Real processes that call reward functions that are ``async def``: many at a time, each with its own deadline."""

from __future__ import annotations

import asyncio
import time

import pytest

from rewards.function import RewardFunction
from tests.support.reward_workers import grade, statuses_of, tasks_of, working

DEADLINE_S = 0.6


def waiting(deadline_s: float = DEADLINE_S) -> RewardFunction:
    return RewardFunction("waiting", "waiting_rewards:waiting", ("waiting",), deadline_s=deadline_s)


def graded(texts: list[str], *functions: RewardFunction, **settings: int) -> tuple[list[list[str]], float]:
    """Return the statuses, and the seconds that it took once the functions were loaded."""

    async def run() -> tuple[list[list[str]], float]:
        async with working(*functions, **settings) as worker:
            start = time.monotonic()
            return statuses_of(await grade(worker, tasks_of(texts, *functions))), time.monotonic() - start

    return asyncio.run(run())


def test_many_wait_at_a_time() -> None:
    found, seconds = graded(["sleep 0.5"] * 40, waiting(20))
    assert found == [["ok"]] * 40
    assert seconds < 10  # 20 s one after another


def test_no_more_than_so_many_at_a_time() -> None:
    found, seconds = graded(["sleep 0.2"] * 6, waiting(20), max_in_flight=2)
    assert found == [["ok"]] * 6
    assert seconds >= 0.6


def test_what_is_late_fails_alone() -> None:
    found, _ = graded(["sleep 0.1", "hang", "sleep 0.1", "stubborn", "sleep 5", "together 5", "sleep 0"], waiting())
    assert found == [["ok"], ["timeout"], ["ok"], ["timeout"], ["timeout"], ["timeout"], ["ok"]]


def test_what_blocks_all_others_fails_alone() -> None:
    found, _ = graded(["sleep 0.1", "spin", "sleep 0.1", "sleep 0"], waiting())
    assert found == [["ok"], ["timeout"], ["ok"], ["ok"]]


@pytest.mark.parametrize("bad", [["die"], ["leave", "raise"]])
def test_what_dies_or_raises_fails_alone(bad: list[str]) -> None:
    found, _ = graded(["sleep 0.3", *bad, "sleep 0.3"], waiting(20))
    assert found == [["ok"], *[["error"]] * len(bad), ["ok"]]


def test_memory_is_limited() -> None:
    assert graded(["hog", "sleep 0"], waiting(20), memory_gib=1)[0] == [["error"], ["ok"]]


def test_what_keeps_the_loop_busy_does_not_make_others_late() -> None:
    """Four calls of 0.4 s each block the loop in turn; none is past its 0.6 s, and neither is who waits beside them."""
    found, _ = graded(["sleep 0.3", *["busy 0.4"] * 4], waiting())
    assert found == [["ok"]] * 5


def test_more_are_graded_after_some_that_cannot_be_cancelled() -> None:
    async def run() -> None:
        async with working(waiting()) as worker:
            assert statuses_of(await grade(worker, tasks_of(["stubborn"], waiting()))) == [["timeout"]]
            assert statuses_of(await grade(worker, tasks_of(["sleep 0"] * 3, waiting()))) == [["ok"]] * 3
            server, own_server, process = worker._supervisor.pids  # the process is that of the last three
            assert len({server, own_server, process}) == 3

    asyncio.run(run())


def test_functions_that_wait_come_beside_others() -> None:
    plain = RewardFunction("guarded", "hostile_rewards:guarded", ("guarded",), deadline_s=DEADLINE_S)
    hasty = RewardFunction("hasty", "waiting_rewards:waiting", ("hasty",), deadline_s=0.1)
    found, _ = graded(["sleep 0.3", "guarded hangs"], waiting(), plain, hasty)
    assert found == [["ok", "ok", "timeout"], ["ok", "timeout", "ok"]]
