"""A machine on which `make install` runs, with or without a GPU. Stand-ins for pip record how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doctor import NVIDIA_SMI
from tests.support.paths import ROOT

PIP = """#!/bin/sh
echo "$DS_IGNORE_CUDA_DETECTION|$*" >> "$CALLS"
case "$*" in *"$FAILS"*) exit 1;; *deepspeed==*) exec ${DEEPSPEED:-true} "$@";; esac
"""
INSTALLER = """
import os, runpy, shutil, sysconfig, venv
from pathlib import Path

def create(folder, with_pip, clear=False):
    bin = Path(folder) / "bin"
    if clear:
        (bin / "leftover").unlink()
    bin.mkdir(parents=True, exist_ok=True)
    (bin / "python").touch()
    (bin / "pip").write_text(PIP)
    (bin / "pip").chmod(0o755)

venv.create = create
find = shutil.which
shutil.which = lambda name, *rest: COMPILER if name in ("gcc", "cc", "clang") else find(name, *rest)
sysconfig.get_path = lambda name: INCLUDE
runpy.run_path("deploy/install.py", run_name="__main__")
"""


class Machine:
    """A checkout in a folder of its own, which has an NVIDIA driver or has not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in ("deploy", "orchestrator", "rollout"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        self.compiler: str | None = "/usr/bin/gcc"
        self.include = folder / "include"
        self.include.mkdir()
        (self.include / "Python.h").touch()
        self.nvidia_smi = NVIDIA_SMI
        self.said = ""

    def install(self, has_gpu: bool, fails: str = "nothing fails", *, ends_well: bool = True, **set_: str) -> list[str]:
        """Return pip's calls, each behind DS_IGNORE_CUDA_DETECTION and a bar.

        Args:
            fails: words of the call of pip that fails.
            ends_well: whether the installation succeeds.
            set_: environment variables. DEEPSPEED: a program that does what pip is asked for DeepSpeed.
        """
        commands = self.folder / ("gpu-commands" if has_gpu else "commands")
        commands.mkdir(exist_ok=True)
        if has_gpu:
            (commands / "nvidia-smi").write_text(self.nvidia_smi)
            (commands / "nvidia-smi").chmod(0o755)
        calls = self.folder / "calls"
        calls.write_text("")
        variables = {"PATH": f"{commands}:/usr/bin:/bin", "CALLS": str(calls), "FAILS": fails, **set_}
        ours = ("DS_IGNORE_CUDA_DETECTION", "RAYZERO_INSTALL")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        facts = f"PIP, COMPILER, INCLUDE = {PIP!r}, {self.compiler!r}, {str(self.include)!r}\n"
        done = subprocess.run(
            [sys.executable, "-c", facts + INSTALLER],
            cwd=self.folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=400,
        )
        self.said = done.stdout + done.stderr
        assert (done.returncode == 0) == ends_well, self.said
        return calls.read_text().splitlines()

    def leave_something(self) -> Path:
        """Return a file that was put into the environment."""
        file = self.folder / ".venv" / "bin" / "leftover"
        file.touch()
        return file


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if Path("/usr/bin/nvidia-smi").exists():
        pytest.skip("a machine without a GPU cannot be played where there is a driver")
    return Machine(tmp_path)
