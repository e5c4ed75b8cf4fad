"""MLflow: a database beside the runs, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.base import RemoteAdvantages
from orchestrator.records.trackers.external import COLUMNS, ExternalTracker, kept_id, project
from rollout.types.completions import Group

FOLDER = "mlflow"
"""In `runs_dir`, so that MLflow can compare the runs."""
LONGEST_VALUE, LONGEST_KEY = 6000, 250
"""Most characters that MLflow accepts in a parameter's value and key."""
MAX_AT_ONCE = 100
"""Most parameters that MLflow accepts in one call."""


class MlflowTracker(ExternalTracker):
    """Logs to the experiment `tracking.project`; settings are parameters. MLflow keeps the first values of a step."""

    def __init__(self, run: RunFiles) -> None:
        """Create the run, or continue under the id in the run's directory."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder = run.path.resolve().parent / FOLDER
        if not (uri := os.environ.get("MLFLOW_TRACKING_URI")):
            folder.mkdir(exist_ok=True)
            uri = f"sqlite:///{folder / 'mlflow.db'}"
        self._client: Any = MlflowClient(tracking_uri=uri)
        artifacts = folder / "artifacts" if uri.startswith("sqlite:") else None
        self._id, self.is_empty = kept_id(run, "mlflow", lambda: self._create(run, artifacts))
        self._client.update_run(self._id, status="RUNNING")
        self._client.log_dict(self._id, run.config, "settings.json")

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        entities = [Metric(allowed(key), value, now, step) for key, value in metrics.items()]
        for begin in range(0, len(entities), MAX_AT_ONCE):
            self._client.log_batch(self._id, metrics=entities[begin : begin + MAX_AT_ONCE])

    def log_completions(self, step: int, rows: Sequence[Sequence[Any]]) -> None:
        file = f"completions/step_{step:06d}.json"
        # Same format as MLflow's own `log_table`, which would append to an existing table.
        self._client.log_dict(self._id, {"columns": list(COLUMNS), "data": [list(row) for row in rows]}, file)
        tables = json.loads(self._client.get_run(self._id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        if not any(table["path"] == file for table in tables):
            tables.append({"path": file, "type": "table"})
            self._client.set_tag(self._id, "mlflow.loggedArtifacts", json.dumps(tables))

    def log_curve(self, step: int, file: Path) -> None:
        self._client.log_artifact(self._id, str(file))

    def log_report(self, file: Path) -> None:
        self._client.log_artifact(self._id, str(file))

    def close(self) -> None:
        self._client.set_terminated(self._id)

    def _create(self, run: RunFiles, artifacts: Path | None) -> str:
        """Create the run, and its experiment if it does not exist yet. Return the run's id."""
        from mlflow.entities import Param

        name = project(run)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = artifacts.as_uri() if artifacts is not None else None
            experiment_id = self._client.create_experiment(name, artifact_location=location)
        else:
            experiment_id = experiment.experiment_id
        created: str = self._client.create_run(experiment_id, run_name=run.name).info.run_id
        entities = [Param(allowed(key)[:LONGEST_KEY], str(value)[:LONGEST_VALUE]) for key, value in flat(run.config)]
        for begin in range(0, len(entities), MAX_AT_ONCE):
            self._client.log_batch(created, params=entities[begin : begin + MAX_AT_ONCE])
        return created


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full name of each setting, such as `learner.learning_rate`, with its value."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def allowed(key: str) -> str:
    """Return the key with `_` for each character that MLflow refuses in a name."""
    return re.sub(r"[^\w./ -]", "_", key)
