"""Real processes of environments, without Ray or a model: whatever one does, its completion ends with a word."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from rewards.environments import processes
from rewards.environments.registry import EnvironmentSpec
from rewards.workers import worker
from rewards.workers.children.fork_server_handle import LoadError
from rollout.types.environments import EnvironmentAnswer, EnvironmentRequest
from rollout.types.turns import PackedTurns
from tests.support.environments import HOSTILE, answers_of, hostile, opened, play, prompt_of, turn_of
from tests.support.processes import all_end

FAULTS: dict[str, tuple[dict[str, str], str, str]] = {
    "hangs in start": ({"start": "hang"}, "timeout", "start did not answer within 2 s"),
    "hangs in step": ({"step": "hang"}, "timeout", "step did not answer within 2 s"),
    "computes for ever": ({"step": "spin"}, "timeout", "step did not answer within 2 s"),
    "is killed": ({"step": "kill"}, "error", "process died: SIGKILL"),
    "leaves": ({"step": "leave"}, "error", "process died: exit status 3"),
    "exits": ({"step": "exit"}, "error", "process died: exit status 1"),
    "raises in start": ({"start": "raise"}, "error", "start raised ValueError: no ???"),
    "allocates": ({"step": "hog"}, "error", "step raised MemoryError"),
    "writes garbage": ({"step": "garbage"}, "error", "process wrote what is not a reply"),
    "writes brackets": ({"step": "nest"}, "error", "process wrote what is not a reply"),
    "writes 10 MB": ({"step": "flood"}, "error", "process wrote a line of more than"),
    "returns a text": ({"step": "text"}, "error", "'only a text', which is not an Observation: return"),
    "returns nothing": ({"step": "none"}, "error", "None, which is not an Observation"),
    "starts with nothing": ({"start": "none"}, "error", "start raised TypeError"),
    "says bytes": ({"step": "bytes"}, "error", "text must be a str"),
    "may be over": ({"step": "maybe"}, "error", "is_over a bool"),
    "gives NaN": ({"step": "nan"}, "error", "the reward part 'told' = nan must be a name with a finite number"),
    "gives infinity": ({"step": "infinite"}, "error", "'told' = inf"),
    "gives a huge number": ({"step": "huge"}, "error", "must be a name with a finite number"),
    "gives a word": ({"step": "no number"}, "error", "'told' = 'much'"),
    "names a part 1": ({"step": "no name"}, "error", "the reward part 1 = 1.0"),
    "gives 1000 parts": ({"step": "many"}, "error", "1000 reward parts, more than 32"),
}


def test_an_environment_that_cannot_be_made_is_said_as_it_is_loaded() -> None:
    async def run() -> None:
        spec = EnvironmentSpec("Picky", "tests.support.hostile_environments:Picky", {"taste": "none"})
        async with opened(spec):
            pass

    with pytest.raises(LoadError, match=r"^environment Picky with {'taste': 'none'} cannot be made: .*no taste at all"):
        asyncio.run(run())


@pytest.fixture(scope="module")
def fallen() -> dict[str, list[EnvironmentAnswer]]:
    """Return what became of each fault, all of them at the same time in one worker."""

    async def run() -> dict[str, list[EnvironmentAnswer]]:
        async with opened(hostile(2.0), memory_gib=1) as environments:
            played = [
                play(environments, prompt_of(HOSTILE, **acts), ["first", "second"], index)
                for index, (acts, _, _) in enumerate(FAULTS.values())
            ]
            return dict(zip(FAULTS, await asyncio.gather(*played), strict=True))

    return asyncio.run(run())


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_ends_the_completion_and_says_why(
    fault: str, fallen: dict[str, list[EnvironmentAnswer]]
) -> None:
    acts, status, says = FAULTS[fault]
    answers = fallen[fault]
    assert [answer.status for answer in answers] == ([] if "start" in acts else ["ok"]) + [status]
    assert says in answers[-1].reason
    assert (answers[-1].text, answers[-1].is_over, answers[-1].parts) == ("", True, {})


def test_a_game_is_played_and_over_when_the_environment_says_so() -> None:
    answers = answers_of(hostile(hint="seed "), ["a", "b"])
    assert [(answer.text, dict(answer.parts)) for answer in answers] == [
        ("seed 5", {"told": 0.0}),
        ("a", {"told": 1.0}),
        ("b", {"told": 2.0}),
    ]
    assert not any(answer.is_over for answer in answers)
    (_, last) = answers_of(hostile(), ["a", "b"], step="over")
    assert (last.text, last.is_over, last.parts, last.status) == ("that is all", True, {"told": 7.0}, "ok")


def test_a_last_observation_without_a_declared_part_is_an_error_that_names_it() -> None:
    """A name that was mistyped would be worth 0 in every completion."""
    (_, last) = answers_of(hostile(), ["a"], step="mistype")
    assert (last.status, last.is_over, last.parts) == ("error", True, {})
    assert f"{HOSTILE} ended the completion without its part told" in last.reason and "gave tolled" in last.reason


def test_long_texts_are_cut_and_odd_ones_kept_as_text() -> None:
    (_, answer) = answers_of(hostile(max_bytes=1000), ["a"], step="large")
    assert answer.text.endswith("é [… cut]")
    assert 990 < len(answer.text.encode()) <= 1000
    (_, answer) = answers_of(hostile(), ["a"], step="nul")
    assert answer.text == "a\0b?c<|im_end|>"


def test_an_answer_that_nobody_asked_for_ends_the_process() -> None:
    forged, late = answers_of(hostile(), ["a"], start="forge")
    assert (forged.text, forged.status) == ("forged", "ok")
    assert (late.status, "wrote without a call" in late.reason) == ("error", True)


def test_others_go_on_while_one_hangs_and_a_key_is_its_own() -> None:
    async def run() -> None:
        async with opened(hostile()) as environments:
            hanging = asyncio.create_task(play(environments, prompt_of(HOSTILE, step="hang"), ["x"], index=9))
            start = time.monotonic()
            played = [play(environments, prompt_of(HOSTILE), ["a", "b"], index, seed=index) for index in range(8)]
            for index, answers in enumerate(await asyncio.gather(*played)):
                assert [answer.text for answer in answers] == [str(index), "a", "b"]
                assert {answer.key for answer in answers} == {("train/7", index)}
            assert time.monotonic() - start < 10
            environments.close([("train/7", 9)])
            assert (await hanging)[-1].reason.startswith("it was closed")

    asyncio.run(run())


def replayed(environment_acts: dict[str, str], said: Sequence[str]) -> EnvironmentAnswer:
    """Have a worker that knows nothing answer the third turn of a completion; ``said`` came before each turn."""

    async def run() -> EnvironmentAnswer:
        async with opened(hostile()) as environments:
            request = EnvironmentRequest(("train/7", 0), prompt_of(HOSTILE, **environment_acts), 5, 0)
            turns = [turn_of(text, before) for text, before in zip(["a", "b", "c"], said, strict=True)]
            return await environments.answer(request, turns)

    return asyncio.run(run())


def test_a_worker_that_knows_nothing_replays_the_turns() -> None:
    answer = replayed({}, ["5", "a", "b"])
    assert (answer.text, answer.parts, answer.status) == ("c", {"told": 3.0}, "ok")


def test_it_reads_up_to_the_stop_text_when_asked_and_when_replayed() -> None:
    async def run() -> list[EnvironmentAnswer]:
        async with opened(hostile()) as environments:
            request = EnvironmentRequest(("train/7", 0), prompt_of(HOSTILE), 5, None)
            await environments.answer(request, ())
            first = turn_of("a</do>.", "5")._replace(stop="</do>")
            second = turn_of("b</do>)", "a</do>")._replace(stop="</do>")
            asked = [await environments.answer(request, turns) for turns in ([first], [first, second])]
            return [*asked, await environments.answer(request._replace(key=("train/7", 1)), [first, second])]

    assert [answer.text for answer in asyncio.run(run())] == ["a</do>", "b</do>", "b</do>"]


@pytest.mark.parametrize(
    ("acts", "says"),
    [
        ({}, "after turn 1 it said 'a', where it had said 'other'"),
        ({"step": "differ"}, "it said 'process "),
        ({"step": "over"}, "it said 'that is all' and ended"),
        ({"step": "raise"}, "it said 'step raised ValueError"),
    ],
)
def test_a_replay_that_says_something_else_is_an_error_with_both_texts(acts: dict[str, str], says: str) -> None:
    answer = replayed(acts, ["5", "other", "b"])
    assert answer.status == "error"
    assert says in answer.reason and "where it had said 'other'" in answer.reason


def test_environments_are_closed_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is over, one that is closed from outside, one that hangs in close, one whose worker ends."""
    monkeypatch.setattr(processes, "CLOSE_S", 0.5)
    flags = [tmp_path / str(number) for number in range(2)]
    pids: list[int] = []

    async def run() -> None:
        specs = [hostile(flag=str(flag)) for flag in flags]
        for spec, acts in zip(
            [*specs, hostile(), hostile()], [{"step": "over"}, {}, {"close": "hang"}, {}], strict=True
        ):
            async with opened(spec) as environments:
                await play(environments, prompt_of(spec.name, **acts), ["said"])
                pids.extend(environments.pids)
                if spec is not specs[0]:
                    environments.close()
                for _ in range(200):
                    if not environments._closing:
                        break
                    await asyncio.sleep(0.01)
                assert environments.pids[1:] == []

    asyncio.run(run())
    assert [flag.read_text() for flag in flags] == ["said", "said"]
    assert all_end(pids)


@pytest.mark.parametrize("named", [False, True])
def test_what_waits_for_its_turn_begins_no_process_once_it_is_closed(
    named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MAX_BUSY", 1)

    async def run() -> None:
        async with opened(hostile()) as environments:
            asked = [
                EnvironmentRequest(("train/7", index), prompt_of(HOSTILE, **acts), 5, None)
                for index, acts in enumerate([{"start": "hang"}, {}])
            ]
            answers = [asyncio.create_task(environments.answer(request, ())) for request in asked]
            await asyncio.sleep(0.3)
            environments.close([request.key for request in asked] if named else None)
            hung, waiting = await asyncio.gather(*answers)
            assert hung.reason.startswith("it was closed")
            assert (waiting.status, waiting.reason) == ("error", "it was closed before it started")
            assert environments._open == {} and environments._asked == {}

    asyncio.run(run())


def test_nothing_outlives_the_worker() -> None:
    async def run() -> list[int]:
        async with opened(hostile()) as environments:
            await play(environments, prompt_of(HOSTILE), ["a"])
            waiting = asyncio.create_task(play(environments, prompt_of(HOSTILE, step="hang"), ["a"], index=1))
            await asyncio.sleep(0.3)
            pids = environments.pids
            assert len(pids) == 3
            waiting.cancel()
            return pids

    assert all_end(asyncio.run(run()))


def test_environments_go_on_beside_a_fork_server_that_was_killed() -> None:
    """It takes its children along, which is an error of theirs; new ones come from a new server."""

    async def run() -> None:
        async with opened(hostile()) as environments:
            request = EnvironmentRequest(("train/7", 0), prompt_of(HOSTILE), 5, None)
            said = (await environments.answer(request, ())).text
            server, child = environments.pids
            os.kill(server, signal.SIGKILL)
            assert all_end([child])
            lost = await environments.answer(request._replace(place=0), [turn_of("a", said)])
            assert (lost.status, lost.is_over) == ("error", True)
            played = await play(environments, prompt_of(HOSTILE), ["a"])
            assert [answer.text for answer in played] == ["5", "a"]

    asyncio.run(run())


def test_a_worker_reports_answers_as_they_come_and_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.1)
    spec = hostile(1.0)

    async def run() -> list[list[EnvironmentAnswer]]:
        busy = worker.RewardWorker(name="busy")
        requests = [
            EnvironmentRequest(("train/7", index), prompt_of(HOSTILE, **acts), 5, place)
            for index, (acts, place) in enumerate([({}, None), ({"start": "hang"}, None), ({}, 0)])
        ]
        packed = PackedTurns.of(("train/7", 2), [turn_of("a", "5"), turn_of("b", "a")], "observation")
        try:
            reports = [report async for report in busy.answer_turns({HOSTILE: spec}, requests, packed)]
            await busy.close_environments([("train/7", 0)])
            assert await busy.peak_memory_gib() > 0
            await busy.close_environments()
        finally:
            await busy.close()
        return [[EnvironmentAnswer(*answer) for answer in report] for report in reports]

    reports = asyncio.run(run())
    answers = {answer.key[1]: answer for report in reports for answer in report}
    assert [answers[index].text for index in range(3)] == ["5", "", "b"]
    assert [answers[index].status for index in range(3)] == ["ok", "timeout", "ok"]
    assert sum(not report for report in reports) >= 3
    assert sum(map(len, reports)) == 3
