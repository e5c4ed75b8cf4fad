"""Runs as jobs: what is sent, what never is, under which id, and which exit code comes back."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from ray.job_submission import JobDetails, JobStatus

from orchestrator.arguments import parse
from orchestrator.cli import main
from orchestrator.config.recipe import ConfigError, load
from orchestrator.submit import submit
from orchestrator.submit.job import EXCLUDES, Job, build_job
from orchestrator.submit.submit import SubmissionError, connect, follow, send
from tests.support.paths import ROOT

SECRET = "3f9c0d7be1a84256"
HERE = {"WANDB_API_KEY": SECRET, "HF_TOKEN": "hf_" + SECRET, "WANDB_MODE": "offline", "HOME": "/home/me", "LANG": "C"}


def job_of(*overrides: str, recipe: str | None = None, num_nodes: int = 1, also_send=(), here=HERE, folder=ROOT) -> Job:
    config = load(recipe, overrides)
    return build_job(config, recipe, overrides, folder, num_nodes, here, also_send)


def test_the_job_trains_the_recipe_with_the_same_settings_from_the_uploaded_code() -> None:
    sent = job_of("learner.learning_rate=2e-6", "prompts.template=Hi {numbers_spaced} {target}; rm -rf $HOME")
    assert sent.entrypoint == (
        "python -m orchestrator.cli train deploy/recipes/countdown-tiny.toml learner.learning_rate=2e-6 "
        "'prompts.template=Hi {numbers_spaced} {target}; rm -rf $HOME' runs_dir=\"$HOME\"/rayzero-runs"
    )
    assert sent.runtime_env["working_dir"] == str(ROOT)
    assert sent.metadata == {
        "job_name": "countdown-tiny",
        "recipe": "deploy/recipes/countdown-tiny.toml",
        "runs_dir": "~/rayzero-runs",
    }


def test_only_variables_of_the_allow_list_are_sent_and_no_secret_is_anywhere() -> None:
    sent = job_of(also_send=["LANG"])
    assert sent.runtime_env["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "1800", "WANDB_MODE": "offline", "LANG": "C"}
    assert SECRET not in json.dumps([sent.entrypoint, sent.runtime_env, sent.metadata])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"also_send": ["WANDB_API_KEY"]}, ["--env WANDB_API_KEY", "cluster's nodes"]),
        ({"also_send": ["MY_TOKEN"]}, ["--env MY_TOKEN", "cluster's nodes"]),
        ({"also_send": ["UNSET"]}, ["--env UNSET", "not set here"]),
        ({"here": HERE | {"HF_ENDPOINT": "https://me:pw@hub"}}, ["HF_ENDPOINT", "user or a password"]),
        ({"here": HERE | {"WANDB_TAGS": f"a,{SECRET}"}}, ["the value of WANDB_API_KEY"]),
    ],
)
def test_a_secret_that_would_be_sent_is_refused_without_being_shown(arguments, parts) -> None:
    with pytest.raises(ConfigError) as caught:
        job_of(**arguments)
    assert all(part in str(caught.value) for part in parts)
    assert SECRET not in str(caught.value) and "me:pw" not in str(caught.value)


def test_a_secret_among_the_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match="the value of WANDB_API_KEY stands in what would be sent"):
        job_of(f"tracking.wandb_project={SECRET}")


def test_secrets_runs_and_environments_are_left_out_of_the_upload(tmp_path) -> None:
    from ray._private.runtime_env.packaging import _get_excludes

    is_left_out = _get_excludes(tmp_path, list(EXCLUDES))
    for name in ("runs/a/x", ".venv/bin/python", ".env", ".env.local", "sub/.netrc", "id.pem", ".git/HEAD"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert is_left_out(path) or is_left_out(path.parent), name
    for name in ("orchestrator/run.py", "deploy/recipes/countdown-tiny.toml", "data/runs.jsonl", "my_rewards.py"):
        assert not is_left_out(tmp_path / name), name


def test_runs_go_to_an_absolute_folder_and_the_cache_of_warm_starts_stays_with_them() -> None:
    sent = job_of("runs_dir=/shared/my runs", num_nodes=3)
    assert sent.entrypoint.endswith("/countdown-tiny.toml runs_dir='/shared/my runs'")
    assert sent.entrypoint.count("runs_dir=") == 1
    assert sent.runtime_env["env_vars"]["RAYZERO_CACHE"] == "/shared/my runs/.cache"
    chosen = job_of("runs_dir=/shared", also_send=["RAYZERO_CACHE"], here={"RAYZERO_CACHE": "/elsewhere"})
    assert chosen.runtime_env["env_vars"]["RAYZERO_CACHE"] == "/elsewhere"


@pytest.mark.parametrize(
    ("runs_dir", "num_nodes", "problem"),
    [("runs", 1, "relative"), ("out/runs", 2, "relative"), ("~/runs", 2, "2 nodes"), (None, 4, "4 nodes")],
)
def test_a_run_directory_that_would_be_lost_or_not_shared_is_refused(runs_dir, num_nodes, problem) -> None:
    overrides = [] if runs_dir is None else [f"runs_dir={runs_dir}"]
    with pytest.raises(ConfigError, match=rf"runs_dir.*{problem}.*runs_dir=/shared/runs"):
        job_of(*overrides, num_nodes=num_nodes)


def test_a_home_folder_is_the_head_nodes_own_where_there_is_one_node() -> None:
    assert job_of("runs_dir=~/my runs").entrypoint.endswith("runs_dir=\"$HOME\"/'my runs'")


def test_a_recipe_travels_with_the_working_directory_or_by_its_name(tmp_path) -> None:
    own = tmp_path / "recipes" / "own.toml"
    own.parent.mkdir()
    own.write_text((ROOT / "deploy/recipes/countdown-tiny.toml").read_text())
    assert " train recipes/own.toml " in job_of(recipe=str(own), folder=tmp_path).entrypoint
    assert " train countdown-tiny " in job_of(folder=tmp_path).entrypoint
    with pytest.raises(ConfigError, match=r"outside of the working directory.*copy it there"):
        job_of(recipe=str(own), folder=ROOT)


class FakeCluster:
    """Ray's client as far as it is used: jobs by id, and a log that breaks off where it is told to."""

    def __init__(self, *jobs: JobDetails, log: str = "", breaks_at: int | None = None) -> None:
        self.jobs = {each.submission_id: each for each in jobs}
        self.sent: list[dict] = []
        self._log, self._breaks_at = log, breaks_at

    def list_jobs(self) -> list[JobDetails]:
        return list(self.jobs.values())

    def submit_job(self, **sent) -> str:
        if sent["submission_id"] in self.jobs:
            raise RuntimeError(f"Request failed: Job with submission_id {sent['submission_id']} already exists.")
        self.sent.append(sent)
        return sent["submission_id"]

    def get_job_info(self, job_id: str) -> JobDetails:
        return self.jobs[job_id]

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        end, self._breaks_at = self._breaks_at, None
        for text in chunks(self._log[:end]):
            yield text
        if end is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


def chunks(text: str) -> Iterator[str]:
    for start in range(0, len(text), 7):
        yield text[start : start + 7]


def details(submission_id: str, status: JobStatus, message: str | None = None) -> JobDetails:
    return JobDetails(type="SUBMISSION", submission_id=submission_id, status=status, entrypoint="true", message=message)


def test_the_first_attempt_is_followed_by_others_and_other_runs_do_not_count() -> None:
    done, failed = JobStatus.SUCCEEDED, JobStatus.FAILED
    cluster = FakeCluster(
        details("rayzero-a~1", done), details("rayzero-a~10", failed), details("rayzero-a-2~30", JobStatus.RUNNING)
    )
    assert send(job_of(), "a", cluster) == "rayzero-a~11"
    assert send(job_of(), "b", cluster) == "rayzero-b~1"
    assert [sent["metadata"]["attempt"] for sent in cluster.sent] == ["11", "1"]


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.PENDING])
def test_a_run_that_is_being_trained_is_not_submitted_again(status) -> None:
    cluster = FakeCluster(details("rayzero-a~1", JobStatus.FAILED), details("rayzero-a~2", status))
    with pytest.raises(SubmissionError, match=r"rayzero-a~2 of run 'a' is (running|pending).*ray job stop rayzero-a~2"):
        send(job_of(), "a", cluster)
    assert not cluster.sent


def test_of_two_submissions_at_once_one_is_taken() -> None:
    cluster = FakeCluster(details("rayzero-a~1", JobStatus.RUNNING))
    cluster.list_jobs = list  # what the slower one saw
    with pytest.raises(SubmissionError, match=r"did not take job rayzero-a~1.*already exists"):
        send(job_of(), "a", cluster)


def test_a_cluster_that_is_still_starting_is_waited_for_but_not_for_ever(monkeypatch) -> None:
    monkeypatch.setattr(submit, "RECONNECT_S", 0.0)
    answers = ["status code 500: No available agent to submit job, please try again later"] * 2

    class Starting(FakeCluster):
        def submit_job(self, **sent) -> str:
            if answers:
                raise RuntimeError(answers.pop())
            return super().submit_job(**sent)

    assert send(job_of(), "a", Starting()) == "rayzero-a~1" and not answers
    monkeypatch.setattr(submit, "START_TIMEOUT_S", -1.0)
    answers.append("No available agent to submit job")
    with pytest.raises(
        SubmissionError, match=r"did not take job rayzero-a~1: No available agent.*--dashboard-agent-listen-port"
    ):
        send(job_of(), "a", Starting())


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (JobStatus.SUCCEEDED, 0, ""),
        (JobStatus.FAILED, 1, "failed with exit code 2"),
        (JobStatus.STOPPED, 1, "was stopped; the same command resumes it"),
    ],
)
def test_following_ends_as_the_job_does(status, code, said, capsys) -> None:
    message = "Job entrypoint command failed with exit code 2, last available logs:\nlong"
    cluster = FakeCluster(details("rayzero-a~1", status, message), log="step 1\nstep 2\n")
    assert follow(cluster, "rayzero-a~1", "http://h:1") == code
    shown = capsys.readouterr()
    assert shown.out == "step 1\nstep 2\n" and said in shown.err and "long" not in shown.err


@pytest.mark.parametrize("breaks_at", [0, 5, 14, 40])
def test_a_log_that_breaks_off_is_taken_up_where_it_was(breaks_at, capsys, monkeypatch) -> None:
    monkeypatch.setattr(submit, "RECONNECT_S", 0.0)
    log = "".join(f"step {step}\n" for step in range(6))
    cluster = FakeCluster(details("rayzero-a~1", JobStatus.SUCCEEDED), log=log, breaks_at=breaks_at)
    assert follow(cluster, "rayzero-a~1", "http://h:1") == 0
    assert capsys.readouterr().out == log


def test_a_connection_that_stays_lost_is_reported(monkeypatch) -> None:
    monkeypatch.setattr(submit, "RECONNECT_S", 0.0)
    cluster = FakeCluster()
    cluster.get_job_info = lambda job_id: (_ for _ in ()).throw(ConnectionError("refused"))
    with pytest.raises(SubmissionError, match=r"lost the connection to job rayzero-a~1.*refused"):
        follow(cluster, "rayzero-a~1", "http://h:1")


def test_ctrl_c_leaves_the_job_running_and_says_how_to_stop_it(capsys) -> None:
    cluster = FakeCluster()

    def interrupted(job_id: str) -> JobDetails:
        raise KeyboardInterrupt

    cluster.get_job_info = interrupted
    assert follow(cluster, "rayzero-a~1", "http://h:1") == 130
    assert "goes on" in (said := capsys.readouterr().err) and "ray job stop rayzero-a~1 --address http://h:1" in said


def test_a_recipe_is_checked_before_a_cluster_is_looked_for(capsys) -> None:
    assert main(["submit", "learner.lerning_rate=1", "--address", "http://127.0.0.1:1"]) == 2
    assert "did you mean 'learning_rate'" in capsys.readouterr().err


def test_an_address_that_is_no_dashboard_is_refused() -> None:
    with pytest.raises(ConfigError, match="URL of the cluster's dashboard, such as http"):
        connect("10.0.0.1:6379")


def test_a_cluster_that_does_not_answer_is_an_error_of_one_line(capsys, monkeypatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:2")  # must not win over --address
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:3")
    assert main(["submit", "--address", "http://127.0.0.1:1"]) == 1
    assert "no Ray cluster answers at http://127.0.0.1:1" in (said := capsys.readouterr().err)
    assert "Traceback" not in said and "127.0.0.1:2" not in said and "127.0.0.1:3" not in said


def test_options_and_settings_may_stand_anywhere_on_the_line() -> None:
    line = "submit --follow countdown-tiny --env A --env B seed=1 --address http://h:1 num_steps=2"
    given = parse(line.split())
    assert given.arguments == ["countdown-tiny", "seed=1", "num_steps=2"]
    assert (given.env, given.follow, given.address, given.working_dir) == (["A", "B"], True, "http://h:1", ".")
