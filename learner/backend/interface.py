"""The network interface through which a rank reaches the others."""

from __future__ import annotations

import socket

import psutil


def interface_towards(address: str) -> str | None:
    """Return the name of this machine's interface that packets to `address` leave by; None where there is none.

    Gloo would take the address that the machine's own name stands for, which is 127.0.1.1 on Debian, and which no other
    machine reaches.
    """
    family, kind, protocol, _, target = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(target)  # sends nothing
        own = probe.getsockname()[0]
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == own for each in addresses):
            return name
    return None
