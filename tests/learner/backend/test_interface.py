"""The interface that ranks meet by."""

import subprocess
import sys

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
