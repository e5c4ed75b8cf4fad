"""Read facts about this host from system files and nvidia-smi. Other files judge them."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
PROC = Path("/proc")
GPU_FIELDS = "index,uuid,name,memory.total,memory.free,compute_cap,compute_mode,driver_version"


def gib(amount: float) -> str:
    return f"{amount / GIB:.1f} GiB"


@dataclass(frozen=True)
class Space:
    """The space of a file system, bytes."""

    total: int
    free: int
    writable: bool = True


def space(folder: Path) -> Space:
    """Return the space of the file system where `folder` exists or would be created."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    usage = shutil.disk_usage(existing)
    return Space(usage.total, usage.free, os.access(existing, os.W_OK | os.X_OK))


def cpu_flags(file: Path = PROC / "cpuinfo") -> frozenset[str]:
    """Return the processor's flags, such as avx2; empty if they are not known."""
    try:
        lines = file.read_text().splitlines()
        line = next((line for line in lines if line.startswith(("flags", "Features"))), "")  # "Features" on Arm
    except OSError:
        line = ""
    return frozenset(line.partition(":")[2].split())


def memory() -> tuple[int, int]:
    """Return the total and the available memory, bytes."""
    lines = dict(line.split(":", 1) for line in (PROC / "meminfo").read_text().splitlines() if ":" in line)
    return int(lines["MemTotal"].split()[0]) * 1024, int(lines["MemAvailable"].split()[0]) * 1024


@dataclass(frozen=True)
class Process:
    """A process on this machine that is visible to this user."""

    pid: int
    parent: int
    command: str

    @property
    def name(self) -> str:
        """The name of the program, or of the script that Python runs."""
        program, *arguments = self.command.split() or ["?"]
        script = next((argument for argument in arguments if argument.endswith(".py")), None)
        return Path(script if script and "python" in program else program).name

    @property
    def is_ray(self) -> bool:
        files = [argument for argument in self.command.split() if argument.startswith("/")]
        return (
            self.name in ("gcs_server", "raylet")
            or self.command.startswith("ray::")
            or any("-packages/ray/" in file for file in files)
        )


def processes() -> list[Process]:
    """Return all visible processes. Skips processes that end during the call."""
    visible = []
    for folder in PROC.glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            stat = (folder / "stat").read_text()
            visible.append(Process(int(folder.name), int(stat.rpartition(")")[2].split()[1]), command))
        except (OSError, ValueError, IndexError):
            continue
    return visible


def listeners(ports: Iterable[int]) -> dict[int, int | None]:
    """Return the pid of the process that listens on a port, for each such port; None if the process is not visible.

    Makes no connections.
    """
    inodes: dict[str, int] = {}
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (PROC / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for cells in (line.split() for line in lines):
            port = int(cells[1].rpartition(":")[2], 16)
            if cells[3] == "0A" and port in ports:  # 0A: LISTEN
                inodes[f"socket:[{cells[9]}]"] = port
    pids: dict[int, int | None] = dict.fromkeys(inodes.values())
    for link in PROC.glob("[0-9]*/fd/*") if inodes else ():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target in inodes:
            pids[inodes[target]] = int(link.parts[-3])
    return pids


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi; memory in MiB, None if it is not reported."""

    index: str
    uuid: str
    name: str
    total_mib: int | None
    free_mib: int | None
    compute_capability: str
    compute_mode: str
    users: tuple[str, ...] = ()
    """Processes that use it, such as ``python (pid 12, 900 MiB)``. In a container other processes are not visible."""


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver and its GPUs."""

    version: str
    cuda: tuple[int, int] | None
    """The newest CUDA that it supports."""
    gpus: tuple[Gpu, ...]
    failure: str = ""
    """The error message of nvidia-smi; empty if it did not fail."""


def nvidia_smi(*arguments: str) -> str:
    """Return the output of nvidia-smi. Raises OSError if it is not installed, RuntimeError if it fails or hangs."""
    try:
        process = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=15, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError("nvidia-smi gives no answer within 15 s") from error
    if process.returncode:
        output = (process.stdout + process.stderr).strip()[:300]
        raise RuntimeError(output or f"nvidia-smi failed with exit code {process.returncode}")
    return process.stdout


def read_driver() -> Driver | None:
    """Return the driver; None on a machine without nvidia-smi."""
    try:
        table = rows(nvidia_smi(f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"))
        header = nvidia_smi()
    except OSError:
        return None
    except RuntimeError as error:
        return Driver("", None, (), str(error))
    cards = [row for row in table if len(row) == 8]
    users = read_users() if cards else []
    cuda = re.search(r"CUDA (?:UMD )?Version: *(\d+)\.(\d+)", header)
    return Driver(
        version=cards[0][7] if cards else "",
        cuda=(int(cuda[1]), int(cuda[2])) if cuda else None,
        gpus=tuple(
            Gpu(index, uuid, name, number(total), number(free), capability, mode, users_of(uuid, users))
            for index, uuid, name, total, free, capability, mode, _ in cards
        ),
    )


def read_users() -> list[list[str]]:
    """Return GPU, process id, name and MiB of each process on a GPU; empty if the driver does not report them."""
    try:
        return rows(
            nvidia_smi("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits")
        )
    except RuntimeError:
        return []


def users_of(uuid: str, users: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(
        f"{Path(row[2]).name} (pid {row[1]}, {row[3]} MiB)" for row in users if len(row) == 4 and row[0] == uuid
    )


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]


def number(cell: str) -> int | None:
    return int(cell) if cell.isdecimal() else None
