"""Real Ray workers, really killed and really hanging."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from hostile_rewards import TASKS

from rewards.config import RewardConfigError, RewardsConfig
from rewards.registry import UnknownPartError, UnknownTaskError
from rewards.workers import worker_handle
from rewards.workers.failures import RewardFailure
from rewards.workers.pool import RewardPool, stored
from rollout.types.completions import Group
from tests.support.processes import all_end, is_gone, parent, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_here")]
MakeGroup = Callable[..., Group]
StartPool = Callable[..., RewardPool]
DEADLINE_S = 1.0


@pytest.fixture
def start_pool(request: pytest.FixtureRequest) -> Iterator[StartPool]:
    pools: list[RewardPool] = []

    def start(*tasks: str, **settings: Any) -> RewardPool:
        defaults = {"tasks": TASKS, "deadline_s": DEADLINE_S, "weights": {"correctness": 0.9, "tidy": 0.1}}
        pools.append(RewardPool(RewardsConfig(**{**defaults, **settings}), f"{request.node.name}/{len(pools)}", tasks))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


@pytest.fixture(scope="module")
def shared(ray_here: None) -> Iterator[RewardPool]:
    """Yield a pool of one worker for all who need no settings of their own: to boot one takes a second."""
    settings = RewardsConfig(
        tasks=TASKS, deadline_s=DEADLINE_S, weights={"correctness": 0.9, "tidy": 0.1}, memory_gib=2, max_failed_share=1
    )
    pool = RewardPool(settings, "shared")
    yield pool
    pool.close()


def statuses(group: Group) -> list[str]:
    return [reward.status for reward in group.rewards]


def drain(pool: RewardPool, limit_s: float = 60.0) -> list[Group]:
    """Poll as the orchestrator does until nothing is pending."""
    groups: list[Group] = []
    end = time.monotonic() + limit_s
    while pool.num_pending:
        assert time.monotonic() < end, "the pool did not finish"
        ray.wait(pool.refs(), num_returns=1, timeout=pool.next_deadline())
        groups += pool.poll()
    return groups


def pid_of(pool: RewardPool, index: int = 0) -> int:
    actor: Any = pool.workers[index].actor
    pid: int = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    return pid


def test_countdown_groups_come_back_in_order_with_true_rewards(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool("countdown", num_workers=2, deadline_s=10, weights={"correctness": 0.9, "answer_tags": 0.1})
    texts = ["</think><answer>3*9+7</answer>", "</think><answer>3*9-7</answer>", "no"]
    problem = {"numbers": [3, 7, 9], "target": 34}
    groups = [make_group(texts, "countdown", problem, f"train/{i}", "<think>") for i in range(40)]
    scored = pool.collect(groups)
    assert [group.prompt.id for group in scored] == [f"train/{i}" for i in range(40)]
    assert all(group.totals.tolist() == [1.0, 0.1, 0.0] for group in scored)
    assert (pool.num_pending, pool.timeouts, pool.errors, pool.restarts) == (0, 0, 0, 0)
    assert 0.01 < pool.peak_gib < 2


def test_groups_of_several_tasks_share_the_workers(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(weights={"bonus_of_two": 1.0}, functions=["hostile_rewards:bonus_of_two"])
    problem = {"numbers": [3, 7, 9], "target": 34}
    groups = [make_group(["3*9+7"] * 3, task, problem) for task in ("countdown", "period_count") * 20]
    for group, task in zip(pool.collect(groups), ("countdown", "period_count") * 20, strict=True):
        assert group.totals.tolist() == [2.0] * 3
        assert group.rewards[0].value("correctness" if task == "countdown" else "periods") == 0.0


def test_functions_that_wait_and_of_whole_groups(start_pool: StartPool, make_group: MakeGroup) -> None:
    functions = ["waiting_rewards:waiting", "waiting_rewards:unique", "trl_rewards:waits", "trl_rewards:logs"]
    weights = {"waiting": 1.0, "unique": 1.0, "waits": 1.0}
    pool = start_pool(weights=weights, functions=functions, deadline_s=2.0, max_failed_share=1.0, num_workers=2)
    groups = [make_group(["sleep 0.2", "sleep 0.2", "hang"], "period_count") for _ in range(20)]
    for group in pool.collect(groups):
        assert statuses(group) == ["ok", "ok", "timeout"]
        assert group.totals.tolist() == [2.0, 2.0, 2.0]
        assert group.rewards[0].logged == {"letters": 22 / 3}
        assert group.rewards[0].markers == ()
    assert (pool.num_pending, pool.timeouts, pool.errors, pool.restarts) == (0, 20, 0, 0)


def test_programs_are_graded_in_boxes_that_a_worker_starts(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool("code", deadline_s=60, weights={"correctness": 1.0, "tests_passed": 0.0})
    answer = {"kind": "function", "functions": ["f"], "tests": "assert f(1) == 2", "time_limit_s": 1.0}
    programs = ["return x + 1", "import os; os._exit(0)", "while True: pass"]
    texts = [f"<answer>\ndef f(x):\n    {program}\n</answer>" for program in programs]
    (group,) = pool.collect([make_group(texts, "code", answer)])
    assert group.totals.tolist() == [1.0, 0.0, 0.0]
    assert statuses(group) == ["ok", "ok", "ok"]


def test_grading_processes_are_light_and_single_threaded(shared: RewardPool, make_group: MakeGroup) -> None:
    (group,) = shared.collect([make_group(["text"], "inspect")])
    assert (group.rewards[0].value("correctness"), group.rewards[0].value("tidy")) == (0.0, 1.0)


def test_a_pattern_that_holds_the_gil_costs_only_its_own_completion(
    shared: RewardPool, make_group: MakeGroup, tmp_path: Path
) -> None:
    timeouts = shared.timeouts
    pid_file = tmp_path / "pid"
    (group,) = shared.collect([make_group(["good", "backtrack", "good"], answer={"pid_file": str(pid_file)})])
    assert statuses(group) == ["ok", "timeout", "ok"]
    assert group.totals.tolist() == [1.0, 0.0, 1.0]
    assert (shared.timeouts - timeouts, shared.restarts) == (1, 0)
    assert wait_until(lambda: is_gone(int(pid_file.read_text()))), "the hanging process still runs"


@pytest.mark.long
def test_other_hangs_and_other_groups_meanwhile(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(num_workers=2)
    for text, prompt_id in [("spin", "1"), ("sleep", "2"), ("good", "3"), ("good", "4")]:
        pool.submit(stored(make_group([text], prompt_id=prompt_id)))
    by_id = {group.prompt.id: statuses(group) for group in drain(pool)}
    assert by_id == {"1": ["timeout"], "2": ["timeout"], "3": ["ok"], "4": ["ok"]}


def test_groups_come_back_while_another_hangs(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(deadline_s=3600)
    pool.collect([make_group(["good"])])
    pool.submit(stored(make_group(["sleep"], prompt_id="hangs")))
    scored = pool.collect([make_group(["good"] * 4, prompt_id=str(number)) for number in range(50)])
    assert [statuses(group) for group in scored] == [["ok"] * 4] * 50
    assert pool.num_pending == 1


def test_what_kills_its_process_costs_only_itself(
    shared: RewardPool, make_group: MakeGroup, caplog: pytest.LogCaptureFixture
) -> None:
    errors = shared.errors
    (group,) = shared.collect([make_group(["good", "sigkill", "segfault", "raise", "nan", "hog", "good"])])
    assert statuses(group) == ["ok", "error", "error", "error", "error", "error", "ok"]
    assert (shared.errors - errors, shared.restarts) == (5, 0)
    for reason in ("SIGKILL", "SIGSEGV", "ValueError", "nan", "MemoryError"):
        assert reason in caplog.text


def test_stop_ends_the_run_naming_what_failed(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(on_timeout="stop", on_error="stop")
    with pytest.raises(RewardFailure, match=r"train/000123.*completion 0.*hostile_rewards:act.*ValueError.*on_error"):
        pool.collect([make_group(["raise"], prompt_id="train/000123")])
    with pytest.raises(RewardFailure, match=r"train/000124.*timeout: not graded within 1 s.*on_timeout"):
        pool.collect([make_group(["sleep"], prompt_id="train/000124")])


def test_a_function_that_mostly_fails_ends_the_run(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(weights={"correctness": 1, "picky": 1}, functions=["hostile_rewards:picky"])
    with pytest.raises(RewardFailure, match=r"max_failed_share = 0\.2.*hostile_rewards:picky: \d+ × error.*ValueError"):
        pool.collect([make_group(["no number"] * 8) for _ in range(20)])


def test_nothing_blocks_and_the_pool_says_when_it_is_full(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(max_pending_groups=2)
    pool.collect([make_group(["good"])])
    assert wait_until(lambda: pool.poll() == [] and pool.refs() == [])
    assert pool.next_deadline() is None
    start = time.monotonic()
    pool.submit(stored(make_group(["sleep"])))
    assert pool.poll() == []
    assert not pool.is_full
    pool.submit(stored(make_group(["sleep"])))
    assert pool.is_full
    assert time.monotonic() - start < DEADLINE_S
    assert len(drain(pool)) == 2
    assert not pool.is_full


def test_an_import_slower_than_the_deadline_is_no_timeout(shared: RewardPool, make_group: MakeGroup) -> None:
    timeouts = shared.timeouts
    assert statuses(shared.collect([make_group(["text"], "slow")])[0]) == ["ok"]
    assert (shared.timeouts - timeouts, shared.restarts) == (0, 0)


def test_a_driver_that_looks_late_does_not_punish_who_was_in_time(
    start_pool: StartPool, make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "SILENCE_S", 0.5)
    pool = start_pool()
    pool.collect([make_group(["good"])])
    pool.submit(stored(make_group(["good"])))
    time.sleep(DEADLINE_S + 1)
    assert [statuses(group) for group in pool.poll()] == [["ok"]]
    assert pool.restarts == 0


def test_collect_leaves_other_groups_for_poll(shared: RewardPool, make_group: MakeGroup) -> None:
    shared.submit(stored(make_group(["good"], prompt_id="train/1")))
    assert [group.prompt.id for group in shared.collect([make_group(["good"], prompt_id="held_out/1")])] == [
        "held_out/1"
    ]
    assert [group.prompt.id for group in drain(shared)] == ["train/1"]


@pytest.mark.parametrize("texts", [["good", "good"], ["nap", "nap"]])
def test_a_worker_that_is_killed_costs_nothing(start_pool: StartPool, make_group: MakeGroup, texts: list[str]) -> None:
    """Once while it is idle, once while it is busy."""
    pool = start_pool("hostile", deadline_s=20)
    pid = pid_of(pool)
    pool.poll()
    if "nap" in texts:
        pool.submit(stored(make_group(texts)))
    os.kill(pid, signal.SIGKILL)
    assert [statuses(group) for group in pool.collect([make_group(texts)])] == [["ok", "ok"]]
    assert [statuses(group) for group in drain(pool)] == [["ok", "ok"]] * ("nap" in texts)
    assert (pool.restarts, pool.errors) == (1, 0)


@pytest.mark.long
def test_what_a_killed_worker_had_is_given_to_another_once(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool("hostile", deadline_s=3600)
    pool.submit(stored(make_group(["sleep"], prompt_id="hangs")))
    for number in (1, 2):
        assert wait_until(lambda: pool.poll() == [] and bool(pool.workers[0].batches))
        os.kill(pid_of(pool), signal.SIGKILL)
        scored = drain(pool) if number == 2 else []
        assert wait_until(lambda number=number: pool.poll() == [] and pool.restarts == number)  # type: ignore[misc]
    assert [statuses(group) for group in scored] == [["error"]]
    assert statuses(pool.collect([make_group(["good"])])[0]) == ["ok"]


@pytest.mark.long
def test_a_worker_that_falls_silent_is_replaced(
    start_pool: StartPool, make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "SILENCE_S", 3.0)
    pool = start_pool("hostile", deadline_s=20)
    stopped = pid_of(pool)
    # Its answers may overtake each other: one that stops before it has said that it started has not fallen silent.
    assert wait_until(lambda: pool.poll() == [] and pool.workers[0].loading is None)
    os.kill(stopped, signal.SIGSTOP)
    assert statuses(pool.collect([make_group(["good", "good"])])[0]) == ["ok", "ok"]
    assert pool.restarts >= 1
    assert all_end([stopped])


def test_mistakes_in_the_recipe_are_raised(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(deadline_s=20)
    with pytest.raises(UnknownTaskError, match="did you mean 'hostile'"):
        pool.submit(stored(make_group(["text"], "hostle")))
    with pytest.raises(RewardConfigError, match="did you mean 'correct'"):
        pool.collect([make_group(["text"], "misnamed")])
    with pytest.raises(RewardFailure, match="no_such_module"):
        pool.collect([make_group(["text"], "missing")])
    with pytest.raises(UnknownPartError, match="tidi"):
        start_pool("countdown", weights={"tidi": 1.0})


def test_what_cannot_be_loaded_or_called_is_said_before_anything_is_graded(start_pool: StartPool) -> None:
    with pytest.raises(RewardFailure, match="no_such_module"):
        start_pool("missing").wait_until_loaded({})
    pool = start_pool("countdown", functions=("trl_rewards:boxed",), weights={"boxed": 1.0})
    with pytest.raises(RewardFailure, match="boxed needs ground_truth, and the answers of sums have answer"):
        pool.wait_until_loaded({"sums": {"answer"}})
    pool.wait_until_loaded({"sums": {"ground_truth"}})
    assert not any(worker.loading for worker in pool.workers)


@pytest.mark.long
def test_a_pool_that_cannot_start_says_what_to_do(
    start_pool: StartPool, make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_handle, "START_DEADLINE_S", 0.5)
    pool = start_pool(cpus_per_worker=64)
    with pytest.raises(RewardFailure, match=r"did not start.*CPUs free.*rewards\.cpus_per_worker"):
        pool.collect([make_group(["good"])])


@pytest.mark.long
def test_peak_memory_leaves_out_who_cannot_answer(
    start_pool: StartPool, make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = start_pool(num_workers=2, deadline_s=60)
    with monkeypatch.context() as patch:
        patch.setattr(worker_handle, "PEAK_MEMORY_WAIT_S", 60.0)  # they still boot
        peaks = pool.peak_memory_gib()
    assert list(peaks) == ["0-0", "0-1"]
    assert all(0.01 < gib < 2 for gib in peaks.values())
    os.kill(pid_of(pool, 0), signal.SIGKILL)
    assert list(pool.peak_memory_gib()) == ["0-1"]
    pool.close()
    assert pool.peak_memory_gib() == {}


def test_close_ends_the_processes(start_pool: StartPool, make_group: MakeGroup, tmp_path: Path) -> None:
    pool = start_pool(deadline_s=60)
    pid_file = tmp_path / "pids"
    pool.submit(stored(make_group(["program"], answer={"pid_file": str(pid_file)})))
    while not pid_file.exists() or len(pid_file.read_text().split()) < 2:
        ray.wait(pool.refs(), timeout=0.1)
        pool.poll()
    grading, program = (int(pid) for pid in pid_file.read_text().split())
    started = [pid_of(pool), parent(grading), grading, program]
    pool.close()
    pool.close()
    assert pool.num_pending == 0
    assert all_end(started)
