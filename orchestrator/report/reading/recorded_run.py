"""Read the files of a run for a report: settings, metrics, and the paths of completions. This writes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from orchestrator.records.files.lock_holder import LockHolder
from orchestrator.records.final_model import has_model_of
from orchestrator.records.run_files import RunFiles, asked_steps, is_supervised

Row = dict[str, float]
"""A line of metrics.jsonl: its step, and the metrics of that step."""
State = Literal["complete", "going on", "ended early"]

STEP_FILE = re.compile(r"step_(\d{1,9})\.jsonl\.zst")
RESUMED = re.compile(r"(?:INFO|WARNING) (a new command resumes the run|training goes on) after step (\d+)$")
PEAKS = re.compile(r"INFO peak memory, GiB: \{(.*)\}$")
PEAK = re.compile(r"'((?:generator|learner|reward)-\d{1,6})': (\d{1,6}(?:\.\d+)?)")
PLACED = re.compile(r"INFO placement: (cpu|colocated|pods)\b")
VERDICT = re.compile(r"(?:INFO|WARNING) before training: (trainable|slow|too hard|too easy)$")


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """The contents of a run directory of any version, in any state of the run."""

    path: Path
    settings: dict[str, Any]
    """config.json, unchanged, of any version."""
    rows: list[Row]
    """One row for each step, in order; a repeated step has its last row."""
    rollouts: dict[int, Path]
    """Files of training completions, by step."""
    held_out: dict[int, Path]
    """Files of the evaluations' completions, by step."""
    state: State
    resumed_after: list[int] = field(default_factory=list)
    """Steps after which a command, or the learner, started again."""
    commands_after: list[int] = field(default_factory=list)
    """The steps in `resumed_after` after which a command started, with counters from 0."""
    peak_gib: dict[str, float] = field(default_factory=dict)
    """Peak memory in GiB by process, from the log."""
    mode: str = ""
    """The resolved `placement.mode`, from the log; empty if the log does not say."""
    outlook: str = ""
    """The verdict before training, such as `trainable`; empty if there was none."""

    @property
    def name(self) -> str:
        return str(self.settings.get("name") or self.path.name)

    @property
    def num_steps(self) -> int:
        """The number of steps that the run should train; if that is unknown, the number of steps done."""
        return asked_steps(self.settings, self.rows) or self.last_step

    @property
    def is_supervised(self) -> bool:
        """Whether the run is one of `rayzero sft`."""
        return is_supervised(self.rows)

    @property
    def last_step(self) -> int:
        return int(self.rows[-1]["step"]) if self.rows else 0

    def setting(self, key: str, default: Any = None) -> Any:
        """Return the value of a setting by its dotted key."""
        value: Any = self.settings
        for name in key.split("."):
            if not isinstance(value, dict) or name not in value:
                return default
            value = value[name]
        return value


def read_run(path: Path) -> RecordedRun:
    """Read a run directory. Raises ConfigError if it holds no run."""
    files = RunFiles(path)
    log = read_text(files.path / "log.txt").splitlines()
    rows = {int(row["step"]): row for row in files.metrics() if "step" in row}
    outlooks = [match[1] for line in log if (match := VERDICT.search(line))]
    resumes = [match for line in log if (match := RESUMED.search(line))]
    peaks = [match[1] for line in log if (match := PEAKS.search(line))]
    modes = [match[1] for line in log if (match := PLACED.search(line))]
    return RecordedRun(
        path=files.path,
        settings=files.config,
        rows=[rows[step] for step in sorted(rows)],
        rollouts=step_files(files.path / "rollouts"),
        held_out=step_files(files.path / "held_out"),
        state=state_of(files, list(rows.values())),
        resumed_after=[int(match[2]) for match in resumes],
        commands_after=[int(match[2]) for match in resumes if match[1].startswith("a new command")],
        peak_gib={name: float(size) for name, size in PEAK.findall(peaks[-1])} if peaks else {},
        mode=modes[-1] if modes else "",
        outlook=outlooks[0] if outlooks else "",
    )


def read_text(file: Path) -> str:
    """Return the text of a file that a run may still be writing; empty if the file does not exist."""
    return file.read_text("utf-8", "replace") if file.is_file() else ""


def step_files(folder: Path) -> dict[int, Path]:
    """Return the files of a folder by their steps; files with other names are a person's own."""
    files = {int(match[1]): file for file in folder.glob("step_*") if (match := STEP_FILE.fullmatch(file.name))}
    return dict(sorted(files.items()))


def state_of(files: RunFiles, rows: Sequence[Row]) -> State:
    """Return whether a run is complete, is going on on this machine, or ended before its last step."""
    last_step = max((int(row["step"]) for row in rows), default=0)
    if has_model_of(files.path / "final", last_step) and last_step == (asked_steps(files.config, rows) or last_step):
        return "complete"
    return "going on" if LockHolder.read(read_text(files.path / ".lock")).lives else "ended early"
