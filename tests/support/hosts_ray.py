"""Ray on hosts of a network, as an operator starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.hosts import Host
from tests.support.processes import wait_until
from tests.support.ray_head import SETTINGS

PORT, DASHBOARD_PORT = 6379, 8265
START_S = 240
STORE_BYTES = 128 * 2**20


class HostsRay:
    """A Ray cluster of hosts, as an operator starts it: `ray start --head` on the first, `ray start` on others."""

    def __init__(self, head: Host, num_cpus: int, *, dashboard: bool = False) -> None:
        self.address = f"{head.address}:{PORT}"
        self.url = f"http://{head.address}:{DASHBOARD_PORT}"
        self._processes: dict[Host, subprocess.Popen[bytes]] = {}
        place = (f"--node-ip-address={head.address}", f"--port={PORT}", f"--temp-dir={head.folder}/ray")
        shown = (f"--include-dashboard={dashboard}", f"--dashboard-host={head.address}")
        self._start(head, num_cpus, "--head", *place, *shown)
        port = DASHBOARD_PORT if dashboard else PORT
        assert wait_until(lambda: head.reaches(head.address, port), START_S), head.read("ray.log")

    def join(self, host: Host, num_cpus: int) -> None:
        """Start the host's Ray, without waiting for it."""
        self._start(host, num_cpus, f"--address={self.address}")

    def join_again(self, host: Host, num_cpus: int) -> None:
        """Start the host's Ray again if it has ended, as a service manager does.

        Ray ends on a host that it could not reach for long, and does not come back by itself.
        """
        if self._processes[host].poll() is not None:
            self.join(host, num_cpus)

    def environment(self, host: Host) -> dict[str, str]:
        """Return the environment of commands on that host that join the cluster."""
        return {
            **SETTINGS,
            "RAY_worker_niceness": "0",  # of 15, actors on a busy machine would start for minutes
            "RAY_ADDRESS": self.address,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(host.folder),
            "RAYZERO_CACHE": f"{host.folder}/cache",
        }

    def _start(self, host: Host, num_cpus: int, *settings: str) -> None:
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--num-cpus={num_cpus}"]
        ray += ["--disable-usage-stats", f"--object-store-memory={STORE_BYTES}", *settings]
        environment = os.environ | self.environment(host)
        del environment["RAY_ADDRESS"]  # `ray start --head` refuses to run where a cluster is named
        with host.file("ray.log").open("wb") as output:
            self._processes[host] = subprocess.Popen(
                host.command(*ray), env=environment, stdout=output, stderr=subprocess.STDOUT
            )
