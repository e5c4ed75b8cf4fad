"""Real grading processes, without Ray: what is killed from outside, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rewards.workers import worker
from tests.support.paths import SUPPORT
from tests.support.processes import all_end, children, fork_servers, parent, wait_until
from tests.support.reward_workers import act, grade, statuses, statuses_of, tasks_of, working


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
    """With it die its children, one that hangs and those at work: their tasks are graded once more."""

    async def run() -> list[list[str]]:
        async with working(act(1.5)) as worker:
            await grade(worker, tasks_of(["good"], act()))
            server = worker._supervisor.pids[0]
            made = []
            async for progress in worker.grade(tasks_of(["sleep", "nap", "nap", "good"], act(1.5))):
                made += progress.done
                if len(worker._supervisor.pids) >= 3 and worker._supervisor.pids[0] == server:
                    os.kill(server, signal.SIGKILL)
            assert worker._supervisor.pids[0] != server
            return statuses_of(outcomes for _, outcomes in sorted(made))

    assert asyncio.run(run()) == [["timeout"], ["ok"], ["ok"], ["ok"]]


def test_a_task_is_not_given_to_a_process_that_died_idle_with_its_fork_server() -> None:
    """Its death would count as the task's second, after that of the process which was at work on it."""

    async def run() -> list[list[str]]:
        async with working(act(20)) as worker:
            await grade(worker, tasks_of(["good"], act(20)))
            made = []
            async for progress in worker.grade(tasks_of(["nap", "good"], act(20))):
                made += progress.done
                if len(made) == 1 and len(worker._supervisor.pids) == 3:
                    os.kill(worker._supervisor.pids[0], signal.SIGKILL)
            return statuses_of(outcomes for _, outcomes in sorted(made))

    assert asyncio.run(run()) == [["ok"], ["ok"]]


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
from rewards.subject import Subject
from rewards.workers.processes import GradeTask
from rewards.workers.worker import RewardWorker

async def run():
    act = RewardFunction("hostile", "hostile_rewards:act", (), True, deadline_s=3600)
    worker = RewardWorker()
    await worker.load([act])
    async for _ in worker.grade([GradeTask((act,), Subject(("program",), {{"pid_file": {pid_file!r}}}))]):
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
