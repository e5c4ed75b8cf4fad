"""`rayzero report`: write one HTML file from run directories alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import ConfigError
from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.report.page.document import document
from orchestrator.report.page.evaluation_data import evaluation_data, read_evaluation
from orchestrator.report.page.run_data import report_data
from orchestrator.report.reading.recorded_run import RecordedRun, read_run

FILE = "report.html"


def write_report(runs: Sequence[Path], output: Path | None = None, steps: Sequence[int] = ()) -> Path:
    """Write the report of one run, or of several, and return its file.

    Args:
        runs: run directories; the first is shown first.
        output: the file, or a folder for it. Default: the run's folder, or for several runs the parent of the first.
        steps: steps whose completions are all included, as far as there is room.

    Raises ConfigError if there is no such run, or the file cannot be written.
    """
    recorded = [read_run(run) for run in runs]
    check_steps(recorded, steps)
    file = page_file(output or (runs[0] if len(runs) == 1 else runs[0].parent))
    return write_page(" · ".join([run.name for run in recorded]), report_data(recorded, steps), file)


def write_evaluation_report(evaluation: Path, output: Path | None = None) -> Path:
    """Write the report of a JSON file from `rayzero eval`, by default beside it, and return the report's file.

    Raises ConfigError if the file is not from `rayzero eval`, or the report cannot be written.
    """
    content = read_evaluation(evaluation)
    file = page_file(output or evaluation.with_suffix(".html"))
    return write_page("evaluation", {"evaluation": evaluation_data(content)}, file)


def check_steps(runs: Sequence[RecordedRun], steps: Sequence[int]) -> None:
    """Raise ConfigError, with the available steps, for a step without completions in any run."""
    known = sorted({step for run in runs for step in (*run.rollouts, *run.held_out)})
    if missing := [step for step in steps if step not in known]:
        there = f"steps {known[0]} to {known[-1]} have completions" if known else "no step has completions"
        raise ConfigError(f"--steps {' '.join(map(str, missing))}: {there}")


def page_file(output: Path) -> Path:
    """Return the file of a page (report.html if `output` is a folder), and create its folder.

    Raises ConfigError if the folder cannot be created: before all the work, not after it.
    """
    file = output / FILE if output.is_dir() else output
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}): name another file with --output") from error
    return file


def write_page(title: str, data: Mapping[str, Any], file: Path) -> Path:
    """Write a page. Raises ConfigError if the disk refuses."""
    made = {"made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "version": rayzero_version()}
    page = document(f"{title} · Rayzero report", {**data, **made})
    aside = file.with_name(f".{file.name}.{os.getpid()}")  # unique: an earlier report may be written at the same time
    try:
        write_atomically(aside, page)
        aside.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}): name another file with --output") from error
    return file


def write_last_report(run: Path) -> str | None:
    """Write the report at the end of a run's command. Return why it could not be written; None if it was written."""
    try:
        recorded = read_run(run)
        if recorded.state == "going on":  # this command itself holds the lock
            recorded = replace(recorded, state="ended early")
        write_page(recorded.name, report_data([recorded]), page_file(run))
    except Exception as error:  # noqa: BLE001  a run is complete without its report
        return f"{run / FILE} cannot be written: {error}"
    return None


def rayzero_version() -> str:
    try:
        return version("rayzero")
    except PackageNotFoundError:
        return ""
