"""Check this machine, or the container on it: cores, memory, disks, limits and GPUs."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path

from orchestrator.doctor.host_facts import GIB, Driver, Gpu, Space, gib
from orchestrator.doctor.libraries import Platform
from orchestrator.doctor.runner import Finding, ProbeOutcome, broken, ok, warning

MIN_MEMORY = 3 * GIB
GOOD_MEMORY = 6 * GIB
"""Bytes that the smallest recipe needs, in all its processes together."""
STORE_SHARE = 0.3
STORE_MOST = 200 * 10**9
"""Ray's object store reserves this share of the memory, and at most this number of bytes."""
RAY_DISK_FULL = 0.95
"""Used share of a disk above which Ray creates no objects on it."""
SOCKET_PATH_MOST = 107
"""Longest path of a socket on Linux, bytes."""
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""An example of the longest socket path in a Ray session."""
MIN_DRIVER = 580
"""Oldest NVIDIA driver that supports CUDA 13; torch and vLLM are built for CUDA 13."""
MIN_CAPABILITY = (7, 5)
"""Oldest compute capability with kernels in CUDA 13: Turing."""
MIN_FREE = 0.9
"""Share of a GPU's memory that must be free: co-located training uses the complete card."""


def check_cpu(cores: int, quota: float | None, flags: frozenset[str], kind: Platform, machine: str = "") -> Finding:
    """Check cores and instructions. `quota` is the container's limit in cores, `machine` as in platform.machine()."""
    usable = min(cores, quota or cores)
    found = f"{usable:g} usable cores"
    if (machine or platform.machine()) == "x86_64" and flags:
        if kind == "cpu" and "avx2" not in flags:
            expected = "AVX2: vLLM's CPU backend needs it"
            return broken("cpu", f"{found}, no AVX2", expected, "use another machine")
        found += ", AVX-512" if "avx512f" in flags else ", AVX2 (AVX-512 would be faster)" if "avx2" in flags else ""
    if usable < 2:
        fix = "give the container or job more cores (--cpus)"
        return warning("cpu", found, "2 or more, for sampling, learning and grading at the same time", fix)
    return ok("cpu", found)


def check_memory(total: int, available: int, limit: int | None, free: int | None = None) -> Finding:
    """Check the memory, in bytes; `limit` is the container's limit, and `free` what is left of it, if known."""
    usable = min(each for each in (available, limit, free) if each is not None)
    shown = f"{gib(available)} of {gib(total)} available" + (f", this container may use {gib(limit)}" if limit else "")
    shown += f" and has {gib(free)} left" if free is not None else ""
    expected = f"{GOOD_MEMORY // GIB} GiB for the smallest recipe, 64 GiB with the optimizer in host memory"
    fix = "end processes that use memory (ps aux --sort=-rss | head), or give the container more (docker run --memory)"
    if usable >= GOOD_MEMORY:
        return ok("memory", shown)
    return (broken if usable < MIN_MEMORY else warning)("memory", shown, expected, fix)


def check_shared_memory(shm: Space | None, total: int) -> Finding:
    """Check /dev/shm, where Ray stores its objects. If it is too small, Ray stores them on disk.

    `total` is the memory that Ray sees, bytes.
    """
    wanted = int(min(STORE_SHARE * total, STORE_MOST))
    name, expected = "shared memory", f"{gib(wanted)} for Ray's object store"
    fix = (
        f"docker run --shm-size={max(1, round(wanted / GIB))}g, or --ipc=host; in Kubernetes mount an emptyDir with "
        "medium: Memory at /dev/shm"
    )
    if shm is None or not shm.writable:
        return broken(name, "no writable /dev/shm", expected, fix)
    found = f"{gib(shm.free)} of {gib(shm.total)} free in /dev/shm"
    if shm.total >= wanted > shm.free:
        fix = "ls -lS /dev/shm shows the largest files; delete files of processes that have ended"
    return warning(name, found, expected, fix) if shm.free < wanted else ok(name, found)


def check_disk(name: str, folder: Path, disk: Space, wanted_gib: float, move: str) -> Finding:
    """Check that files can be written in `folder`; `move` is a fix that chooses another folder."""
    found = f"{gib(disk.free)} free in {folder}"
    if not disk.writable:
        return broken(name, f"{folder} is not writable", "a writable folder", move)
    if disk.free < GIB:
        return broken(name, found, f"{wanted_gib:g} GiB", f"free space there, or {move}")
    if disk.free < wanted_gib * GIB:
        return warning(name, found, f"{wanted_gib:g} GiB", f"free space there, or {move}")
    return ok(name, found)


def check_ray_folder(folder: Path, disk: Space) -> Finding:
    """Check the folder of Ray's sessions: Ray refuses disks that are almost full, and paths too long for sockets."""
    name, move = "ray's folder", "export RAY_TMPDIR=/another/folder with a short path"
    longest = len(str(folder)) + len(RAY_SOCKET)
    if longest > SOCKET_PATH_MOST:
        return broken(name, f"socket paths in {folder} have {longest} bytes", f"at most {SOCKET_PATH_MOST}", move)
    used = 1 - disk.free / disk.total
    if used > RAY_DISK_FULL:
        expected = f"at most {RAY_DISK_FULL:.0%}; otherwise Ray stalls"
        return broken(name, f"the disk of {folder} is {used:.0%} full", expected, move)
    return check_disk(name, folder, disk, 5, move)


def check_descriptors(soft: int, hard: int) -> Finding:
    """Check the limits on open files of a process; -1 is no limit.

    Only the hard limit matters, because Ray raises the soft limit to it.
    """
    if 0 <= hard < 8192:
        fix = "raise nofile in /etc/security/limits.conf, or docker run --ulimit nofile=65536:65536"
        return warning("open files", f"at most {hard}", "8192, as Ray recommends", fix)
    return ok("open files", f"{soft} now, {hard if hard >= 0 else 'no limit'} at most")


def check_processes(limit: int, container: int | None) -> Finding:
    """Check the limits on processes and threads: this user's, -1 for no limit, and this container's."""
    limits = [value for value in (limit, container) if value is not None and value >= 0]
    found = f"at most {min(limits)}" if limits else "no limit"
    if limits and min(limits) < 4096:
        fix = "ulimit -u 16384, or docker run --pids-limit=-1"
        return warning("processes", found, "4096 or more: Ray and OpenMP start hundreds of threads", fix)
    return ok("processes", found)


def visible(gpus: Sequence[Gpu], value: str | None) -> list[Gpu]:
    """Return the GPUs that programs can see; `value` is CUDA_VISIBLE_DEVICES, such as ``0,2`` or ``GPU-8f3a``."""
    if value is None:
        return list(gpus)
    return [gpu for gpu in gpus if any(is_named(gpu, entry) for entry in entries(value))]


def entries(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]


def is_named(gpu: Gpu, entry: str) -> bool:
    return gpu.index == entry or gpu.uuid.startswith(entry)


def check_driver(driver: Driver | None, has_device_files: bool) -> Finding:
    """Check that the GPUs of this machine can be used; `has_device_files` is True if /dev/nvidia0 exists."""
    if driver is None:
        if has_device_files:
            fix = (
                "install the driver's tools; in a container, start it with --gpus all and the NVIDIA container toolkit"
            )
            return broken("driver", "/dev/nvidia0 exists, but nvidia-smi does not", "nvidia-smi", fix)
        return ok("driver", "no NVIDIA driver: runs use the CPU")
    if driver.failure:
        fix = "after an update of the driver, reboot or reload it; in a container, start it with --gpus all"
        return broken("driver", driver.failure, "nvidia-smi lists the GPUs", fix)
    if not driver.gpus:
        fix = "give the container or job a GPU (--gpus all)"
        return warning("driver", "nvidia-smi lists no GPU", "at least one", fix)
    cuda = ".".join(map(str, driver.cuda)) if driver.cuda else "?"
    found = f"{driver.version}, CUDA up to {cuda}"
    if (major := driver.version.partition(".")[0]).isdecimal() and int(major) < MIN_DRIVER:
        expected = f"{MIN_DRIVER} or newer, for the CUDA 13 builds of torch and vLLM"
        fix = f"update the driver (with apt-get install nvidia-driver-{MIN_DRIVER}), then reboot"
        return broken("driver", found, expected, fix)
    return ok("driver", found)


def check_generation(gpu: Gpu) -> Finding:
    """Check that CUDA 13 has kernels for a GPU, independent of the installed packages."""
    name, capability = f"gpu {gpu.index}", gpu.compute_capability
    if re.fullmatch(r"\d+\.\d+", capability) and tuple(map(int, capability.split("."))) < MIN_CAPABILITY:
        expected = "compute capability 7.5 or newer (GeForce 20, T4): CUDA 13 has no kernels for older cards"
        return broken(name, f"{gpu.name} with compute capability {capability}", expected, "use a newer card")
    return ok(name, f"{gpu.name} with compute capability {capability}")


def check_gpu(gpu: Gpu) -> Finding:
    """Check that a GPU is free, and that generator and learner can share it."""
    name = f"gpu {gpu.index}"
    if gpu.compute_mode.startswith(("Exclusive", "Prohibited")):
        found = f"{gpu.name}, compute mode {gpu.compute_mode}"
        expected = "compute mode Default: generator and learner share a card"
        return broken(name, found, expected, f"sudo nvidia-smi --id={gpu.index} --compute-mode=DEFAULT")
    if gpu.total_mib is None or gpu.free_mib is None:
        return ok(name, f"{gpu.name}, shares the machine's memory")
    found = f"{gpu.name}, {gpu.free_mib / 1024:.1f} of {gpu.total_mib / 1024:.1f} GiB free"
    if gpu.free_mib < MIN_FREE * gpu.total_mib:
        users = f"; used by {', '.join(gpu.users)}" if gpu.users else "; its processes are not visible from here"
        fix = "end those processes, choose another card (CUDA_VISIBLE_DEVICES), or lower rollout.gpu_memory_fraction"
        return warning(name, found + users, f"{MIN_FREE:.0%} free", fix)
    return ok(name, found)


def check_cuda(torch: ProbeOutcome, driver: Driver, visible: str | None) -> Finding:
    """Check that the CUDA build of torch can use the GPUs with this driver; `visible` is CUDA_VISIBLE_DEVICES."""
    name, cuda = "torch with driver", torch.facts["cuda"]
    if visible is not None and visible.strip() in ("", "-1"):
        found = "CUDA_VISIBLE_DEVICES hides every GPU"
        return broken(name, found, "GPUs that torch sees", "unset CUDA_VISIBLE_DEVICES")
    # CUDA ignores the first unknown entry and all after it. nvidia-smi does not list parts of a card (MIG).
    unknown = [
        entry
        for entry in entries(visible or "")
        if not entry.startswith("MIG-") and not any(is_named(gpu, entry) for gpu in driver.gpus)
    ]
    if unknown:
        found = f"CUDA_VISIBLE_DEVICES={visible} has the unknown entry {unknown[0]!r}; CUDA ignores it and all after it"
        expected = f"entries from {', '.join(gpu.index for gpu in driver.gpus)}"
        return broken(name, found, expected, "unset CUDA_VISIBLE_DEVICES, or set it to GPU numbers, such as 0,1")
    if driver.cuda and int(cuda.partition(".")[0]) > driver.cuda[0]:
        shown = ".".join(map(str, driver.cuda))
        fix = f"update the driver, or install torch and vLLM builds for CUDA {driver.cuda[0]}"
        return broken(name, f"torch for CUDA {cuda}, driver {driver.version}", f"at most CUDA {shown}", fix)
    if not torch.facts["sees_gpu"]:
        reason = torch.words.splitlines()[-1:] or ["torch does not say why"]
        fix = (
            "reboot after a driver update; in a container, start it with --gpus all; on clusters, load no other CUDA "
            "module"
        )
        return broken(name, f"torch for CUDA {cuda} sees no GPU: {reason[0][:200]}", "GPUs that torch sees", fix)
    if unsupported := [gpu for gpu in driver.gpus if not has_kernels(gpu, torch.facts["architectures"])]:
        found = f"{unsupported[0].name} is sm_{unsupported[0].compute_capability.replace('.', '')}"
        fix = "use a newer card, or builds of torch and vLLM for this card"
        return broken(name, found, f"one of {', '.join(torch.facts['architectures'])}", fix)
    return ok(name, f"torch for CUDA {cuda}, and it sees the GPUs")


def has_kernels(gpu: Gpu, architectures: Sequence[str]) -> bool:
    """Return whether a build for `architectures` (``sm_90``, ``compute_90``) runs on the GPU.

    Kernels (sm) run on the same major and the same or a newer minor version. PTX (compute) runs on the same or any
    newer version. True if the versions are not known.
    """
    if not re.fullmatch(r"\d+\.\d+", gpu.compute_capability) or not architectures:
        return True
    major, minor = (int(part) for part in gpu.compute_capability.split("."))
    for kind, digits in re.findall(r"(sm|compute)_(\d+)", " ".join(architectures)):
        built = (int(digits[:-1]), int(digits[-1]))
        if kind == "sm" and built[0] == major and built[1] <= minor:
            return True
        if kind == "compute" and built <= (major, minor):
            return True
    return False


def check_compiler(compiler: str | None, has_python_header: bool) -> Finding:
    """Check for a C compiler and Python's header: Triton compiles its launchers when vLLM first starts on a GPU."""
    missing = [*([] if compiler else ["no C compiler"]), *([] if has_python_header else ["no Python.h"])]
    if missing:
        fix = "apt-get install build-essential python3-dev (for this version of Python)"
        expected = "a C compiler and Python.h, with which Triton compiles kernels"
        return broken("compiler", " and ".join(missing), expected, fix)
    return ok("compiler", f"{compiler}, and Python.h")
