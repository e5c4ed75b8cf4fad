"""DeepSpeed's own source package, installed by `make install` on a machine with a GPU and without a CUDA toolkit.

pip and setup.py are real; what torch says of the GPU is not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.installations import Machine

pytestmark = [pytest.mark.slow, pytest.mark.long]

SDIST = "deepspeed-0.19.8.tar.gz"
A_GPU_WITHOUT_A_TOOLKIT = """
import torch, torch.utils.cpp_extension
torch.cuda.is_available = torch.cuda.is_bf16_supported = lambda *_: True
torch.cuda.device_count = lambda: 1
torch.cuda.get_device_properties = lambda device: type("A4090", (), {"major": 8, "minor": 9})
torch.cuda.nccl.version = lambda: (2, 29, 3)
torch.version.cuda = "13.0"
torch.utils.cpp_extension.CUDA_HOME = None
"""
INSTALL = """#!/bin/sh
unset DS_ACCELERATOR CUDA_HOME {unset}
export PYTHONPATH={folder}
exec {python} -m pip "$@" --no-deps --no-index --find-links {folder} --no-cache-dir --target {target}
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with DeepSpeed's source package, in which Python takes this machine for one with a GPU."""
    folder = tmp_path_factory.mktemp("source")
    wanted = ["--no-deps", "--no-build-isolation", "--no-binary", "deepspeed", "deepspeed==0.19.8"]
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), *wanted]
    done = subprocess.run(download, capture_output=True, text=True, timeout=300)
    if not (folder / SDIST).is_file():
        pytest.skip(f"DeepSpeed's source package cannot be had from here: {done.stderr[-300:]}")
    (folder / "sitecustomize.py").write_text(A_GPU_WITHOUT_A_TOOLKIT)
    return folder


def program(source: Path, target: Path, unset: str = "") -> str:
    """Return a program that installs DeepSpeed into the folder `target` as it is asked for, without some variable."""
    script = target.with_suffix(".sh")
    script.write_text(INSTALL.format(folder=source, python=sys.executable, target=target, unset=unset))
    script.chmod(0o755)
    return str(script)


def test_deepspeed_is_installed_as_make_install_does_it(source: Path, machine: Machine, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    machine.install(has_gpu=True, DEEPSPEED=program(source, target))
    built = (target / "deepspeed" / "git_version_info_installed.py").read_text()
    assert "accelerator_name='cuda'" in built and "'cuda_version': '13.0'" in built
    assert (target / "deepspeed" / "runtime" / "engine.py").is_file()


def test_without_our_variable_it_is_not(source: Path, machine: Machine, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    program_ = program(source, target, unset="DS_IGNORE_CUDA_DETECTION")
    machine.install(has_gpu=True, ends_well=False, DEEPSPEED=program_)
    assert "MissingCUDAException: CUDA_HOME does not exist" in machine.said
    assert "installation failed at: pip install --no-build-isolation deepspeed==0.19.8" in machine.said
    assert not target.exists()
