"""The trackers of a run."""

from __future__ import annotations

from orchestrator.config.schema import RunConfig
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import Tracker, Trackers
from orchestrator.records.trackers.files import FileTracker
from orchestrator.records.trackers.ray_metrics import RayMetricsTracker
from orchestrator.records.trackers.wandb import WandbTracker, check_login


def build_trackers(config: RunConfig, directory: RunDirectory, *others: Tracker) -> Trackers:
    """Return `others`, metrics.jsonl, Ray's metrics, and Weights & Biases where the recipe asks for it."""
    trackers: list[Tracker] = [FileTracker(directory, config), RayMetricsTracker(config.name), *others]
    if config.tracking.wandb:
        trackers.append(WandbTracker(directory, config))
    return Trackers(trackers)


def check_trackers(config: RunConfig) -> None:
    """Raise WandbError where the recipe asks for Weights & Biases, and nobody is logged in there."""
    if config.tracking.wandb:
        check_login()
