"""Checks of this machine, or of the container that this runs in: cores, memory, disks, limits and GPUs."""

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
"""Bytes that the smallest recipe takes in all its processes."""
STORE_SHARE = 0.3
STORE_MOST = 200 * 10**9
"""Ray's object store asks for this share of the memory, and no more bytes than that."""
RAY_DISK_FULL = 0.95
"""Ray stops creating objects on a disk that is fuller."""
SOCKET_PATH_MOST = 107
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""An example of a Ray session's longest socket; Linux takes paths of at most 107 bytes."""
MIN_DRIVER = 580
"""Of NVIDIA's drivers the oldest that runs CUDA 13, for which torch and vLLM are built."""
MIN_CAPABILITY = (7, 5)
"""Oldest generation of cards that CUDA 13 has kernels for: Turing."""
MIN_FREE = 0.9
"""Share of a GPU's memory that is free when nobody else uses it: co-located training divides up the whole card."""


def check_cpu(cores: int, quota: float | None, flags: frozenset[str], kind: Platform, machine: str = "") -> Finding:
    """Check cores and instructions. `quota` is the container's limit in cores, `machine` as platform.machine() says."""
    usable = min(cores, quota or cores)
    found = f"{usable:g} usable cores"
    if (machine or platform.machine()) == "x86_64" and flags:
        if kind == "cpu" and "avx2" not in flags:
            expected = "AVX2: vLLM's CPU backend has no kernels without"
            return broken("cpu", f"{found}, no AVX2", expected, "use another machine")
        found += ", AVX-512" if "avx512f" in flags else ", AVX2 (AVX-512 would be faster)" if "avx2" in flags else ""
    if usable < 2:
        fix = "give the container or job more cores (--cpus)"
        return warning("cpu", found, "2 or more: sampling, learning and grading share one", fix)
    return ok("cpu", found)


def check_memory(total: int, available: int, limit: int | None) -> Finding:
    """Check the memory, in bytes; `limit` is the container's."""
    shown = f"{gib(available)} of {gib(total)} available" + (f", this container may use {gib(limit)}" if limit else "")
    usable = min(available, limit or available)
    expected = f"{GOOD_MEMORY // GIB} GiB for the smallest recipe, 64 GiB where the optimizer is kept in host memory"
    fix = "end what uses memory (ps aux --sort=-rss | head), or give the container more (docker run --memory)"
    if usable < MIN_MEMORY:
        return broken("memory", shown, expected, fix)
    return warning("memory", shown, expected, fix) if usable < GOOD_MEMORY else ok("memory", shown)


def check_shared_memory(shm: Space | None, total: int) -> Finding:
    """Check /dev/shm, where Ray keeps its objects, or on disk where that is too small.

    `total` is the memory that Ray sees, bytes.
    """
    wanted = int(min(STORE_SHARE * total, STORE_MOST))
    name, expected = "shared memory", f"{gib(wanted)}, what Ray's object store asks for"
    fix = (
        f"docker run --shm-size={max(1, round(wanted / GIB))}g, or --ipc=host; in Kubernetes an emptyDir of medium "
        "Memory at /dev/shm"
    )
    if shm is None or not shm.writable:
        return broken(name, "no /dev/shm that can be written", expected, fix)
    found = f"{gib(shm.free)} of {gib(shm.total)} free in /dev/shm"
    if shm.total >= wanted > shm.free:
        fix = "ls -lS /dev/shm shows what fills it; delete what dead processes left"
    return warning(name, found, expected, fix) if shm.free < wanted else ok(name, found)


def check_disk(name: str, folder: Path, disk: Space, wanted_gib: float, move: str) -> Finding:
    """Check that files can be written under `folder`; `move` is how to put them elsewhere."""
    found = f"{gib(disk.free)} free in {folder}"
    if not disk.writable:
        return broken(name, f"{folder} cannot be written", "a folder that can", move)
    if disk.free < GIB:
        return broken(name, found, f"{wanted_gib:g} GiB", f"free space there, or {move}")
    if disk.free < wanted_gib * GIB:
        return warning(name, found, f"{wanted_gib:g} GiB", f"free space there, or {move}")
    return ok(name, found)


def check_ray_folder(folder: Path, disk: Space) -> Finding:
    """Check the folder of Ray's sessions: Ray refuses almost full disks, and paths that are too long for a socket."""
    name, move = "ray's folder", "export RAY_TMPDIR=/another/folder with a short path"
    longest = len(str(folder)) + len(RAY_SOCKET)
    if longest > SOCKET_PATH_MOST:
        return broken(name, f"{folder} makes socket paths of {longest} bytes", f"{SOCKET_PATH_MOST} at most", move)
    used = 1 - disk.free / disk.total
    if used > RAY_DISK_FULL:
        expected = f"{RAY_DISK_FULL:.0%} at most, or Ray stalls"
        return broken(name, f"{folder} is on a disk {used:.0%} full", expected, move)
    return check_disk(name, folder, disk, 5, move)


def check_descriptors(soft: int, hard: int) -> Finding:
    """Check the limits of open files in a process; -1 is no limit.

    Ray raises the soft limit up to the hard one itself.
    """
    if 0 <= hard < 8192:
        fix = "raise nofile in /etc/security/limits.conf, or docker run --ulimit nofile=65536:65536"
        return warning("open files", f"at most {hard}", "8192, as Ray recommends", fix)
    return ok("open files", f"{soft} now, {hard if hard >= 0 else 'no limit'} at most")


def check_processes(limit: int, container: int | None) -> Finding:
    """Check the limits of processes and threads: of this user, -1 for no limit, and of this container."""
    limits = [value for value in (limit, container) if value is not None and value >= 0]
    found = f"at most {min(limits)}" if limits else "no limit"
    if limits and min(limits) < 4096:
        fix = "ulimit -u 16384, or docker run --pids-limit=-1: Ray and OpenMP start hundreds of threads"
        return warning("processes", found, "4096 or more", fix)
    return ok("processes", found)


def visible(gpus: Sequence[Gpu], value: str | None) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES, such as ``0,2`` or ``GPU-8f3a``, lets programs see."""
    if value is None:
        return list(gpus)
    return [gpu for gpu in gpus if any(is_named(gpu, entry) for entry in entries(value))]


def entries(value: str) -> list[str]:
    return [entry.strip() for entry in value.split(",") if entry.strip()]


def is_named(gpu: Gpu, entry: str) -> bool:
    return gpu.index == entry or gpu.uuid.startswith(entry)


def check_driver(driver: Driver | None, has_device_files: bool) -> Finding:
    """Check that the GPUs of this machine can be reached; `has_device_files` when /dev/nvidia0 exists."""
    if driver is None:
        if has_device_files:
            fix = (
                "install the driver's tools; in a container, start it with --gpus all and the NVIDIA container toolkit"
            )
            return broken("driver", "/dev/nvidia0 without nvidia-smi", "nvidia-smi", fix)
        return ok("driver", "no NVIDIA driver: runs use the CPU")
    if driver.failure:
        fix = "reboot, or reload the driver, where it was updated; in a container, start it with --gpus all"
        return broken("driver", driver.failure, "nvidia-smi lists the GPUs", fix)
    if not driver.gpus:
        fix = "give the container or job a GPU (--gpus all)"
        return warning("driver", "nvidia-smi lists no GPU", "at least one", fix)
    cuda = ".".join(map(str, driver.cuda)) if driver.cuda else "?"
    found = f"{driver.version}, CUDA up to {cuda}"
    if (major := driver.version.partition(".")[0]).isdecimal() and int(major) < MIN_DRIVER:
        expected = f"{MIN_DRIVER} or newer, for the CUDA 13 builds of torch and vLLM"
        fix = f"update the driver (as with apt-get install nvidia-driver-{MIN_DRIVER}), then reboot"
        return broken("driver", found, expected, fix)
    return ok("driver", found)


def check_generation(gpu: Gpu) -> Finding:
    """Check that CUDA 13 has kernels for a GPU, independent of what is installed."""
    name, capability = f"gpu {gpu.index}", gpu.compute_capability
    if re.fullmatch(r"\d+\.\d+", capability) and tuple(map(int, capability.split("."))) < MIN_CAPABILITY:
        expected = "compute capability 7.5 or newer (GeForce 20, T4): CUDA 13 has no kernels for older cards"
        return broken(name, f"{gpu.name} of compute capability {capability}", expected, "use a newer card")
    return ok(name, f"{gpu.name} of compute capability {capability}")


def check_gpu(gpu: Gpu) -> Finding:
    """Check that a GPU is free, and can be shared by generator and learner."""
    name = f"gpu {gpu.index}"
    if gpu.compute_mode.startswith(("Exclusive", "Prohibited")):
        found = f"{gpu.name}, compute mode {gpu.compute_mode}"
        expected = "compute mode Default: generator and learner share a card"
        return broken(name, found, expected, f"sudo nvidia-smi --id={gpu.index} --compute-mode=DEFAULT")
    if gpu.total_mib is None or gpu.free_mib is None:
        return ok(name, f"{gpu.name}, shares the machine's memory")
    found = f"{gpu.name}, {gpu.free_mib / 1024:.1f} of {gpu.total_mib / 1024:.1f} GiB free"
    if gpu.free_mib < MIN_FREE * gpu.total_mib:
        users = f"; used by {', '.join(gpu.users)}" if gpu.users else "; its users are not seen from here"
        fix = "end those processes, choose another card (CUDA_VISIBLE_DEVICES), or lower rollout.gpu_memory_fraction"
        return warning(name, found + users, f"{MIN_FREE:.0%} free", fix)
    return ok(name, found)


def check_cuda(torch: ProbeOutcome, driver: Driver, visible: str | None) -> Finding:
    """Check that this CUDA build of torch can use these GPUs with this driver; `visible` is CUDA_VISIBLE_DEVICES."""
    name, cuda = "torch with driver", torch.facts["cuda"]
    if visible is not None and visible.strip() in ("", "-1"):
        found = "CUDA_VISIBLE_DEVICES hides every GPU"
        return broken(name, found, "GPUs that torch sees", "unset CUDA_VISIBLE_DEVICES")
    # CUDA takes the entries before the first that it does not know. Parts of a card (MIG) are not in nvidia-smi's list.
    unknown = [
        entry
        for entry in entries(visible or "")
        if not entry.startswith("MIG-") and not any(is_named(gpu, entry) for gpu in driver.gpus)
    ]
    if unknown:
        found = f"CUDA_VISIBLE_DEVICES={visible} names {unknown[0]!r}, which hides it and all that follow"
        expected = f"some of {', '.join(gpu.index for gpu in driver.gpus)}"
        return broken(name, found, expected, "unset CUDA_VISIBLE_DEVICES, or name GPUs by their numbers, such as 0,1")
    if driver.cuda and int(cuda.partition(".")[0]) > driver.cuda[0]:
        shown = ".".join(map(str, driver.cuda))
        fix = f"update the driver, or install torch and vLLM builds for CUDA {driver.cuda[0]}"
        return broken(name, f"torch for CUDA {cuda}, driver {driver.version}", f"CUDA {shown} at most", fix)
    if not torch.facts["sees_gpu"]:
        said = torch.words.splitlines()[-1:] or ["torch does not say why"]
        fix = (
            "reboot after a driver update; in a container, start it with --gpus all; on clusters, load no other CUDA "
            "module"
        )
        return broken(name, f"torch for CUDA {cuda} sees no GPU: {said[0][:200]}", "GPUs that torch sees", fix)
    if foreign := [gpu for gpu in driver.gpus if not has_kernels(gpu, torch.facts["architectures"])]:
        found = f"{foreign[0].name} is sm_{foreign[0].compute_capability.replace('.', '')}"
        fix = "use a newer card, or builds of torch and vLLM made for this one"
        return broken(name, found, f"one of {', '.join(torch.facts['architectures'])}", fix)
    return ok(name, f"torch for CUDA {cuda}, and it sees the GPUs")


def has_kernels(gpu: Gpu, architectures: Sequence[str]) -> bool:
    """Return True when a build for `architectures` (``sm_90``, ``compute_90``) runs on the GPU.

    Kernels run on the same major version with no older minor one; PTX runs on any card that is not older.
    """
    if not re.fullmatch(r"\d+\.\d+", gpu.compute_capability) or not architectures:
        return True  # nothing is known
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
    missing = [*([] if compiler else ["a C compiler"]), *([] if has_python_header else ["Python.h"])]
    if missing:
        fix = "apt-get install build-essential python3-dev (that of this Python)"
        return broken("compiler", f"without {' and '.join(missing)}", "both: Triton compiles kernels on first use", fix)
    return ok("compiler", f"{compiler}, and Python.h")
