"""Checkpoints of a whole run: written aside, sealed with a manifest, renamed. A torn one is never loaded."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.records.run_directory import write_atomically

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
VISIBLE_S = 60.0
"""Seconds after which a file that another node wrote is to be seen here."""


class Saveable(Protocol):
    """The learner, as far as checkpoints know it."""

    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


class CheckpointError(RuntimeError):
    """No checkpoint can be loaded, or one cannot be written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed checkpoint."""

    step: int
    folder: Path
    prompts: Mapping[str, Any]
    """The prompt stream's state."""

    @property
    def learner_folder(self) -> Path:
        return self.folder / "learner"


class Checkpoints:
    """The checkpoints of one run, oldest removed first."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, step: int, learner: Saveable, prompts: Mapping[str, Any]) -> None:
        """Save after `step`. Raises CheckpointError when the disk refuses; older checkpoints stay as they are."""
        final = self._path(step)
        aside = final.with_name(final.name + ".tmp")
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            learner.save(aside / "learner")
            await_files(aside / "learner")
            seal(aside, {"step": step, "prompts": dict(prompts)})
            shutil.rmtree(final, ignore_errors=True)  # an unsealed or damaged one of a run before the resume
            aside.rename(final)
            sync(self._folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f"cannot write the checkpoint of step {step} to {final}: {error.strerror or error}. Earlier ones are "
                "untouched: free space there and start the same command again to resume"
            ) from error
        # Later ones were passed over by the resume, as damaged: they are none of those that are kept.
        for old in [folder for folder in self._all() if folder.name <= final.name][: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None when there is none at all.

        Raises CheckpointError when there are some but every one is damaged.
        """
        found = self._all()
        for folder in reversed(found):
            damage = damage_of(folder)
            if damage is None:
                state = json.loads((folder / MANIFEST).read_text())["state"]
                return Checkpoint(state["step"], folder, state["prompts"])
            logger.warning("checkpoint %s is damaged (%s) and left aside; trying the one before it", folder, damage)
        if found:
            raise CheckpointError(
                f"every checkpoint in {self._folder} is damaged ({damage_of(found[-1])}): restore one from a backup, or "
                "remove that folder to start the run from its beginning"
            )
        return None

    def _all(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("step_*") if path.suffix != ".tmp")

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:06d}"


def await_files(folder: Path) -> None:
    """Returns when the learner's files are here; those of another node may come late on a network's file system.

    Raises CheckpointError when they do not come: sealed without them the checkpoint would be found empty by a resume.
    """
    deadline = time.monotonic() + VISIBLE_S
    while not any(path.is_file() for path in folder.rglob("*")):
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"the learner has saved its state, and {folder} holds nothing here: it wrote on another node. "
                "Set runs_dir to a folder that all nodes share"
            )
        time.sleep(0.2)


def seal(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the manifest: what the folder must hold, by size and SHA-256. Everything is on the disk afterwards."""
    files = {str(path.relative_to(folder)): fingerprint(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in files:
        sync(folder / name)
    write_atomically(folder / MANIFEST, json.dumps({"state": state, "files": files}, indent=1))


def damage_of(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None when it is whole."""
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read: {error}"
    for name, expected in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if fingerprint(folder / name) != expected:
            return f"{name} does not match its checksum"
    return None


def fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.stat().st_size}:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
