"""The run directory: the files of a run. Reports read these files, never live objects."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from math import nan
from pathlib import Path
from typing import IO, Any, Self

import zstandard

from learner.logprob_record import LogprobRecord
from orchestrator.config.schema import RunConfig
from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.records.files.lock_holder import LockHolder
from orchestrator.records.files.log_file import LogFile
from orchestrator.records.files.strict_json import to_json, without_infinities
from orchestrator.records.origin.changes import changed_settings
from orchestrator.records.rollout_records import rollout_records
from rollout.types.completions import Group

logger = logging.getLogger(__name__)

GroupAdvantages = Sequence[tuple[Group, Sequence[float]]]
"""Groups, each with the advantages of its completions."""


class RunDirectoryError(RuntimeError):
    """The run directory cannot be used; the message says why and what to do."""


class RunDirectory:
    """The folder `runs/<name>/` with a run's files. Creating this object writes nothing; `open` creates the folder."""

    def __init__(self, config: RunConfig) -> None:
        self.path = config.directory.resolve()
        self._config = config

    def open(self) -> Self:
        """Create the folders and write config.json, so that the run can begin or continue here. Return this object.

        Raises RunDirectoryError if the folder cannot be written, holds a run with other settings, or if another
        command trains in it.
        """
        with self.writing():
            for folder in (self.path, self.rollouts, self.held_out, self.checkpoints):
                folder.mkdir(parents=True, exist_ok=True)
        # A refused command must not overwrite the settings of the run that is already there.
        with self.lock(), self.writing():
            self.check_settings()
            write_atomically(self.path / "config.json", to_json(self._settings, indent=2) + "\n")
        return self

    def check_settings(self) -> None:
        """Raise RunDirectoryError if the folder holds a run with settings that differ more than `MAY_CHANGE` allows."""
        file = self.path / "config.json"
        # A start that failed before the first result does not count: its settings may be why it failed.
        has_begun = self.metrics() or any(self.checkpoints.glob("*")) or self.final.exists()
        if not (file.exists() and has_begun):
            return
        try:
            before = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise RunDirectoryError(
                f"{file} is not JSON ({error}): remove {self.path}, or choose another name"
            ) from error
        changed = changed_settings(before, self._config)
        if changed:
            name = self._config.name
            raise RunDirectoryError(
                f"the run {name!r} in {self.path} was started with other settings:\n  "
                + "\n  ".join(changed)
                + f"\nSet them back to resume it, choose another name (name={name}-2), or remove that folder"
            )

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def held_out(self) -> Path:
        """The folder with the evaluations' completions, in the recipe's own format."""
        return self.path / "held_out"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The folder of the trained model, in the format that transformers and vLLM load."""
        return self.path / "final"

    @property
    def left_out(self) -> Path:
        """The file with the rows that `prompts.on_bad_rows = "drop"` leaves out, and the reasons."""
        return self.path / "left_out_rows.jsonl"

    @property
    def curve(self) -> Path:
        return self.path / "curve.png"

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        with self.writing(), self._metrics_file.open("a") as file:
            file.write(to_json({"step": step} | dict(metrics)) + "\n")

    def sync_metrics(self) -> None:
        """Return when metrics.jsonl is on the disk, as a checkpoint's files are: power may fail after they are."""
        with self.writing(), self._metrics_file.open("ab") as file:
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, float]]:
        """Return the lines of metrics.jsonl, null as NaN, without a partial line that a killed process left."""
        if not self._metrics_file.exists():
            return []
        return list(whole_lines(self._metrics_file.read_text("utf-8", "replace")))

    def rollouts_file(self, step: int) -> Path:
        """Return the file with a step's completions."""
        return self.rollouts / f"step_{step:06d}.jsonl.zst"

    def write_rollouts(self, step: int, groups: GroupAdvantages, logprobs: Sequence[LogprobRecord | None] = ()) -> None:
        """Write a step's prompts, completions, rewards and advantages, compressed, as one JSON object per completion.

        `logprobs` are the learner's for each group, None where unknown; it may be shorter than `groups`.
        """
        pairs = zip_longest(groups, logprobs)
        records = (each for (group, credit), known in pairs for each in rollout_records(step, group, credit, known))
        self._write_records(self.rollouts_file(step), records)

    def write_held_out(self, step: int, groups: Iterable[Group]) -> None:
        """Write an evaluation's prompts, completions and rewards as `write_rollouts` does."""
        records = (record for group in groups for record in rollout_records(step, group))
        self._write_records(self.held_out / self.rollouts_file(step).name, records)

    def _write_records(self, file: Path, records: Iterable[Mapping[str, Any]]) -> None:
        lines = "".join(to_json(record) + "\n" for record in records)
        with self.writing():
            write_atomically(file, zstandard.compress(lines.encode()))

    def evaluated(self) -> list[Path]:
        """Return the files with the evaluations' completions, oldest first."""
        return sorted(self.held_out.glob("step_*.jsonl.zst"))

    def truncate_after(self, step: int) -> None:
        """Remove metrics and rollouts of later steps, which a resumed run repeats."""
        kept = [line for line in self.metrics() if line["step"] <= step]
        with self.writing():
            write_atomically(self._metrics_file, "".join(to_json(line) + "\n" for line in kept))
        for file in (*self.rollouts.glob("step_*.jsonl.zst"), *self.evaluated()):
            number = file.name.removeprefix("step_").removesuffix(".jsonl.zst")
            if number.isdecimal() and int(number) > step:  # other names are a person's own files
                file.unlink()

    def log_to_file(self, earlier: Iterable[logging.LogRecord] = ()) -> None:
        """Write this process's log messages to log.txt too, after the messages in `earlier`."""
        with self.writing():
            handler = LogFile(self.path / "log.txt")
        for record in earlier:
            handler.handle(record)
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Prevent other commands from training in this directory while the context lasts.

        Two commands would overwrite each other's work. The lock ends with the process that holds it, even a killed one.

        Raises RunDirectoryError if another command holds the lock, on this machine or on one that shares the folder.
        """
        with self.writing():
            # Without a buffer: closing the file would write again what the disk refused, and raise a second error.
            file = (self.path / ".lock").open("a+b", buffering=0)
        with file:
            self._take(file)
            yield

    @property
    def _settings(self) -> dict[str, Any]:
        dumped = self._config.model_dump(mode="json", exclude={"checkpoint": {"allow_changes"}})
        settings: dict[str, Any] = without_infinities(dumped, as_text=True)
        return settings

    @property
    def _metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    def _take(self, lock: IO[bytes]) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = LockHolder.read(lock.read().decode(errors="replace")).shown
            raise RunDirectoryError(
                f"another command ({holder}) trains in {self.path}: wait for it, stop it, or choose another name"
            ) from None
        except OSError as error:  # a file system without locks
            logger.warning("%s cannot be locked (%s): start no second command for it", self.path, error)
        with self.writing():
            lock.truncate(0)
            lock.write(LockHolder.this().text.encode())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise RunDirectoryError, with advice, if the disk refuses a write inside the context."""
        try:
            yield
        except OSError as error:
            raise RunDirectoryError(
                f"cannot write the run directory {self.path}: {error.strerror}. Free space or fix permissions there "
                "and start the same command again (it resumes from the last checkpoint), or set runs_dir to another "
                "folder"
            ) from error


def read_records(file: Path) -> list[dict[str, Any]]:
    """Return the records of a compressed file, one for each completion."""
    return [json.loads(line) for line in zstandard.decompress(file.read_bytes()).decode().splitlines()]


def whole_lines(text: str) -> Iterator[dict[str, float]]:
    """Yield the lines of metrics.jsonl, null as NaN. Skip a line that is partial or damaged, or has no step."""
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int | float):
            values = {key: nan if value is None else value for key, value in row.items()}
            yield {key: value for key, value in values.items() if isinstance(value, int | float)}
