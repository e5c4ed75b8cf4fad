"""RAY_ADDRESS: the cluster that runs join. Standard library only: `rayzero doctor` asks here where Ray is missing."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class RayAddress:
    """The meaning of RAY_ADDRESS."""

    found: str
    expected: str = ""
    fix: str = ""
    """Empty if runs can start with it."""

    @property
    def is_usable(self) -> bool:
        return not self.fix


def reach(host: str, port: int) -> str:
    """Return why nothing answers at the address; empty if something does."""
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        return str(error) or type(error).__name__
    return ""


def check_ray_address(address: str | None) -> RayAddress:
    """Return the meaning of RAY_ADDRESS: runs join the cluster that it names, and fail if that is gone."""
    if not address or address == "local":
        return RayAddress("not set: each run starts its own Ray, and ends it")
    if address == "auto":
        return RayAddress("auto: runs join the cluster that runs on this machine")
    scheme, _, rest = address.rpartition("://")
    if scheme in ("http", "https"):
        fix = (
            f"unset RAY_ADDRESS, or export RAY_ADDRESS={rest.partition(':')[0]}:6379; for job submission there is "
            "RAY_API_SERVER_ADDRESS"
        )
        return RayAddress(f"{address}, which is a dashboard's", "host:6379 of the head", fix)
    host, _, port = rest.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        found = f"{address}, which names no host and port"
        return RayAddress(found, "host:port", "unset RAY_ADDRESS, or export RAY_ADDRESS=HOST:6379")
    if why := reach(host.strip("[]"), int(port)):
        fix = "unset RAY_ADDRESS to let each run start its own Ray, or start that cluster again (ray start --head)"
        return RayAddress(f"{address} does not answer: {why}", "a cluster that answers", fix)
    return RayAddress(f"{address} answers")
