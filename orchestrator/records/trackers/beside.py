"""Run the trackers of other programs beside the loop, each in its own process that follows the run's files.

The loop never waits for them, and their failures do not affect the run: metrics.jsonl has every step.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.records.trackers.external import FOLDER
from orchestrator.records.trackers.follow import LAST_S

logger = logging.getLogger(__name__)

END_S = 60.0
"""Seconds that the command waits, after the run, until all of them have sent the rest. Then they continue alone."""
MAX_SAID = 2000
"""Bytes at the end of a log that are searched for the reason why a process ended."""

Say = Callable[[str], None]


@contextmanager
def trackers_beside(names: Sequence[str], run: Path, after: int, say: Say) -> Iterator[None]:
    """Send the run's data to the programs while the context lasts, and the rest at its end.

    Args:
        names: the programs, as `tracking.to` names them.
        run: the run's directory.
        after: the last step before this command; -1 if the run begins with it.
        say: shows a message to the user. Each message is also written to log.txt.
    """
    processes = [TrackerProcess(name, run, after, say) for name in names]
    has_ended_well = False
    try:
        yield
        has_ended_well = True
    finally:
        for process in processes:
            process.end()
        # After an error, or a second Ctrl-C, the command exits at once, and they send the rest without it.
        if has_ended_well:
            deadline = time.monotonic() + END_S
            for process in processes:
                process.wait(deadline)


class TrackerProcess:
    """The process of one tracker."""

    def __init__(self, name: str, run: Path, after: int, say: Say) -> None:
        self._name, self._run, self._say = name, run, say
        self._log = run / FOLDER / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._has_reported_end = threading.Lock()
        command = [sys.executable, "-m", "orchestrator.records.trackers.follow", str(run), name, str(after)]
        try:
            self._log.parent.mkdir(exist_ok=True)
            with self._log.open("ab") as log:
                # In its own session, which Ctrl-C in the run's terminal does not reach.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
                )
        except OSError as error:
            self._report(f"gets no data of the run ({error.strerror})")
            return
        threading.Thread(target=self._watch, args=(self._process,), name=f"{name}-tracker", daemon=True).start()

    def end(self) -> None:
        """Ask the process to end. It ends when it has sent everything."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def wait(self, deadline: float) -> None:
        """Wait until the process ends. Report if it does not end in time, or fails."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
            self._report_failure(self._process)
        except subprocess.TimeoutExpired:
            minutes = LAST_S // 60
            self._report(
                f"has not taken the rest of the data within {END_S:g} s; its process continues for up to "
                f"{minutes} minutes"
            )

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Report at once when the process fails before the run ends."""
        process.wait()
        self._report_failure(process)

    def _report_failure(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode != 0 and self._has_reported_end.acquire(blocking=False):
            try:
                lines = self._log.read_bytes()[-MAX_SAID:].decode(errors="replace").split("\n")
            except OSError as error:
                lines = [f"{self._log.name}: {error.strerror}"]
            last = next((line.strip() for line in reversed(lines) if line.strip()), "its process ended without a word")
            self._report(f"gets no more data of the run ({last})")

    def _report(self, what: str) -> None:
        sentence = (
            f"tracking.to: {self._name} {what}. The run is not affected, metrics.jsonl has every step, and "
            f"{self._log} has details. The missing data is sent by the next command of this run, or by `python -m "
            f"orchestrator.records.trackers.follow {self._run} {self._name} < /dev/null`"
        )
        logger.warning("%s", sentence)
        self._say(sentence)
