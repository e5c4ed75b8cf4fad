"""`make certify`: its table, its limit of time, and what it says on a machine without a card."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.cards import certify

ROOT = Path(__file__).resolve().parents[2]
PASSED = {
    "test": "test_it_fits[ipc]",
    "outcome": "passed",
    "s": 2.5,
    "reason": "",
    "figures": [["peak", "2 GiB", "3 GiB"]],
}
FAILED = {
    "test": "test_it_wakes",
    "outcome": "failed",
    "s": 1.0,
    "reason": "def f():\nE   OSError: gone",
    "figures": [],
}
SKIPPED = {"test": "test_two", "outcome": "skipped", "s": 0.0, "reason": "Skipped: there is one card", "figures": []}


def record(*lines: dict) -> str:
    collected = {"collected": [line["test"] for line in lines] + ["test_last"]}
    return "\n".join(json.dumps(line) for line in (collected, *lines))


def test_the_table_has_every_test_with_its_outcome_and_figures() -> None:
    lines = certify.table(certify.read(record(PASSED, FAILED, SKIPPED), -9))
    assert "passed      2.5 s  it fits [ipc]" in lines
    assert any(line.split() == ["peak", "2", "GiB", "planned", "3", "GiB"] for line in lines)
    assert "OSError: gone" in lines[lines.index("failed      1.0 s  it wakes") + 1]
    assert "there is one card" in lines[lines.index("not run     0.0 s  two") + 1]
    assert "the time was over" in lines[lines.index("not run     0.0 s  last") + 1]
    assert lines[-1] == "1 passed, 1 failed, 2 not run"


def test_a_crash_of_all_tests_is_told_from_the_end_of_the_time() -> None:
    rows = certify.read(record(PASSED), -11)
    assert rows[-1]["reason"] == "pytest ended with -11 before"
    assert certify.read("", 4)[0]["outcome"] == "failed"


def test_without_a_card_it_says_so_and_runs_nothing(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(certify, "run_tests", None)
    assert certify.main([]) == 2
    assert "nvidia-smi" in capsys.readouterr().err


def test_it_keeps_the_table_under_the_name_of_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """nvidia-smi and pytest are stand-ins."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\necho "NVIDIA GeForce RTX 4090, 24564 MiB, 580.95.05"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(certify, "RESULTS", tmp_path)
    monkeypatch.setattr(certify, "run_tests", lambda tests, limit_s, *, stand_ins: [PASSED, FAILED])
    assert certify.main([]) == 1
    kept = (tmp_path / "certify-geforce-rtx-4090.txt").read_text()
    assert "RTX 4090, 24564 MiB, 580.95.05" in kept and "torch 2." in kept and "it wakes" in kept
    assert kept.strip() in capsys.readouterr().out


def test_the_tests_are_ended_when_the_time_is_over(tmp_path: Path) -> None:
    slow = tmp_path / "test_slow.py"
    slow.write_text("import time\nimport pytest\n\n@pytest.mark.gpu\ndef test_slow(): time.sleep(300)\n")
    start = time.monotonic()
    certify.run_tests([str(slow)], 1.0, stand_ins=True)
    assert time.monotonic() - start < 60


def test_all_of_its_tests_are_there_and_in_the_gpu_tests() -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "gpu").glob("test_*.py")}
    assert set(certify.TESTS) == files


def test_make_certify_installs_nothing() -> None:
    asked = subprocess.run(
        ["make", "--dry-run", "certify", "ARGS=--minutes=5"], cwd=ROOT, capture_output=True, text=True
    )
    assert "benchmarks.cards.certify --minutes=5" in asked.stdout and "deploy/install.py" not in asked.stdout


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1000)
def test_every_step_runs_on_the_cpu_with_stand_ins(tmp_path: Path) -> None:
    """All but what needs a second card, or a library or limit that the CPU has not. Cores take longer than a card."""
    out = tmp_path / "table.txt"
    command = [sys.executable, "-m", "benchmarks.cards.certify", "--stand-ins", "--minutes", "15", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=950)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    lines = out.read_text().splitlines()
    left_out = [(line[19:], lines[at + 1].strip()) for at, line in enumerate(lines) if line.startswith("not run ")]
    reasons = ("a card each", "bitsandbytes", "flash_attn", "no host memory")
    assert all(any(reason in why for reason in reasons) for _, why in left_out), left_out
