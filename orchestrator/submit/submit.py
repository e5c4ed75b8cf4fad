"""`rayzero submit`: send a run to a Ray cluster as a job, and show its log until it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException
from rich.console import Console

from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig
from orchestrator.submit.job import EXCLUDES, SECRETS, Job, build_job
from rollout.types.paths import from_home

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
NO_AGENT = "No available agent to submit job"
ADVICE_ON_AGENT = (
    " If the cluster did not start just now, another Ray on the head node may use the port of its agent (52365): start "
    "the cluster with `ray start --dashboard-agent-listen-port` and a free port"
)
START_TIMEOUT_S = 60.0
"""Seconds to wait for a new cluster that cannot start jobs yet."""
RECONNECT_S = 2.0
"""Seconds between two attempts."""
MAX_RECONNECTS = 30


class SubmissionError(RuntimeError):
    """The cluster cannot be reached, or refuses the job."""


class JobCluster(Protocol):
    """The methods of Ray's JobSubmissionClient that are used here."""

    def list_jobs(self) -> list[JobDetails]: ...
    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, object], metadata: dict[str, str]
    ) -> str: ...
    def get_job_info(self, job_id: str) -> JobDetails: ...
    def tail_job_logs(self, job_id: str) -> AsyncIterator[str]: ...


def submit_run(
    config: RunConfig,
    recipe: str | None,
    overrides: Sequence[str],
    console: Console,
    *,
    address: str | None,
    working_dir: str,
    also_send: Sequence[str],
    follow_it: bool,
) -> int:
    """Submit `config`, which is made from `recipe` and `overrides`, and return the exit code; see `follow`.

    Raises ConfigError before anything is sent, SubmissionError if the cluster refuses the job.
    """
    folder = Path(from_home(working_dir)).resolve()
    if not folder.is_dir():
        raise ConfigError(f"--working-dir {working_dir}: there is no such folder, choose the folder with your code")
    address = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS).rstrip("/")
    cluster = connect(address)
    job = build_job(config, recipe, overrides, folder, count_nodes(address), os.environ, also_send)
    submission_id = send(job, config.name, cluster)
    print_submission(job, submission_id, address, console)
    return follow(cluster, submission_id, address) if follow_it else 0


def connect(address: str) -> JobSubmissionClient:
    """Return a client of the cluster.

    Raises ConfigError if the address is not a URL, SubmissionError if no cluster answers there.
    """
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"--address {address}: give the URL of the cluster's dashboard, such as {DEFAULT_ADDRESS}")
    # Otherwise Ray would prefer RAY_ADDRESS, possibly of another cluster, to the address that we pass.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    # Otherwise a message about the closed connection would end the job's log.
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise SubmissionError(
            f"the cluster at {address} requires a token: export RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN=… or the file "
            f"~/.ray/auth_token of its head (`ray get-auth-token` prints it there) ({first_line(error)})"
        ) from error
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:  # the last three: other web servers
        raise SubmissionError(
            f"no Ray cluster answers at {address}: start one with `ray start --head`, or open a tunnel to its "
            f"dashboard and give the tunnel's URL with --address ({first_line(error)})"
        ) from error


def count_nodes(address: str) -> int:
    """Return the number of the cluster's live nodes. Raises SubmissionError if the dashboard cannot list them."""
    try:
        return len(list_nodes(address=address, filters=[("state", "=", "ALIVE")], raise_on_missing_output=False))
    except RayStateApiException as error:
        raise cannot_list("nodes", error) from error


def cannot_list(kind: str, error: Exception) -> SubmissionError:
    return SubmissionError(
        f"the cluster's dashboard answers, but cannot list {kind}: try again if the cluster has just started, "
        f"otherwise read dashboard.log and gcs_server.out in Ray's log folder on the head node ({first_line(error)})"
    )


def send(job: Job, name: str, cluster: JobCluster) -> str:
    """Submit the job and return its id. Raises SubmissionError while an earlier job of run `name` is running."""
    try:
        jobs = cluster.list_jobs()
    except (OSError, RuntimeError) as error:
        raise cannot_list("jobs", error) from error
    submission_id = next_id(name, jobs)
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return cluster.submit_job(
                entrypoint=job.entrypoint,
                submission_id=submission_id,
                runtime_env=job.runtime_env,
                metadata=job.metadata | {"attempt": submission_id.rpartition("~")[2]},
            )
        except (OSError, RuntimeError, ValueError) as error:
            has_no_agent = NO_AGENT in str(error)
            # A new dashboard answers, but cannot start jobs in its first seconds.
            if has_no_agent and time.monotonic() < deadline:
                time.sleep(RECONNECT_S)
                continue
            advice = ADVICE_ON_AGENT if has_no_agent else ""
            raise SubmissionError(f"the cluster refused job {submission_id}: {first_line(error)}{advice}") from error


def next_id(name: str, jobs: Sequence[JobDetails]) -> str:
    """Return the next id for run `name`, `rayzero-<name>~<attempt>`; a run's name contains no tilde.

    Raises SubmissionError while an earlier job of the run is running.
    """
    attempts = [0]
    for each in jobs:
        match = re.fullmatch(rf"rayzero-{re.escape(name)}~(\d+)", each.submission_id or "")
        if match is None:
            continue
        if not each.status.is_terminal():
            raise SubmissionError(
                f"job {each.submission_id} of run {name!r} is {each.status.value.lower()} and would write to the same "
                f"run directory: wait for it, stop it with `ray job stop {each.submission_id}`, or choose another name "
                f"(name={name}-2)"
            )
        attempts.append(int(match[1]))
    return f"rayzero-{name}~{max(attempts) + 1}"


def print_submission(job: Job, submission_id: str, address: str, console: Console) -> None:
    """Print what was sent, what was not sent, and the next commands. Values of variables are never printed."""
    names = ", ".join(job.runtime_env["env_vars"])
    unsent = [name for name in SECRETS if name in os.environ]
    lines = [
        f"job {submission_id} on {address}",
        f"  command    {job.entrypoint}",
        f"  sent       {job.runtime_env['working_dir']} without {' '.join(EXCLUDES)}",
        f"  variables  {names}",
        f"  run        {job.metadata['runs_dir']}/{job.metadata['job_name']}; the same command resumes it",
        f"follow it:  ray job logs {submission_id} --follow --address {address}",
        f"stop it:    ray job stop {submission_id} --address {address}   (it finishes its step and saves first)",
    ]
    if unsent:
        lines.insert(4, f"  not sent   {', '.join(unsent)}: set them on the cluster's nodes (docs/deploy.md)")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def follow(cluster: JobCluster, submission_id: str, address: str) -> int:
    """Print the job's log until it ends, and return the exit code.

    0: succeeded; 1: failed or stopped; 130: Ctrl-C, and the job continues.
    """
    try:
        info = asyncio.run(print_log(cluster, submission_id))
    except KeyboardInterrupt:
        print(
            f"\nthe log ends here, but job {submission_id} continues. "
            f"Stop it with: ray job stop {submission_id} --address {address}",
            file=sys.stderr,
        )
        return 130
    if info.status is JobStatus.SUCCEEDED:
        return 0
    stopped = info.status is JobStatus.STOPPED
    reason = "was stopped; the same command resumes it" if stopped else first_line(info.message)
    print(f"error: job {submission_id}: {reason}", file=sys.stderr)
    return 1


async def print_log(cluster: JobCluster, submission_id: str) -> JobDetails:
    """Print the log until the job has ended. After a lost connection, continue with the part not printed yet.

    Raises SubmissionError if too many connections are lost.
    """
    num_printed, num_failures = 0, 0
    while True:
        num_read = 0
        try:
            async for text in cluster.tail_job_logs(submission_id):
                # A new connection sends the log from its beginning.
                print(text[max(0, num_printed - num_read) :], end="", flush=True)
                num_read += len(text)
                num_printed = max(num_printed, num_read)
            info = cluster.get_job_info(submission_id)
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            num_failures += 1
            if num_failures > MAX_RECONNECTS:
                raise SubmissionError(
                    f"lost the connection to job {submission_id}; the job continues if its cluster still runs: "
                    f"{first_line(error)}"
                ) from error
        else:
            num_failures = 0
            if info.status.is_terminal():
                return info
        await asyncio.sleep(RECONNECT_S)


def first_line(message: object) -> str:
    """Return the first line of a message; Ray's messages may contain complete logs."""
    return str(message).strip().partition("\n")[0]
