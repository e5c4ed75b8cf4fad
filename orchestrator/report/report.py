"""`rayzero report`: one HTML file made from run directories alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orchestrator.config.recipe import ConfigError
from orchestrator.records.atomic_file import write_atomically
from orchestrator.report.page.document import document
from orchestrator.report.page.run_data import report_data
from orchestrator.report.reading.recorded_run import read_run

FILE = "report.html"


def write_report(runs: Sequence[Path], output: Path | None = None, steps: Sequence[int] = ()) -> Path:
    """Write the report of one run, or of several, and return its file.

    Args:
        runs: run directories; the first is shown first.
        output: the file, or a folder for it; by default that of the run, or for several runs the one above the first.
        steps: steps of which every completion is kept, as far as there is room.

    Raises ConfigError where there is no such run, or the file cannot be written.
    """
    found = [read_run(run) for run in runs]
    made = {"made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "version": rayzero_version()}
    data = report_data(found, steps) | made
    file = output or (runs[0] if len(runs) == 1 else runs[0].parent)
    file = file / FILE if file.is_dir() else file
    page = document(" · ".join([run.name for run in found]) + " · Rayzero report", data)
    aside = file.with_name(f".{file.name}.{os.getpid()}")  # of its own: a run's last report may meet one before
    try:
        write_atomically(aside, page)
        aside.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}): name another file with --output") from error
    return file


def rayzero_version() -> str:
    try:
        return version("rayzero")
    except PackageNotFoundError:
        return ""
