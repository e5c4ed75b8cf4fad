"""The doctor as a whole: how it runs its checks, what it prints, and that it answers where nothing is installed."""

import json
import os
import subprocess
import threading
import venv

import pytest

from orchestrator.doctor.examination import Host, library_checks
from orchestrator.doctor.host_facts import Driver
from orchestrator.doctor.report import exit_code, table
from orchestrator.doctor.runner import Check, broken, ok, probe, run_checks, warning
from tests.support.doctor import NVIDIA_SMI, status_and_fix
from tests.support.paths import ROOT


def test_a_check_that_raises_or_hangs_keeps_no_other_from_its_answer() -> None:
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


@pytest.mark.slow
@pytest.mark.long
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
    with_gpu = Host(driver=Driver("", None, (), "nvidia-smi failed"))
    found = [finding for check in library_checks(with_gpu) if check.name == "flash-attn" for finding in check.run()]
    assert [(finding.status, "optional" in finding.found) for finding in found] == [("ok", True)]
    assert not [check for check in library_checks(Host(driver=None)) if check.name == "flash-attn"]


@pytest.fixture
def bare_doctor(tmp_path):
    """The doctor in a real environment without a single package; rich and pydantic are missing too."""
    (tmp_path / "home").mkdir()
    venv.create(tmp_path / "bare", with_pip=False)

    def findings(path: str) -> dict[str, dict[str, str]]:
        done = subprocess.run(
            [tmp_path / "bare" / "bin" / "python", "-m", "orchestrator.cli", "doctor", "--json"],
            cwd=ROOT,
            env={"HOME": str(tmp_path / "home"), "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert not list((tmp_path / "home").iterdir()), "the doctor left files behind"
        found = json.loads(done.stdout)
        assert all(finding["fix"] for finding in found if finding["status"] != "ok")
        return {finding["name"]: finding for finding in found}

    return findings


def test_the_doctor_answers_where_nothing_is_installed(bare_doctor) -> None:
    found = bare_doctor(os.environ["PATH"])
    for name in ("torch", "transformers", "ray", "deepspeed", "packages"):
        assert found[name]["status"] == "broken" and "make install" in found[name]["fix"]
    assert found["memory"]["found"] and found["sandbox"]["found"]


def test_the_doctor_asks_for_the_gpu_set_where_a_gpu_is(bare_doctor, tmp_path) -> None:
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    found = bare_doctor(f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert {"gpu 0", "gpu 1", "driver", "compiler", "vllm", "bitsandbytes"} <= set(found)
    assert (found["gpu 1"]["status"], "vllm 0.32.0") == ("warning", found["vllm"]["expected"])
