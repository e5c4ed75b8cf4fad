"""A judge against a server that is slow, wrong, rate-limited, hostile or down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rewards.config import RewardsConfig
from rewards.function import LoadedFunction, Outcome
from rewards.registry import functions_of
from rewards.subject import Subject
from rewards.workers.fork_server import LoadError
from rollout.types.completions import Group, Reward
from tests.support.judge_server import (
    Reply,
    fails,
    floods,
    late,
    says,
    says_the_key_back,
    scores,
    sends_a_bomb,
    serving,
)
from tests.support.reward_workers import rewards_of

MakeGroup = Callable[..., Group]
KEY = "sk-a-secret-of-this-test"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)


def recipe(url: str, deadline_s: float = 20.0, **judge: Any) -> RewardsConfig:
    settings = {"model": "m", "rubric": "Is it clear?", "base_url": url, "key_variable": "JUDGE_KEY", "cache": ""}
    return RewardsConfig(
        weights={"clarity": 1.0},
        judges={"clarity": settings | judge},
        deadlines_s={"clarity": deadline_s},
        max_failed_share=1.0,
    )


def judged(url: str, *texts: str, answer: Mapping[str, Any] | None = None, **settings: Any) -> list[Outcome]:
    """Judge texts together, in this process."""
    config = recipe(url, **settings)
    (declared,) = [function for function in functions_of("exact_match", config) if function.name == "clarity"]
    judge = LoadedFunction.of(declared, declared.load())

    async def run() -> list[Outcome]:
        subjects = [Subject((text,), answer or {}, "What is 2 + 2?") for text in texts]
        return await asyncio.gather(*(judge.call_async(subject) for subject in subjects))

    return asyncio.run(run())


def by_a_worker(url: str, group: Group, **settings: Any) -> tuple[Reward, ...]:
    (rewards,) = rewards_of(recipe(url, **settings), group)
    return rewards


def test_a_judge_pays_the_share_of_its_best_score_and_says_what_it_cost() -> None:
    with serving(scores(7)) as server:
        outcome, _ = judged(server.url, "a", "b", usd_per_million_tokens=(10.0, 100.0))
    assert (outcome.status, outcome.grades) == ("ok", {"clarity": 0.7})
    assert outcome.logged == pytest.approx(
        {"clarity_cached": 0.0, "clarity_requests": 1.0, "clarity_tokens": 110.0, "clarity_usd": 0.002}
    )
    assert server.keys == {f"Bearer {KEY}"}
    first, _ = server.requests
    assert first["response_format"]["json_schema"]["schema"]["properties"]["score"]["maximum"] == 10
    assert "What is 2 + 2?" in first["messages"][1]["content"]


@pytest.mark.parametrize(
    "trouble",
    [
        fails(500),
        fails(429, Retry_After="0.05"),
        fails(408),
        says("Seven, I think."),
        scores(11),
        says('{"reason": "no score"}'),
    ],
    ids=["500", "429", "408", "not JSON", "out of range", "another schema"],
)
def test_what_passes_is_asked_again(trouble: Reply) -> None:
    with serving(trouble, scores(5)) as server:
        (outcome,) = judged(server.url, "a")
    assert (outcome.grades, outcome.logged["clarity_requests"]) == ({"clarity": 0.5}, 2.0)
    assert len(server.requests) == 2


def test_an_endpoint_that_asks_for_a_pause_gets_it() -> None:
    with serving(fails(429, Retry_After="1.2"), scores(5)) as server:
        judged(server.url, "a")
    assert server.times[1] - server.times[0] >= 1.1


@pytest.mark.parametrize(
    ("reply", "num_requests", "says"),
    [
        (says("no"), 2, "the judge answered 'no'"),
        (fails(400), 1, "Error code: 400"),
        (fails(503), 2, "Error code: 503"),
        (fails(307, Location="http://127.0.0.1:9/v1/chat/completions"), 1, "307"),
        (fails(200, body="<html>"), 1, "clarity at http"),
        (fails(200, body="{}"), 2, "the judge answered ''"),
        (floods, 2, "more than 1,048,576 bytes"),
        (sends_a_bomb, 2, "compressed"),
    ],
    ids=["not JSON", "400", "503", "redirection", "no JSON body", "another body", "3 MB", "gzip bomb"],
)
def test_what_stays_wrong_is_an_error_that_says_why_and_not_a_0(reply: Reply, num_requests: int, says: str) -> None:
    with serving(reply) as server:
        (outcome,) = judged(server.url, "a", attempts=2)
    assert (outcome.status, outcome.grades) == ("error", {})
    assert says in outcome.reason
    assert len(server.requests) == outcome.logged["clarity_requests"] == num_requests


def test_a_server_that_is_down_is_an_error() -> None:
    with serving(scores(1)) as server:
        pass
    (outcome,) = judged(server.url, "a", attempts=2)
    assert outcome.status == "error"
    assert f"clarity at {server.url}, after 2 requests: APIConnectionError" in outcome.reason


def test_what_fails_or_is_slow_fails_alone_in_a_worker(make_group: MakeGroup) -> None:
    replies = {"bad": fails(400), "slow": late(4, scores(9))}

    def reply(handler: Any, asked: str) -> None:
        said = asked.rpartition("<completion ")[2].splitlines()[1]
        replies.get(said, scores(9))(handler, asked)

    with serving(reply) as server:
        rewards = by_a_worker(server.url, make_group(["good", "bad", "slow", "fine"]), deadline_s=2.0)
    assert [reward.status for reward in rewards] == ["ok", "error", "timeout", "ok"]
    assert [reward.total for reward in rewards] == pytest.approx([0.9, 0.0, 0.0, 0.9])
    assert rewards[1].logged["clarity_requests"] == 1


def test_a_request_has_a_timeout_of_its_own_and_is_made_again() -> None:
    with serving(late(3, scores(1)), scores(9)) as server:
        (outcome,) = judged(server.url, "a", timeout_s=0.3)
    assert (outcome.grades, outcome.logged["clarity_requests"]) == ({"clarity": 0.9}, 2.0)


def test_requests_keep_to_the_rate() -> None:
    with serving(scores(5)) as server:
        judged(server.url, *"abcd", requests_per_minute=300)
    assert server.times[-1] - server.times[0] >= 0.55  # three pauses of 0.2 s


def test_the_same_question_is_asked_once(tmp_path: Path) -> None:
    with serving(scores(5), scores(6), scores(7)) as server:
        kept = {"cache": str(tmp_path)}
        first, again, other = (judged(server.url, text, **kept)[0] for text in ("a", "a", "b"))
        assert [each.grades["clarity"] for each in (first, again, other)] == [0.5, 0.5, 0.6]
        assert again.logged == {"clarity_cached": 1.0}
        for file in tmp_path.rglob("*.json"):
            assert KEY not in file.read_text()
            file.write_text('{"said": "{\\"score\\": 1000}"}')  # somebody meddled
        (mended,) = judged(server.url, "a", **kept)
    assert mended.grades == {"clarity": 0.7}


def test_a_cache_that_cannot_be_written_costs_no_judgement(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with serving(scores(5)) as server:
        (outcome,) = judged(server.url, "a", cache=str(tmp_path / "file"))
    assert (outcome.grades, outcome.logged["clarity_not_kept"]) == ({"clarity": 0.5}, 1.0)


def test_the_key_is_never_shown() -> None:
    with serving(says_the_key_back) as server:
        (outcome,) = judged(server.url, "a")
    assert "bad key: Bearer ***" in outcome.reason and KEY not in outcome.reason


def test_a_missing_key_is_said_before_anything_is_graded(
    make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    says = r"^rewards\.judges\.clarity\.key_variable: the variable JUDGE_KEY is not set"
    with serving(scores(5)) as server:
        with pytest.raises(LoadError, match=says):
            by_a_worker(server.url, make_group(["a"]))
        (outcome,) = judged(server.url, "a", key_variable="")
    assert outcome.grades == {"clarity": 0.5}


def test_a_judge_reads_the_reference() -> None:
    with serving(lambda handler, asked: (scores(10) if "It is 42." in asked else fails(400))(handler, asked)) as server:
        (outcome,) = judged(server.url, "a", answer={"answer": 42}, rubric="It is {answer}.")
        (unfit,) = judged(server.url, "a", answer={"target": 42}, rubric="It is {answer}.")
    assert (outcome.grades, unfit.status) == ({"clarity": 1.0}, "error")
    assert "the rubric shows {answer}, and the answer to this prompt has only ['target']" in unfit.reason


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"judges": {"clarity": {"model": "m"}}}, "rubric"),
        ({"judges": {"clarity": {"model": "m", "rubric": "r", "base_url": "ftp://x"}}}, "is no address"),
        ({"judges": {"clarity": {"model": "m", "rubric": "r", "base_url": "https://me:pw@x/v1"}}}, "keep secrets in"),
        ({"judges": {"clarity": {"model": "m", "rubric": "r", "api_key": "sk"}}}, "api_key"),
        ({"judges": {"total": {"model": "m", "rubric": "r"}}}, "rename it"),
        (
            {"judges": {"clarity": {"model": "m", "rubric": "r"}}, "parameters": {"clarity": {"best": 5}}},
            r"is set up in rewards\.judges\.clarity alone",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RewardsConfig(weights={"clarity": 1.0}, **settings)
