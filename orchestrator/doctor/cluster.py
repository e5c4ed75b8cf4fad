"""Ray on this machine: its ports, the cluster that RAY_ADDRESS names, and what earlier runs left behind."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor.finding import Finding, broken, ok, warning
from orchestrator.doctor.machine import GIB, gib

PORTS = {6379: "Ray's head", 8265: "Ray's dashboard and job submission", 10001: "Ray clients"}
PORT_OPTIONS = {6379: "--port", 8265: "--dashboard-port", 10001: "--ray-client-server-port"}
"""How `ray start --head` is told to take another one."""
MANY_SESSIONS = 5 * GIB


@dataclass(frozen=True)
class Process:
    """One of this machine's, as far as this user sees them."""

    pid: int
    parent: int
    command: str

    @property
    def name(self) -> str:
        """Of the program, or of the script that Python runs."""
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


def processes(proc: Path = Path("/proc")) -> list[Process]:
    """All that can be seen; those that end meanwhile are left out."""
    found = []
    for folder in proc.glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            stat = (folder / "stat").read_text()
            found.append(Process(int(folder.name), int(stat.rpartition(")")[2].split()[1]), command))
        except (OSError, ValueError, IndexError):
            continue
    return found


def listeners(ports: Iterable[int], proc: Path = Path("/proc")) -> dict[int, int | None]:
    """Ports of these that are listened on -> the process, None when it is not ours to see. Connects to nothing."""
    inodes: dict[str, int] = {}
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for cells in (line.split() for line in lines):
            port = int(cells[1].rpartition(":")[2], 16)
            if cells[3] == "0A" and port in ports:  # 0A: LISTEN
                inodes[f"socket:[{cells[9]}]"] = port
    found: dict[int, int | None] = dict.fromkeys(inodes.values())
    if inodes:
        for link in proc.glob("[0-9]*/fd/*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target in inodes:
                found[inodes[target]] = int(link.parts[-3])
    return found


def cluster_version(url: str = "http://127.0.0.1:8265") -> str | None:
    """Of the Ray that answers there, past any proxy; None when none does."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/api/version", timeout=3) as answer:
            return str(json.loads(answer.read(10_000))["ray_version"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def check_ports(
    taken: dict[int, int | None], running: Sequence[Process], cluster: str | None, installed: str | None
) -> list[Finding]:
    """One finding a port: free, Ray's, or somebody else's. `cluster` is the version of the Ray that runs here, if one does."""
    by_pid = {process.pid: process for process in running}
    findings = []
    for port, purpose in PORTS.items():
        owner = by_pid.get(taken.get(port) or 0)
        name = f"port {port}"
        if port not in taken:
            findings.append(ok(name, f"free, for {purpose}"))
        elif (owner and owner.is_ray) or (port == 8265 and cluster):
            findings.append(check_cluster(name, cluster, installed))
        else:
            who = f"{owner.name} (pid {owner.pid})" if owner else "a process that is not seen from here"
            option = PORT_OPTIONS[port]
            fix = f"matters to `ray start` and `rayzero submit` only: end that process, or ray start --head {option}=N"
            findings.append(warning(name, f"taken by {who}", f"free, for {purpose}, or a Ray cluster", fix))
    return findings


def check_cluster(name: str, cluster: str | None, installed: str | None) -> Finding:
    if cluster and installed and cluster != installed:
        fix = f'ray stop and start it again from this environment, or pip install "ray[default]=={cluster}"'
        return broken(name, f"a cluster of Ray {cluster}", f"Ray {installed}, which is installed here", fix)
    return ok(name, f"a Ray cluster runs here{f', version {cluster}' if cluster else ''}")


def reach(host: str, port: int) -> str:
    """Why nothing answers there; empty when something does."""
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        return str(error) or type(error).__name__
    return ""


def check_ray_address(address: str | None, reach: Callable[[str, int], str] = reach) -> Finding:
    """RAY_ADDRESS: runs join that cluster, and fail when it is gone."""
    name = "RAY_ADDRESS"
    if not address or address == "local":
        return ok(name, "not set: each run starts a Ray of its own, and ends it")
    if address == "auto":
        return ok(name, "auto: runs join the cluster that runs on this machine")
    scheme, _, rest = address.rpartition("://")
    if scheme in ("http", "https"):
        fix = f"unset RAY_ADDRESS, or export RAY_ADDRESS={rest.partition(':')[0]}:6379; for job submission there is RAY_API_SERVER_ADDRESS"
        return broken(name, f"{address}, which is a dashboard's", "host:6379 of the head", fix)
    host, _, port = rest.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return broken(name, address, "host:port", "unset RAY_ADDRESS, or export RAY_ADDRESS=HOST:6379")
    if why := reach(host.strip("[]"), int(port)):
        fix = "unset RAY_ADDRESS to start a Ray of one's own, or start that cluster again (ray start --head)"
        return broken(name, f"{address} does not answer: {why}", "a cluster that answers", fix)
    return ok(name, f"{address} answers")


def check_left_behind(running: Sequence[Process], joins_cluster: bool) -> Finding:
    """Processes of Ray or vLLM that no run owns any more. They hold memory, and on a GPU its memory too."""
    first = next((process.command for process in running if process.pid == 1), "")
    # In a container the first process may be the run itself, or `ray start --block`.
    is_owner = "python" in first or "ray" in first
    orphans = [
        process
        for process in running
        if process.parent == 1 and not is_owner and (process.is_ray or process.command.startswith("VLLM::"))
    ]
    if joins_cluster:
        orphans = [process for process in orphans if process.name not in ("gcs_server", "raylet")]
    if not orphans:
        heads = sum(process.name == "raylet" for process in running)
        return ok("left processes", f"none; {heads} Ray node{'s' * (heads != 1)} in use" if heads else "none")
    shown = ", ".join(f"{process.name} (pid {process.pid})" for process in orphans[:6])
    more = f" and {len(orphans) - 6} more" if len(orphans) > 6 else ""
    fix = "if you did not start that cluster for a purpose: ray stop, then kill by pid what is still there"
    return warning("left processes", shown + more, "none without a run that owns them", fix)


def sessions(folder: Path, most_files: int = 100_000) -> tuple[int, int]:
    """How many sessions Ray left in its folder, and their bytes; counting stops after `most_files` files."""
    names = list(folder.glob("session_[0-9]*"))
    size = files = 0
    for name in names:
        for place, _, children in os.walk(name):
            for child in children:
                files += 1
                try:
                    size += Path(place, child).lstat().st_blocks * 512
                except OSError:
                    continue
            if files > most_files:
                return len(names), size
    return len(names), size


def check_sessions(folder: Path, count: int, size: int) -> Finding:
    """Logs and spilled objects of earlier sessions."""
    found = f"{count} in {folder}, {gib(size)}"
    if size > MANY_SESSIONS:
        fix = f"when no Ray runs here: rm -rf {folder}/session_*"
        return warning("ray sessions", found, f"less than {gib(MANY_SESSIONS)}", fix)
    return ok("ray sessions", found)
