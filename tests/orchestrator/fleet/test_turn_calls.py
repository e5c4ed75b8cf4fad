"""The calls that turns need: how many environments are open, whose failures end a run, and who makes them when."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.fleet.rollouts import RolloutStream
from orchestrator.fleet.turn_calls import TurnCalls
from orchestrator.fleet.turns import TurnRouter
from rewards.workers.failures import RewardFailure
from rollout.config import RolloutConfig
from rollout.types.completions import CompletionHeader
from rollout.types.environments import EnvironmentAnswer
from rollout.types.packed import PackedGroup
from rollout.types.turns import CompletionEnd, TurnHeader
from tests.orchestrator.fleet.test_turn_router import requests
from tests.support.arrived import Arrived


class FakeEnvironments:
    """Has room for five, and answers when it is told to."""

    max_open = 5

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.closed: list[tuple[str, int]] = []
        self.answers: list[EnvironmentAnswer] = []

    def ask(self, calls: Any) -> None:
        self.asked += calls

    def close(self, keys: Any) -> None:
        self.closed += keys

    def refs(self) -> list[Any]:
        return ["an answer"]

    def poll(self, ready: Any) -> list[EnvironmentAnswer]:
        answers, self.answers = self.answers, []
        return answers

    def clear(self) -> None:
        self.closed.append(("all", 0))


class FakeGenerator:
    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        for name in ("sample_turns", "assemble", "generate", "abandon"):
            setattr(self, name, SimpleNamespace(remote=lambda *arguments, name=name: self._call(name, arguments)))

    def _call(self, name: str, arguments: Any) -> str:
        self.asked.append((name, arguments))
        return f"{name} {len(self.asked)} {id(self)}"


def calls(environments: FakeEnvironments, *, in_rounds: bool = False, max_failed_share: float = 0.2) -> TurnCalls:
    return TurnCalls(TurnRouter(3, in_rounds=in_rounds), environments, max_failed_share)  # type: ignore[arg-type]


@pytest.mark.parametrize(("in_rounds", "second"), [(False, 1), (True, 0)])
def test_no_more_prompts_are_handed_out_than_environments_have_room(in_rounds, second) -> None:
    made = calls(FakeEnvironments(), in_rounds=in_rounds)
    first, later = requests(1), requests(4)[1:]
    assert made.num_startable(requests(3)) == 2
    assert made.num_startable(requests(2)) == 2
    made.begin("generator-0", first)
    assert made.num_startable(later[:1]) == 1
    assert made.num_startable(later) == second  # in rounds nothing, so that it does not depend on who was faster
    assert made.num_startable(later[:1]) == second
    assert made.num_startable([*first, *later]) == 1 + second  # what a lost generator had goes on
    assert made.num_startable(requests(3, environment="")) == 3


def test_a_group_larger_than_there_is_room_goes_alone() -> None:
    made = calls(FakeEnvironments())
    assert made.num_startable(requests(2, group_size=8)) == 1
    made.begin("generator-0", requests(1, group_size=8))
    assert made.num_startable(requests(2, group_size=8)[1:]) == 0


def test_a_run_whose_environments_fail_stops_and_says_why() -> None:
    made, generator = calls(FakeEnvironments()), FakeGenerator()
    failing = requests(1, group_size=64)
    made.begin("generator-0", failing)
    serving = {"generator-0": generator}
    assert not [*made.send(serving, ())]
    for index in range(64):
        status = "error" if index < 20 else "ok"
        made._environments.answers.append(  # type: ignore[attr-defined]
            EnvironmentAnswer(("train/0", index), status=status, reason="KeyError: 'x'" if index == 19 else "")
        )
    made.poll(())
    assert len([*made.send(serving, ())]) == 1
    for index in range(64):
        made.took(TurnHeader(("train/0", index), 1, 5, "stop"), index)
    with pytest.raises(RewardFailure, match=r"20 of the last 64 completions failed.*KeyError: 'x'"):
        [*made.send(serving, ())]


def test_what_no_token_stands_for_is_shown_in_the_log(caplog) -> None:
    made = calls(FakeEnvironments())
    made.begin("generator-0", requests(1, group_size=1))
    made._environments.answers.append(EnvironmentAnswer(("train/0", 0), text="<result>1088"))  # type: ignore[attr-defined]
    made.poll(())
    assert len([*made.send({"generator-0": FakeGenerator()}, ())]) == 1
    made.took(TurnHeader(("train/0", 0), 1, 5, "unreadable"), None)
    assert "the model's tokenizer has no tokens for its observation: '<result>1088'" in caplog.text


class FakeGenerators:
    def __init__(self) -> None:
        self.serving = {"generator-0": FakeGenerator(), "generator-1": FakeGenerator()}

    def refs(self) -> list[Any]:
        return []

    def collect_started(self) -> None:
        """Nothing starts."""

    def lose(self, name: str, reason: str) -> None:
        del self.serving[name]


class FakePool:
    is_full, num_pending = False, 0

    def __init__(self) -> None:
        self.graded: list[str] = []

    def refs(self) -> list[Any]:
        return []

    def submit(self, *groups: Any) -> None:
        self.graded += [group.prompt.id for group in groups]

    def poll(self) -> list[Any]:
        return []


def test_a_turn_goes_on_with_another_generator_when_its_own_is_lost_and_the_group_is_graded(monkeypatch) -> None:
    generators, pool, environments = FakeGenerators(), FakePool(), FakeEnvironments()
    stream = RolloutStream(
        generators,
        pool,
        RolloutConfig(),
        serve_restarted=lambda: None,
        calls=calls(environments),  # type: ignore[arg-type]
    )
    sent: dict[str, Any] = {}  # by its reference
    monkeypatch.setattr("orchestrator.fleet.rollouts.ray.get", lambda found, timeout: [sent[each] for each in found])
    monkeypatch.setattr("orchestrator.fleet.rollouts.Heartbeats.hanging", lambda *_: {})
    (asked,) = requests(1, group_size=1)
    stream.submit(replace(asked.settings, prompts=(asked.prompt,)))
    first, second = generators.serving.values()
    key = ("train/0", 0)

    def answer(**said: Any) -> None:
        environments.answers.append(EnvironmentAnswer(key, **said))
        stream.advance(["an answer"])

    def arrives(what: Any) -> None:
        whose = [*stream._streams.values()][-1]
        reference = f"what arrived {len(sent)}"
        sent[reference] = what
        arrived = Arrived([reference])
        stream._streams[arrived] = whose
        stream.advance([arrived])

    answer()
    assert [name for name, _ in first.asked] == ["sample_turns"]
    arrives(SimpleNamespace(header=TurnHeader(key, 1, 5, "observation")))
    answer(text="go on")
    stream.lose("generator-0", "it died")
    (name, (request, past)) = second.asked[-1]
    assert name == "sample_turns" and request.turns[0].said == "go on" and sent[past].header.num_turns == 1
    arrives(SimpleNamespace(header=TurnHeader(key, 2, 9, "end_token")))
    answer(is_over=True, parts={"moves": 2.0})
    name, (_, endings, _) = second.asked[-1]
    assert name == "assemble" and endings == [CompletionEnd("stop", {"moves": 2.0})]
    arrives(PackedGroup("train/0", (CompletionHeader(9, "stop", (0,)),), None))  # type: ignore[arg-type]
    assert pool.graded == ["train/0"] and not stream._in_flight["generator-1"] and not environments.closed
