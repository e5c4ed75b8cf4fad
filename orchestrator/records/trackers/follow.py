"""The process that sends a run's data to one program: it follows the run's files and never delays the loop.

python -m orchestrator.records.trackers.follow RUN NAME [STEP]

Called by hand for a run that has ended, without STEP, it sends what the program has missed.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import zstandard

from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.records.metrics_tail import MetricsTail
from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.external import FOLDER, ExternalTracker, completion_rows, external_tracker

POLL_S = 1.0
LAST_S = 600
"""Seconds that a process has to send the rest after the end of the run."""


class Follower:
    """Sends each step to a tracker once, also after a resume, or after the program was unavailable for a while.

    The run's directory records what was sent. If the run repeats a step, it replaces the step in the tracker; a
    tracker that cannot replace steps keeps the first one.
    """

    def __init__(self, run: RunFiles, tracker: ExternalTracker, state_file: Path, after: int) -> None:
        """`after` is the last step before this command; -1 if the run begins with it."""
        self._run, self._tracker, self._state_file, self._after = run, tracker, state_file, after
        self._tail = MetricsTail(run.metrics_file)
        state = json.loads(state_file.read_text()) if state_file.is_file() else {}
        # An earlier version stored no state, and had sent everything to W&B.
        self._sent_step = -1 if tracker.is_empty else int(state.get("step", after))
        self._sent_table = -1 if tracker.is_empty else int(state.get("table", after))
        self._sent_curve = 0 if tracker.is_empty else self._curve_time()

    def send(self) -> None:
        """Send what is new."""
        before = self._sent_step, self._sent_table
        for row in self._tail.poll():
            step = int(row["step"])
            if step > self._sent_step:
                self._log(row)
            elif step > self._after:
                self._log_again(row)
        self._after = -1  # only the rows of the first poll may be unchanged ones of an earlier command
        for step, file in self._evaluations().items():
            if self._sent_table < step <= self._sent_step:
                self._sent_table = step
                self._send_table(step, file)
        if (time := self._curve_time()) != self._sent_curve:
            self._sent_curve = time
            self._tracker.log_curve(max(0, self._sent_step), self._run.path / "curve.png")
        if before != (self._sent_step, self._sent_table):
            state = {"step": self._sent_step, "table": self._sent_table}
            write_atomically(self._state_file, json.dumps(state) + "\n")

    def close(self) -> None:
        """Send the rest, and the report if it exists."""
        self.send()
        report = self._run.path / "report.html"
        if report.is_file():
            self._tracker.log_report(report)
        self._tracker.close()

    def _log(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        self._tracker.log(step, {key: value for key, value in row.items() if key != "step"})
        self._sent_step = step

    def _log_again(self, row: Mapping[str, float]) -> None:
        first = self._tracker.rewind(int(row["step"]))
        if first is None:
            return
        self._sent_step, self._sent_table = first - 1, min(self._sent_table, first - 1)
        for earlier in self._tail.rows:
            if earlier and first <= earlier["step"] < row["step"]:
                self._log(earlier)
        self._log(row)

    def _evaluations(self) -> dict[int, Path]:
        """Return the files with the evaluations' completions, by step, in order."""
        files = sorted((self._run.path / "held_out").glob("step_*.jsonl.zst"))
        numbers = [file.name.removeprefix("step_").removesuffix(".jsonl.zst") for file in files]
        return {int(number): file for number, file in zip(numbers, files, strict=True) if number.isdecimal()}

    def _send_table(self, step: int, file: Path) -> None:
        try:
            rows = completion_rows(file)
        except (OSError, ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
            print(f"{file} cannot be read: {error}", flush=True)
        else:
            self._tracker.log_completions(step, rows)

    def _curve_time(self) -> int:
        curve = self._run.path / "curve.png"
        return curve.stat().st_mtime_ns if curve.is_file() else 0


def follow(run: RunFiles, name: str, after: int, wait: Callable[[float], bool]) -> None:
    """Send the run's data to the program `name`, until `wait` returns False because the run has ended."""
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the process of an earlier command may still be running
        follower = Follower(run, external_tracker(name, run), folder / f"{name}.json", after)
        while wait(POLL_S):
            follower.send()
        follower.close()


def main(path: str, name: str, after: str = str(sys.maxsize)) -> None:
    """Follow until standard input ends, which happens when the process that started this one ends.

    `after` is the last step before this command. LAST_S after the end of standard input this process is killed.
    """
    os.nice(19)

    def wait(seconds: float) -> bool:
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return True
        signal.alarm(LAST_S)  # ends this process even if a call to the program hangs
        return False

    follow(RunFiles(path), name, int(after), wait)


if __name__ == "__main__":
    main(*sys.argv[1:])
