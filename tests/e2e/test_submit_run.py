"""A run as a real job of a real cluster: watched, stopped, resumed, failed; and what Ray shows and keeps of it."""

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
from ray.util.state import list_actors, list_tasks

from orchestrator.config.recipe import RECIPES
from orchestrator.records.trackers.ray_metrics import description, metric_name
from tests.support.paths import WARM_START
from tests.support.ray_head import RayHead
from tests.support.small import SMALL
from tests.support.watched import Watched

pytestmark = [pytest.mark.slow, pytest.mark.long]

SECRET, NODES_SECRET = "3f9c0d7be1a84256", "b01d7a2264c98ef5"
FROM_WARM_START = [
    *SMALL,
    f'model={{"path"="{WARM_START}","dtype"="float32"}}',
    "warm_start.num_steps=0",
    "rollout.num_generators=1",
    "learner.num_ranks=1",
    "rewards.num_workers=2",
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
    environment["RAY_metrics_report_interval_ms"] = "2000"  # instead of 10,000
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
def submitted(cluster: RayHead, working_dir: Path) -> tuple[subprocess.CompletedProcess, subprocess.CompletedProcess]:
    """The same command twice."""
    first = submit(cluster, working_dir, "num_steps=1000")
    assert first.returncode == 0, first.stderr
    return first, submit(cluster, working_dir, "num_steps=1000")


@pytest.fixture(scope="module")
def running(cluster: RayHead, home: Path, submitted: tuple) -> Watched:
    """The job in its steps after the second."""
    run = Watched(cluster, home / "rayzero-runs" / "own")
    waited_for(lambda: run.gauges().get("ray_rayzero_step", 0) >= 2, "step 2")
    return run


@pytest.fixture(scope="module")
def checkpoints(cluster: RayHead, running: Watched) -> list[Path]:
    """What the job, stopped in the middle, has saved."""
    cluster.client.stop_job("rayzero-own~1")
    waited_for(lambda: cluster.client.get_job_status("rayzero-own~1").is_terminal(), "the end of the job")
    return sorted(running.directory.glob("checkpoints/step_*"))


def test_the_endpoint_has_every_number_of_the_newest_step(running: Watched) -> None:
    def gauges_that_agree() -> dict[str, float]:  # a scrape may fall into the moment between two steps
        gauges = running.gauges()
        expected = running.left_behind(int(gauges.get("ray_rayzero_step", -1)))
        return gauges if expected and expected.items() <= gauges.items() else {}

    gauges = waited_for(gauges_that_agree, "a scrape of one step")
    assert len(gauges) > 40
    assert 0 <= gauges["ray_rayzero_reward_total"] <= 2 and gauges["ray_rayzero_rollout_tokens_per_s"] > 10
    assert gauges["ray_rayzero_steps_total"] >= 2
    asked_for = ("reward/correctness", "eval/pass_at_1", "time/update_s", "rollout/staleness", "system/reward_queue")
    assert {f"ray_{metric_name(key)}" for key in asked_for} <= gauges.keys()


def test_a_metric_says_what_it_means_and_whose_it_is(running: Watched) -> None:
    families = {family.name: family for family in running.families()}
    reward = families["ray_rayzero_reward_total"]
    assert reward.type == "gauge" and reward.documentation == description("reward/total")
    assert [sample.labels["run"] for sample in reward.samples] == [running.name]
    assert families["ray_rayzero_steps"].type == "counter"


def test_actors_and_their_calls_have_names_that_say_who_they_are(running: Watched) -> None:
    actors = list_actors(address=running.address, filters=[("state", "=", "ALIVE")], detail=True)
    names = {actor.name: actor.class_name for actor in actors if str(actor.name).startswith("own/")}
    assert names == {
        "own/generator-0": "Generator",
        "own/learner-0": "LearnerRank",
        "own/recorder": "RolloutWriter",
        "own/reward-0": "RewardWorker",
        "own/reward-1": "RewardWorker",
    }
    calls = {task.name for task in list_tasks(address=running.address, limit=1000)}
    expected = ("generator-0.generate", "learner-0.update", "reward-0.grade_groups", "recorder.write")
    assert {f"own/{call}" for call in expected} <= calls


def test_a_job_is_taken_once_and_saves_when_it_is_stopped(cluster, submitted, checkpoints) -> None:
    first, again = submitted
    assert "job rayzero-own~1 on" in first.stdout
    assert again.returncode == 1
    assert "job rayzero-own~1 of run 'own' is" in again.stderr
    assert cluster.client.get_job_status("rayzero-own~1") is JobStatus.STOPPED
    assert len(checkpoints) == 1, "the step of the stop was not saved"
    assert int(checkpoints[0].name.removeprefix("step_")) < 1000


def test_submitted_again_it_resumes_and_following_returns_its_exit_code(
    cluster, home, working_dir, checkpoints
) -> None:
    step = int(checkpoints[0].name.removeprefix("step_"))
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


def test_rays_own_command_takes_up_the_same_run(cluster, working_dir, checkpoints, tmp_path) -> None:
    """It comes after the run's last step, so nothing is left to train: only how the command gets there differs."""
    (tmp_path / "own.toml").write_text((working_dir / "own.toml").read_text())
    step = int(checkpoints[0].name.removeprefix("step_")) + 1
    command = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", cluster.address]
    command += ["--working-dir", str(tmp_path), "--", "rayzero", "train", "own.toml", *FROM_WARM_START]
    command += ["runs_dir=~/rayzero-runs", f"num_steps={step}"]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"run 'own' is complete at step {step}" in done.stdout


def test_a_job_that_fails_is_a_command_that_fails(cluster, working_dir) -> None:
    done = submit(cluster, working_dir, "name=broken", 'model={"path"="/nowhere","dtype"="float32"}', "--follow")
    assert done.returncode == 1
    assert "'/nowhere' is not a model: it does not exist" in done.stdout
    assert "error: job rayzero-broken~1: Job entrypoint command failed with exit code 1" in done.stderr


def test_no_secret_is_in_what_ray_keeps_and_the_nodes_own_reaches_the_job(cluster, submitted, checkpoints) -> None:
    probe = cluster.client.submit_job(entrypoint=f"test ${{#WANDB_API_KEY}} = {len(NODES_SECRET)}")
    waited_for(lambda: cluster.client.get_job_status(probe).is_terminal(), "the probe")
    assert cluster.client.get_job_status(probe) is JobStatus.SUCCEEDED
    told = json.dumps([info.model_dump() for info in cluster.client.list_jobs()], default=str)
    told += submitted[0].stdout + submitted[0].stderr
    kept = [path for path in cluster.temp.rglob("*") if path.is_file() and not path.is_symlink()]
    uploaded = [path for path in kept if path.name == "own.toml"]
    assert uploaded and not [path for path in kept if path.name == ".env"]
    for secret in (SECRET, NODES_SECRET):
        assert secret not in told
        assert not [path for path in kept if secret.encode() in path.read_bytes()]
