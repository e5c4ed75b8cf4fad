"""The trackers of a run."""

from __future__ import annotations

from importlib.util import find_spec
from typing import get_args

from orchestrator.config.recipe import ConfigError
from orchestrator.config.schema import RunConfig, TrackerName
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import Tracker, Trackers
from orchestrator.records.trackers.files import FileTracker
from orchestrator.records.trackers.ray_metrics import RayMetricsTracker
from orchestrator.records.trackers.wandb import check_login

PACKAGES = {name: name for name in get_args(TrackerName)} | {"tensorboard": "tensorboardX"}
"""The package that each program in `tracking.to` needs: that of its name, or another."""


def build_trackers(config: RunConfig, directory: RunDirectory, *others: Tracker) -> Trackers:
    """Return `others`, metrics.jsonl and Ray's metrics. The trackers of `tracking.to` run apart: see beside.py."""
    return Trackers([FileTracker(directory, config), RayMetricsTracker(config.name), *others])


def check_trackers(config: RunConfig) -> None:
    """Raise ConfigError if a program is not installed, and WandbError if the login for Weights & Biases is missing."""
    for name in config.tracking.programs:
        if find_spec(PACKAGES[name]) is None:
            raise ConfigError(
                f"tracking.to names {name!r}, but {PACKAGES[name]} is not installed: pip install 'rayzero[{name}]', or "
                "remove it from tracking.to"
            )
    if "wandb" in config.tracking.programs:
        check_login()
