"""Check what a run uses: Ray on this machine, environment variables, the hub, logins, and the sandbox for model code.

Checks find out whether secrets exist, but never show them.
"""

from __future__ import annotations

import json
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.cluster.ray_address import check_ray_address
from orchestrator.doctor.host_facts import GIB, Process, Space, gib
from orchestrator.doctor.libraries import Platform
from orchestrator.doctor.runner import Finding, broken, ok, shortened, warning
from rollout.types.allocator import expandable_segments

PORTS = {6379: "Ray's head", 8265: "Ray's dashboard and job submission", 10001: "Ray clients"}
PORT_OPTIONS = {6379: "--port", 8265: "--dashboard-port", 10001: "--ray-client-server-port"}
"""The option of `ray start --head` that sets another port."""
MANY_SESSIONS = 5 * GIB
"""Bytes of old Ray sessions above which a warning is given."""
MOST_FILES = 100_000
"""Files of old Ray sessions that are measured at most."""
HUB = "https://huggingface.co"
HUB_FREE = 7 * GIB
"""Bytes that the largest model of the recipes for one card takes, of 3 billion parameters."""
WANDB_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
"""Hosts under which wandb saves a login; the second since version 0.31."""
TRUE = {"1", "ON", "YES", "TRUE"}


def cluster_version(url: str = "http://127.0.0.1:8265") -> str | None:
    """Return the version of the Ray cluster that answers at `url`, without a proxy; None if none answers."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{url}/api/version", timeout=3) as answer:
            return str(json.loads(answer.read(10_000))["ray_version"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def check_ports(
    taken: dict[int, int | None], running: Sequence[Process], cluster: str | None, installed: str | None
) -> list[Finding]:
    """Return a finding for each port: it is free, or used by Ray, or used by another program.

    `taken` and `running` come from host_facts. `cluster` is the version of the Ray cluster here; None without one.
    """
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
            user = f"{owner.name} (pid {owner.pid})" if owner else "a process that is not visible from here"
            option = PORT_OPTIONS[port]
            fix = f"end that process, or ray start --head {option}=N; only `ray start` and `rayzero submit` need this"
            findings.append(warning(name, f"used by {user}", f"free, for {purpose}, or a Ray cluster", fix))
    return findings


def check_cluster(name: str, cluster: str | None, installed: str | None) -> Finding:
    if cluster and installed and cluster != installed:
        fix = f'ray stop, then ray start in this environment; or pip install "ray[default]=={cluster}"'
        return broken(name, f"a cluster of Ray {cluster}", f"Ray {installed}, which is installed here", fix)
    return ok(name, f"a Ray cluster runs here{f', version {cluster}' if cluster else ''}")


def check_address(address: str | None) -> Finding:
    """Check RAY_ADDRESS: runs join that cluster, and fail if it does not exist any more."""
    checked = check_ray_address(address)
    if checked.is_usable:
        return ok("RAY_ADDRESS", checked.found)
    return broken("RAY_ADDRESS", checked.found, checked.expected, checked.fix)


def check_left_behind(running: Sequence[Process], joins_cluster: bool) -> Finding:
    """Look for processes of Ray or vLLM that belong to no run any more. They keep host memory and GPU memory in use."""
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
    shown = shortened([f"{process.name} (pid {process.pid})" for process in orphans], most=6)
    fix = "unless you started that cluster on purpose: ray stop, then kill remaining processes by pid"
    return warning("left processes", shown, "none that belong to no run", fix)


def sessions(folder: Path) -> tuple[int, int]:
    """Return the number of Ray's sessions in its folder, and their size in bytes; stop after MOST_FILES."""
    names = list(folder.glob("session_[0-9]*"))
    size = files = 0
    for name in names:
        for parent, _, children in os.walk(name):
            for child in children:
                files += 1
                try:
                    size += Path(parent, child).lstat().st_blocks * 512
                except OSError:
                    continue
            if files > MOST_FILES:
                return len(names), size
    return len(names), size


def check_sessions(folder: Path, count: int, size: int) -> Finding:
    """Check the size of the logs and spilled objects of earlier sessions."""
    found = f"{count} in {folder}, {gib(size)}"
    if size > MANY_SESSIONS:
        fix = f"while no Ray cluster runs here: rm -rf {folder}/session_*"
        return warning("ray sessions", found, f"less than {gib(MANY_SESSIONS)}", fix)
    return ok("ray sessions", found)


def check_variables(environment: Mapping[str, str], kind: Platform) -> list[Finding]:
    """Look for environment variables that are known to make runs fail or slow."""
    findings = gpu_variables(environment) if kind == "gpu" else []
    proxies = sorted(name for name in environment if name.lower() in ("http_proxy", "https_proxy", "all_proxy"))
    if proxies and not any(covers_loopback(environment.get(name, "")) for name in ("no_proxy", "NO_PROXY")):
        fix = 'export no_proxy="127.0.0.1,localhost,$no_proxy"'
        expected = "no_proxy with 127.0.0.1: otherwise job submission asks the proxy for Ray's dashboard"
        findings.append(warning("proxy", f"{', '.join(proxies)} without an exception for this machine", expected, fix))
    if others := sorted(name for name in environment if name.startswith("VLLM_")):
        fix = (
            f"unset {' '.join(others)}, unless you set them on purpose: they change every generator, and Rayzero sets "
            "what vLLM needs"
        )
        findings.append(warning("vLLM's variables", f"set: {', '.join(others)}", "none", fix))
    return findings or [ok("variables", "no harmful ones are set")]


def gpu_variables(environment: Mapping[str, str]) -> list[Finding]:
    findings = []
    if (name := expandable_segments(environment)) is not None:
        expected = "without expandable_segments, which CUDA IPC cannot share: publishing weights on one GPU fails"
        findings.append(broken(name, environment[name], expected, f"unset {name}"))
    if environment.get("CUDA_LAUNCH_BLOCKING") == "1":
        name = "CUDA_LAUNCH_BLOCKING"
        expected = "not set: it is slow, because the program waits for every kernel"
        findings.append(warning(name, "1", expected, f"unset {name}"))
    return findings


def covers_loopback(value: str) -> bool:
    return bool({"127.0.0.1", "*", "127.0.0.0/8"} & {entry.strip() for entry in value.split(",")})


def check_hub_folder(folder: Path, disk: Space) -> Finding:
    """Check HF_HOME, the folder for downloaded models and data sets."""
    if not disk.writable:
        fix = "export HF_HOME=/a/folder/that/you/own"
        return warning("hub folder", f"{folder} cannot be written", "a folder for downloads", fix)
    found = f"{gib(disk.free)} free in {folder}"
    if disk.free < HUB_FREE:
        fix = "free space there, or export HF_HOME=/another/folder"
        return warning("hub folder", found, f"{gib(HUB_FREE)} for a download; recipes for the CPU need none", fix)
    return ok("hub folder", found)


def head(url: str) -> str:
    """Return why the hub cannot be used; empty if it answers. Uses proxies, as downloads do."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=5).close()
    except urllib.error.HTTPError as error:
        return "" if error.code in (404, 405) else f"answered {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", "") or error)[:200]
    return ""


def check_hub(environment: Mapping[str, str]) -> Finding:
    """Check that models and data sets can be downloaded. The recipes for the CPU need no downloads."""
    if environment.get("HF_HUB_OFFLINE", "").upper() in TRUE:
        return ok("hub", "offline because of HF_HUB_OFFLINE: only earlier downloads can be used")
    url = environment.get("HF_ENDPOINT") or HUB
    if why := head(url):
        fix = (
            "countdown-tiny needs no hub; for other recipes check network and proxy, or set HF_ENDPOINT to a mirror, "
            "or copy the model here, set model.path to its folder and HF_HUB_OFFLINE=1"
        )
        return warning("hub", f"{url}: {why}", "an answer within 5 s", fix)
    return ok("hub", f"{url} answers")


def check_login(environment: Mapping[str, str], hub_folder: Path, home: Path) -> list[Finding]:
    """Look for credentials for the hub and for Weights & Biases. The findings do not contain their values."""
    token = bool(environment.get("HF_TOKEN")) or (hub_folder / "token").is_file()
    hub = "token present" if token else "no token; only gated models need one (hf auth login, or HF_TOKEN)"
    if environment.get("WANDB_MODE") in ("offline", "disabled"):
        wandb = f"WANDB_MODE is {environment['WANDB_MODE']}"
    elif environment.get("WANDB_API_KEY") or any(in_netrc(host, home) for host in WANDB_HOSTS):
        wandb = "login present"
    else:
        wandb = "no login; only tracking.wandb=true needs one (wandb login, or WANDB_MODE=offline)"
    return [ok("hub login", hub), ok("wandb login", wandb)]


def in_netrc(host: str, home: Path) -> bool:
    try:
        return netrc.netrc(str(home / ".netrc")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def hub_folder(environment: Mapping[str, str]) -> Path:
    """Return HF_HOME as huggingface_hub computes it."""
    cache = Path(environment.get("XDG_CACHE_HOME", "~/.cache"))
    return Path(environment.get("HF_HOME") or cache / "huggingface").expanduser()


def check_sandbox(protections: Callable[[], Mapping[str, tuple[str, ...]]]) -> Finding:
    """Check what protects this machine from code that a model writes; only the task `code` runs such code."""
    fix = (
        "allow user namespaces, or Landlock and seccomp; with Docker, --security-opt seccomp=unconfined; only the task "
        "code needs this"
    )
    try:
        mechanisms = protections()
    except (RuntimeError, OSError) as error:
        return warning("sandbox", str(error)[:300], "a sandbox that starts", fix)
    unprotected = [target for target, steps in mechanisms.items() if not steps]
    if unprotected:
        expected = "network, files and processes protected"
        return warning("sandbox", f"not protected: {', '.join(unprotected)}", expected, fix)
    return ok("sandbox", "; ".join(f"{target} by {', '.join(steps)}" for target, steps in mechanisms.items()))
