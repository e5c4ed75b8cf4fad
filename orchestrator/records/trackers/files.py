"""The trackers' numbers in the run directory: metrics.jsonl and the compressed rollouts."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.config.schema import RunConfig
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import GroupAdvantages


class FileTracker:
    """metrics.jsonl and the compressed rollouts."""

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        self._directory = directory
        self._saves_rollouts = config.tracking.save_rollouts

    def log(self, step: int, metrics: Mapping[str, float], groups: GroupAdvantages = ()) -> None:
        if groups and self._saves_rollouts:
            self._directory.write_rollouts(step, *zip(*groups, strict=True))
        self._directory.log_metrics(step, metrics)

    def close(self) -> None:
        """Do nothing: every line has been handed to the system already."""
