"""Trackio: its own local database, or a server or Space that its environment variables name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.base import RemoteAdvantages
from orchestrator.records.trackers.external import COLUMNS, ExternalTracker, as_code, kept_id, project
from rollout.types.completions import Group

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Environment variables that make Trackio send metrics to another machine."""


class TrackioTracker(ExternalTracker):
    """Logs to Trackio, which identifies a run only by its name (so the name ends with an id).

    Trackio keeps the first values of a step.
    """

    def __init__(self, run: RunFiles) -> None:
        """Create the run, or continue under the id in the run's directory."""
        if not any(os.environ.get(name) for name in ELSEWHERE):
            os.environ["HF_HUB_OFFLINE"] = "1"
        import trackio

        run_id, self.is_empty = kept_id(run, "trackio", lambda: secrets.token_hex(3))
        self._run: Any = trackio.init(
            project=project(run),
            name=f"{run.name}-{run_id}",
            resume="allow",
            config=run.config,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        self._run.log(dict(metrics), step=step)

    def log_completions(self, step: int, rows: Sequence[Sequence[Any]]) -> None:
        import trackio

        # Trackio renders text cells as Markdown.
        data = [[as_code(value) if isinstance(value, str) else value for value in row] for row in rows]
        self._run.log({"held_out/completions": trackio.Table(columns=list(COLUMNS), data=data)}, step=step)

    def log_curve(self, step: int, file: Path) -> None:
        import trackio

        self._run.log({"curve": trackio.Image(str(file))}, step=step)

    def log_report(self, file: Path) -> None:
        self._run.log_artifact(str(file), name=f"{self._run.name}-report", type="report")

    def close(self) -> None:
        self._run.finish()
