from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config import RewardConfigError, RewardsConfig
from rewards.environments.given_parts import MAX_UNDECLARED
from rewards.environments.registry import EnvironmentSpec
from rewards.function import Outcome
from rewards.registry import UnknownTaskError
from rewards.signature import Kind
from rewards.workers.failures import RewardFailure
from rewards.workers.requests import GroupGrading
from rewards.workers.scheduler import AHEAD_S, MAX_AHEAD, Scheduler, WorkItem
from rollout.types.completions import Group
from tests.support.groups import in_turns

MakeGroup = Callable[..., Group]
GOOD = (Outcome("ok", {"correctness": 1.0, "tidy": 1.0}, seconds=1e-5),)
TIDY = (Outcome("ok", {"correctness": 0.0, "tidy": 1.0}),)
LATE = (Outcome("timeout", {}, "not graded within 2.5 s"),)
BROKEN = (Outcome("error", {}, "ValueError: bad text"),)


def scheduler_of(**settings: Any) -> Scheduler:
    weights = {"correctness": 0.9, "tidy": 0.1}
    return Scheduler(RewardsConfig(**{"weights": weights, "tasks": {"hostile": "hostile_rewards:act"}, **settings}))


@pytest.fixture
def scheduler() -> Scheduler:
    return scheduler_of()


def take(scheduler: Scheduler) -> WorkItem:
    return scheduler.queue.popleft()


def grading(scheduler: Scheduler, item: WorkItem) -> GroupGrading:
    """Return what a worker makes of an item."""
    return GroupGrading(item.request(0), [item.pending.group], frozenset(), scheduler._config)


def record(scheduler: Scheduler, item: WorkItem, outcomes: Sequence[tuple[Outcome, ...]]) -> None:
    """Let a worker answer with these outcomes of each completion's functions."""
    asked = grading(scheduler, item)
    for task, made in zip(asked.tasks, outcomes, strict=True):
        task.found.update({function.name: outcome for function, outcome in zip(task.functions, made, strict=True)})
    scheduler.record(item, asked.take_ready())


def texts(scheduler: Scheduler, item: WorkItem) -> list[str]:
    return [text for task in grading(scheduler, item).tasks for text in task.subject.texts]


def statuses(group: Group) -> list[str]:
    return [reward.status for reward in group.rewards]


def test_a_group_that_returns(scheduler: Scheduler, make_group: MakeGroup) -> None:
    scheduler.enqueue(make_group(["a", "b"]))
    item = take(scheduler)
    assert texts(scheduler, item) == ["a", "b"]
    assert scheduler.num_pending == 1
    record(scheduler, item, [GOOD, TIDY])
    (group,) = scheduler.take_finished()
    assert group.totals.tolist() == [1.0, 0.1]
    assert scheduler.num_pending == 0
    assert scheduler.take_finished() == []


def test_functions_get_the_assistants_whole_turn(scheduler: Scheduler, make_group: MakeGroup) -> None:
    scheduler.enqueue(make_group(["a", "b"], assistant_prefix="<think>"))
    assert texts(scheduler, take(scheduler)) == ["<think>a", "<think>b"]


def test_functions_get_nothing_that_an_environment_said(scheduler: Scheduler, make_group: MakeGroup) -> None:
    spoken = in_turns(make_group(["a"], assistant_prefix="<think>"), "3*4", "<answer>12</answer>", "so what?")
    scheduler.enqueue(spoken)
    assert texts(scheduler, take(scheduler)) == ["<think>3*4\nso what?"]


def test_failures_are_counted_and_logged_with_their_reason(
    scheduler: Scheduler, make_group: MakeGroup, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler.enqueue(make_group(["a", "b", "c", "d"], prompt_id="train/000123"))
    not_a_number = (Outcome("ok", {"correctness": float("nan"), "tidy": 1.0}),)
    with caplog.at_level(logging.WARNING):
        record(scheduler, take(scheduler), [GOOD, LATE, BROKEN, not_a_number])
    assert statuses(scheduler.take_finished()[0]) == ["ok", "timeout", "error", "error"]
    assert (scheduler.failures.timeouts, scheduler.failures.errors) == (1, 2)
    assert "train/000123, completion 2, hostile_rewards:act: error: ValueError: bad text" in caplog.text
    assert "completion 3" in caplog.text


def test_what_a_dead_worker_had_is_given_once_more(scheduler: Scheduler, make_group: MakeGroup) -> None:
    scheduler.enqueue(make_group(["a", "b", "c"]))
    scheduler.enqueue(make_group(["other"]))
    item = take(scheduler)
    record(scheduler, item._replace(completions=(1,)), [GOOD])
    scheduler.retry([item])
    again = take(scheduler)
    assert texts(scheduler, again) == ["a", "c"]
    scheduler.retry([again])
    assert statuses(scheduler.take_finished()[0]) == ["error", "ok", "error"]
    assert (scheduler.failures.errors, scheduler.failures.timeouts) == (2, 0)
    assert texts(scheduler, take(scheduler)) == ["other"]
    scheduler.retry([again])
    assert scheduler.num_pending == 1, "a batch whose last report came is not asked for again"


def test_a_recipe_may_stop_at_a_failure(make_group: MakeGroup) -> None:
    scheduler = scheduler_of(on_timeout="stop", on_error="stop")
    group = make_group(["a"], prompt_id="train/000123")
    scheduler.enqueue(group)
    with pytest.raises(
        RewardFailure, match=r"train/000123.*hostile_rewards:act.*within 2\.5 s.*deadlines_s.*on_timeout"
    ):
        record(scheduler, take(scheduler), [LATE])
    scheduler.enqueue(group)
    with pytest.raises(RewardFailure, match=r"train/000123.*ValueError: bad text.*rewards\.on_error = \"zero\""):
        record(scheduler, take(scheduler), [BROKEN])


def record_all(scheduler: Scheduler, make_group: MakeGroup, outcomes: Sequence[tuple[Outcome, ...]]) -> None:
    scheduler.enqueue(make_group(["a"] * len(outcomes)))
    record(scheduler, take(scheduler), outcomes)


def test_too_many_failures_end_the_run_and_say_what_failed(make_group: MakeGroup) -> None:
    scheduler = scheduler_of(max_failed_share=0.2)
    record_all(scheduler, make_group, [BROKEN] * 30)  # too few to tell
    record_all(scheduler, make_group, [GOOD] * 33)
    with pytest.raises(RewardFailure) as stop:
        record_all(scheduler, make_group, [LATE])
    assert "31 of the last 64 completions" in str(stop.value)
    assert "rewards.max_failed_share = 0.2" in str(stop.value)
    assert "hostile_rewards:act: 30 × error, such as 'ValueError: bad text' (prompt train/7, completion 29)" in str(
        stop.value
    )
    assert "hostile_rewards:act: 1 × timeout, such as 'not graded within 2.5 s'" in str(stop.value)


def test_failures_long_ago_are_forgotten(make_group: MakeGroup) -> None:
    scheduler = scheduler_of(max_failed_share=0.2)
    record_all(scheduler, make_group, [GOOD] * 412 + [BROKEN] * 100 + [GOOD] * 512 + [BROKEN] * 102)
    with pytest.raises(RewardFailure, match="103 of the last 512 completions"):
        record_all(scheduler, make_group, [BROKEN])


def test_a_share_of_1_never_stops(make_group: MakeGroup) -> None:
    scheduler = scheduler_of(max_failed_share=1.0)
    record_all(scheduler, make_group, [BROKEN] * 200)
    assert scheduler.failures.errors == 200


def test_mistakes_in_the_recipe_are_not_rewards(scheduler: Scheduler, make_group: MakeGroup) -> None:
    with pytest.raises(UnknownTaskError):
        scheduler.enqueue(make_group(["a"], task="hostle"))
    assert scheduler.num_pending == 0
    scheduler.enqueue(make_group(["a"]))
    with pytest.raises(RewardConfigError):
        record(scheduler, take(scheduler), [(Outcome("ok", {"correct": 1.0, "tidy": 1.0}),)])


def test_a_group_without_completions_is_done_at_once(scheduler: Scheduler, make_group: MakeGroup) -> None:
    scheduler.enqueue(make_group([]))
    assert [group.rewards for group in scheduler.take_finished()] == [()]


def took(scheduler: Scheduler, make_group: MakeGroup, seconds: float) -> None:
    scheduler.enqueue(make_group(["a"]))
    record(scheduler, take(scheduler), [(Outcome("ok", {"correctness": 1.0, "tidy": 1.0}, seconds=seconds),)])


def test_work_is_handed_out_by_how_long_it_takes(make_group: MakeGroup) -> None:
    unknown, fast, slow = scheduler_of(), scheduler_of(), scheduler_of()
    took(fast, make_group, 1e-6)
    took(slow, make_group, AHEAD_S / 5)
    for scheduler in (unknown, fast, slow):
        for _ in range(200):
            scheduler.enqueue(make_group(["a"] * 8))
    assert [item.completions for item in unknown.next_items(0)] == [(0,)]
    assert unknown.next_items(1) == []
    assert sum(len(item.completions) for item in fast.next_items(0)) == MAX_AHEAD
    assert [item.completions for item in slow.next_items(0)] == [(0, 1, 2, 3, 4)]
    assert [item.completions for item in slow.next_items(2)] == [(5, 6, 7)]
    assert [item.completions for item in slow.next_items(0)] == [(0, 1, 2, 3, 4)]
    assert slow.next_items(3) == []


def test_a_group_with_functions_of_whole_groups_goes_to_one_worker(make_group: MakeGroup) -> None:
    own = {"functions": ("waiting_rewards:unique",), "weights": {"unique": 1.0}}
    scheduler = scheduler_of(**own)
    scheduler.learn({"unique": Kind("group")})
    for _ in range(2):
        scheduler.enqueue(make_group(["a"] * 8))
    assert [item.completions for item in scheduler.next_items(0)] == [tuple(range(8))]


@given(data=st.data())
def test_each_completion_gets_exactly_one_reward_whatever_workers_do(
    make_group: MakeGroup, data: st.DataObject
) -> None:
    """Workers finish, die and are given work in any order; rewards must be those of the right completions."""
    scheduler = scheduler_of(max_failed_share=1.0, weights={"correctness": 1.0})
    sizes = data.draw(st.lists(st.integers(0, 5), max_size=6))
    for number, size in enumerate(sizes):
        scheduler.enqueue(make_group([str(10 * number + index) for index in range(size)], prompt_id=str(number)))
    out: list[WorkItem] = []
    finished: list[Group] = []
    while scheduler.queue or out:
        if scheduler.queue and (not out or data.draw(st.booleans())):
            out += scheduler.next_items(0)
            continue
        item = out.pop(data.draw(st.integers(0, len(out) - 1)))
        said = [float(text) for text in texts(scheduler, item)]
        if data.draw(st.booleans()):
            record(scheduler, item, [(Outcome("ok", {"correctness": grade}, seconds=0.02),) for grade in said])
        else:
            scheduler.retry([item])
        finished += scheduler.take_finished()
    finished += scheduler.take_finished()
    assert sorted(int(group.prompt.id) for group in finished) == list(range(len(sizes)))
    assert scheduler.num_pending == 0
    num_lost = 0
    for group in finished:
        for completion, reward in zip(group.completions, group.rewards, strict=True):
            assert reward.status == "error" or reward.total == float(completion.text)
            num_lost += reward.status == "error"
    assert scheduler.failures.errors == num_lost


def test_an_environments_parts_join_the_reward(make_group: MakeGroup) -> None:
    """Those that it says it gives are 0 where it gave none; others are logged."""
    spec = EnvironmentSpec("game", "game:Game", parts=("won", "moves"))
    settings = RewardsConfig(weights={"correctness": 0.5, "won": 0.5}, tasks={"hostile": "hostile_rewards:act"})
    scheduler = Scheduler(settings, {"game": spec})
    group = make_group(["a", "b"])
    played = replace(group.completions[0], parts={"won": 1.0, "luck": 0.25})
    group = replace(group, prompt=replace(group.prompt, environment="game"), completions=(played, group.completions[1]))
    scheduler.enqueue(group)
    record(scheduler, take(scheduler), [(Outcome("ok", {"correctness": 1.0}),)] * 2)
    (graded,) = scheduler.take_finished()
    assert graded.totals.tolist() == [1.0, 0.5]
    parts = [{part.name: part.value for part in reward.parts} for reward in graded.rewards]
    assert parts == [
        {"correctness": 1.0, "won": 1.0, "moves": 0.0, "luck": 0.25},
        {"correctness": 1.0, "won": 0.0, "moves": 0.0},
    ]


def test_a_part_that_grader_and_environment_give_is_refused(make_group: MakeGroup) -> None:
    spec = EnvironmentSpec("game", "game:Game", parts=("won",))
    scheduler = Scheduler(RewardsConfig(weights={"correctness": 1.0}), {"game": spec})
    group = make_group(["a"], "countdown")
    given = replace(group.completions[0], parts={"correctness": 1.0})
    scheduler.enqueue(replace(group, prompt=replace(group.prompt, environment="game"), completions=(given,)))
    with pytest.raises(RewardConfigError, match=r"environment game gives the part correctness, which what grades"):
        record(scheduler, take(scheduler), [(Outcome("ok", {"correctness": 1.0}),)])


def graded(scheduler: Scheduler, group: Group, parts: Sequence[dict[str, float]], environment: str = "") -> Group:
    """Return a group whose environment gave these parts, graded as right."""
    played = tuple(replace(each, parts=given) for each, given in zip(group.completions, parts, strict=True))
    scheduler.enqueue(replace(group, prompt=replace(group.prompt, environment=environment), completions=played))
    record(scheduler, take(scheduler), [(Outcome("ok", {"correctness": 1.0}),)] * len(played))
    return scheduler.take_finished()[0]


def test_a_part_that_another_entrys_environment_declares_does_not_apply(make_group: MakeGroup) -> None:
    weights = {"correctness": 0.9, "either": 0.1}
    either = {"either": {"by": "max", "weights": {"guessed": 1.0, "correctness": 0.5}}}
    settings = RewardsConfig(weights=weights, ensembles=either, tasks={"hostile": "hostile_rewards:act"})
    scheduler = Scheduler(settings, {"guess": EnvironmentSpec("guess", "guess:Guess", parts=("guessed",))})
    plain = graded(scheduler, make_group(["a"]), [{}])
    assert plain.totals.tolist() == [pytest.approx(0.95)] and plain.rewards[0].status == "ok"
    assert [part.name for part in plain.rewards[0].parts] == ["correctness", "either"]
    played = graded(scheduler, make_group(["a"]), [{"guessed": 1.0}], "guess")
    assert played.totals.tolist() == [pytest.approx(1.0)]


def test_undeclared_parts_of_ever_new_names_are_not_all_logged(
    make_group: MakeGroup, caplog: pytest.LogCaptureFixture
) -> None:
    settings = RewardsConfig(weights={"correctness": 1.0}, tasks={"hostile": "hostile_rewards:act"})
    scheduler = Scheduler(settings, {"game": EnvironmentSpec("game", "game:Game", parts=("won",))})
    given = [{"won": 1.0, "steady": 1.0, f"move_{number}": 1.0} for number in range(100)]
    group = graded(scheduler, make_group(["a"] * 100), given, "game")
    names = {part.name for reward in group.rewards for part in reward.parts}
    assert len(names) == MAX_UNDECLARED + len(("correctness", "won"))
    assert all(reward.value("won") == reward.value("steady") == 1.0 for reward in group.rewards)
    assert caplog.text.count("the environment game gives reward parts with more and more names") == 1
