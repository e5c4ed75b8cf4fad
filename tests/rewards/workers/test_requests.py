from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable

from rewards.config import RewardsConfig
from rewards.function import Outcome, RewardFunction
from rewards.score import Given
from rewards.workers.requests import GradedCompletion, GradeRequest, GroupGrading
from rollout.types.completions import Group, RewardPart
from rollout.types.packed import PackedGroup
from tests.support.reward_workers import working

MakeGroup = Callable[..., Group]
TASK = RewardFunction("hostile", "hostile_rewards:act", ("correctness",), True)
WHOLE = RewardFunction("unique", "waiting_rewards:unique", ("unique",))


def test_completions_wait_for_the_function_of_their_whole_group_and_come_once(make_group: MakeGroup) -> None:
    config = RewardsConfig(weights={"correctness": 1.0, "unique": 1.0})
    request = GradeRequest((TASK, WHOLE), 0, (0, 1))
    grading = GroupGrading(request, [make_group(["a", "b"], prompt_id="train/3")], {"unique"}, config)
    *alone, whole = grading.tasks
    assert [task.subject.texts for task in (*alone, whole)] == [("a",), ("b",), ("a", "b")]
    alone[1].found["hostile"] = Outcome("ok", {"correctness": 1.0})
    assert grading.take_ready() == []
    whole.found["unique"] = Outcome("ok", {}, each=(None, 0.5), seconds=2.0)
    (second,) = grading.take_ready()
    assert (second.position, second.reward.total, second.failures) == (1, 1.5, ())
    assert second.reward.seconds == {"hostile": 0.0, "unique": 1.0}
    alone[0].found["hostile"] = Outcome("timeout", {}, "too late")
    (first,) = grading.take_ready()
    assert (first.position, first.reward.total, first.reward.status) == (0, 0.0, "timeout")
    assert [(failure.function, failure.reason, failure.place) for failure in first.failures] == [
        ("hostile_rewards:act", "too late", "prompt train/3, completion 0")
    ]
    assert grading.take_ready() == []


def test_parts_that_an_environment_gives_need_no_function(make_group: MakeGroup) -> None:
    async def graded() -> list[GradedCompletion]:
        async with working() as worker:
            await worker.load([], config=RewardsConfig(weights={"won": 2.0}))
            given = tuple(Given((RewardPart("won", value),), "game") for value in (1.0, 0.5))
            requests = pickle.dumps([tuple(GradeRequest((), 0, (1, 2), given))])
            packed = PackedGroup.of(make_group(["a", "b", "c"]))
            reports = [pickle.loads(report) async for report, _, _ in worker.grade_groups(requests, packed)]
            return [found for report in reports for _, group in report for found in group]

    assert [(each.position, each.reward.total) for each in asyncio.run(graded())] == [(1, 2.0), (2, 1.0)]
