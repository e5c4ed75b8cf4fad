"""The trackers' numbers in the run directory: metrics.jsonl and the compressed rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config.schema import RunConfig
from orchestrator.records.recorder import Recorder
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import RemoteAdvantages, Tracker
from rollout.types.completions import Group


class FileTracker(Tracker):
    """metrics.jsonl, and the compressed rollouts, which a recorder writes beside the loop."""

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        self._directory = directory
        self._config = config
        self._recorder: Recorder | None = None

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        if (groups or held_out) and self._config.tracking.save_rollouts:
            self._recorder = self._recorder or Recorder(self._directory, f"{self._config.name}/recorder")
            self._recorder.write(step, groups, held_out)
        self._directory.log_metrics(step, metrics)

    def flush(self) -> None:
        if self._recorder is not None:
            self._recorder.flush()

    def close(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
