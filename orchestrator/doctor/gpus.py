"""NVIDIA GPUs, their driver, and who uses them, as nvidia-smi tells."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.doctor.finding import Finding, broken, ok, warning
from orchestrator.doctor.probe import ProbeOutcome

FIELDS = "index,uuid,name,memory.total,memory.free,compute_cap,compute_mode,driver_version"
MIN_FREE = 0.9
"""Share of a GPU's memory that is free when nobody else uses it: co-located training divides up the whole card."""


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi; memory in MiB, None where it does not say."""

    index: str
    uuid: str
    name: str
    total_mib: int | None
    free_mib: int | None
    compute_capability: str
    compute_mode: str
    users: tuple[str, ...] = ()
    """Processes on it, such as ``python (pid 12, 900 MiB)``. In a container those outside are not seen."""


@dataclass(frozen=True)
class Driver:
    """The driver and its GPUs."""

    version: str
    cuda: tuple[int, int] | None
    """The newest CUDA that it supports."""
    gpus: tuple[Gpu, ...]
    failure: str = ""
    """What nvidia-smi said when it failed."""


def nvidia_smi(*arguments: str) -> str:
    """What it prints. Raises OSError when it is not there, RuntimeError with its own words when it fails or hangs."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=15, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError("nvidia-smi hangs") from error
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr).strip()[:300] or f"nvidia-smi ended with {done.returncode}")
    return done.stdout


def read_driver(ask: Callable[..., str] = nvidia_smi) -> Driver | None:
    """None on a machine without nvidia-smi."""
    try:
        gpus = [line for line in rows(ask(f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits")) if len(line) == 8]
        header = ask()
    except OSError:
        return None
    except RuntimeError as error:
        return Driver("", None, (), str(error))
    users = read_users(ask) if gpus else []
    cuda = re.search(r"CUDA (?:UMD )?Version: *(\d+)\.(\d+)", header)
    return Driver(
        version=gpus[0][7] if gpus else "",
        cuda=(int(cuda[1]), int(cuda[2])) if cuda else None,
        gpus=tuple(
            Gpu(index, uuid, name, number(total), number(free), capability, mode, users_of(uuid, users))
            for index, uuid, name, total, free, capability, mode, _ in gpus
        ),
    )


def read_users(ask: Callable[..., str]) -> list[list[str]]:
    """UUID, process, its name and MiB of each user; some drivers do not tell."""
    try:
        return rows(ask("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits"))
    except RuntimeError:
        return []


def visible(gpus: Sequence[Gpu], value: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES, such as ``0,2`` or ``GPU-8f3a``, lets programs see."""
    if value is None:
        return list(gpus)
    chosen = [entry.strip() for entry in value.split(",") if entry.strip()]
    return [gpu for gpu in gpus if any(gpu.index == entry or gpu.uuid.startswith(entry) for entry in chosen)]


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]


def number(cell: str) -> int | None:
    return int(cell) if cell.isdecimal() else None


def users_of(uuid: str, users: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(
        f"{Path(row[2]).name} (pid {row[1]}, {row[3]} MiB)" for row in users if len(row) == 4 and row[0] == uuid
    )


def check_driver(driver: Driver | None, has_device_files: bool) -> Finding:
    """Whether the GPUs of this machine can be reached; `has_device_files` when /dev/nvidia0 exists."""
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
        return warning(
            "driver", "nvidia-smi lists no GPU", "at least one", "give the container or job a GPU (--gpus all)"
        )
    cuda = ".".join(map(str, driver.cuda)) if driver.cuda else "?"
    return ok("driver", f"{driver.version}, CUDA up to {cuda}")


def check_gpu(gpu: Gpu) -> Finding:
    """Whether a GPU is free, and can be shared by generator and learner."""
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
    """Whether this CUDA build of torch can use these GPUs with this driver; `visible` is CUDA_VISIBLE_DEVICES."""
    name, cuda = "torch with driver", torch.facts["cuda"]
    if visible is not None and visible.strip() in ("", "-1"):
        return broken(
            name, "CUDA_VISIBLE_DEVICES hides every GPU", "GPUs that torch sees", "unset CUDA_VISIBLE_DEVICES"
        )
    if driver.cuda and int(cuda.partition(".")[0]) > driver.cuda[0]:
        shown = ".".join(map(str, driver.cuda))
        fix = f"update the driver, or install torch and vLLM builds for CUDA {driver.cuda[0]}"
        return broken(name, f"torch for CUDA {cuda}, driver {driver.version}", f"CUDA {shown} at most", fix)
    if not torch.facts["sees_gpu"]:
        said = torch.words.splitlines()[-1:] or ["torch does not say why"]
        fix = "reboot after a driver update; in a container, start it with --gpus all; on clusters, load no other CUDA module"
        return broken(name, f"torch for CUDA {cuda} sees no GPU: {said[0][:200]}", "GPUs that torch sees", fix)
    if foreign := [gpu for gpu in driver.gpus if not has_kernels(gpu, torch.facts["architectures"])]:
        found = f"{foreign[0].name} is sm_{foreign[0].compute_capability.replace('.', '')}"
        fix = "use a newer card, or builds of torch and vLLM made for this one"
        return broken(name, found, f"one of {', '.join(torch.facts['architectures'])}", fix)
    return ok(name, f"torch for CUDA {cuda}, and it sees the GPUs")


def has_kernels(gpu: Gpu, architectures: Sequence[str]) -> bool:
    """Whether a build for these (``sm_90``, ``compute_90``) runs there: same major and no newer minor, or PTX of an older."""
    if not re.fullmatch(r"\d+\.\d+", gpu.compute_capability) or not architectures:
        return True  # nothing is known
    major, minor = (int(part) for part in gpu.compute_capability.split("."))
    for kind, digits in re.findall(r"(sm|compute)_(\d+)", " ".join(architectures)):
        built = (int(digits[:-1]), int(digits[-1]))
        if (kind == "sm" and built[0] == major and built[1] <= minor) or (
            kind == "compute" and built <= (major, minor)
        ):
            return True
    return False


def nvcc_version() -> str | None:
    """Of the CUDA toolkit; None where there is none."""
    if not shutil.which("nvcc"):
        return None
    done = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, timeout=15, check=False)
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    return found[1] if found else None


def check_toolkit(nvcc: str | None, cuda: str | None) -> Finding:
    """Nothing here compiles for CUDA, Rayzero's AdamW is PyTorch's; a toolkit that does not fit spoils flash-attn's build."""
    if nvcc is None:
        return ok("cuda toolkit", "none; only the optional flash-attn is compiled with it")
    if cuda and nvcc.partition(".")[0] != cuda.partition(".")[0]:
        fix = f"install CUDA toolkit {cuda} and set CUDA_HOME to it, if you mean to build flash-attn or DeepSpeed's operators"
        return warning("cuda toolkit", f"nvcc {nvcc}", f"that of torch, {cuda}", fix)
    return ok("cuda toolkit", f"nvcc {nvcc}")


def check_compiler(compiler: str | None, has_python_header: bool) -> Finding:
    """Triton compiles its launchers with a C compiler and Python's header when vLLM first starts on a GPU."""
    missing = [*([] if compiler else ["a C compiler"]), *([] if has_python_header else ["Python.h"])]
    if missing:
        fix = "apt-get install build-essential python3-dev (that of this Python)"
        return broken("compiler", f"without {' and '.join(missing)}", "both: Triton compiles kernels on first use", fix)
    return ok("compiler", f"{compiler}, and Python.h")
