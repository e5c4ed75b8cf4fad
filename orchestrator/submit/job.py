"""Describe a run as a job on a Ray cluster: command, working directory, variables. Pure, and without secrets.

Ray keeps a job's command, metadata and `runtime_env.env_vars` in clear text: in the cluster's control store, in its
logs, and in the answer of `GET /api/jobs/` to anybody who reaches the dashboard (it hides variables only in browsers).
So secrets are never sent. Set them in the environment of the cluster's nodes, which jobs inherit.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import DEFAULT_RECIPE, RECIPES, ConfigError, find
from orchestrator.config.schema import RunConfig

FORWARDED = (
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    "WANDB_MODE",
    "WANDB_RUN_GROUP",
    "WANDB_TAGS",
)
"""Variables that are sent if they are set here: options with the same meaning on every machine."""

SECRETS = ("WANDB_API_KEY", "HF_TOKEN")
"""Variables that runs use, but that are never sent."""

SECRET_WORDS = {"KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"}

SCRATCH = "/runs/ /wandb/ .venv/ venv/ .git/ __pycache__/ .*_cache/ .cache/ .hypothesis/ *.egg-info/"
PRIVATE = ".env .env.* .netrc .ssh/ .aws/ *.pem *.key"
EXCLUDES = (*SCRATCH.split(), *PRIVATE.split())
"""Patterns in gitignore's syntax. Matching files are not uploaded, nor are files that .gitignore names."""

RUNS_ON_HEAD = "~/rayzero-runs"
"""Default folder of runs on a cluster with one node: Ray deletes the job's working directory with the job."""

STOP_WAIT_S = 1800
"""Seconds that `ray job stop` waits for the run to finish its step and save. With Ray's default, 3, it is lost."""


@dataclass(frozen=True, slots=True)
class Job:
    """The data that is sent to the cluster."""

    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]


def build_job(
    config: RunConfig,
    recipe: str | None,
    overrides: Sequence[str],
    working_dir: Path,
    num_nodes: int,
    environment: Mapping[str, str],
    also_send: Sequence[str],
) -> Job:
    """Return the job that trains `config`, which is made from `recipe` and `overrides`.

    Args:
        working_dir: the folder that is uploaded, and becomes the job's working directory.
        num_nodes: size of the cluster; with several nodes the run directory must be on shared storage.
        environment: the environment variables of this process.
        also_send: names of variables to send in addition to FORWARDED.

    Raises ConfigError for settings that would fail on the cluster, and for a secret that would be sent.
    """
    runs_dir = runs_dir_there(config, num_nodes)
    name = recipe_there(recipe or DEFAULT_RECIPE, working_dir)
    kept = [override for override in overrides if not override.startswith("runs_dir=")]
    # With `python -m` the uploaded code takes precedence over the code that is installed on the nodes.
    command = shlex.join(["python", "-m", "orchestrator.cli", "train", name, *kept])
    job = Job(
        entrypoint=f"{command} runs_dir={shell_word(runs_dir)}",
        runtime_env={
            "working_dir": str(working_dir),
            "excludes": list(EXCLUDES),
            "env_vars": variables(runs_dir, environment, also_send),
        },
        metadata={"job_name": config.name, "recipe": name, "runs_dir": runs_dir},
    )
    refuse_secrets(job, environment)
    return job


def runs_dir_there(config: RunConfig, num_nodes: int) -> str:
    """Return the folder of runs on the cluster.

    Raises ConfigError for a folder that is deleted with the job, or that other nodes do not see.
    """
    chosen = config.runs_dir if "runs_dir" in config.model_fields_set else RUNS_ON_HEAD
    if not chosen.startswith(("/", "~/")):
        raise ConfigError(
            f"runs_dir = {chosen!r} is relative to the job's working directory, which is deleted with the job: set an "
            "absolute path on the cluster, such as runs_dir=/shared/runs"
        )
    if chosen.startswith("~/") and num_nodes > 1:
        raise ConfigError(
            f"runs_dir: the cluster has {num_nodes} nodes, and {chosen} is a different folder on each of them, but "
            "driver and learner need the same folder: set an absolute path on shared storage, such as "
            "runs_dir=/shared/runs"
        )
    return chosen


def recipe_there(recipe: str, working_dir: Path) -> str:
    """Return the recipe's name for the job. Raises ConfigError for a file that is not uploaded."""
    path, root = find(recipe).resolve(), working_dir.resolve()
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    if path.parent == RECIPES:
        return path.stem
    raise ConfigError(
        f"recipe {recipe!r} is outside of the working directory {root}, and only that folder is uploaded: copy it "
        "there, or choose another folder with --working-dir"
    )


def shell_word(path: str) -> str:
    """Return `path` quoted for the shell that starts the job; `~` becomes the home folder on that shell's node."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def variables(runs_dir: str, environment: Mapping[str, str], also_send: Sequence[str]) -> dict[str, str]:
    """Return the job's environment variables. Raises ConfigError for secrets, and for names that are not set here."""
    for name in also_send:
        if SECRET_WORDS & set(name.upper().split("_")):
            raise ConfigError(
                f"--env {name} looks like a secret, and Ray shows a job's variables to anyone who reaches its "
                "dashboard: set it in the environment of the cluster's nodes instead (docs/deploy.md)"
            )
        if name not in environment:
            raise ConfigError(f"--env {name} is not set here, so it cannot be sent: set it first")
    # A resumed LoRA run needs its warm-started base model again, so the cache is kept with the runs.
    cache = {"RAYZERO_CACHE": f"{runs_dir}/.cache"} if runs_dir.startswith("/") else {}
    chosen = {name: environment[name] for name in (*FORWARDED, *also_send) if name in environment}
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)} | cache | chosen


def refuse_secrets(job: Job, environment: Mapping[str, str]) -> None:
    """Raise ConfigError if the job contains a secret of this environment, or a password in an address.

    The message does not show the value.
    """
    text = "\n".join([job.entrypoint, json.dumps(job.runtime_env, ensure_ascii=False), *job.metadata.values()])
    for name, value in environment.items():
        if SECRET_WORDS & set(name.upper().split("_")) and len(value) >= 8 and value in text:
            raise ConfigError(
                f"the job contains the value of {name}, and Ray shows jobs to anyone who reaches the dashboard: remove "
                "it from the settings and set the variable on the cluster's nodes (docs/deploy.md)"
            )
    for name, value in job.runtime_env["env_vars"].items():
        if re.search(r"://[^/@\s]+@", value):
            raise ConfigError(f"{name} contains an address with a user or a password: set it on the cluster's nodes")
