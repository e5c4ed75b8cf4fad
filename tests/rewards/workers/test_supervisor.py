"""Real grading processes, without Ray: what hangs, dies, hogs memory or starts programs, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from processes import all_end, children, fork_servers, parent, wait_until

from rewards.function import Outcome, RewardFunction
from rewards.workers import processes as processes_module
from rewards.workers import supervisor, worker
from rewards.workers.fork_server import LoadError
from rewards.workers.processes import GradeTask
from rewards.workers.worker import RewardWorker
from tests.support.paths import SUPPORT

DEADLINE_S = 0.5
GUARDED = RewardFunction("guarded", "hostile_rewards:guarded", ("guarded",), deadline_s=DEADLINE_S)


def act(deadline_s: float = DEADLINE_S) -> RewardFunction:
    return RewardFunction("hostile", "hostile_rewards:act", ("correctness", "tidy"), True, deadline_s=deadline_s)


@asynccontextmanager
async def working(*functions: RewardFunction, memory_gib: float | None = None) -> AsyncIterator[RewardWorker]:
    worker = RewardWorker(memory_gib)
    try:
        assert await worker.load(functions) == os.getpid()
        yield worker
    finally:
        await worker.close()


def tasks_of(texts: Iterable[str], *functions: RewardFunction, answer: Any = None) -> list[GradeTask]:
    return [GradeTask(functions, text, answer or {}) for text in texts]


async def grade(worker: RewardWorker, tasks: Sequence[GradeTask]) -> list[tuple[Outcome, ...]]:
    """Return the functions' outcomes for each task."""
    found: dict[int, tuple[Outcome, ...]] = {}
    async for progress in worker.grade(tasks):
        for position, outcomes in progress.done:
            assert position not in found, "a task came back twice"
            found[position] = outcomes
    return [found[position] for position in range(len(tasks))]


def statuses_of(graded: Iterable[Sequence[Outcome]]) -> list[list[str]]:
    return [[outcome.status for outcome in outcomes] for outcomes in graded]


def statuses(texts: list[str], *functions: RewardFunction, answer: Any = None, **settings: Any) -> list[list[str]]:
    async def run() -> list[list[str]]:
        async with working(*functions, **settings) as worker:
            return statuses_of(await grade(worker, tasks_of(texts, *functions, answer=answer)))

    return asyncio.run(run())


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
    patient = RewardFunction("nap", "hostile_rewards:act", (), True, deadline_s=20)
    hasty = RewardFunction("hasty", "hostile_rewards:act", (), True, deadline_s=0.1)
    assert statuses(["nap"], patient, hasty) == [["ok", "timeout"]]


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


def test_waiting_for_a_cpu_is_not_held_against_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of work takes longer than its deadline only because others want the same CPU."""
    monkeypatch.setattr(processes_module, "MAX_STRETCH", 100.0)
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


def test_children_that_are_killed_from_outside_lose_nothing() -> None:
    killed = set()

    async def run() -> list[list[str]]:
        async with working(act(20)) as worker:
            made = []
            async for progress in worker.grade(tasks_of(["nap", "nap", "nap", "good"], act(20))):
                made += progress.done
                for pid in worker._supervisor.pids[1:]:
                    if len(killed) < 2 and pid not in killed:
                        killed.add(pid)
                        os.kill(pid, signal.SIGKILL)
            return statuses_of(outcomes for _, outcomes in sorted(made))

    assert asyncio.run(run()) == [["ok"]] * 4


def test_a_fork_server_that_is_killed_is_replaced() -> None:
    """With it die two children, one that hangs and one at work: what they had is tried once more."""

    async def run() -> list[list[str]]:
        async with working(act(1.5)) as worker:
            await grade(worker, tasks_of(["good"], act()))
            server = worker._supervisor.pids[0]
            made = []
            async for progress in worker.grade(tasks_of(["sleep", "nap", "nap", "good"], act(1.5))):
                made += progress.done
                if len(worker._supervisor.pids) == 3 and worker._supervisor.pids[0] == server:
                    os.kill(server, signal.SIGKILL)
            assert worker._supervisor.pids[0] != server
            return statuses_of(outcomes for _, outcomes in sorted(made))

    assert asyncio.run(run()) == [["timeout"], ["ok"], ["ok"], ["ok"]]


def test_a_worker_says_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_S", 0.05)

    async def run() -> int:
        async with working(act(20)) as busy:
            return len([progress async for progress in busy.grade(tasks_of(["nap"], act(20)))])

    assert asyncio.run(run()) >= 4


def num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """After timeouts, deaths and close(): no process, no zombie, no open file."""
    before = children(os.getpid())
    open_files = num_open_files()
    pid_file = tmp_path / "pids"
    made = statuses(["good", "spin", "segfault", "program"], act(), answer={"pid_file": str(pid_file)})
    assert made == [["ok"], ["timeout"], ["error"], ["timeout"]]
    assert all_end([int(pid) for pid in pid_file.read_text().split()])
    assert children(os.getpid()) == before
    assert os.getpid() not in fork_servers().values()
    assert num_open_files() <= open_files


WORKER = """
import asyncio, sys
sys.path[:0] = {path!r}
from rewards.function import RewardFunction
from rewards.workers.processes import GradeTask
from rewards.workers.worker import RewardWorker

async def run():
    act = RewardFunction("hostile", "hostile_rewards:act", (), True, deadline_s=3600)
    worker = RewardWorker()
    await worker.load([act])
    async for _ in worker.grade([GradeTask((act,), "program", {{"pid_file": {pid_file!r}}})]):
        pass

asyncio.run(run())
"""


@pytest.mark.parametrize("victim", ["worker", "fork server"])
def test_no_process_outlives_what_it_was_started_by(tmp_path: Path, victim: str) -> None:
    """A worker hangs in a program that a reward function started; then the worker, or its fork server, is killed."""
    pid_file = tmp_path / "pids"
    code = WORKER.format(path=[str(SUPPORT), str(SUPPORT.parents[1])], pid_file=str(pid_file))
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        assert wait_until(lambda: pid_file.exists() and len(pid_file.read_text().split()) == 2)
        grading, program = (int(pid) for pid in pid_file.read_text().split())
        server = parent(grading)
        assert fork_servers()[server] == process.pid
        os.kill(process.pid if victim == "worker" else server, signal.SIGKILL)
        if victim == "worker":
            assert all_end([server, grading, program])
        else:
            assert all_end([server, grading])  # nobody is left who knows of the program
            process.kill()
            os.kill(program, signal.SIGKILL)


def test_answers_in_time_count_however_late_they_are_looked_at() -> None:
    async def run() -> list[list[str]]:
        async with working(act()) as busy:
            await grade(busy, tasks_of(["good"], act()))
            grading = asyncio.create_task(grade(busy, tasks_of(["good"], act())))
            await asyncio.sleep(0)
            time.sleep(3 * DEADLINE_S)  # the event loop is kept from looking
            return statuses_of(await grading)

    assert asyncio.run(run()) == [["ok"]]
