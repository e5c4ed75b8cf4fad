"""The doctor's findings about the machine and its GPUs, each failing case with its fix."""

import os
from pathlib import Path

import pytest

from orchestrator.doctor import container, host_facts, machine
from orchestrator.doctor.host_facts import GIB, Space
from orchestrator.doctor.runner import ProbeOutcome
from tests.support.doctor import NVIDIA_SMI, status_and_fix

CUDA_TORCH = {"cuda": "13.0", "sees_gpu": True, "architectures": ["sm_80", "sm_90", "compute_120"]}


def test_cores_and_what_they_can_do() -> None:
    modern = frozenset({"avx2", "avx512f"})
    status_and_fix(machine.check_cpu(8, 0.5, modern, "cpu", "x86_64"), "warning", "--cpus")
    status_and_fix(machine.check_cpu(8, None, frozenset({"sse2"}), "cpu", "x86_64"), "broken", "another machine")
    for flags, kind, architecture in (
        (modern, "cpu", "x86_64"),
        ({"sse2"}, "gpu", "x86_64"),
        ({"asimd"}, "cpu", "aarch64"),
    ):
        assert machine.check_cpu(8, 4.0, frozenset(flags), kind, architecture).status == "ok"


def test_memory() -> None:
    status_and_fix(machine.check_memory(64 * GIB, 2 * GIB, None), "broken", "ps aux")
    status_and_fix(machine.check_memory(64 * GIB, 60 * GIB, 4 * GIB), "warning", "--memory")
    assert machine.check_memory(64 * GIB, 60 * GIB, 32 * GIB).status == "ok"
    full = machine.check_memory(64 * GIB, 60 * GIB, 32 * GIB, 2 * GIB)
    status_and_fix(full, "broken", "--memory")
    assert "may use 32.0 GiB and has 2.0 GiB left" in full.found
    total, available = host_facts.memory()
    assert 0 < available <= total


def test_shared_memory() -> None:
    docker = machine.check_shared_memory(Space(GIB // 16, GIB // 16), 64 * GIB)
    status_and_fix(docker, "warning", "--shm-size=19g")
    full = machine.check_shared_memory(Space(32 * GIB, GIB), 64 * GIB)
    status_and_fix(full, "warning", "ls -lS /dev/shm")
    status_and_fix(machine.check_shared_memory(None, 64 * GIB), "broken", "--shm-size")
    assert machine.check_shared_memory(Space(32 * GIB, 31 * GIB), 64 * GIB).status == "ok"


def test_disks(tmp_path) -> None:
    move = "export RAYZERO_CACHE=/another/folder"
    for space, status in (
        (Space(GIB, GIB // 2), "broken"),
        (Space(9, 9 * GIB, False), "broken"),
        (Space(9, 2 * GIB), "warning"),
    ):
        status_and_fix(machine.check_disk("cache", tmp_path, space, 5, move), status, move)
    real = host_facts.space(tmp_path / "not" / "made" / "yet")
    assert real.writable and 0 < real.free <= real.total and not list(tmp_path.iterdir())


def test_rays_folder() -> None:
    fix = "RAY_TMPDIR"
    status_and_fix(machine.check_ray_folder(Path("/tmp"), Space(100 * GIB, 4 * GIB)), "broken", fix)
    status_and_fix(machine.check_ray_folder(Path("/" + 60 * "a"), Space(100 * GIB, 90 * GIB)), "broken", fix)
    assert machine.check_ray_folder(Path("/tmp"), Space(100 * GIB, 90 * GIB)).status == "ok"


def test_limits() -> None:
    status_and_fix(machine.check_descriptors(1024, 4096), "warning", "nofile=65536")
    assert machine.check_descriptors(1024, -1).status == machine.check_descriptors(1024, 65536).status == "ok"
    status_and_fix(machine.check_processes(-1, 500), "warning", "--pids-limit")
    assert machine.check_processes(-1, None).status == machine.check_processes(90000, 20000).status == "ok"


def test_limits_of_containers_and_jobs(tmp_path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    job = root / "slurm" / "job_7"
    job.mkdir(parents=True)
    own.write_text("0::/slurm/job_7\n")
    assert container.container_limit("memory.max", root=root, own=own) is None
    (job / "memory.max").write_text("max\n")
    (root / "slurm" / "memory.max").write_text(f"{8 * GIB}\n")
    (job / "cpu.max").write_text("150000 100000\n")
    assert container.container_limit("memory.max", root=root, own=own) == 8 * GIB
    assert container.container_cores(root, own) == 1.5

    assert container.free_memory(root, own) is None
    (root / "slurm" / "memory.current").write_text(f"{7 * GIB}\n")
    (root / "slurm" / "memory.stat").write_text(f"anon {5 * GIB}\ninactive_file {GIB}\n")
    assert container.free_memory(root, own) == 2 * GIB

    old = tmp_path / "old" / "memory"
    old.mkdir(parents=True)
    own.write_text("4:memory:/docker/abc\n")  # a path of the host, not seen in the container
    (old / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert container.container_limit("memory.limit_in_bytes", root=tmp_path / "old", own=own) is None
    (old / "memory.limit_in_bytes").write_text(str(GIB))
    assert container.container_limit("memory.limit_in_bytes", root=tmp_path / "old", own=own) == GIB
    (old / "memory.usage_in_bytes").write_text(str(GIB // 2))
    (old / "memory.stat").write_text("inactive_file 4096\ntotal_inactive_file 8192\n")
    assert container.free_memory(tmp_path / "old", own) == GIB // 2 + 8192


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of that name on the path."""

    def put(script: str) -> host_facts.Driver | None:
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        return host_facts.read_driver()

    return put


def test_gpus_and_who_uses_them(nvidia_smi, monkeypatch) -> None:
    driver = nvidia_smi(NVIDIA_SMI)
    assert (driver.version, driver.cuda, len(driver.gpus)) == ("580.65.06", (13, 0), 2)
    free, used = map(machine.check_gpu, driver.gpus)
    assert free.status == "ok" and "23.6 of 24.0 GiB" in free.found
    status_and_fix(used, "warning", "CUDA_VISIBLE_DEVICES")
    assert "python3.11 (pid 4242, 20874 MiB)" in used.found
    assert "CUDA up to 13.0" in machine.check_driver(driver, True).found
    monkeypatch.setenv("USERS_FAIL", "3")
    assert "not visible from here" in machine.check_gpu(nvidia_smi(NVIDIA_SMI).gpus[1]).found


def test_drivers_that_do_not_answer(nvidia_smi, tmp_path, monkeypatch) -> None:
    failed = nvidia_smi("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    finding = machine.check_driver(failed, True)
    status_and_fix(finding, "broken", "reboot")
    assert "version mismatch" in finding.found
    status_and_fix(machine.check_driver(nvidia_smi("#!/bin/sh\n"), True), "warning", "--gpus all")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert host_facts.read_driver() is None
    status_and_fix(machine.check_driver(None, True), "broken", "container toolkit")
    assert machine.check_driver(None, False).status == "ok"


def test_gpus_that_are_hidden_are_not_examined() -> None:
    cards = [host_facts.Gpu(index, f"GPU-{index}f3a", "A card", 1, 1, "9.0", "Default") for index in "012"]
    for value, indices in ((None, "012"), ("0,2", "02"), ("GPU-1f", "1"), ("", ""), ("-1", "")):
        assert "".join(gpu.index for gpu in machine.visible(cards, value)) == indices


@pytest.mark.parametrize(("version", "status"), [("580.65.06", "ok"), ("575.64", "broken"), ("[N/A]", "ok")])
def test_a_driver_older_than_cuda_13(version, status) -> None:
    finding = machine.check_driver(host_facts.Driver(version, (12, 9), (card(),)), True)
    assert finding.status == status and ("nvidia-driver-580" in finding.fix) == (status == "broken")


@pytest.mark.parametrize(("capability", "status"), [("7.5", "ok"), ("12.0", "ok"), ("[N/A]", "ok"), ("6.1", "broken")])
def test_a_card_older_than_cuda_13(capability, status) -> None:
    assert machine.check_generation(card(capability)).status == status


def card(capability: str = "8.9", mode: str = "Default", free_mib: int | None = 24000) -> host_facts.Gpu:
    return host_facts.Gpu("0", "GPU-aa", "A card", 24564, free_mib, capability, mode)


def test_cards_that_cannot_be_shared_or_measured() -> None:
    status_and_fix(machine.check_gpu(card(mode="Exclusive_Process")), "broken", "--compute-mode=DEFAULT")
    assert machine.check_gpu(card(free_mib=None)).status == "ok"


@pytest.mark.parametrize(
    ("facts", "driver", "visible", "words"),
    [
        ({}, host_facts.Driver("535.1", (12, 2), (card(),)), None, ["update the driver", "CUDA 12"]),
        ({}, host_facts.Driver("580.1", (13, 0), (card(),)), "", ["unset CUDA_VISIBLE_DEVICES"]),
        ({}, host_facts.Driver("580.1", (13, 0), (card(),)), "0,1", ["unset CUDA_VISIBLE_DEVICES, or", "0,1"]),
        ({"sees_gpu": False}, host_facts.Driver("580.1", (13, 0), (card(),)), "cuda:0", ["unset CUDA_VISIBLE_DEVICES"]),
        ({"sees_gpu": False}, host_facts.Driver("580.1", (13, 0), (card(),)), "MIG-7f", ["--gpus all"]),
        ({"sees_gpu": False}, host_facts.Driver("580.1", (13, 0), (card(),)), None, ["--gpus all"]),
        ({}, host_facts.Driver("580.1", (13, 0), (card("7.0"),)), None, ["newer card"]),
    ],
)
def test_a_torch_that_cannot_use_the_gpu(facts, driver, visible, words) -> None:
    torch = ProbeOutcome("done", 1, CUDA_TORCH | facts)
    status_and_fix(machine.check_cuda(torch, driver, visible), "broken", *words)


@pytest.mark.parametrize("capability", ["8.9", "9.0", "12.0", "12.1", "[N/A]"])
def test_a_torch_that_fits_the_card(capability) -> None:
    driver = host_facts.Driver("580.1", (13, 0), (card(capability),))
    assert machine.check_cuda(ProbeOutcome("done", 1, CUDA_TORCH), driver, "0").status == "ok"


def test_what_compiles() -> None:
    status_and_fix(machine.check_compiler(None, True), "broken", "build-essential")
    status_and_fix(machine.check_compiler("/usr/bin/gcc", False), "broken", "python3-dev")
