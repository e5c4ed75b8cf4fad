"""The hosts that tests make are what they say: apart, and joined by links that can be cut, slowed and delayed."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.hosts import Host, host_of, memory_gib, network
from tests.support.processes import is_gone, wait_until

pytestmark = pytest.mark.long
PORT, BYTES = 8000, 1_000_000
ECHO = f"""
import socket
with socket.create_server(("", {PORT})) as server:
    while True:
        with server.accept()[0] as peer:
            while data := peer.recv(65536):
                peer.sendall(data)
"""
ASK = f"""
import socket, sys, time
peer = socket.create_connection((sys.argv[1], {PORT}), timeout=20)
for count in (1, {BYTES}):
    start, left = time.monotonic(), count
    peer.sendall(b"x" * count)
    while left:
        left -= len(peer.recv(65536))
    print(time.monotonic() - start)
"""


@pytest.fixture
def pair() -> Iterator[tuple[Host, Host]]:
    """Two hosts, of which the second sends back what it is sent."""
    with network(2) as hosts:
        server = subprocess.Popen(hosts[1].command(sys.executable, "-c", ECHO))
        assert wait_until(lambda: hosts[0].reaches(hosts[1].address, PORT), 30)
        yield hosts[0], hosts[1]
    server.wait(timeout=10)


def seconds(pair: tuple[Host, Host]) -> tuple[float, float]:
    """For one byte there and back, and for many."""
    command = pair[0].command(sys.executable, "-c", ASK, pair[1].address)
    one, many = subprocess.check_output(command, text=True).split()
    return float(one), float(many)


def test_a_link_is_cut_slowed_delayed_and_mended(pair: tuple[Host, Host]) -> None:
    one, many = seconds(pair)
    pair[1].delay(milliseconds=200)
    assert seconds(pair)[0] > 0.4 > one
    pair[1].mend()
    pair[1].slow(mbit=4)
    assert seconds(pair)[1] > 1.5 > many  # two seconds of bits, less a burst
    pair[1].cut()
    assert not pair[0].reaches(pair[1].address, PORT)
    pair[1].mend()
    assert seconds(pair)[0] < 0.4


def test_hosts_have_processes_and_names_of_their_own_that_end_with_them() -> None:
    with network(2) as hosts:
        sleeper = subprocess.Popen(hosts[0].command("sleep", "600"))
        assert wait_until(lambda: memory_gib(hosts) > 0)
        names = [subprocess.check_output(host.command("hostname"), text=True).strip() for host in hosts]
        pid = hosts[0].pid
        assert names == [host.name for host in hosts] == ["host1", "host2"] and host_of(pid, hosts) == "host1"
    sleeper.wait(timeout=10)
    assert is_gone(pid)
