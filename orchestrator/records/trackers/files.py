"""The run directory's own tracker: metrics.jsonl, the compressed rollouts and the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config.schema import RunConfig
from orchestrator.records.recorder import Recorder
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import RemoteAdvantages, Tracker
from orchestrator.report.summary import OWN
from rollout.types.completions import Group


class FileTracker(Tracker):
    """Writes metrics.jsonl. A recorder beside the loop writes rollouts, and curve and report after each evaluation."""

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        self._directory = directory
        self._config = config
        self._recorder: Recorder | None = None

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        if (groups or held_out) and self._config.tracking.save_rollouts:
            self._started_recorder.write(step, groups, held_out)
        self._directory.log_metrics(step, metrics)
        if any(key.startswith(OWN) for key in metrics):
            # Before training there is nothing to report, and the run writes the last report at its end.
            self._started_recorder.draw(with_report=0 < step < self._config.num_steps)

    @property
    def _started_recorder(self) -> Recorder:
        self._recorder = self._recorder or Recorder(self._directory, f"{self._config.name}/recorder")
        return self._recorder

    def flush(self) -> None:
        if self._recorder is not None:
            self._recorder.flush()
        self._directory.sync_metrics()

    def close(self) -> None:
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
