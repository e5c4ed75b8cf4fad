"""Who is asked next: whatever is lost in whatever order, each completion of several turns ends once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.fleet.assignment import PromptRequest
from orchestrator.fleet.turns import TurnRouter
from rollout.config import SamplingConfig
from rollout.types.environments import EnvironmentAnswer
from rollout.types.prompts import Prompt
from rollout.types.sampling import SamplingRequest
from rollout.types.turns import TurnHeader

MAX_TURNS, MAX_TOKENS = 3, 20


def requests(count: int, group_size: int = 2, environment: str = "guess") -> list[PromptRequest]:
    prompts = tuple(
        Prompt(f"train/{number}", np.zeros(1, np.int32), "", "countdown", {}, environment=environment)
        for number in range(count)
    )
    settings = SamplingRequest((), SamplingConfig(max_completion_tokens=MAX_TOKENS), group_size, seed=0)
    return [PromptRequest(prompt, settings, 0.0) for prompt in prompts]


class World:
    """Generators and environments that answer when they are told to, and what they were asked."""

    def __init__(self, router: TurnRouter) -> None:
        self.router = router
        self.sampling: list[tuple[str, TurnHeader]] = []
        """Whose a turn is, and what it will be."""
        self.asked: list[tuple[str, int]] = []
        self.open: Counter[tuple[str, int]] = Counter()
        """Environments that were started and not closed, as the workers know it."""
        self.assembling: list[tuple[str, str, list[str]]] = []
        self.ended: dict[str, list[str]] = {}
        self.batches: list[list[tuple[str, int]]] = []

    def look(self) -> None:
        for key in self.router.to_close():
            self.open[key] -= 1
        for call in self.router.to_ask():
            assert (call.turns is None) == (call.request.key not in self.open)
            self.open.setdefault(call.request.key, 1)
            assert call.request.key not in self.asked
            self.asked.append(call.request.key)
        for call in self.router.to_sample():
            self.batches.append([(turn.prompt.id, turn.position) for turn in call.request.turns])
            for turn in call.request.turns:
                past = 0 if turn.place is None else call.past[turn.place][1]
                key = turn.prompt.id, turn.position
                assert key not in [header.key for _, header in self.sampling]
                assert turn.place is None or call.past[turn.place][0] == key
                self.sampling.append((call.generator, TurnHeader(key, past + 1, 5 * (past + 1), "observation")))
        for group in self.router.to_assemble():
            self.assembling.append(
                (group.generator, group.request.prompt.id, [each.finish_reason for each in group.endings])
            )
            assert len(group.turns) == len(group.endings) == group.request.settings.group_size
            assert all(turns is not None for turns in group.turns)

    def sample(self, position: int, end: Any = "observation") -> None:
        _, header = self.sampling.pop(position)
        self.router.took(header._replace(end=end), (header.key, header.num_turns))
        self.look()

    def answer(self, position: int, *, is_over: bool = False, status: Any = "ok") -> None:
        key = self.asked.pop(position)
        if is_over or status != "ok":
            self.open[key] -= 1
        self.router.answered(EnvironmentAnswer(key, "go on", is_over, {"moves": 1.0}, status))
        self.look()

    def assemble(self, position: int) -> None:
        _, prompt_id, reasons = self.assembling.pop(position)
        assert prompt_id not in self.ended
        self.ended[prompt_id] = reasons
        self.router.forget(prompt_id)
        self.look()

    def lose(self, generator: str) -> None:
        self.router.lose(generator)
        self.sampling = [each for each in self.sampling if each[0] != generator]
        self.assembling = [each for each in self.assembling if each[0] != generator]


@pytest.fixture(params=[True, False], ids=["rounds", "at once"])
def world(request) -> World:
    return World(TurnRouter(MAX_TURNS, in_rounds=request.param))


def test_a_completion_goes_to_and_fro_until_its_environment_says_that_it_is_over(world) -> None:
    world.router.begin("generator-0", requests(1, group_size=1))
    world.look()
    world.answer(0)
    world.sample(0)
    world.answer(0)
    (call,) = world.sampling
    assert call[1].num_turns == 2
    world.sample(0)
    world.answer(0, is_over=True)
    assert world.assembling == [("generator-0", "train/0", ["stop"])]
    assert world.open == {("train/0", 0): 0} and world.router.num_open == 0


@pytest.mark.parametrize(
    ("end", "reason"), [("length", "length"), ("stop", "stop"), ("unreadable", "error"), ("end_token", None)]
)
def test_what_ends_a_turn_decides_whether_the_environment_is_asked(world, end, reason) -> None:
    world.router.begin("generator-0", requests(1, group_size=1))
    world.look()
    world.answer(0)
    world.sample(0, end)
    assert [each[2] for each in world.assembling] == ([[reason]] if reason else [])
    assert world.asked == ([] if reason else [("train/0", 0)])
    assert world.open[("train/0", 0)] == (0 if reason else 1)


@pytest.mark.parametrize(("status", "is_over", "reason"), [("timeout", False, "timeout"), ("ok", True, "error")])
def test_an_environment_that_fails_before_the_first_turn_has_it_sampled_all_the_same(
    world, status, is_over, reason
) -> None:
    """So no completion is without tokens."""
    world.router.begin("generator-0", requests(1, group_size=1))
    world.look()
    world.answer(0, is_over=is_over, status=status)
    world.sample(0)
    assert world.assembling == [("generator-0", "train/0", [reason])] and not world.asked
    assert world.open == {("train/0", 0): 0}


def test_the_limits_on_turns_and_tokens_come_after_the_environments_last_word(world) -> None:
    world.router.begin("generator-0", requests(1, group_size=1))
    world.look()
    for _ in range(MAX_TURNS):
        world.answer(0)
        world.sample(0)
    world.answer(0)
    assert world.assembling == [("generator-0", "train/0", ["turns"])]
    longer = World(TurnRouter(100, in_rounds=False))
    longer.router.begin("generator-0", requests(1, group_size=1))
    longer.look()
    for _ in range(MAX_TOKENS // 5):
        longer.answer(0)
        longer.sample(0)
    longer.answer(0)
    assert longer.assembling == [("generator-0", "train/0", ["length"])]


def test_in_rounds_all_wait_for_the_last_and_go_on_in_the_order_of_their_prompts() -> None:
    world = World(TurnRouter(MAX_TURNS, in_rounds=True))
    world.router.begin("generator-0", requests(2))
    world.look()
    for position in (3, 0, 1):
        world.answer(position)
    assert not world.sampling
    world.answer(0)
    first = [("train/0", 0), ("train/0", 1), ("train/1", 0), ("train/1", 1)]
    assert world.batches == [first]
    for _ in range(3):
        world.sample(-1)
    world.sample(0, "stop")
    for position in (2, 0, 0):
        world.answer(position)
    assert world.batches == [first, first[1:]]


def test_prompts_without_an_environment_take_one_turn_in_the_same_batch(world) -> None:
    world.router.begin("generator-0", requests(1, environment=""))
    world.look()
    assert world.batches == [[("train/0", 0), ("train/0", 1)]] and not world.asked
    world.sample(0, "end_token")
    world.sample(0, "length")
    assert world.assembling == [("generator-0", "train/0", ["stop", "length"])] and world.router.num_open == 0


def test_a_lost_generators_turn_is_sampled_by_another_and_its_environment_notices_nothing(world) -> None:
    batch = requests(1, group_size=1)
    world.router.begin("generator-0", batch)
    world.look()
    world.answer(0)
    world.sample(0)
    world.answer(0)
    (before,) = world.sampling
    world.lose("generator-0")
    world.router.begin("generator-1", batch)
    world.look()
    assert world.sampling == [("generator-1", before[1])] and not world.asked


def test_a_group_whose_turns_are_lost_begins_again_with_new_environments(world) -> None:
    batch = requests(1, group_size=1)
    world.router.begin("generator-0", batch)
    world.look()
    world.answer(0)
    world.sample(0)
    world.router.forget("train/0")
    world.asked.clear()
    assert world.router.to_close() == [("train/0", 0)] and not world.router.to_ask()
    world.open.clear()
    world.router.begin("generator-0", batch)
    world.look()
    assert world.asked == [("train/0", 0)] and not world.sampling


@given(st.data(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_is_lost_in_whatever_order_each_completion_ends_once(data, in_rounds) -> None:
    world = World(TurnRouter(MAX_TURNS, in_rounds=in_rounds))
    batch = requests(3)
    queue = list(batch)
    given_to: dict[str, str] = {}
    losses = 0

    def begin() -> None:
        for name in ("generator-0", "generator-1"):
            share = queue[::2] if name == "generator-0" else queue[1::2]
            given_to.update({each.prompt.id: name for each in share})
            world.router.begin(name, share)
        queue.clear()
        world.look()

    begin()
    while len(world.ended) < len(batch):
        choices = [("sample", len(world.sampling)), ("answer", len(world.asked)), ("assemble", len(world.assembling))]
        possible = [name for name, count in choices if count] + (["lose"] if losses < 3 else [])
        assert any(count for _, count in choices), "nobody is asked anything"
        action = data.draw(st.sampled_from(possible))
        if action == "lose":
            losses += 1
            name = data.draw(st.sampled_from(["generator-0", "generator-1"]))
            world.lose(name)
            queue += [each for each in batch if given_to[each.prompt.id] == name and each.prompt.id not in world.ended]
            begin()
            continue
        position = data.draw(st.integers(0, dict(choices)[action] - 1))
        if action == "sample":
            world.sample(position, data.draw(st.sampled_from(["observation", "end_token", "stop", "length"])))
        elif action == "answer":
            status = data.draw(st.sampled_from(["ok", "ok", "ok", "timeout", "error"]))
            world.answer(position, is_over=status == "ok" and data.draw(st.booleans()), status=status)
        else:
            world.assemble(position)
    assert all(len(reasons) == 2 for reasons in world.ended.values())
    assert not world.asked and not world.sampling and not world.assembling
    assert set(world.open.values()) == {0} and world.router.num_open == 0
