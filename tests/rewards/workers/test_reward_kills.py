"""Workers and grading processes are killed at random while groups are graded: nothing is lost or graded twice.

A driver that is killed leaves no process.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from rewards.config import RewardsConfig
from rewards.workers.pool import RewardPool, stored
from rollout.types.completions import Group
from tests.support.paths import SUPPORT
from tests.support.processes import all_end, children, descendants, fork_servers, parent, wait_until

pytestmark = pytest.mark.slow
MakeGroup = Callable[..., Group]
NUM_GROUPS, GROUP_SIZE, NUM_KILLS = 200, 8, 12


def own_fork_servers() -> dict[int, int]:
    """Return the process id of each -> that of its worker; of this test's pool only."""
    own = {*descendants(os.getpid())}
    return {server: worker for server, worker in fork_servers().items() if worker in own}


@pytest.mark.usefixtures("ray_here")
def test_random_kills_lose_and_duplicate_nothing(make_group: MakeGroup) -> None:
    settings = RewardsConfig(
        weights={"correctness": 1.0}, tasks={"echo": "hostile_rewards:echo"}, num_workers=2, max_failed_share=1.0
    )
    pool = RewardPool(settings, "kills", ["echo"])
    for number in range(NUM_GROUPS):
        texts = [f"pays {GROUP_SIZE * number + index}" for index in range(GROUP_SIZE)]
        pool.submit(stored(make_group(texts, "echo", prompt_id=str(number))))
    scored, num_kills = grade_under_fire(pool)
    assert num_kills == NUM_KILLS
    assert pool.restarts >= 1
    assert sorted(int(group.prompt.id) for group in scored) == list(range(NUM_GROUPS))
    for group in scored:
        for index, reward in enumerate(group.rewards):
            # Who is unlucky twice may be an error, and says so. What is graded has its own grade.
            assert reward.status == "error" or reward.total == GROUP_SIZE * int(group.prompt.id) + index
    assert pool.errors == sum(reward.status == "error" for group in scored for reward in group.rewards)
    assert pool.timeouts == 0
    started = [pid for server, worker in own_fork_servers().items() for pid in (server, worker, *children(server))]
    assert started
    pool.close()
    assert all_end(started)


def grade_under_fire(pool: RewardPool) -> tuple[list[Group], int]:
    """Return the groups and how many processes were killed: every sixth a worker, the others grading processes."""
    chance = random.Random(0)
    scored: list[Group] = []
    num_kills, next_kill, end = 0, time.monotonic(), time.monotonic() + 120
    while pool.num_pending:
        assert time.monotonic() < end, "the pool did not finish"
        ray.wait(pool.refs(), num_returns=1, timeout=0.02)
        scored += pool.poll()
        servers = own_fork_servers()
        workers, grading = [*servers.values()], [pid for server in servers for pid in children(server)]
        victims = workers if num_kills % 6 == 3 else grading
        if scored and victims and num_kills < NUM_KILLS and time.monotonic() > next_kill:
            os.kill(chance.choice(victims), signal.SIGKILL)
            num_kills += 1
            next_kill = time.monotonic() + 0.02
    return scored, num_kills


DRIVER = """
import sys
sys.path[:0] = {path!r}
import numpy as np, ray
from rewards.config import RewardsConfig
from rewards.workers.pool import RewardPool, stored
from rollout.types.completions import Completion, Group
from rollout.types.prompts import Prompt

ray.init("local", num_cpus=2, _node_ip_address="127.0.0.1", include_dashboard=False, log_to_driver=False)
pool = RewardPool(RewardsConfig(weights={{"correctness": 1}}, tasks={{"t": "hostile_rewards:act"}}, deadline_s=3600))
tokens = np.zeros(1, dtype=np.int32)
completion = Completion(tokens, np.zeros(1, dtype=np.float32), "stop", (0,), "program")
pool.collect([Group(Prompt("1", tokens, "", "t", {{"pid_file": {pid_file!r}}}), (completion,))])
"""


def test_no_process_outlives_a_driver_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pids"
    path = [str(SUPPORT), str(SUPPORT.parents[1])]
    code = DRIVER.format(path=path, pid_file=str(pid_file))
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": ":".join(path)}) as driver:
        assert wait_until(lambda: pid_file.exists() and len(pid_file.read_text().split()) == 2, limit_s=120)
        grading, program = (int(pid) for pid in pid_file.read_text().split())
        server = parent(grading)
        worker = fork_servers()[server]
        driver.kill()
    assert all_end([worker, server, grading, program])
