"""What control groups allow this process: the limits of its container, or of its job on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def groups(root: Path = ROOT, own: Path = OWN) -> Iterator[Path]:
    """The folders of all groups that this process is in, versions 1 and 2, from its own up to the container's."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = root / controllers if controllers else root
        group = top / path.strip("/")
        while group != top:
            yield group
            group = group.parent
        yield top


def limit(*names: str, root: Path = ROOT, own: Path = OWN) -> int | None:
    """The lowest that one of these files says, such as ``memory.max``; None without a limit."""
    values = [
        (group / name).read_text().strip() for group in groups(root, own) for name in names if (group / name).is_file()
    ]
    # Version 1 says "no limit" by a huge number, version 2 by "max".
    return min((int(value) for value in values if value.isdecimal() and int(value) < 2**60), default=None)


def cores(root: Path = ROOT, own: Path = OWN) -> float | None:
    """How many cores may be busy at once; None without a limit."""
    quotas = []
    for group in groups(root, own):
        if (group / "cpu.max").is_file():
            quotas.append((group / "cpu.max").read_text().split())
        elif (group / "cpu.cfs_quota_us").is_file():
            quotas.append([(group / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period")])
    return min((int(quota) / int(period) for quota, period in quotas if quota.isdecimal()), default=None)
