"""Submitting a job: under which id, how it is followed, and which exit code comes back."""

import json
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from ray.job_submission import JobDetails, JobStatus

from orchestrator.arguments import parse
from orchestrator.cli import main
from orchestrator.config.recipe import ConfigError
from orchestrator.submit import submit
from orchestrator.submit.submit import SubmissionError, connect, follow, send
from tests.orchestrator.submit.test_job import job_of


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
    with pytest.raises(SubmissionError, match=r"refused job rayzero-a~1.*already exists"):
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
        SubmissionError, match=r"refused job rayzero-a~1: No available agent.*--dashboard-agent-listen-port"
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
    assert "continues" in (said := capsys.readouterr().err) and "ray job stop rayzero-a~1 --address http://h:1" in said


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


class HalfDashboard(BaseHTTPRequestHandler):
    """A dashboard whose cluster has lost its control store: it knows its version, and fails at everything else."""

    lists_nodes = False

    def do_GET(self) -> None:
        answers = {"/api/version": {"ray_version": "2.60.0"}}
        if self.lists_nodes:
            nodes = {
                "result": [],
                "total": 0,
                "num_after_truncation": 0,
                "num_filtered": 0,
                "partial_failure_warning": "",
            }
            answers["/api/v0/nodes"] = {"result": True, "msg": "", "data": {"result": nodes}}
        content = answers.get(self.path.partition("?")[0])
        self.send_response(200 if content else 500)
        self.send_header("Content-Type", "application/json" if content else "text/plain")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode() if content else b"GcsClient failed\nand a long log")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.parametrize("answer", [b'{"ok": true}', b"[]", b'{"ray_version": "nightly"}', b"<html>"])
def test_another_web_server_is_an_error_without_a_traceback(answer, capsys, monkeypatch) -> None:
    class OtherServer(HalfDashboard):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with ThreadingHTTPServer(("127.0.0.1", 0), OtherServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert main(["submit", "--address", f"http://127.0.0.1:{server.server_port}"]) == 1
        server.shutdown()
    said = capsys.readouterr().err
    assert "error: no Ray cluster answers at http://127.0.0.1:" in said and "Traceback" not in said


@pytest.mark.parametrize(("lists_nodes", "kind"), [(False, "nodes"), (True, "jobs")])
def test_a_dashboard_that_cannot_list_is_an_error_without_a_traceback(lists_nodes, kind, capsys, monkeypatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.setattr(HalfDashboard, "lists_nodes", lists_nodes)
    with ThreadingHTTPServer(("127.0.0.1", 0), HalfDashboard) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert main(["submit", "--address", f"http://127.0.0.1:{server.server_port}"]) == 1
        server.shutdown()
    said = capsys.readouterr().err
    assert f"error: the cluster's dashboard answers, but cannot list {kind}: " in said and "dashboard.log" in said
    assert "Traceback" not in said and "long log" not in said


def test_options_and_settings_may_stand_anywhere_on_the_line() -> None:
    line = "submit --follow countdown-tiny --env A --env B seed=1 --address http://h:1 num_steps=2"
    given = parse(line.split())
    assert given.arguments == ["countdown-tiny", "seed=1", "num_steps=2"]
    assert (given.env, given.follow, given.address, given.working_dir) == (["A", "B"], True, "http://h:1", ".")
