"""A run as a real job of a real cluster: stopped, resumed, failed; and what Ray keeps of it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.job_submission import JobStatus

from orchestrator.recipes import RECIPES
from tests.orchestrator.ray_head import RayHead
from tests.orchestrator.small import SMALL

pytestmark = pytest.mark.slow

WARM_START = Path(__file__).resolve().parents[1] / "data" / "countdown-warm-start"
SECRET, NODES_SECRET = "3f9c0d7be1a84256", "b01d7a2264c98ef5"
FROM_WARM_START = [
    *SMALL,
    f'model={{"path"="{WARM_START}","dtype"="float32"}}',
    "warm_start.num_steps=0",
    "rollout.num_generators=1",
    "learner.num_ranks=1",
    "checkpoint.every_steps=1000",
]


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
def home(tmp_path_factory) -> Path:
    """The home folder that jobs see; not the tests'."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[RayHead]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(home), "PATH": path, "WANDB_API_KEY": NODES_SECRET}
    with tempfile.TemporaryDirectory(prefix="rz", dir="/tmp", ignore_cleanup_errors=True) as temp:
        head = RayHead(Path(temp), environment)
        yield head
        head.close()


@pytest.fixture(scope="module")
def working_dir(tmp_path_factory) -> Path:
    """A user's folder: a recipe of their own, and a file of secrets that lies there."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "own.toml").write_text((RECIPES / "countdown-tiny.toml").read_text())
    (folder / ".env").write_text(f"WANDB_API_KEY={SECRET}\n")
    return folder


def submit(cluster: RayHead, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    secrets = {"WANDB_API_KEY": SECRET, "HF_TOKEN": f"hf_{SECRET}"}
    command = [
        sys.executable,
        "-m",
        "orchestrator.cli",
        "submit",
        "own.toml",
        *FROM_WARM_START,
        "--address",
        cluster.address,
    ]
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=os.environ | secrets, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def stopped(cluster: RayHead, home: Path, working_dir: Path) -> dict:
    """A run that was submitted twice and then stopped in the middle."""
    first = submit(cluster, working_dir, "num_steps=500")
    assert first.returncode == 0, first.stderr
    again = submit(cluster, working_dir, "num_steps=500")
    metrics = home / "rayzero-runs" / "own" / "metrics.jsonl"
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


def test_submitted_again_it_resumes_and_following_returns_its_exit_code(cluster, home, working_dir, stopped) -> None:
    step = int(stopped["checkpoints"][0].name.removeprefix("step_"))
    done = submit(cluster, working_dir, f"num_steps={step + 1}", "--follow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "job rayzero-own~2 on" in done.stdout and f"resuming run 'own' after step {step}" in done.stdout
    assert (home / "rayzero-runs" / "own" / "final" / "model.safetensors").exists()
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
