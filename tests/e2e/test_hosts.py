"""A run over two hosts of a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.observed import GENERATOR, LEARNER, Run
from tests.support.hosts import Host, host_of, memory_gib, network
from tests.support.hosts_ray import HostsRay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = ("prompts_per_step=8", "group_size=4", "sampling.max_completion_tokens=48", "checkpoint.every_steps=1")
ONE_OF_EACH = ("learner.cpus_per_rank=0.6", "rollout.cpus_per_generator=0.3")
"""Leaves a host of one core room for one rank and one generator, and one reward worker somewhere."""
WAITING = ("placement.wait_for_resources_s=200",)
"""For the second host, which may need longer than the driver."""
MOST_GIB = 6.0


def start_run(folder: Path, ray: HostsRay, host: Host, name: str, *settings: str) -> Run:
    return Run(folder, name, *SMALL, *settings, environment=ray.environment(host), prefix=host.command())


def places(run: Run, kind: str, hosts: list[Host]) -> set[str]:
    """The hosts of the run's actors of that kind."""
    return {host_of(pid, hosts) for pid in run.pids(kind)} - {""}


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
