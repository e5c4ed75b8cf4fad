"""Real Ray workers, really killed and really hanging."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from hostile_rewards import FUNCTIONS

from rewards import pool as pool_module
from rewards.config import RewardsConfig
from rewards.ledger import RewardFailure
from rewards.pool import RewardPool
from rewards.registry import UnknownTaskError
from rewards.score import RewardConfigError
from rollout.types import Group

HERE = Path(__file__).resolve().parent
MakeGroup = Callable[..., Group]
StartPool = Callable[..., RewardPool]
DEADLINE_S = 1.0


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Workers inherit the environment that Ray is started in, not this process's sys.path.
        patch.setenv("PYTHONPATH", f"{HERE}:{HERE.parents[1]}")
        ray.init(num_cpus=2, _node_ip_address="127.0.0.1", include_dashboard=False)
    yield
    ray.shutdown()


@pytest.fixture
def start_pool(request: pytest.FixtureRequest) -> Iterator[StartPool]:
    pools: list[RewardPool] = []

    def start(**settings: object) -> RewardPool:
        config = RewardsConfig(**{"functions": FUNCTIONS, "deadline_s": DEADLINE_S, **settings})  # type: ignore[arg-type]
        pools.append(RewardPool(config, name_prefix=f"{request.node.name}/{len(pools)}"))
        return pools[-1]

    yield start
    for pool in pools:
        pool.close()


def statuses(group: Group) -> list[str]:
    return [reward.status for reward in group.rewards]


def drain(pool: RewardPool, limit_s: float = 60.0) -> list[Group]:
    """Polls as the orchestrator does until nothing is pending."""
    groups: list[Group] = []
    end = time.monotonic() + limit_s
    while pool.num_pending:
        assert time.monotonic() < end, "the pool did not finish"
        ray.wait(pool.refs(), num_returns=1, timeout=pool.next_deadline())
        groups += pool.poll()
    return groups


def test_countdown_groups_come_back_in_order_with_true_rewards(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(num_workers=2, deadline_s=10)
    texts = ["</think><answer>3*9+7</answer>", "</think><answer>3*9-7</answer>", "no"]
    problem = {"numbers": [3, 7, 9], "target": 34}
    groups = [make_group(texts, "countdown", problem, f"train/{i}") for i in range(10)]
    scored = pool.collect(groups)
    assert [group.prompt.id for group in scored] == [f"train/{i}" for i in range(10)]
    assert all(group.totals.tolist() == [1.0, 0.1, 0.0] for group in scored)
    assert (pool.num_pending, pool.timeouts, pool.errors, pool.restarts) == (0, 0, 0, 0)


def test_workers_are_light_and_single_threaded(start_pool: StartPool, make_group: MakeGroup) -> None:
    (group,) = start_pool().collect([make_group(["text"], "inspect")])
    assert (group.rewards[0].part("correctness").value, group.rewards[0].part("format").value) == (0.0, 1.0)


def test_a_pattern_that_holds_the_gil_costs_only_its_own_completion(
    start_pool: StartPool, make_group: MakeGroup, tmp_path: Path
) -> None:
    pool = start_pool()
    pid_file = tmp_path / "pid"
    (group,) = pool.collect([make_group(["good", "backtrack", "good"], answer={"pid_file": str(pid_file)})])
    assert statuses(group) == ["ok", "timeout", "ok"]
    assert group.totals.tolist() == [1.0, 0.0, 1.0]
    assert (pool.timeouts, pool.errors, pool.restarts) == (1, 0, 2)
    assert ends(int(pid_file.read_text())), "the hanging process still runs"


def ends(pid: int, limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_other_hangs_and_other_groups_meanwhile(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(num_workers=2)
    for text, prompt_id in [("spin", "1"), ("sleep", "2"), ("good", "3"), ("good", "4")]:
        pool.submit(make_group([text], prompt_id=prompt_id))
    by_id = {group.prompt.id: statuses(group) for group in drain(pool)}
    assert by_id == {"1": ["timeout"], "2": ["timeout"], "3": ["ok"], "4": ["ok"]}
    assert pool.restarts == 2


@pytest.mark.parametrize("death", ["sigkill", "segfault"])
def test_a_worker_that_dies_costs_only_the_culprit(start_pool: StartPool, make_group: MakeGroup, death: str) -> None:
    pool = start_pool(deadline_s=20)
    (group,) = pool.collect([make_group(["good", death, "good"])])
    assert statuses(group) == ["ok", "error", "ok"]
    assert group.totals.tolist() == [1.0, 0.0, 1.0]
    assert (pool.timeouts, pool.errors, pool.restarts) == (0, 1, 2)


def test_a_death_by_accident_costs_nothing(start_pool: StartPool, make_group: MakeGroup, tmp_path: Path) -> None:
    pool = start_pool(deadline_s=20)
    (group,) = pool.collect([make_group(["good", "kill once"], answer={"flag": str(tmp_path / "died")})])
    assert statuses(group) == ["ok", "ok"]
    assert (pool.errors, pool.restarts) == (0, 1)


def test_exceptions_nan_and_memory_stay_with_their_completion(
    start_pool: StartPool, make_group: MakeGroup, caplog: pytest.LogCaptureFixture
) -> None:
    pool = start_pool(deadline_s=20, memory_gib=2)
    (group,) = pool.collect([make_group(["good", "raise", "nan", "hog", "good"])])
    assert statuses(group) == ["ok", "error", "error", "error", "ok"]
    assert (pool.errors, pool.restarts) == (3, 0)
    assert "MemoryError" in caplog.text
    assert "ValueError" in caplog.text


def test_stop_ends_the_run_naming_what_failed(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(on_timeout="stop", on_error="stop")
    with pytest.raises(RewardFailure, match=r"train/000123.*completion 0.*ValueError.*on_error"):
        pool.collect([make_group(["raise"], prompt_id="train/000123")])
    with pytest.raises(RewardFailure, match=r"train/000124.*timeout.*deadline_s = 1 s.*on_timeout"):
        pool.collect([make_group(["sleep"], prompt_id="train/000124")])


def test_nothing_blocks_and_the_next_deadline_is_known(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool()
    pool.collect([make_group(["good"])])
    assert pool.next_deadline() is None
    assert pool.refs() == []
    start = time.monotonic()
    pool.submit(make_group(["sleep"]))
    assert pool.poll() == []
    left = pool.next_deadline()
    assert time.monotonic() - start < 0.5
    assert left is not None
    assert 0.3 < left <= DEADLINE_S
    assert len(pool.refs()) == 1
    assert pool.num_pending == 1


def test_an_import_slower_than_the_deadline_is_no_timeout(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool()
    assert statuses(pool.collect([make_group(["text"], "slow")])[0]) == ["ok"]
    assert (pool.timeouts, pool.restarts) == (0, 0)


def test_a_driver_that_looks_late_does_not_punish_a_worker_that_was_in_time(
    start_pool: StartPool, make_group: MakeGroup
) -> None:
    pool = start_pool()
    pool.collect([make_group(["good"])])
    pool.submit(make_group(["good"]))
    time.sleep(DEADLINE_S + 0.3)
    assert [statuses(group) for group in pool.poll()] == [["ok"]]
    assert pool.restarts == 0


def test_collect_leaves_other_groups_for_poll(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(deadline_s=20)
    pool.submit(make_group(["good"], prompt_id="train/1"))
    assert [group.prompt.id for group in pool.collect([make_group(["good"], prompt_id="held_out/1")])] == ["held_out/1"]
    assert pool.next_deadline() == 0.0
    assert [group.prompt.id for group in pool.poll()] == ["train/1"]
    assert pool.num_pending == 0


def test_a_worker_killed_while_idle_is_replaced(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(deadline_s=20)
    pool.collect([make_group(["good"])])
    ray.kill(ray.get_actor(pool._slots[0].name))
    assert statuses(pool.collect([make_group(["good", "good"])])[0]) == ["ok", "ok"]
    assert pool.restarts == 1


def test_mistakes_in_the_recipe_are_raised(start_pool: StartPool, make_group: MakeGroup) -> None:
    pool = start_pool(deadline_s=20)
    with pytest.raises(UnknownTaskError, match="did you mean 'countdown'"):
        pool.submit(make_group(["text"], "countdwon"))
    with pytest.raises(RewardConfigError, match="rename it to correct"):
        pool.collect([make_group(["text"], "misnamed")])
    with pytest.raises(RewardFailure, match="no_such_module"):
        pool.collect([make_group(["text"], "missing")])


def test_a_pool_that_cannot_start_says_what_to_do(
    start_pool: StartPool, make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "START_DEADLINE_S", 0.5)
    pool = start_pool(cpus_per_worker=64)
    with pytest.raises(RewardFailure, match=r"did not start.*2 CPUs free.*rewards\.cpus_per_worker"):
        pool.collect([make_group(["good"])])


def test_peak_memory_leaves_out_who_cannot_answer(
    start_pool: StartPool, make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = start_pool(num_workers=3, deadline_s=60)
    with monkeypatch.context() as patch:
        patch.setattr(pool_module, "PEAK_MEMORY_WAIT_S", 60.0)  # they still boot
        peaks = pool.peak_memory_gib()
    assert list(peaks) == ["0-0", "0-1", "0-2"]
    assert all(0.01 < gib < 2 for gib in peaks.values())
    pool.submit(make_group(["sleep"]))
    while not (busy := [slot for slot in pool._slots if slot.job is not None]):
        ray.wait(pool.refs())
        pool.poll()
    dead, idle = (slot for slot in pool._slots if slot not in busy)
    ray.kill(dead.actor)
    assert list(pool.peak_memory_gib()) == [f"0-{idle.index}"]
    pool.close()
    assert pool.peak_memory_gib() == {}


def test_close_ends_the_processes(start_pool: StartPool, make_group: MakeGroup, tmp_path: Path) -> None:
    pool = start_pool(deadline_s=60)
    pid_file = tmp_path / "pid"
    pool.submit(make_group(["spin"], answer={"pid_file": str(pid_file)}))
    while not pid_file.exists() or not pid_file.read_text():
        ray.wait(pool.refs(), timeout=0.1)
        pool.poll()
    pool.close()
    pool.close()
    assert pool.num_pending == 0
    assert ends(int(pid_file.read_text()))
