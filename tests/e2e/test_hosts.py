"""Runs over hosts of a network: on two, and where one joins, is slow, is lost or lacks the shared folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.real_runs.observed import GENERATOR, LEARNER, SETTINGS, Run
from orchestrator.config.recipe import RECIPES
from orchestrator.fleet.scale import request_generators
from tests.support.hosts import Host, host_of, memory_gib, network
from tests.support.hosts_ray import HostsRay
from tests.support.paths import WARM_START

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = ("prompts_per_step=8", "group_size=4", "sampling.max_completion_tokens=48", "checkpoint.every_steps=1")
ONE_OF_EACH = ("learner.cpus_per_rank=0.6", "rollout.cpus_per_generator=0.3")
"""Leaves a host of one core room for one rank and one generator, and one reward worker somewhere."""
ONE_IN_ALL = ("learner.num_ranks=1", "rollout.num_generators=1")
WAITING = ("placement.wait_for_resources_s=200",)
"""For the second host, which may need longer than the driver."""
MOST_GIB = 6.0


def start_run(folder: Path, ray: HostsRay, host: Host, name: str, *settings: str) -> Run:
    return Run(folder, name, *SMALL, *settings, environment=ray.environment(host), prefix=host.command())


def places(run: Run, kind: str, hosts: list[Host]) -> set[str]:
    """The hosts of the run's actors of that kind."""
    return {host_of(pid, hosts) for pid in run.pids(kind)} - {""}


def stop(run: Run) -> None:
    """Ask the driver to leave cleanly, and wait for that. It is a child of the command that enters its host."""
    (driver,) = psutil.Process(run.process.pid).children()
    driver.send_signal(signal.SIGTERM)
    assert run.process.wait(timeout=200) == 130, run.output


def test_a_run_over_two_hosts(tmp_path: Path) -> None:
    """Ranks, generators, publishes and groups cross the network."""
    with network(2) as hosts:
        ray = HostsRay(hosts[0], num_cpus=1)
        ray.join(hosts[1], num_cpus=1)
        run = start_run(tmp_path, ray, hosts[0], "two-hosts", *ONE_OF_EACH, *WAITING, "num_steps=2")
        run.wait_for_step(1)
        assert places(run, GENERATOR, hosts) == places(run, LEARNER, hosts) == {"host1", "host2"}
        held = memory_gib(hosts)
        run.finish()
    assert run.steps == [0, 1, 2]
    assert run.lost_and_twice() == (0, 0)
    assert max(line["rollout/logprob_gap"] for line in run.metrics[1:]) < 1e-5
    assert held < MOST_GIB, f"all processes held {held:.1f} GiB"


@pytest.mark.long
def test_a_host_joins_is_slow_is_lost_and_comes_back(tmp_path: Path) -> None:
    """The link of the second host, with a generator, is slowed, delayed, cut and mended. No prompt is lost."""
    with network(2) as hosts:
        ray = HostsRay(hosts[0], num_cpus=1)
        run = start_run(tmp_path, ray, hosts[0], "joined", *ONE_OF_EACH, *ONE_IN_ALL, "num_steps=1000")
        run.wait_for_step(1)
        request_generators(run.directory, 2)
        run.wait_for(lambda: "2 generators were requested" in run.log, "the wish in the log")
        ray.join(hosts[1], num_cpus=1)
        run.wait_for(lambda: run.metrics[-1]["system/generators"] == 2, "a generator on the host that joined")
        assert places(run, GENERATOR, hosts) == {"host1", "host2"}
        run.wait_for_step(run.steps[-1] + 2)
        assert memory_gib(hosts) < MOST_GIB

        hosts[1].slow(mbit=8)
        run.wait_for_step(run.steps[-1] + 2)
        assert run.metrics[-1]["time/publish_s"] > 1.5  # 2 MB of weights
        hosts[1].mend()
        hosts[1].delay(milliseconds=100)
        run.wait_for_step(run.steps[-1] + 2)
        assert run.metrics[-1]["time/publish_s"] > 0.35  # the calls of two phases, there and back
        hosts[1].mend()
        assert run.metrics[-1]["system/generator_restarts"] == 0

        hosts[1].cut()
        run.wait_for(lambda: "generator-1 is lost" in run.log, "the loss in the log")
        run.wait_for(lambda: run.metrics[-1]["system/generators"] == 1, "a step without the host")
        run.wait_for_step(run.steps[-1] + 2)
        hosts[1].mend()

        def is_back() -> bool:
            ray.join_again(hosts[1], num_cpus=1)
            return run.metrics[-1]["system/generators"] == 2

        run.wait_for(is_back, "a generator on the host that is back")
        stop(run)
    assert run.lost_and_twice() == (0, 0)
    assert sorted(run.trained()) == run.steps[1:] == list(range(1, run.steps[-1] + 1))


@pytest.mark.long
def test_a_run_over_two_hosts_that_share_too_little_is_refused_at_the_start(tmp_path: Path) -> None:
    """One host has an empty folder where the other has the runs, or the model."""
    runs, model = tmp_path / "runs", tmp_path / "model"
    runs.mkdir()
    shutil.copytree(WARM_START, model)
    alone = ("learner.num_ranks=2", "learner.cpus_per_rank=0.6", "rollout.cpus_per_generator=0.3", *WAITING)
    with network(2) as hosts:
        ray = HostsRay(hosts[0], num_cpus=1)
        ray.join(hosts[1], num_cpus=1)
        hosts[1].lose_folder(runs)
        run = start_run(runs, ray, hosts[0], "unshared", *alone)
        assert run.process.wait(timeout=400) == 1, run.output
        assert f"error: runs_dir: {run.directory} is not one folder on all nodes" in run.output
        assert f"host2 ({hosts[1].address}) has no such folder" in run.output
        hosts[1].lose_folder(model)
        other = start_run(tmp_path, ray, hosts[0], "no-model", *alone, f'model={{"path"="{model}","dtype"="float32"}}')
        assert other.process.wait(timeout=400) == 1, other.output
        assert f"error: not every node of the run has the model in {model}: host2 ({hosts[1].address})" in other.output


@pytest.mark.long
def test_the_host_of_the_learner_is_lost(tmp_path: Path) -> None:
    """It is cut off in the middle of a run, and goes on computing for itself. The other one has room for the rank."""
    with network(3) as hosts:
        ray = HostsRay(hosts[0], num_cpus=0)
        for host in hosts[1:]:
            ray.join(host, num_cpus=1)
        settings = (*ONE_IN_ALL, *WAITING, "learner.cpus_per_rank=0.5", "rollout.cpus_per_generator=0.4")
        run = start_run(tmp_path, ray, hosts[0], "cut", *settings, "num_steps=1000")
        run.wait_for_step(2)
        (before,) = places(run, LEARNER, hosts)
        (lost,) = [host for host in hosts if host.name == before]
        lost.cut()
        run.wait_for(lambda: "the learner is lost" in run.log, "the loss in the log")
        run.wait_for(lambda: "training goes on after step" in run.log, "a new learner")
        run.wait_for_step(run.steps[-1] + 2)
        assert places(run, LEARNER, [host for host in hosts if host is not lost]) == {"host2", "host3"} - {before}
        stop(run)
    assert run.lost_and_twice() == (0, 0)


@pytest.mark.long
def test_a_job_is_submitted_from_another_host_than_the_head(tmp_path: Path) -> None:
    """To a cluster of two nodes, from the one that is not the head, with `rayzero submit` and with Ray's command."""
    runs, work = tmp_path / "runs", tmp_path / "work"
    runs.mkdir()
    work.mkdir()
    (work / "own.toml").write_text((RECIPES / "countdown-tiny.toml").read_text())
    apart = ("learner.cpus_per_rank=0.7", "rollout.cpus_per_generator=0.6", *ONE_IN_ALL, *WAITING)
    recipe = ["own.toml", *SETTINGS, *SMALL, *apart, f"runs_dir={runs}", "num_steps=1"]
    with network(2) as hosts:
        ray = HostsRay(hosts[0], num_cpus=1, dashboard=True)
        ray.join(hosts[1], num_cpus=1)
        submit = [sys.executable, "-m", "orchestrator.cli", "submit", *recipe, "--follow"]
        plain = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--working-dir", "."]
        plain += ["--", "python", "-m", "orchestrator.cli", "train", *recipe]
        environment = os.environ | ray.environment(hosts[1]) | {"RAY_API_SERVER_ADDRESS": ray.url}
        del environment["RAY_ADDRESS"]
        ended = [
            subprocess.run(
                # Who enters a host stands in its root folder.
                hosts[1].command("env", f"--chdir={work}", *command),
                env=environment,
                capture_output=True,
                text=True,
                timeout=500,
            )
            for command in (submit, plain)
        ]
    for done in ended:
        assert done.returncode == 0, done.stdout + done.stderr
    assert "run 'own' is complete at step 1" in ended[1].stdout
    assert (runs / "own" / "final" / "model.safetensors").is_file()
