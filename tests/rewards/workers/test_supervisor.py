"""Real grading processes, without Ray: what hangs, dies, raises or hogs memory."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rewards.function import Outcome, RewardFunction
from rewards.workers import supervisor
from rewards.workers.children import kernel_counts
from rewards.workers.children.fork_server_handle import LoadError
from rewards.workers.processes import GradingProcess
from tests.support.reward_workers import DEADLINE_S, GUARDED, act, grade, statuses, statuses_of, tasks_of, working

FATAL_IMPORT = """
import os, pathlib, signal
died = len([*pathlib.Path({folder!r}).glob("*.died")])
if died < {deaths}:
    pathlib.Path({folder!r}, f"{{died}}.died").touch()
    os.kill(os.getpid(), signal.SIGKILL)

def score(text, answer):
    return 1.0
"""


@pytest.mark.parametrize("hang", ["backtrack", "power", "spin", "sleep"])
def test_what_never_returns_is_a_timeout_and_the_rest_is_graded(hang: str) -> None:
    assert statuses(["good", hang, "good"], act()) == [["ok"], ["timeout"], ["ok"]]


@pytest.mark.parametrize("death", ["sigkill", "segfault", "leave"])
def test_what_kills_its_process_is_an_error_and_the_rest_is_graded(death: str) -> None:
    assert statuses(["good", death, "good"], act(20)) == [["ok"], ["error"], ["ok"]]


def test_a_death_by_accident_costs_nothing(tmp_path: Path) -> None:
    answer = {"flag": str(tmp_path / "died")}
    assert statuses(["good", "kill once"], act(20), answer=answer) == [["ok"], ["ok"]]
    assert (tmp_path / "died").exists()


def test_exceptions_and_memory_stay_with_their_completion() -> None:
    assert statuses(["good", "raise", "hog", "good"], act(20), memory_gib=1) == [["ok"], ["error"], ["error"], ["ok"]]


def test_a_late_function_costs_only_its_own_parts() -> None:
    made = statuses(["guarded hangs", "good", "spin"], act(), GUARDED)
    assert made == [["ok", "timeout"], ["ok", "ok"], ["timeout", "ok"]]


def test_each_function_has_its_own_deadline() -> None:
    generous = RewardFunction("nap", "hostile_rewards:act", (), True, deadline_s=20)
    hasty = RewardFunction("hasty", "hostile_rewards:act", (), True, deadline_s=0.1)
    assert statuses(["nap"], generous, hasty) == [["ok", "timeout"]]


def test_functions_get_their_parameters() -> None:
    generous = RewardFunction("guarded", GUARDED.path, ("guarded",), parameters={"bonus": 2.0})
    assert outcome_of(generous, {}).grades == {"guarded": 2.0}


@pytest.mark.parametrize(
    ("path", "parameters", "says"),
    [
        ("no_such_module:score", {}, "no_such_module"),
        ("hostile_rewards:nothing", {}, "no function 'nothing'"),
        ("hostile_rewards:guarded", {"bonos": 1}, r"rewards\.parameters\.guarded\.bonos.*did you mean 'bonus'"),
    ],
)
def test_a_function_that_cannot_be_used_is_reported(path: str, parameters: dict[str, Any], says: str) -> None:
    async def run() -> None:
        async with working(RewardFunction("guarded", path, ("guarded",), parameters=parameters)):
            pass

    with pytest.raises(LoadError, match=says):
        asyncio.run(run())


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_death_while_importing_is_an_accident_and_a_second_one_is_not(
    deaths: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fatal_import.py").write_text(FATAL_IMPORT.format(folder=str(tmp_path), deaths=deaths))
    monkeypatch.syspath_prepend(tmp_path)
    fatal = RewardFunction("fatal", "fatal_import:score", ("correctness",))
    if deaths == 1:
        assert statuses(["good"], fatal) == [["ok"]]
    else:
        with pytest.raises(LoadError, match="the process that imports fatal_import:score died twice"):
            statuses(["good"], fatal)
    assert len([*tmp_path.glob("*.died")]) == deaths


def test_a_function_that_returns_something_else_is_an_error() -> None:
    mapping_for_number = RewardFunction("guarded", "hostile_rewards:act", ("guarded",))
    number_for_mapping = RewardFunction("task", "hostile_rewards:guarded", ("correctness",), True)
    assert statuses(["good"], mapping_for_number, number_for_mapping) == [["error", "error"]]


def test_others_are_graded_while_some_hang() -> None:
    """Two texts that hang for long do not keep back the others of their call, nor the calls after it."""

    async def run() -> None:
        async with working(act(deadline_s=60)) as worker:
            await grade(worker, tasks_of(["good"], act(60)))  # what is slow is known by now
            hanging = worker.grade(tasks_of(["good", "sleep", "good", "spin"], act(60)))
            async for progress in hanging:
                if progress.num_open == 0:
                    break
            assert statuses_of(await grade(worker, tasks_of(["good"] * 20, act(60)))) == [["ok"]] * 20

    asyncio.run(run())


def test_no_more_than_so_many_hang_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_SET_ASIDE", 2)
    most = 0

    async def run() -> list[list[str]]:
        nonlocal most
        async with working(act()) as worker:
            made = []
            async for progress in worker.grade(tasks_of(["good", *["sleep"] * 6, "good"], act())):
                most = max(most, len(worker._supervisor.pids) - 1)
                made += progress.done
            return statuses_of(outcomes for _, outcomes in sorted(made))

    assert asyncio.run(run()) == [["ok"], *[["timeout"]] * 6, ["ok"]]
    assert 2 <= most <= 3


def test_an_answer_that_comes_while_the_clock_is_looked_at_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_until_it_has_answered(process: GradingProcess) -> bool:
        if process.tasks:
            select.select([process._channel._connection], [], [], 60)
        return bool(process.tasks)

    monkeypatch.setattr(GradingProcess, "is_late", look_until_it_has_answered)
    work = RewardFunction("work", "hostile_rewards:work_on_cpu", ("work",), deadline_s=60.0)
    assert outcome_of(work, {"cpu": min(os.sched_getaffinity(0))}).status == "ok"


@pytest.mark.parametrize("is_counted", [True, False])
def test_waiting_for_a_cpu_is_not_held_against_a_function(is_counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of work takes longer than its deadline only because others want the same CPU.

    The kernel does not count the wait that lasts, nor the time that a hypervisor gives to others.
    """
    monkeypatch.setattr(kernel_counts, "MAX_STRETCH", 100.0)
    if not is_counted:
        monkeypatch.setattr(kernel_counts, "seconds_waited_for_cpu", lambda pid: 0.0)
    cpu = min(os.sched_getaffinity(0))
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    for rival in rivals:
        os.sched_setaffinity(rival.pid, {cpu})
    work = RewardFunction("work", "hostile_rewards:work_on_cpu", ("work",), deadline_s=0.7)
    try:
        outcome = outcome_of(work, {"cpu": cpu})
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert outcome.status == "ok"
    assert outcome.seconds > work.deadline_s


def outcome_of(function: RewardFunction, answer: Any) -> Outcome:
    """Return what it makes of a text."""

    async def run() -> Outcome:
        async with working(function) as worker:
            ((outcome,),) = await grade(worker, tasks_of(["text"], function, answer=answer))
            return outcome

    return asyncio.run(run())


def test_answers_in_time_count_however_late_they_are_looked_at() -> None:
    async def run() -> list[list[str]]:
        async with working(act()) as busy:
            await grade(busy, tasks_of(["good"], act()))
            grading = asyncio.create_task(grade(busy, tasks_of(["good"], act())))
            await asyncio.sleep(0)
            time.sleep(3 * DEADLINE_S)  # the event loop is kept from looking
            return statuses_of(await grading)

    assert asyncio.run(run()) == [["ok"]]


def test_the_last_report_on_some_tasks_tells_the_memory_of_a_worker_and_its_processes() -> None:
    async def run() -> tuple[list[float], float]:
        async with working(GUARDED) as worker:
            told = [progress.peak_gib async for progress in worker.grade(tasks_of(["good", "good"], GUARDED))]
            return told, await worker.peak_memory_gib()

    told, measured = asyncio.run(run())
    assert not any(told[:-1]) and 0.01 < told[-1] <= measured
