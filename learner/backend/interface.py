"""The network interface that connects a rank to the others."""

from __future__ import annotations

import socket

import psutil


def interface_towards(address: str) -> str | None:
    """Return the name of this machine's interface for packets to `address`; None if there is none.

    Without it Gloo uses the address of the machine's own host name. On Debian that is 127.0.1.1, which other machines
    cannot reach.
    """
    family, kind, protocol, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)  # sends nothing
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == own for each in addresses):
            return name
    return None
