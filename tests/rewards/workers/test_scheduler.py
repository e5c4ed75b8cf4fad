from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config import RewardConfigError, RewardsConfig
from rewards.function import Outcome
from rewards.registry import UnknownTaskError
from rewards.workers.failures import RewardFailure
from rewards.workers.scheduler import AHEAD_S, MAX_AHEAD, Job, Ledger
from rollout.types.completions import Group

MakeGroup = Callable[..., Group]
GOOD = (Outcome("ok", {"correctness": 1.0, "tidy": 1.0}, seconds=1e-5),)
TIDY = (Outcome("ok", {"correctness": 0.0, "tidy": 1.0}),)
LATE = (Outcome("timeout", {}, "not marked within 2.5 s"),)
BROKEN = (Outcome("error", {}, "ValueError: bad text"),)


def ledger_of(**settings: Any) -> Ledger:
    weights = {"correctness": 0.9, "tidy": 0.1}
    return Ledger(RewardsConfig(**{"weights": weights, "tasks": {"hostile": "hostile_rewards:act"}, **settings}))


@pytest.fixture
def ledger() -> Ledger:
    return ledger_of()


def whole(ledger: Ledger) -> Job:
    return ledger.queue.popleft()


def statuses(group: Group) -> list[str]:
    return [reward.status for reward in group.rewards]


def test_a_group_that_returns(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a", "b"]))
    job = whole(ledger)
    assert job.texts == ("a", "b")
    assert ledger.num_pending == 1
    ledger.settle(job, [GOOD, TIDY])
    (group,) = ledger.take_finished()
    assert group.totals.tolist() == [1.0, 0.1]
    assert ledger.num_pending == 0
    assert ledger.take_finished() == []


def test_functions_get_the_assistants_whole_turn(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a", "b"], assistant_prefix="<think>"))
    assert whole(ledger).texts == ("<think>a", "<think>b")


def test_failures_are_counted_and_logged_with_their_reason(
    ledger: Ledger, make_group: MakeGroup, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.enqueue(make_group(["a", "b", "c", "d"], prompt_id="train/000123"))
    not_a_number = (Outcome("ok", {"correctness": float("nan"), "tidy": 1.0}),)
    with caplog.at_level(logging.WARNING):
        ledger.settle(whole(ledger), [GOOD, LATE, BROKEN, not_a_number])
    assert statuses(ledger.take_finished()[0]) == ["ok", "timeout", "error", "error"]
    assert (ledger.failures.timeouts, ledger.failures.errors) == (1, 2)
    assert "train/000123, completion 2, hostile_rewards:act: error: ValueError: bad text" in caplog.text
    assert "completion 3" in caplog.text


def test_what_a_dead_worker_had_is_given_once_more(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a", "b"]))
    ledger.enqueue(make_group(["other"]))
    ledger.died(whole(ledger))
    again = whole(ledger)
    assert again.texts == ("a", "b")
    ledger.died(again)
    assert statuses(ledger.take_finished()[0]) == ["error", "error"]
    assert (ledger.failures.errors, ledger.failures.timeouts) == (2, 0)
    assert whole(ledger).texts == ("other",)


def test_a_recipe_may_stop_at_a_failure(make_group: MakeGroup) -> None:
    ledger = ledger_of(on_timeout="stop", on_error="stop")
    group = make_group(["a"], prompt_id="train/000123")
    ledger.enqueue(group)
    with pytest.raises(
        RewardFailure, match=r"train/000123.*hostile_rewards:act.*within 2\.5 s.*deadlines_s.*on_timeout"
    ):
        ledger.settle(whole(ledger), [LATE])
    ledger.enqueue(group)
    with pytest.raises(RewardFailure, match=r"train/000123.*ValueError: bad text.*rewards\.on_error = \"zero\""):
        ledger.settle(whole(ledger), [BROKEN])


def settle_all(ledger: Ledger, make_group: MakeGroup, outcomes: Sequence[tuple[Outcome, ...]]) -> None:
    ledger.enqueue(make_group(["a"] * len(outcomes)))
    ledger.settle(whole(ledger), outcomes)


def test_too_many_failures_end_the_run_and_say_what_failed(make_group: MakeGroup) -> None:
    ledger = ledger_of(max_failed_share=0.2)
    settle_all(ledger, make_group, [BROKEN] * 30)  # too few to tell
    settle_all(ledger, make_group, [GOOD] * 33)
    with pytest.raises(RewardFailure) as stop:
        settle_all(ledger, make_group, [LATE])
    assert "31 of the last 64 completions" in str(stop.value)
    assert "rewards.max_failed_share = 0.2" in str(stop.value)
    assert "hostile_rewards:act: 30 × error, such as 'ValueError: bad text' (prompt train/7, completion 29)" in str(
        stop.value
    )
    assert "hostile_rewards:act: 1 × timeout, such as 'not marked within 2.5 s'" in str(stop.value)


def test_failures_long_ago_are_forgotten(make_group: MakeGroup) -> None:
    ledger = ledger_of(max_failed_share=0.2)
    settle_all(ledger, make_group, [GOOD] * 412 + [BROKEN] * 100 + [GOOD] * 512 + [BROKEN] * 102)
    with pytest.raises(RewardFailure, match="103 of the last 512 completions"):
        settle_all(ledger, make_group, [BROKEN])


def test_a_share_of_1_never_stops(make_group: MakeGroup) -> None:
    ledger = ledger_of(max_failed_share=1.0)
    settle_all(ledger, make_group, [BROKEN] * 200)
    assert ledger.failures.errors == 200


def test_mistakes_in_the_recipe_are_not_rewards(ledger: Ledger, make_group: MakeGroup) -> None:
    with pytest.raises(UnknownTaskError):
        ledger.enqueue(make_group(["a"], task="hostle"))
    assert ledger.num_pending == 0
    ledger.enqueue(make_group(["a"]))
    with pytest.raises(RewardConfigError):
        ledger.settle(whole(ledger), [(Outcome("ok", {"correct": 1.0, "tidy": 1.0}),)])


def test_a_group_without_completions_is_done_at_once(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group([]))
    assert [group.rewards for group in ledger.take_finished()] == [()]


def took(ledger: Ledger, make_group: MakeGroup, seconds: float) -> None:
    ledger.enqueue(make_group(["a"]))
    ledger.settle(whole(ledger), [(Outcome("ok", {"correctness": 1.0, "tidy": 1.0}, seconds=seconds),)])


def test_work_is_handed_out_by_how_long_it_takes(make_group: MakeGroup) -> None:
    unknown, fast, slow = ledger_of(), ledger_of(), ledger_of()
    took(fast, make_group, 1e-6)
    took(slow, make_group, AHEAD_S / 5)
    for ledger in (unknown, fast, slow):
        for _ in range(200):
            ledger.enqueue(make_group(["a"] * 8))
    assert [job.indices for job in unknown.next_jobs(0)] == [(0,)]
    assert unknown.next_jobs(1) == []
    assert sum(len(job.indices) for job in fast.next_jobs(0)) == MAX_AHEAD
    assert [job.indices for job in slow.next_jobs(0)] == [(0, 1, 2, 3, 4)]
    assert [job.indices for job in slow.next_jobs(2)] == [(5, 6, 7)]
    assert slow.next_jobs(3) == []


@given(data=st.data())
def test_each_completion_gets_exactly_one_reward_whatever_workers_do(
    make_group: MakeGroup, data: st.DataObject
) -> None:
    """Workers finish, die and are given work in any order; rewards must be those of the right completions."""
    ledger = ledger_of(max_failed_share=1.0, weights={"correctness": 1.0})
    sizes = data.draw(st.lists(st.integers(0, 5), max_size=6))
    for number, size in enumerate(sizes):
        ledger.enqueue(make_group([str(10 * number + index) for index in range(size)], prompt_id=str(number)))
    out: list[Job] = []
    finished: list[Group] = []
    while ledger.queue or out:
        if ledger.queue and (not out or data.draw(st.booleans())):
            out += ledger.next_jobs(0)
            continue
        job = out.pop(data.draw(st.integers(0, len(out) - 1)))
        if data.draw(st.booleans()):
            ledger.settle(job, [(Outcome("ok", {"correctness": float(text)}, seconds=0.02),) for text in job.texts])
        else:
            ledger.died(job)
        finished += ledger.take_finished()
    finished += ledger.take_finished()
    assert sorted(int(group.prompt.id) for group in finished) == list(range(len(sizes)))
    assert ledger.num_pending == 0
    num_lost = 0
    for group in finished:
        for completion, reward in zip(group.completions, group.rewards, strict=True):
            assert reward.status == "error" or reward.total == float(completion.text)
            num_lost += reward.status == "error"
    assert ledger.failures.errors == num_lost
