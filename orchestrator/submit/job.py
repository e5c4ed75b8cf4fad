"""A run as a job on a Ray cluster: command, working directory, variables. Pure, and free of secrets.

Ray keeps a job's command, metadata and `runtime_env.env_vars` in clear text: in the cluster's control store, in its
logs, and in what `GET /api/jobs/` answers to anybody who reaches the dashboard (it blanks variables for browsers only).
So a secret is never sent; it stands in the environment of the cluster's nodes, which jobs inherit.
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
"""Variables that are sent when they are set here: they say what to do, and mean the same on every machine."""

SECRETS = ("WANDB_API_KEY", "HF_TOKEN")
"""Variables that runs use and that are never sent."""

SECRET_WORDS = {"KEY", "APIKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"}

SCRATCH = "/runs/ /wandb/ .venv/ venv/ .git/ __pycache__/ .*_cache/ .cache/ .hypothesis/ *.egg-info/"
PRIVATE = ".env .env.* .netrc .ssh/ .aws/ *.pem *.key"
EXCLUDES = (*SCRATCH.split(), *PRIVATE.split())
"""Patterns, in gitignore's syntax, of what is left out of the working directory beside what its .gitignore names."""

RUNS_ON_HEAD = "~/rayzero-runs"
"""The folder of runs on a one-node cluster by default: a job's own working directory is deleted with the job."""

STOP_WAIT_S = 1800
"""Seconds that `ray job stop` waits for the run to finish its step and to save. Ray's own 3 would lose the step."""


@dataclass(frozen=True, slots=True)
class Job:
    """The content of a submission to the cluster."""

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
    also_send: Sequence[str] = (),
) -> Job:
    """Return the job that trains `config`, which `recipe` and `overrides` describe.

    Args:
        working_dir: the folder that is uploaded, and becomes the job's working directory.
        num_nodes: size of the cluster; with several nodes the run directory must be on storage that they share.
        environment: the variables that are set here.
        also_send: names of variables to send beside FORWARDED.

    Raises ConfigError for what would not work there, and for a secret that would be sent.
    """
    runs_dir = runs_dir_there(config, num_nodes)
    name = recipe_there(recipe or DEFAULT_RECIPE, working_dir)
    kept = [override for override in overrides if not override.startswith("runs_dir=")]
    # `python -m` puts the uploaded code before what the nodes have installed.
    command = shlex.join(["python", "-m", "orchestrator.cli", "train", name, *kept])
    sent = Job(
        entrypoint=f"{command} runs_dir={shell_word(runs_dir)}",
        runtime_env={
            "working_dir": str(working_dir),
            "excludes": list(EXCLUDES),
            "env_vars": variables(runs_dir, environment, also_send),
        },
        metadata={"job_name": config.name, "recipe": name, "runs_dir": runs_dir},
    )
    refuse_secrets(sent, environment)
    return sent


def runs_dir_there(config: RunConfig, num_nodes: int) -> str:
    """Return the folder of runs on the cluster.

    Raises ConfigError for one that is deleted with the job, or that other nodes do not see.
    """
    chosen = config.runs_dir if "runs_dir" in config.model_fields_set else RUNS_ON_HEAD
    if not chosen.startswith(("/", "~/")):
        raise ConfigError(
            f"runs_dir = {chosen!r} is relative, and a job's working directory is deleted with the job: give an "
            "absolute path on the cluster, such as runs_dir=/shared/runs"
        )
    if chosen.startswith("~/") and num_nodes > 1:
        raise ConfigError(
            f"runs_dir: the cluster has {num_nodes} nodes, and {chosen} is another folder on each of them, while "
            "driver and learner need the same one: give an absolute path on storage that they share, such as "
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
        f"recipe {recipe!r} is outside of the working directory {root}, which is all that is uploaded: copy it there, "
        "or choose another with --working-dir"
    )


def shell_word(path: str) -> str:
    """Return `path` quoted for the shell that starts the job; `~` is the home folder on the node of that shell."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)


def variables(runs_dir: str, environment: Mapping[str, str], also_send: Sequence[str]) -> dict[str, str]:
    """Return the job's environment. Raises ConfigError for a variable that is a secret, or that is not set here."""
    for name in also_send:
        if SECRET_WORDS & set(name.upper().split("_")):
            raise ConfigError(
                f"--env {name}: it looks like a secret, and Ray shows a job's variables to anyone who reaches its "
                "dashboard: set it in the environment of the cluster's nodes instead (docs/deploy.md)"
            )
        if name not in environment:
            raise ConfigError(f"--env {name}: it is not set here, so there is nothing to send; set it first")
    # A resumed LoRA run needs its warm-started base again: keep that where the run is.
    cache = {"RAYZERO_CACHE": f"{runs_dir}/.cache"} if runs_dir.startswith("/") else {}
    chosen = {name: environment[name] for name in (*FORWARDED, *also_send) if name in environment}
    return {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)} | cache | chosen


def refuse_secrets(sent: Job, environment: Mapping[str, str]) -> None:
    """Refuse to send a secret of this environment, or a password in an address.

    Raises ConfigError, which does not show the value.
    """
    text = "\n".join([sent.entrypoint, json.dumps(sent.runtime_env, ensure_ascii=False), *sent.metadata.values()])
    for name, value in environment.items():
        if SECRET_WORDS & set(name.upper().split("_")) and len(value) >= 8 and value in text:
            raise ConfigError(
                f"the value of {name} is in what would be sent, where Ray shows it to anyone who reaches the "
                "dashboard: take it out of the settings and set the variable on the cluster's nodes (docs/deploy.md)"
            )
    for name, value in sent.runtime_env["env_vars"].items():
        if re.search(r"://[^/@\s]+@", value):
            raise ConfigError(f"{name} holds an address with a user or a password in it: set it on the cluster's nodes")
