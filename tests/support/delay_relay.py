"""Carry frames between two interfaces, each some milliseconds late: a long line, where the kernel has no netem.

    python delay_relay.py INTERFACE INTERFACE MILLISECONDS

Both must send whole frames with checksums (`plain`), as a network card would.
"""

from __future__ import annotations

import ctypes
import fcntl
import select
import socket
import struct
import sys
import time
from collections import deque

SIOCETHTOOL, OFF = 0x8946, 0
OFFLOADS = {"checksums": 0x17, "segmentation": 0x1F, "generic segmentation": 0x24}
"""Ethtool's commands that set what a card computes in the kernel's stead (linux/ethtool.h)."""
EVERY_PROTOCOL = 0x0003
LARGEST = 65_536


def plain(interface: str) -> None:
    """Have the interface's sender compute checksums and cut segments itself. Run it in the sender's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for command in OFFLOADS.values():
            value = ctypes.create_string_buffer(struct.pack("II", command, OFF), 8)
            fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP8x", interface.encode(), ctypes.addressof(value)))


def relay(names: tuple[str, str], delay_s: float) -> None:
    ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL)) for _ in names]
    for end, name in zip(ends, names, strict=True):
        end.bind((name, EVERY_PROTOCOL))
    late: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        wait_s = max(0.0, late[0][0] - time.monotonic()) if late else None
        ready, _, _ = select.select(ends, [], [], wait_s)
        now = time.monotonic()
        for end in ready:
            frame, sender = end.recvfrom(LARGEST)
            if sender[2] != socket.PACKET_OUTGOING:  # its own, which it sees too
                late.append((now + delay_s, ends[1 - ends.index(end)], frame))
        while late and late[0][0] <= now:
            _, end, frame = late.popleft()
            end.send(frame)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        plain(sys.argv[1])
    else:
        relay((sys.argv[1], sys.argv[2]), float(sys.argv[3]) / 1000)
