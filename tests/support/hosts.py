"""Hosts on this machine: namespaces with addresses of their own, joined by a switch that can cut or slow their links.

The switch and every host are namespaces of a process that ends with this one, whatever ends it, and they with it:
nothing is left in the machine's own network, which they never touch. Hosts share the machine's files, but for a
folder that each has to itself, and have their own processes, shared memory, name and hosts file.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

SUBNET = "10.213.77"
"""Addresses end in 1 for the first host, 2 for the second."""
RELAY = Path(__file__).with_name("delay_relay.py")
HOST = ("--net", "--pid", "--mount", "--uts", "--ipc")
INTERFACE = "eth0"
INIT = 'trap "" CHLD; echo ready; exec cat'
"""The first process of a host: it reaps what others leave behind, and ends with the pipe that it reads from."""


class Namespaces:
    """Namespaces, held by a process that ends when this one does. Needs root."""

    def __init__(self, *kinds: str) -> None:
        forking = ("--fork", "--kill-child", "--mount-proc") if "--pid" in kinds else ()
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._holder = subprocess.Popen(["unshare", *kinds, *forking, "sh", "-c", INIT], **pipes)
        assert self._holder.stdout is not None and self._holder.stdout.readline() == b"ready\n"
        (self.pid,) = [child.pid for child in psutil.Process(self._holder.pid).children()] or [self._holder.pid]
        self.kinds = kinds

    def command(self, *words: str) -> list[str]:
        """Return the command that runs `words` in these namespaces."""
        return ["nsenter", "--target", str(self.pid), *self.kinds, "--", *words]

    def call(self, words: str) -> None:
        """Run a command there. Raises AssertionError with its words where it fails."""
        done = subprocess.run(self.command(*words.split()), capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(timeout=60)


class Host(Namespaces):
    """A machine of the network."""

    def __init__(self, switch: Namespaces, number: int, folder: Path) -> None:
        """`folder` is the host's own: each sees another there."""
        super().__init__(*HOST)
        self.name, self.address, self.folder = f"host{number}", f"{SUBNET}.{number}", folder
        self._switch, self._port = switch, f"port{number}"
        self._relay: subprocess.Popen[bytes] | None = None
        for words in (
            f"mount -t tmpfs -o size=1g,mode=1777 tmpfs {folder}",
            "mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm",
            f"mkdir {folder}/home",
            f"hostname {self.name}",
        ):
            self.call(words)
        self.write("hosts", f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")  # as Debian has it
        self.call(f"mount --bind {folder}/hosts /etc/hosts")
        switch.call(f"ip link add {self._port} type veth peer name {INTERFACE} netns {self.pid}")
        switch.call(f"ip link set {self._port} up")
        self.call("ip link set lo up")
        self.call(f"ip address add {self.address}/24 dev {INTERFACE}")
        self.call(f"ip link set {INTERFACE} up")
        self.mend()

    def cut(self) -> None:
        """Lose every packet from and to this host, without a word to anybody, as a switch does that fails."""
        self._switch.call(f"ip link set {self._port} nomaster")

    def mend(self) -> None:
        """Join the network: at once, and at full rate."""
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            self._relay = None
            self._switch.call(f"ip link delete near{self._port}")
        for namespaces, interface in ((self, INTERFACE), (self._switch, self._port)):
            namespaces.call(f"tc qdisc replace dev {interface} root pfifo")
        self._switch.call(f"ip link set {self._port} master switch")

    def slow(self, mbit: float) -> None:
        """Limit the link's rate, in either direction, until it is mended."""
        for namespaces, interface in ((self, INTERFACE), (self._switch, self._port)):
            namespaces.call(f"tc qdisc replace dev {interface} root tbf rate {mbit}mbit burst 64kb latency 2s")

    def delay(self, milliseconds: float) -> None:
        """Have every packet take so much longer, in either direction, until the link is mended."""
        near, far = f"near{self._port}", f"far{self._port}"
        self._switch.call(f"ip link add {near} type veth peer name {far}")
        for namespaces, interface in ((self, INTERFACE), (self._switch, far)):
            namespaces.call(f"{sys.executable} {RELAY} {interface}")
        self._switch.call(f"ip link set {self._port} nomaster")
        self._switch.call(f"ip link set {far} master switch")
        for interface in (near, far):
            self._switch.call(f"ip link set {interface} up")
        self._relay = subprocess.Popen(
            self._switch.command(sys.executable, str(RELAY), self._port, near, f"{milliseconds}")
        )

    def close(self) -> None:
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
        super().close()

    def lose_folder(self, folder: Path) -> None:
        """Have an empty folder in the place of one that the others see, as where it was not mounted."""
        self.call(f"mount -t tmpfs tmpfs {folder}")

    def file(self, name: str) -> Path:
        """Return where a file of the host's own folder is to be found from here."""
        return Path(f"/proc/{self.pid}/root{self.folder}", name)

    def write(self, name: str, text: str) -> None:
        """Write a file of the host's own folder."""
        self.file(name).write_text(text)

    def read(self, name: str) -> str:
        """Return a file of the host's own folder, empty where there is none."""
        file = self.file(name)
        return file.read_text(errors="replace") if file.exists() else ""

    def reaches(self, address: str, port: int) -> bool:
        """Return whether somebody answers there."""
        words = f"import socket; socket.create_connection(({address!r}, {port}), timeout=2).close()"
        return subprocess.run(self.command(sys.executable, "-c", words), capture_output=True).returncode == 0


@contextlib.contextmanager
def network(count: int) -> Iterator[list[Host]]:
    """Yield that many hosts that reach each other and nothing else. Skips the test where this is not allowed."""
    if reason := refusal():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        # Short, as sockets have paths of at most 107 characters.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rz", dir="/tmp")))
        switch = Namespaces("--net")
        stack.callback(switch.close)
        switch.call("ip link add switch type bridge")
        switch.call("ip link set switch up")
        hosts = []
        for number in range(1, count + 1):
            hosts.append(Host(switch, number, folder))
            stack.callback(hosts[-1].close)
        yield hosts


@cache
def refusal() -> str:
    """Return why there can be no hosts here; empty where there can."""
    try:
        switch = Namespaces("--net")
    except (OSError, AssertionError):
        return "no namespaces: they take root, and unshare of util-linux"
    try:
        switch.call("ip link add switch type bridge")
        host = Namespaces(*HOST)
        host.call("mount -t tmpfs tmpfs /dev/shm")
        switch.call(f"ip link add port type veth peer name {INTERFACE} netns {host.pid}")
        host.close()
    except (OSError, AssertionError) as error:
        return f"no hosts of namespaces here: {error}"
    finally:
        switch.close()
    return ""


def host_of(pid: int, hosts: Sequence[Host]) -> str:
    """Return the name of the host that a process runs on; empty where it runs on none, or has ended."""
    with contextlib.suppress(OSError):
        found = space(pid)
        return next((host.name for host in hosts if space(host.pid) == found), "")
    return ""


def space(pid: int) -> Path:
    """Return what tells the process's namespace of processes from others."""
    return Path(f"/proc/{pid}/ns/pid").readlink()


def memory_gib(hosts: Sequence[Host]) -> float:
    """Return what all processes of the hosts hold, GiB; a page that several share counts once."""
    total = 0.0
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if host_of(process.pid, hosts):
                total += process.memory_full_info().pss / 2**30
    return total
