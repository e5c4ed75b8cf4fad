"""The trackers of a run."""

from __future__ import annotations

import os

from rich.console import Console

from orchestrator.config.schema import RunConfig
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import Tracker, Trackers
from orchestrator.records.trackers.files import FileTracker
from orchestrator.records.trackers.ray_metrics import RayMetricsTracker
from orchestrator.records.trackers.terminal import ConsoleTracker
from orchestrator.records.trackers.wandb import WandbTracker


def build_trackers(config: RunConfig, directory: RunDirectory, console: Console) -> Trackers:
    """Return the trackers that the recipe asks for."""
    trackers: list[Tracker] = [
        FileTracker(directory, config),
        RayMetricsTracker(config.name),
        ConsoleTracker(console, config.num_steps),
    ]
    if config.tracking.wandb:
        os.environ.setdefault("WANDB_SILENT", "true")
        trackers.append(WandbTracker(directory, config))
    return Trackers(trackers)
