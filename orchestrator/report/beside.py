"""Write a run's report beside the run, in a separate process with the lowest priority, one at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.report.report import FILE, write_report

MAX_SAID = 2_000
"""Largest number of characters of an error that are passed on."""


class ReportProcess:
    """Starts the processes that write the report of one run."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> str | None:
        """Start writing the report, unless the last one is still being written. Return why the last one failed."""
        if self._process is not None and self._process.poll() is None:
            return None
        failure = self.failure()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.report.beside", str(self._run)],
            # Inside a Ray worker only sys.path leads to the project.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return failure

    def failure(self) -> str | None:
        """Wait for the last process, and return why it failed; None if it did not fail, or there was none."""
        if self._process is None:
            return None
        errors = self._process.communicate()[1]
        failed, self._process = self._process.returncode != 0, None
        return f"{self._run / FILE} cannot be written: {errors.strip()[-MAX_SAID:]}" if failed else None


def main(run: str) -> None:
    """Write the report of a run, at the lowest priority."""
    os.nice(19)
    write_report([Path(run)])


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Exception as error:  # noqa: BLE001  reported in one line to the process that started it
        sys.exit(f"{type(error).__name__}: {error}")
