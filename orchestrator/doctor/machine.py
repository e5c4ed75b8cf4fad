"""Cores, memory, shared memory, disks and limits of this machine, or of the container that this runs in."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor.finding import Finding, broken, ok, warning
from orchestrator.doctor.pins import Distribution

GIB = 2**30
MIN_MEMORY = 3 * GIB
GOOD_MEMORY = 6 * GIB
"""What the smallest recipe takes in all its processes."""
STORE_SHARE = 0.3
STORE_MOST = 200 * 10**9
"""Ray's object store asks for this share of the memory, and no more bytes than that."""
RAY_DISK_FULL = 0.95
"""Ray stops creating objects on a disk that is fuller."""
SOCKET_PATH_MOST = 107
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""How a Ray session's longest socket is called; Linux takes paths of at most 107 bytes."""


@dataclass(frozen=True)
class Space:
    """Of a file system, bytes."""

    total: int
    free: int
    writable: bool = True


def space(folder: Path) -> Space:
    """Where `folder` is, or would be made."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return Space(usage.total, usage.free, os.access(there, os.W_OK | os.X_OK))


def gib(amount: float) -> str:
    return f"{amount / GIB:.1f} GiB"


def cpu_flags(file: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor can do, such as avx2; empty where it does not say."""
    try:
        line = next((line for line in file.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        line = ""
    return frozenset(line.partition(":")[2].split())


def memory(file: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """Total and available, bytes."""
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return int(lines["MemTotal"].split()[0]) * 1024, int(lines["MemAvailable"].split()[0]) * 1024


def check_cpu(cores: int, quota: float | None, flags: frozenset[str], kind: Distribution, machine: str = "") -> Finding:
    """`machine` as platform.machine() says."""
    usable = min(cores, quota or cores)
    found = f"{usable:g} usable cores"
    if (machine or platform.machine()) == "x86_64" and flags:
        if kind == "cpu" and "avx2" not in flags:
            return broken(
                "cpu", f"{found}, no AVX2", "AVX2: vLLM's CPU backend has no kernels without", "use another machine"
            )
        found += ", AVX-512" if "avx512f" in flags else ", AVX2 (AVX-512 would be faster)" if "avx2" in flags else ""
    if usable < 2:
        fix = "give the container or job more cores (--cpus)"
        return warning("cpu", found, "2 or more: sampling, learning and marking share one", fix)
    return ok("cpu", found)


def check_memory(total: int, available: int, limit: int | None) -> Finding:
    """Bytes; `limit` is the container's."""
    shown = f"{gib(available)} of {gib(total)} available" + (f", this container may use {gib(limit)}" if limit else "")
    usable = min(available, limit or available)
    expected = f"{GOOD_MEMORY // GIB} GiB for the smallest recipe, 64 GiB where the optimizer is kept in host memory"
    fix = "end what uses memory (ps aux --sort=-rss | head), or give the container more (docker run --memory)"
    if usable < MIN_MEMORY:
        return broken("memory", shown, expected, fix)
    return warning("memory", shown, expected, fix) if usable < GOOD_MEMORY else ok("memory", shown)


def check_shared_memory(shm: Space | None, total: int) -> Finding:
    """Ray keeps its objects in /dev/shm, and on disk where that is too small; `total` is the memory it sees, bytes."""
    wanted = int(min(STORE_SHARE * total, STORE_MOST))
    name, expected = "shared memory", f"{gib(wanted)}, what Ray's object store asks for"
    fix = f"docker run --shm-size={max(1, round(wanted / GIB))}g, or --ipc=host; in Kubernetes an emptyDir of medium Memory at /dev/shm"
    if shm is None or not shm.writable:
        return broken(name, "no /dev/shm that can be written", expected, fix)
    found = f"{gib(shm.free)} of {gib(shm.total)} free in /dev/shm"
    if shm.total >= wanted > shm.free:
        fix = "ls -lS /dev/shm shows what fills it; delete what dead processes left"
    return warning(name, found, expected, fix) if shm.free < wanted else ok(name, found)


def check_disk(name: str, folder: Path, disk: Space, wanted_gib: float, move: str) -> Finding:
    """Whether files can be written under `folder`; `move` is how to put them elsewhere."""
    found = f"{gib(disk.free)} free in {folder}"
    if not disk.writable:
        return broken(name, f"{folder} cannot be written", "a folder that can", move)
    if disk.free < GIB:
        return broken(name, found, f"{wanted_gib:g} GiB", f"free space there, or {move}")
    if disk.free < wanted_gib * GIB:
        return warning(name, found, f"{wanted_gib:g} GiB", f"free space there, or {move}")
    return ok(name, found)


def check_ray_folder(folder: Path, disk: Space) -> Finding:
    """Where Ray keeps its sessions: it refuses disks that are almost full, and paths that are too long for a socket."""
    name, move = "ray's folder", "export RAY_TMPDIR=/another/folder with a short path"
    longest = len(str(folder)) + len(RAY_SOCKET)
    if longest > SOCKET_PATH_MOST:
        return broken(name, f"{folder} makes socket paths of {longest} bytes", f"{SOCKET_PATH_MOST} at most", move)
    used = 1 - disk.free / disk.total
    if used > RAY_DISK_FULL:
        return broken(
            name, f"{folder} is on a disk {used:.0%} full", f"{RAY_DISK_FULL:.0%} at most, or Ray stalls", move
        )
    return check_disk(name, folder, disk, 5, move)


def check_descriptors(soft: int, hard: int) -> Finding:
    """Open files of a process; Ray raises the soft limit up to the hard one itself. -1 is no limit."""
    if 0 <= hard < 8192:
        fix = "raise nofile in /etc/security/limits.conf, or docker run --ulimit nofile=65536:65536"
        return warning("open files", f"at most {hard}", "8192, as Ray recommends", fix)
    return ok("open files", f"{soft} now, {hard if hard >= 0 else 'no limit'} at most")


def check_processes(limit: int, container: int | None) -> Finding:
    """Processes and threads of this user, -1 for no limit, and of this container."""
    limits = [value for value in (limit, container) if value is not None and value >= 0]
    found = f"at most {min(limits)}" if limits else "no limit"
    if limits and min(limits) < 4096:
        fix = "ulimit -u 16384, or docker run --pids-limit=-1: Ray and OpenMP start hundreds of threads"
        return warning("processes", found, "4096 or more", fix)
    return ok("processes", found)
