"""The numbers of each step in Weights & Biases."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.config.schema import RunConfig
from orchestrator.records.atomic_file import write_atomically
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import RemoteAdvantages, Tracker
from rollout.types.completions import Group

STEP = "step"
"""The metric that charts have as their x axis."""
NOT_SENT = ("offline", "dryrun", "disabled")
"""Modes in which nothing leaves the machine, so that nobody has to be known there."""


class WandbError(RuntimeError):
    """Weights & Biases cannot be used; the message says why and what to do."""


class WandbTracker(Tracker):
    """Weights & Biases. A resumed run goes on under the id that its run directory keeps.

    The step of W&B itself only grows, and a row of an earlier one is dropped there. So it counts rows here, and `step`
    is a metric, by which charts are drawn. A step that is done again is a second row: both are kept, the new one last.
    Offline there is a file for each command, and of one id W&B keeps the last that is synced: each begins with the
    run's steps so far.
    """

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        """Begin or go on. A run of which W&B does not know all is told with its steps so far."""
        quiet()
        import wandb

        found, is_new = run_id(directory, config.name)
        self._run: Any = wandb.init(
            project=config.tracking.wandb_project,
            name=config.name,
            id=found,
            resume="allow",
            dir=str(directory.path),
            config=config.model_dump(mode="json"),
        )
        self._run.define_metric("*", step_metric=STEP)
        for line in directory.metrics() if is_new or self._run.offline else ():
            self._run.log(line)

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        self._run.log({STEP: step} | dict(metrics))

    def close(self) -> None:
        self._run.finish()


def run_id(directory: RunDirectory, name: str) -> tuple[str, bool]:
    """Return the id that the run directory keeps, and whether it is kept only now.

    It is no name: another run of that name, of another machine or in a folder that was removed, is another run.
    """
    file = directory.path / "wandb_id"
    if file.exists():
        return file.read_text().strip(), False
    # Version 0.1.0 took the name, and kept nothing but W&B's own folder.
    found = name if (directory.path / "wandb").is_dir() else secrets.token_hex(6)
    with directory.writing():
        write_atomically(file, found + "\n")
    return found, True


def check_login() -> None:
    """Raise WandbError where `wandb.init` would ask for a key, or fail for want of one. Nothing is sent."""
    quiet()
    import wandb
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    settings = wandb.setup().settings
    if settings.mode in NOT_SENT:
        return
    asked = f"tracking.wandb = true, and the login for {settings.base_url}"
    fix = (
        "run `wandb login`, or set WANDB_API_KEY; WANDB_MODE=offline keeps the figures in the run directory, for "
        "`wandb sync`; tracking.wandb=false does without"
    )
    try:
        host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
        if wbauth.authenticate_session(host=host, source="rayzero", prompt=False, update_session=False) is None:
            raise WandbError(f"{asked} is missing: {fix}")
    except AuthenticationError as error:
        raise WandbError(f"{asked} is not valid ({error}): {fix}") from error


def quiet() -> None:
    """Keep W&B's chatter out of the terminal. It reads this once, when it is first asked anything."""
    os.environ.setdefault("WANDB_SILENT", "true")
