"""A judge against a server that is slow, wrong, rate-limited, hostile or down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rewards.config import RewardConfigError, RewardsConfig
from rewards.function import LoadedFunction, Outcome
from rewards.registry import functions_of
from rewards.subject import Subject
from rewards.workers.children.fork_server_handle import LoadError
from rollout.types.completions import Group, Reward
from tests.support.judge_server import (
    Reply,
    fails,
    floods,
    knows_only,
    late,
    says,
    says_the_key_back,
    scores,
    sends,
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


def loaded(url: str, **settings: Any) -> LoadedFunction:
    config = recipe(url, **settings)
    (declared,) = [function for function in functions_of("exact_match", config) if function.name == "clarity"]
    return LoadedFunction.of(declared, declared.load())


def judged(url: str, *texts: str, answer: Mapping[str, Any] | None = None, **settings: Any) -> list[Outcome]:
    """Judge texts together, in this process."""
    judge = loaded(url, **settings)

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
        fails(200, body="<html>"),
        fails(200, body="<html>", Content_Type="text/html"),
        fails(200, body="[" * 100_000),
        sends(choices=[{}]),
        sends(choices={}),
        sends(choices=[{"message": {"content": [1]}}]),
    ],
    ids=[
        *["500", "429", "408", "not JSON", "out of range", "another schema"],
        *["no JSON body", "HTML", "deep", "an empty choice", "no list of choices", "no text"],
    ],
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


def test_a_pause_longer_than_the_deadline_is_an_error_that_says_so_at_once() -> None:
    with serving(fails(429, Retry_After="180")) as server:
        (outcome,) = judged(server.url, "a")
    assert outcome.status == "error" and len(server.requests) == 1
    says = "a pause of 180 s before the next attempt goes beyond the deadline: raise rewards.deadlines_s.clarity = 20"
    assert says in outcome.reason


def test_a_quota_that_is_used_up_is_not_asked_again() -> None:
    with serving(fails(429, x_should_retry="false")) as server:
        judged(server.url, "a")
    assert len(server.requests) == 1


def test_an_answer_that_is_cut_names_the_setting_that_cuts_it() -> None:
    cut = {"finish_reason": "length", "message": {"role": "assistant", "content": None}}
    with serving(sends(choices=[cut])) as server:
        (outcome,) = judged(server.url, "a", attempts=1, max_answer_tokens=600)
    assert "the judge was cut off at max_answer_tokens = 600: raise it" in outcome.reason


@pytest.mark.parametrize("count", [1e999, -1, True, "7", None, 10**30])
def test_tokens_that_nobody_counted_cost_no_judgement(count: Any) -> None:
    choice = {"message": {"content": '{"score": 5}'}}
    with serving(sends(choices=[choice], usage={"prompt_tokens": count, "completion_tokens": 3})) as server:
        (outcome,) = judged(server.url, "a")
    assert outcome.grades == {"clarity": 0.5} and outcome.logged["clarity_tokens"] in (3.0, 4.0)


@pytest.mark.parametrize(("name", "num_requests"), [("max_tokens", [1, 1]), ("max_completion_tokens", [2, 1])])
def test_a_model_that_knows_either_name_of_the_limit_is_asked_by_it(name: str, num_requests: list[int]) -> None:
    async def one_after_the_other(judge: LoadedFunction) -> list[Outcome]:
        return [await judge.call_async(Subject((text,), {}, "?")) for text in "ab"]

    with serving(knows_only(name, scores(5))) as server:
        outcomes = asyncio.run(one_after_the_other(loaded(server.url, attempts=1)))
    assert [each.grades for each in outcomes] == [{"clarity": 0.5}] * 2
    assert [each.logged["clarity_requests"] for each in outcomes] == num_requests
    assert server.requests[-1][name] == 512


@pytest.mark.parametrize(
    ("reply", "num_requests", "says"),
    [
        (says("no"), 2, "the judge answered 'no'"),
        (fails(400), 1, "Error code: 400"),
        (fails(503), 2, "Error code: 503"),
        (fails(307, Location="http://127.0.0.1:9/v1/chat/completions"), 1, "307"),
        (fails(200, body="<html>"), 2, "the endpoint sent '<html>', which is not a completion"),
        (fails(200, body="{}"), 2, "the endpoint sent '{}', which is not a completion"),
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
    with serving(scores(5), scores(6)) as server:
        kept = {"cache": str(tmp_path)}
        first, again, other = (judged(server.url, text, **kept)[0] for text in ("a", "a", "b"))
        assert [each.grades["clarity"] for each in (first, again, other)] == [0.5, 0.5, 0.6]
        assert again.logged == {"clarity_cached": 1.0}
        assert not any(KEY in file.read_text() for file in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    "content", ['{"said": "{\\"score\\": 1000}"}', "[" * 200_000, "5", "{"], ids=["another score", "deep", "5", "cut"]
)
def test_a_cache_that_somebody_wrote_into_is_none(tmp_path: Path, content: str) -> None:
    with serving(scores(5), scores(7)) as server:
        judged(server.url, "a", cache=str(tmp_path))
        (file,) = tmp_path.rglob("*.json")
        file.write_text(content)
        (mended,) = judged(server.url, "a", cache=str(tmp_path))
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


def test_the_line_break_of_a_mounted_secret_is_no_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    with serving(scores(5), says_the_key_back) as server:
        right, refused = judged(server.url, "a")[0], judged(server.url, "b")[0]
    assert right.grades == {"clarity": 0.5} and server.keys == {f"Bearer {KEY}"}
    assert "bad key: Bearer ***" in refused.reason and KEY not in refused.reason


def test_a_key_that_is_shown_with_escapes_is_blanked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", key := "sk-\\back'slash")
    with serving(says(key)) as server:
        (outcome,) = judged(server.url, "a", attempts=1)
    assert "***" in outcome.reason and "back" not in outcome.reason


@pytest.mark.parametrize("wrong", ["sk-secret\nsk-other", "sk-secret\x1b[0m", "sk-sécret"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("JUDGE_KEY", wrong)
    with pytest.raises(RewardConfigError, match=r"clarity\.key_variable: the variable JUDGE_KEY does not") as error:
        judged("http://127.0.0.1:9/v1", "a")
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize("unset", [None, "", "\n"])
def test_a_missing_key_is_said_before_anything_is_graded(
    make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch, unset: str | None
) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    if unset is not None:
        monkeypatch.setenv("JUDGE_KEY", unset)
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
        ({"judges": {"clarity": {"model": "m", "rubric": "r", "base_url": "ftp://x"}}}, "is not an address"),
        ({"judges": {"clarity": {"model": "m", "rubric": "r", "base_url": "https://me:pw@x/v1"}}}, "keep secrets in"),
        ({"judges": {"clarity": {"model": "m", "rubric": "r", "api_key": "sk"}}}, "api_key"),
        ({"judges": {"total": {"model": "m", "rubric": "r"}}}, "rename it"),
        (
            {"judges": {"clarity": {"model": "m", "rubric": "r"}}, "parameters": {"clarity": {"best": 5}}},
            r"is set up in rewards\.judges\.clarity alone",
        ),
        (
            {"judges": {"clarity": {"model": "m", "rubric": "r", "requests_per_minute": 20}}, "num_workers": 2},
            r"clarity\.requests_per_minute = 20.*up to 384 s.*is 240: lower rewards\.max_in_flight = 64 to 39 at most",
        ),
        (
            {"judges": {"clarity": {"model": "m", "rubric": "r", "requests_per_minute": 0.1}}},
            r"clarity\.requests_per_minute = 0\.1.*is 240: raise the rate or the deadline",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RewardsConfig(weights={"clarity": 1.0}, **settings)
