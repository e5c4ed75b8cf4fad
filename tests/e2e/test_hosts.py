"""Runs over two hosts of a network, of which one joins later, is slow, and is lost for a while."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from benchmarks.observed import GENERATOR, LEARNER, Run
from orchestrator.fleet.scale import request_generators
from tests.support.hosts import Host, host_of, memory_gib, network
from tests.support.hosts_ray import HostsRay

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
        run.wait_for(lambda: "2 generators are wanted" in run.log, "the wish in the log")
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
        run.wait_for(lambda: run.metrics[-1]["system/generators"] == 2, "a generator on the host that is back")
        stop(run)
    assert run.lost_and_twice() == (0, 0)
    assert sorted(run.trained()) == run.steps[1:] == list(range(1, run.steps[-1] + 1))
