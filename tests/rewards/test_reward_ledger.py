from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from rewards.config import RewardsConfig
from rewards.ledger import Ledger, RewardFailure
from rewards.registry import UnknownTaskError
from rewards.score import RewardConfigError
from rollout.types import Group

MakeGroup = Callable[..., Group]
GOOD = {"correctness": 1.0, "format": 1.0}
HOSTILE = {"hostile": "hostile_rewards:act"}


def statuses(group: Group) -> list[str]:
    return [reward.status for reward in group.rewards]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(RewardsConfig(functions=HOSTILE))


def test_a_batch_that_returns(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a", "b"]))
    job = ledger.queue.popleft()
    assert job.texts == ["a", "b"]
    assert ledger.num_pending == 1
    ledger.settle(job, [GOOD, {"correctness": 0.0, "format": 1.0}])
    (group,) = ledger.take_finished()
    assert group.totals.tolist() == [1.0, 0.1]
    assert ledger.num_pending == 0
    assert ledger.take_finished() == []


def test_a_late_batch_is_tried_one_by_one_ahead_of_the_rest(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a", "b", "c"]))
    ledger.enqueue(make_group(["other"]))
    ledger.late(ledger.queue.popleft())
    assert [job.texts for job in ledger.queue] == [["a"], ["b"], ["c"], ["other"]]
    assert ledger.timeouts == 0
    first, second, third = (ledger.queue.popleft() for _ in range(3))
    ledger.settle(third, [GOOD])
    ledger.late(second)
    ledger.settle(first, [GOOD])
    (group,) = ledger.take_finished()
    assert statuses(group) == ["ok", "timeout", "ok"]
    assert group.totals.tolist() == [1.0, 0.0, 1.0]
    assert ledger.timeouts == 1


def test_a_group_of_one_has_had_its_full_deadline(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a"]))
    ledger.late(ledger.queue.popleft())
    assert statuses(ledger.take_finished()[0]) == ["timeout"]


def test_a_death_is_tried_again_once(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a"]))
    ledger.died(ledger.queue.popleft())
    assert ledger.take_finished() == []
    ledger.died(ledger.queue.popleft())
    assert statuses(ledger.take_finished()[0]) == ["error"]
    assert (ledger.errors, ledger.timeouts) == (1, 0)


def test_an_exception_is_logged_with_its_text(
    ledger: Ledger, make_group: MakeGroup, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.enqueue(make_group(["a", "b"], prompt_id="train/000123"))
    with caplog.at_level(logging.WARNING):
        ledger.settle(ledger.queue.popleft(), [GOOD, "ValueError: bad text"])
    assert statuses(ledger.take_finished()[0]) == ["ok", "error"]
    assert "train/000123, completion 1" in caplog.text
    assert "ValueError: bad text" in caplog.text


def test_nan_is_counted_as_an_error(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group(["a"]))
    ledger.settle(ledger.queue.popleft(), [{"correctness": float("nan"), "format": 1.0}])
    assert statuses(ledger.take_finished()[0]) == ["error"]
    assert ledger.errors == 1


def test_a_recipe_may_stop_at_a_failure(make_group: MakeGroup) -> None:
    ledger = Ledger(RewardsConfig(functions=HOSTILE, on_timeout="stop", on_error="stop", deadline_s=2.5))
    ledger.enqueue(make_group(["a"], prompt_id="train/000123"))
    job = ledger.queue.popleft()
    with pytest.raises(RewardFailure, match=r"train/000123.*correctness, format.*deadline_s = 2\.5 s.*on_timeout"):
        ledger.late(job)
    with pytest.raises(RewardFailure, match=r"train/000123.*ValueError: no.*rewards\.on_error = \"zero\""):
        ledger.settle(job, ["ValueError: no"])


def test_mistakes_in_the_recipe_are_not_rewards(ledger: Ledger, make_group: MakeGroup) -> None:
    with pytest.raises(UnknownTaskError):
        ledger.enqueue(make_group(["a"], task="countdwon"))
    assert ledger.num_pending == 0
    ledger.enqueue(make_group(["a"]))
    with pytest.raises(RewardConfigError):
        ledger.settle(ledger.queue.popleft(), [{"correct": 1.0, "format": 1.0}])


def test_a_group_without_completions_is_done_at_once(ledger: Ledger, make_group: MakeGroup) -> None:
    ledger.enqueue(make_group([]))
    assert [group.rewards for group in ledger.take_finished()] == [()]
