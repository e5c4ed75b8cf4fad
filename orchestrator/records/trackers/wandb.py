"""The numbers of each step in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.config.schema import RunConfig
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import GroupAdvantages


class WandbTracker:
    """Weights & Biases. A resumed run goes on under the same id, and its steps after the checkpoint are overwritten."""

    def __init__(self, directory: RunDirectory, config: RunConfig) -> None:
        import wandb

        self._run: Any = wandb.init(
            project=config.tracking.wandb_project,
            name=config.name,
            id=config.name,
            resume="allow",
            dir=str(directory.path),
            config=config.model_dump(mode="json"),
        )

    def log(self, step: int, metrics: Mapping[str, float], groups: GroupAdvantages = ()) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()
