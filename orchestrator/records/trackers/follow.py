"""The process that tells one program of a run: it follows the run's files, beside the loop and never in its way.

python -m orchestrator.records.trackers.follow RUN NAME [STEP]

Called by hand for a run that is over, without STEP, it tells what the program has missed.
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
"""Seconds in which a process tells the rest, once the run has ended."""


class Follower:
    """Tells a tracker each step once, also over resumes, and over programs that were away for a while.

    What was told is kept in the run's directory. A step that is done again replaces what the tracker has where the
    tracker can forget, and is left out where it cannot.
    """

    def __init__(self, run: RunFiles, tracker: ExternalTracker, state_file: Path, after: int) -> None:
        """`after` is the step after which the run goes on; -1 where it begins."""
        self._run, self._tracker, self._state_file, self._after = run, tracker, state_file, after
        self._tail = MetricsTail(run.metrics_file)
        kept = json.loads(state_file.read_text()) if state_file.is_file() else {}
        # An earlier version kept no state, and had told W&B all.
        self._told = -1 if tracker.is_empty else int(kept.get("step", after))
        self._table_told = -1 if tracker.is_empty else int(kept.get("table", after))
        self._curve_of = 0 if tracker.is_empty else self._curve_time()

    def send(self) -> None:
        """Tell what is new."""
        before = self._told, self._table_told
        for row in self._tail.poll():
            step = int(row["step"])
            if step > self._told:
                self._log(row)
            elif step > self._after:
                self._log_again(row)
        self._after = -1  # only what was there at the beginning is as it was
        for step, file in self._evaluations().items():
            if self._table_told < step <= self._told:
                self._table_told = step
                self._send_table(step, file)
        if (time := self._curve_time()) != self._curve_of:
            self._curve_of = time
            self._tracker.log_curve(max(0, self._told), self._run.path / "curve.png")
        if before != (self._told, self._table_told):
            state = {"step": self._told, "table": self._table_told}
            write_atomically(self._state_file, json.dumps(state) + "\n")

    def close(self) -> None:
        """Tell what is left, and the report where there is one."""
        self.send()
        report = self._run.path / "report.html"
        if report.is_file():
            self._tracker.log_report(report)
        self._tracker.close()

    def _log(self, row: Mapping[str, float]) -> None:
        step = int(row["step"])
        self._tracker.log(step, {key: value for key, value in row.items() if key != "step"})
        self._told = step

    def _log_again(self, row: Mapping[str, float]) -> None:
        first = self._tracker.rewind(int(row["step"]))
        if first is None:
            return
        self._told, self._table_told = first - 1, min(self._table_told, first - 1)
        for earlier in self._tail.rows:
            if earlier and first <= earlier["step"] < row["step"]:
                self._log(earlier)
        self._log(row)

    def _evaluations(self) -> dict[int, Path]:
        """Return the files of the evaluations' completions by their steps, in order."""
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
    """Tell the program of that name of the run, until `wait` says that the run has ended."""
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the process of an earlier command may not be done yet
        follower = Follower(run, external_tracker(name, run), folder / f"{name}.json", after)
        while wait(POLL_S):
            follower.send()
        follower.close()


def main(path: str, name: str, after: str = str(sys.maxsize)) -> None:
    """Follow until standard input ends, as it does with the process that started this one.

    `after` is the step that the run goes on after. What is done by LAST_S later is told, and no more.
    """
    os.nice(19)

    def wait(seconds: float) -> bool:
        if not select.select([sys.stdin], [], [], seconds)[0]:
            return True
        signal.alarm(LAST_S)  # it ends a process that hangs, wherever that is
        return False

    follow(RunFiles(path), name, int(after), wait)


if __name__ == "__main__":
    main(*sys.argv[1:])
