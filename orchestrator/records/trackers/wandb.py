"""The numbers of each step in Weights & Biases."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.base import RemoteAdvantages
from orchestrator.records.trackers.external import COLUMNS, ExternalTracker, kept_id, project
from rollout.types.completions import Group

STEP = "step"
"""The metric that charts have as their x axis."""
NOT_SENT = ("offline", "dryrun", "disabled")
"""Modes in which nothing leaves the machine, so that nobody has to be known there."""


class WandbError(RuntimeError):
    """Weights & Biases cannot be used; the message says why and what to do."""


class WandbTracker(ExternalTracker):
    """Weights & Biases. A resumed run goes on under the id that its run directory keeps.

    The step of W&B itself only grows, and a row of an earlier one is dropped there. So it counts rows here, and `step`
    is a metric, by which charts are drawn. Offline there is a file for each command, and of one id W&B keeps the last
    that is synced: each begins with the run's steps so far, and so does a new one where steps are done again.
    """

    def __init__(self, run: RunFiles) -> None:
        """Begin, or go on."""
        self._of = run
        self._id, is_new = run_id(run)
        self._begin()
        self.is_empty = is_new or bool(self._run.offline)

    def rewind(self, step: int) -> int | None:
        if not self._run.offline:
            return None
        self._run.finish()
        time.sleep(1.0)  # the second names a file
        self._begin()
        return 0

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        self._run.log({STEP: step} | dict(metrics))

    def log_completions(self, step: int, rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({STEP: step, "held_out/completions": table})

    def log_curve(self, step: int, file: Path) -> None:
        import wandb

        self._run.log({STEP: step, "curve": wandb.Image(str(file))})

    def log_report(self, file: Path) -> None:
        import wandb

        report = wandb.Artifact(f"{self._of.name}-report", type="report")
        report.add_file(str(file))
        self._run.log_artifact(report)

    def close(self) -> None:
        self._run.finish()

    def _begin(self) -> None:
        quiet()
        import wandb

        self._run: Any = wandb.init(
            project=self._of.config.get("tracking", {}).get("wandb_project") or project(self._of),
            name=self._of.name,
            id=self._id,
            resume="allow",
            dir=str(self._of.path),
            config=self._of.config,
        )
        self._run.define_metric("*", step_metric=STEP)


def run_id(run: RunFiles) -> tuple[str, bool]:
    """Return the id that the run directory keeps, and whether it is kept only now."""
    earlier = run.path / "wandb_id"
    if earlier.exists():
        return earlier.read_text().strip(), False
    # Version 0.1.0 took the name, and kept nothing but W&B's own folder.
    is_of_first_version = (run.path / "wandb").is_dir()
    return kept_id(run, "wandb", lambda: run.name if is_of_first_version else secrets.token_hex(6))


def check_login() -> None:
    """Raise WandbError if `wandb.init` would ask for a key, or fail without one. Nothing is sent."""
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
        "`wandb sync`; tracking.wandb=false, or tracking.to without it, turns it off"
    )
    try:
        host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
        if wbauth.authenticate_session(host=host, source="rayzero", prompt=False, update_session=False) is None:
            raise WandbError(f"{asked} is missing: {fix}")
    except AuthenticationError as error:
        raise WandbError(f"{asked} is not valid ({error}): {fix}") from error


def quiet() -> None:
    """Keep W&B's chatter and its own error reports to itself. It reads this once, when it is first asked anything."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
