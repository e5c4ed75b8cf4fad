"""Send the metrics of each step to Weights & Biases."""

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
"""Modes in which nothing leaves the machine, so that no login is needed."""


class WandbError(RuntimeError):
    """Weights & Biases cannot be used; the message says why and what to do."""


class WandbTracker(ExternalTracker):
    """Logs to Weights & Biases. A resumed run continues under the id in its run directory.

    W&B's own step only grows: W&B drops rows of an earlier step. Therefore W&B's step counts rows here, and `step` is a
    metric that charts use as their x axis. Offline, each command writes a file, and W&B keeps only the file of a run
    that was synced last. So each file begins with all steps of the run so far; repeated steps begin a new file.
    """

    def __init__(self, run: RunFiles) -> None:
        """Create the run, or continue it."""
        self._files = run
        self._id, is_new = run_id(run)
        self._begin()
        self.is_empty = is_new or bool(self._run.offline)

    def rewind(self, step: int) -> int | None:
        if not self._run.offline:
            return None
        self._run.finish()
        time.sleep(1.0)  # the file's name has the time in seconds
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

        report = wandb.Artifact(f"{self._files.name}-report", type="report")
        report.add_file(str(file))
        self._run.log_artifact(report)

    def close(self) -> None:
        self._run.finish()

    def _begin(self) -> None:
        quiet()
        import wandb

        self._run: Any = wandb.init(
            project=self._files.config.get("tracking", {}).get("wandb_project") or project(self._files),
            name=self._files.name,
            id=self._id,
            resume="allow",
            dir=str(self._files.path),
            config=self._files.config,
        )
        self._run.define_metric("*", step_metric=STEP)


def run_id(run: RunFiles) -> tuple[str, bool]:
    """Return the run's id in W&B, and whether it is new."""
    earlier = run.path / "wandb_id"
    if earlier.exists():
        return earlier.read_text().strip(), False
    # Version 0.1.0 used the name as the id, and stored nothing but W&B's own folder.
    is_of_first_version = (run.path / "wandb").is_dir()
    return kept_id(run, "wandb", lambda: run.name if is_of_first_version else secrets.token_hex(6))


def check_login() -> None:
    """Raise WandbError if `wandb.init` would ask for an API key, or fail without one. Send nothing."""
    quiet()
    import wandb
    from wandb.errors import AuthenticationError
    from wandb.sdk.lib import wbauth

    settings = wandb.setup().settings
    if settings.mode in NOT_SENT:
        return
    problem = f"tracking.wandb = true, and the login for {settings.base_url}"
    fix = (
        "run `wandb login`, or set WANDB_API_KEY; WANDB_MODE=offline keeps the figures in the run directory, for "
        "`wandb sync`; tracking.wandb=false, or tracking.to without wandb, turns it off"
    )
    try:
        host = wbauth.HostUrl(settings.base_url, app_url=settings.app_url)
        if wbauth.authenticate_session(host=host, source="rayzero", prompt=False, update_session=False) is None:
            raise WandbError(f"{problem} is missing: {fix}")
    except AuthenticationError as error:
        raise WandbError(f"{problem} is not valid ({error}): {fix}") from error


def quiet() -> None:
    """Turn off W&B's terminal output and error reports. W&B reads these variables once, at its first use."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
