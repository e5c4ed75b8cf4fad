"""The interface that ranks meet by."""

import subprocess
import sys

import pytest

from learner.backend.interface import interface_towards
from tests.support.hosts import network


def test_ranks_of_one_machine_meet_on_its_loopback() -> None:
    assert interface_towards("127.0.0.1") == "lo"


def test_ranks_of_two_machines_meet_on_their_network_whatever_their_names_stand_for() -> None:
    """Here, as on Debian, each machine takes its own name for 127.0.1.1, which is what gloo would listen on."""
    with network(2) as hosts:
        found = {
            host.name: subprocess.check_output(
                host.command(
                    *(
                        sys.executable,
                        "-c",
                        f"import {interface_towards.__module__} as m; print(m.interface_towards({hosts[0].address!r}))",
                    )
                ),
                text=True,
            ).strip()
            for host in hosts
        }
    assert found == {"host1": "eth0", "host2": "eth0"}


MEET = """
import os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from learner.backend.interface import interface_towards

address, rank = sys.argv[1], int(sys.argv[2])
os.environ["GLOO_SOCKET_IFNAME"] = interface_towards(address)
dist.init_process_group(
    "gloo", init_method=f"tcp://{address}:29500", rank=rank, world_size=2, timeout=timedelta(seconds=100)
)
total = torch.tensor([1.0 + rank])
dist.all_reduce(total)
print(total.item())
"""


@pytest.mark.slow
@pytest.mark.long
def test_gloo_adds_up_over_two_machines() -> None:
    """Without the interface each rank waits at 127.0.1.1 of its own machine for the other."""
    with network(2) as hosts:
        ranks = [
            subprocess.Popen(
                host.command(sys.executable, "-c", MEET, hosts[0].address, str(rank)), stdout=subprocess.PIPE, text=True
            )
            for rank, host in enumerate(hosts)
        ]
        assert [rank.communicate(timeout=200)[0] for rank in ranks] == ["3.0\n", "3.0\n"]
