"""Read the limits of the container, or of the job, that this process runs in, from its control groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
NO_LIMIT = 2**60
"""For "no limit" control groups of version 1 have a number from here on, those of version 2 the word "max"."""
MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Names of the files with a group's limit and its use, and of the line in memory.stat for what can be dropped, by
version, 2 before 1."""


def control_groups(root: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups, versions 1 and 2, from its own up to the container's."""
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


def container_limit(*names: str, root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """Return the lowest limit in files with these names, such as ``memory.max``; None without a limit."""
    files = (group / name for group in control_groups(root, own) for name in names)
    values = map(text_of, files)
    return min((int(value) for value in values if value.isdecimal() and int(value) < NO_LIMIT), default=None)


def free_memory(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """Return the bytes that this process may still allocate within its container's limits; None without a limit.

    Files that were read once count as used, but the kernel drops them first: they are free here, as in Kubernetes.
    """
    free = []
    for group in control_groups(root, own):
        for limit, used, dropped in MEMORY_FILES:
            allowed = text_of(group / limit)
            if allowed.isdecimal() and int(allowed) < NO_LIMIT and (taken := text_of(group / used)).isdecimal():
                stat = dict(line.split() for line in text_of(group / "memory.stat").splitlines())
                free.append(max(0, int(allowed) - int(taken) + int(stat.get(dropped, 0))))
    return min(free, default=None)


def text_of(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""


def container_cores(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """Return the container's limit in cores; None without a limit."""
    quotas = []
    for group in control_groups(root, own):
        if (group / "cpu.max").is_file():
            quotas.append((group / "cpu.max").read_text().split())
        elif (group / "cpu.cfs_quota_us").is_file():
            quotas.append([(group / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period")])
    return min((int(quota) / int(period) for quota, period in quotas if quota.isdecimal()), default=None)
