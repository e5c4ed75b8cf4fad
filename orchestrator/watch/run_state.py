"""Read a run's state from its directory, as plain data for a view."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zstandard

from orchestrator.records.files.lock_holder import LockHolder
from orchestrator.records.final_model import has_model_of
from orchestrator.records.health.replay import was_stopped
from orchestrator.records.metrics_tail import MetricsTail
from orchestrator.records.run_files import RunFiles, asked_steps

Phase = Literal["running", "complete", "stopped", "stopped as hopeless", "unknown"]

MAX_LOG = 64 * 1024
"""Bytes at the end of log.txt that are searched for warnings."""
MAX_RECORD = 1024 * 1024
"""Largest number of bytes that are unpacked from a rollouts file for its first completion."""
NUM_WARNINGS = 5
WARNING = re.compile(r"^[\d-]{10} [\d:,]{8,12} (?:WARNING|ERROR) (.+)$", re.MULTILINE)
ALARM = re.compile(r"health/(\w+) after step \d+: ")
MAX_BEHIND = 3
"""Largest number of steps by which the newest rollouts may be older than the metrics."""


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run. Its texts are unchanged and unsafe: models wrote some of them."""

    name: str
    num_steps: int
    rows: Sequence[Mapping[str, float]]
    """The lines of metrics.jsonl so far."""
    phase: Phase
    """`unknown`: another machine trains or trained it."""
    holder: str
    """The process that trains or trained it, as `process 12 on host`."""
    silent_s: float
    """Seconds since its metrics were last written."""
    warnings: Sequence[str]
    """The last warnings and errors in log.txt, which include health alarms; the newest last."""
    completion: Mapping[str, Any] | None
    """The first record of the newest rollouts."""

    @property
    def step(self) -> int:
        """The last completed step; 0 before the first."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def is_over(self) -> bool:
        return self.phase in ("complete", "stopped", "stopped as hopeless")

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds for the remaining steps, from the last ten, without evaluations. None if not known."""
        last = [row for row in self.rows[-10:] if "time/step_s" in row]
        if not last or self.is_over:
            return None
        pace = sum(row["time/step_s"] - row.get("time/evaluation_s", 0.0) for row in last) / len(last)
        return max(0.0, (self.num_steps - self.step) * pace - min(self.silent_s, pace))

    def is_past(self, warning: str) -> bool:
        """Return whether a warning is an alarm that has ended."""
        alarm = ALARM.match(warning)
        return alarm is not None and bool(self.rows) and self.rows[-1].get(f"health/{alarm[1]}", 1.0) == 0.0


class RunReader:
    """Reads the state of a run repeatedly, from files alone. Each call reads only new data."""

    def __init__(self, directory: str) -> None:
        """Open the run's directory. Raises ConfigError if it is not a run."""
        self._directory = directory
        self._run = RunFiles(directory)
        self._tail = MetricsTail(self._run.metrics_file)
        self._latest: tuple[Path, Mapping[str, Any] | None] | None = None

    def read(self) -> RunState:
        """Return the current state. Raises ConfigError if the run does not exist any more."""
        self._run = RunFiles(self._directory)  # read again: a resumed run may have other settings
        self._tail.poll()
        rows = [row for row in self._tail.rows if "step" in row]
        num_steps = asked_steps(self._run.config, rows)
        step = int(rows[-1]["step"]) if rows else 0
        holder = LockHolder.read(text_of(self._run.path / ".lock", 200))
        return RunState(
            name=self._run.name,
            num_steps=num_steps,
            rows=rows,
            phase=self._phase(holder, rows, is_done=step >= num_steps),
            holder=holder.shown,
            silent_s=self._silent_s(),
            warnings=WARNING.findall(text_of(self._run.path / "log.txt", MAX_LOG))[-NUM_WARNINGS:],
            completion=self._completion(step),
        )

    def _phase(self, holder: LockHolder, rows: Sequence[Mapping[str, float]], is_done: bool) -> Phase:
        has_model = has_model_of(self._run.path / "final", int(rows[-1]["step"]) if rows else 0)
        if is_done and has_model:
            return "complete"
        if holder.is_elsewhere:
            return "unknown"
        if holder.lives:
            return "running"
        return "stopped as hopeless" if has_model and was_stopped(rows, self._run.config) else "stopped"

    def _silent_s(self) -> float:
        try:
            return max(0.0, time.time() - self._run.metrics_file.stat().st_mtime)
        except OSError:
            return 0.0

    def _completion(self, step: int) -> Mapping[str, Any] | None:
        for each in range(step, max(0, step - MAX_BEHIND), -1):
            file = self._run.path / "rollouts" / f"step_{each:06d}.jsonl.zst"
            if self._latest is not None and self._latest[0] == file:
                return self._latest[1]
            if file.is_file():
                self._latest = file, first_record(file)
                return self._latest[1]
        return None


def first_record(file: Path) -> Mapping[str, Any] | None:
    """Return the first record of a rollouts file; None if it is too long or cannot be read."""
    try:
        with file.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            record = json.loads(reader.read(MAX_RECORD).partition(b"\n")[0])
    except (OSError, ValueError, zstandard.ZstdError):
        return None
    return record if isinstance(record, dict) else None


def text_of(file: Path, size: int) -> str:
    """Return up to `size` bytes at the end of a file as text; empty if it cannot be read."""
    try:
        with file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - size))
            return content.read(size).decode(errors="replace")
    except OSError:
        return ""
