"""A Ray cluster of its own processes, as an operator starts it, with the dashboard that takes jobs."""

import contextlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from ray.job_submission import JobSubmissionClient

PORTS = range(20_000, 32_768)
"""Below those that Linux gives to connections (32768-60999), above those that Ray gives to workers (10002-19999).

A port that is free when it is chosen is then still free half a minute later, when Ray binds it."""
SETTINGS = {
    # Any ray.init() of an earlier test has left RAY_AUTH_MODE=token in this process; the jobs' home has no token.
    "RAY_AUTH_MODE": "disabled",
    # Ray gives the dashboard's eight processes 30 s to import what they need: not enough on a busy machine.
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "200",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "220",
}
ATTEMPTS, DEADLINE_S = 3, 300
"""Ray's client server ends, and all the others with it, unless the raylet is there 30 s after its start, which is after
the dashboard's. So a first start, from a cold disk, may fail where the second does not."""


class RayHead:
    """The head of a cluster on this machine. Raises AssertionError with Ray's words when it does not start, or ends."""

    def __init__(self, temp: Path, environment: Mapping[str, str]) -> None:
        """`temp` is short, since sockets have paths of at most 107 characters."""
        self.temp = temp
        self._output = temp / "ray-start.log"
        deadline = time.monotonic() + DEADLINE_S
        for attempt in range(1, ATTEMPTS + 1):
            self._start(environment)
            if self._is_ready(deadline):
                return
            told, is_late = self._told(), time.monotonic() > deadline
            self._end()
            assert attempt < ATTEMPTS and not is_late, f"Ray did not start in attempt {attempt}:\n{told}"

    def close(self) -> None:
        assert self._process.poll() is None, f"Ray ended by itself:\n{self._told()}"
        self._end()

    def _start(self, environment: Mapping[str, str]) -> None:
        # A cluster of somebody else's on this machine would hold the usual ones.
        names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.address = f"http://127.0.0.1:{self._ports['dashboard-port']}"
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"),
            *(f"--temp-dir={self.temp}", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
            "--include-dashboard=true",  # without it, Ray goes on when its dashboard does not start
            *(f"--{name}={port}" for name, port in self._ports.items()),
        ]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, env={**environment, **SETTINGS}, stdout=output, stderr=subprocess.STDOUT
            )

    def _is_ready(self, deadline: float) -> bool:
        """Waits until dashboard and client server answer, the last ones to."""
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._ports["ray-client-server-port"])).close()
                self.client = JobSubmissionClient(self.address)
                return True
            time.sleep(0.1)
        return False

    def _told(self) -> str:
        """The ends of what it printed and of its dashboard's log."""
        logs = (self._output, self.temp / "session_latest" / "logs" / "dashboard.log")
        texts = {log.name: log.read_text(errors="replace") if log.exists() else "no such file" for log in logs}
        return "\n".join(f"--- {name}\n{text[-3000:]}" for name, text in texts.items())

    def _end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    free: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        free.append(port)
        if len(free) == count:
            break
    return free
