"""A run as a real job of a real cluster: stopped, resumed, failed; and what Ray keeps of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from orchestrator.recipes import RECIPES

pytestmark = pytest.mark.slow

WARM_START = Path(__file__).resolve().parents[1] / "data" / "countdown-warm-start"
SECRET, NODES_SECRET = "3f9c0d7be1a84256", "b01d7a2264c98ef5"
SMALL = [
    f'model={{"path"="{WARM_START}","dtype"="float32"}}',
    "warm_start.num_steps=0",
    "rollout.num_generators=1",
    "learner.num_ranks=1",
    "prompts_per_step=8",
    "group_size=4",
    "sampling.max_completion_tokens=48",
    "prompts.num_held_out=8",
    "evaluation.every_steps=0",
    "evaluation.completions_per_prompt=2",
    "checkpoint.every_steps=1000",
]


class Cluster:
    """Ray on this machine, as its own processes; its home folder is not the tests'."""

    def __init__(self, home: Path, temp: Path) -> None:
        self.home, self.temp = home, temp
        # A cluster of somebody else's on this machine would hold the usual ones.
        names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.address = f"http://127.0.0.1:{ports['dashboard-port']}"
        binaries = Path(sys.executable).parent
        self.process = subprocess.Popen(
            [
                *(binaries / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
                *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={temp}"),
                *(f"--{name}={port}" for name, port in ports.items()),
            ],
            env=os.environ
            | {"HOME": str(home), "PATH": f"{binaries}:{os.environ['PATH']}", "WANDB_API_KEY": NODES_SECRET},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = waited_for(lambda: JobSubmissionClient(self.address), "the cluster")

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def waited_for(attempt: Callable[[], Any], what: str) -> Any:
    """The first result that is neither an exception nor false."""
    deadline, failure = time.monotonic() + 300, None
    while time.monotonic() < deadline:
        try:
            if result := attempt():
                return result
        except (OSError, RuntimeError) as error:
            failure = error
        time.sleep(0.1)
    raise AssertionError(f"{what} never came: {failure}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    # Sockets have paths of at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="rz", dir="/tmp", ignore_cleanup_errors=True) as temp:
        started = Cluster(tmp_path_factory.mktemp("home"), Path(temp))
        yield started
        started.close()


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory) -> Path:
    """A user's folder: a recipe of their own, and a file of secrets that lies there."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "own.toml").write_text((RECIPES / "countdown-tiny.toml").read_text())
    (folder / ".env").write_text(f"WANDB_API_KEY={SECRET}\n")
    return folder


def submit(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    secrets = {"WANDB_API_KEY": SECRET, "HF_TOKEN": f"hf_{SECRET}"}
    command = [sys.executable, "-m", "orchestrator.cli", "submit", "own.toml", *SMALL, "--address", cluster.address]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=os.environ | secrets, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def stopped(cluster: Cluster, working_dir: Path) -> dict:
    """A run that was submitted twice and then stopped in the middle."""
    first = submit(cluster, working_dir, "num_steps=500")
    assert first.returncode == 0, first.stderr
    again = submit(cluster, working_dir, "num_steps=500")
    metrics = cluster.home / "rayzero-runs" / "own" / "metrics.jsonl"
    waited_for(lambda: metrics.exists() and metrics.read_text().count("\n") > 2, "step 2")
    cluster.client.stop_job("rayzero-own~1")
    waited_for(lambda: cluster.client.get_job_status("rayzero-own~1").is_terminal(), "the end of the job")
    return {"first": first, "again": again, "checkpoints": sorted(metrics.parent.glob("checkpoints/step_*"))}


def test_a_job_is_taken_once_and_saves_when_it_is_stopped(cluster, stopped) -> None:
    assert "job rayzero-own~1 on" in stopped["first"].stdout
    assert stopped["again"].returncode == 1
    assert "job rayzero-own~1 of run 'own' is" in stopped["again"].stderr
    assert cluster.client.get_job_status("rayzero-own~1") is JobStatus.STOPPED
    assert len(stopped["checkpoints"]) == 1, "the step of the stop was not saved"
    assert int(stopped["checkpoints"][0].name.removeprefix("step_")) < 500


def test_submitted_again_it_resumes_and_following_returns_its_exit_code(cluster, working_dir, stopped) -> None:
    step = int(stopped["checkpoints"][0].name.removeprefix("step_"))
    done = submit(cluster, working_dir, f"num_steps={step + 1}", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job rayzero-own~2 on" in done.stdout and f"resuming run 'own' after step {step}" in done.stdout
    assert (cluster.home / "rayzero-runs" / "own" / "final" / "model.safetensors").exists()
    info = cluster.client.get_job_info("rayzero-own~2")
    assert info.metadata == {
        "job_name": "own",
        "recipe": "own.toml",
        "runs_dir": "~/rayzero-runs",
        "attempt": "2",
    }


def test_a_job_that_fails_is_a_command_that_fails(cluster, working_dir) -> None:
    done = submit(cluster, working_dir, "name=broken", 'model={"path"="/nowhere","dtype"="float32"}', "--follow")
    assert done.returncode == 1
    assert "'/nowhere' is not a model: it does not exist" in done.stdout
    assert "error: job rayzero-broken~1: Job entrypoint command failed with exit code 1" in done.stderr


def test_no_secret_is_in_what_ray_keeps_and_the_nodes_own_reaches_the_job(cluster, working_dir, stopped) -> None:
    probe = cluster.client.submit_job(entrypoint=f"test ${{#WANDB_API_KEY}} = {len(NODES_SECRET)}")
    waited_for(lambda: cluster.client.get_job_status(probe).is_terminal(), "the probe")
    assert cluster.client.get_job_status(probe) is JobStatus.SUCCEEDED
    told = json.dumps([info.model_dump() for info in cluster.client.list_jobs()], default=str)
    told += stopped["first"].stdout + stopped["first"].stderr
    kept = [path for path in cluster.temp.rglob("*") if path.is_file() and not path.is_symlink()]
    uploaded = [path for path in kept if path.name == "own.toml"]
    assert uploaded and not [path for path in kept if path.name == ".env"]
    for secret in (SECRET, NODES_SECRET):
        assert secret not in told
        assert not [path for path in kept if secret.encode() in path.read_bytes()]
