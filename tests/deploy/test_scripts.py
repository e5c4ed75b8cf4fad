"""The shell scripts of deploy/: their syntax, what they would run, and Slurm's flow with stand-ins for Slurm and Ray.

No Slurm and no RunPod has run them; the stand-ins record how they are called, and run what they are told to.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from orchestrator.command import Ending
from tests.support.paths import ROOT

SLURM = ROOT / "deploy/slurm/train.sbatch"
RUNPOD = ROOT / "deploy/runpod/train.sh"
RAYJOB = ROOT / "deploy/kuberay/train.sh"
SCRIPTS = sorted([*(ROOT / "deploy").rglob("*.sh"), *(ROOT / "deploy").rglob("*.sbatch")])


def bash(script: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", script, *arguments], env=os.environ | variables, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_executable_stop_at_errors_and_have_no_syntax_errors(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0
    assert os.access(script, os.X_OK) and "set -euo pipefail" in script.read_text()


def test_slurm_brings_up_one_ray_node_a_slurm_node_and_trains_on_them() -> None:
    done = bash(
        SLURM, "countdown-4090", "runs_dir=/shared/runs", DRY_RUN="1", SLURM_NNODES="3", SLURM_CPUS_PER_TASK="8"
    )
    assert done.returncode == 0, done.stderr
    head, *workers, train = done.stdout.replace("'", "").splitlines()
    assert "--nodelist=node1" in head and "ray start --head --node-ip-address=node1 --port=6379" in head
    assert "--num-cpus=8" in head and "--dashboard-host=127.0.0.1" in head
    assert all("--cpus-per-task=8" in line for line in [head, *workers])  # srun does not take over the job's
    assert [("--nodelist=node2" in line, "--address=node1:6379" in line) for line in workers] == [
        (True, True),
        (False, True),
    ]
    assert train == "+ rayzero train countdown-4090 runs_dir=/shared/runs"


@pytest.mark.parametrize("arguments", [[], ["countdown-4090"], ["countdown-4090", "runs_dir=runs"]])
def test_slurm_wants_a_run_directory_that_nodes_can_share(arguments) -> None:
    done = bash(SLURM, *arguments, DRY_RUN="1")
    assert done.returncode == 2 and "runs_dir=/storage/that/all/nodes/share" in done.stderr


STAND_INS = {
    "scontrol": 'echo "scontrol $*" >> "$CALLS"; if [ "$1" = show ]; then echo node1; echo node2; fi',
    "getent": 'echo "10.0.0.1 STREAM $2"',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "ray": 'echo "ray $*" >> "$CALLS"; exec sleep 60',
    "python": "echo 2",
}


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Variables under which the script meets stand-ins; `calls` in the folder is what they were asked."""
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, body in STAND_INS.items():
        write_command(commands / name, body)
    return os.environ | {
        "RAYZERO_HOME": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": "77",
        "CALLS": str(tmp_path / "calls"),
    }


def write_command(file: Path, body: str) -> None:
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def start(cluster: dict[str, str], rayzero: str) -> subprocess.Popen:
    write_command(Path(cluster["RAYZERO_HOME"]) / ".venv/bin/rayzero", rayzero)
    command = ["bash", str(SLURM), "countdown-4090", "runs_dir=/shared/runs"]
    # Slurm ends what is left of a job; here its process group.
    return subprocess.Popen(
        command, env=cluster, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def output_of(process: subprocess.Popen) -> str:
    """What it printed until it ended; then ends the stand-ins that it leaves, as Slurm does."""
    process.wait(timeout=60)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    return process.stdout.read()


@pytest.mark.parametrize("code", [0, 2, Ending.HOPELESS.value])
def test_the_slurm_job_ends_with_the_runs_exit_code(cluster, code) -> None:
    process = start(cluster, f'echo "on $RAY_ADDRESS: $*"; exit {code}')
    assert "on 10.0.0.1:6379: train countdown-4090 runs_dir=/shared/runs" in output_of(process)
    assert process.returncode == code
    calls = Path(cluster["CALLS"]).read_text()
    assert "ray start --head" in calls and "ray start --address=10.0.0.1:6379" in calls
    assert "requeue" not in calls


def test_near_the_time_limit_the_run_is_asked_to_save_and_the_job_is_requeued(cluster) -> None:
    process = start(cluster, 'trap "sleep 1; echo saved; exit 130" TERM; echo training; while true; do sleep 0.1; done')
    assert process.stdout is not None
    while "training" not in process.stdout.readline():
        pass
    os.kill(process.pid, signal.SIGTERM)  # as --signal=B:TERM does: to the batch script alone
    assert "saved" in output_of(process)
    assert process.returncode == 130
    assert "scontrol requeue 77" in Path(cluster["CALLS"]).read_text()


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (130, 130), (Ending.HOPELESS.value, 0)])
def test_a_ray_job_is_started_again_after_all_but_a_run_that_is_done_or_hopeless(tmp_path, code, seen) -> None:
    write_command(tmp_path / "rayzero", f'echo "$*"; exit {code}')
    done = bash(RAYJOB, "countdown-4090", "runs_dir=/runs", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, done.stdout) == (seen, "train countdown-4090 runs_dir=/runs\n")


def test_slurm_reads_secrets_from_a_file_without_printing_them(cluster, tmp_path) -> None:
    secrets = tmp_path / "secrets.env"
    secrets.write_text("WANDB_API_KEY=3f9c0d7be1a84256\n")
    process = start(cluster | {"RAYZERO_ENV_FILE": str(secrets)}, 'test -n "$WANDB_API_KEY"')
    assert "3f9c0d7be1a84256" not in output_of(process) and process.returncode == 0


def test_runpod_installs_trains_on_the_volume_and_stops_the_pod_if_told() -> None:
    told = {"DRY_RUN": "1", "VOLUME": "/volume", "RUNPOD_POD_ID": "abc"}
    lines = (
        bash(RUNPOD, "countdown-4090-1.5b", "num_steps=5", **told, STOP_POD="1").stdout.replace("'", "").splitlines()
    )
    assert lines[1:] == [
        "+ make install",
        "+ .venv/bin/rayzero train countdown-4090-1.5b runs_dir=/volume/runs num_steps=5",
        "+ runpodctl stop pod abc",
    ]
    assert "runpodctl" not in bash(RUNPOD, **told).stdout
    for arguments in ((), ("num_steps=5",)):
        said = bash(RUNPOD, *arguments, **told).stdout.replace("'", "")
        assert " ".join(("train countdown-4090 runs_dir=/volume/runs", *arguments)) in said


def test_the_pod_is_stopped_after_a_failure_too_and_the_failure_is_told(tmp_path) -> None:
    write_command(tmp_path / "nvidia-smi", "exit 9")
    write_command(tmp_path / "runpodctl", "echo stopped $*")
    told = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUNPOD_POD_ID": "abc", "STOP_POD": "1"}
    done = bash(RUNPOD, **told)
    assert done.returncode == 9 and "stopped stop pod abc" in done.stdout
