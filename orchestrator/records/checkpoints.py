"""Checkpoints of a whole run: written aside, sealed with a manifest, renamed. A torn one is never loaded."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from learner.backend.file_digests import file_digest
from orchestrator.records.files.atomic_file import write_atomically

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FORMAT = 2
"""Version of what the manifest tells; one that names no version is of the first, which is read in the same way."""
CHECKPOINT_NAME = re.compile(r"step_[0-9]{6,}")
VISIBLE_S = 60.0
"""Seconds within which a file that another node wrote must be seen here."""


class Saveable(Protocol):
    """The learner, as far as checkpoints know it."""

    def save(self, folder: Path) -> Mapping[str, str]:
        """Write the state to `folder`, and return the digest of each file by its path within."""
        ...


class CheckpointError(RuntimeError):
    """No checkpoint can be loaded, or one cannot be written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed checkpoint."""

    step: int
    folder: Path
    prompts: Mapping[str, Any]
    """The prompt stream's state."""
    fingerprints: Mapping[str, Any] = field(default_factory=dict)
    """Of what the run was started from; empty in one of an earlier version."""

    @property
    def learner_folder(self) -> Path:
        return self.folder / "learner"


class Checkpoints:
    """The checkpoints of one run, oldest removed first."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self.fingerprints: Mapping[str, Any] = {}
        """What each checkpoint that is saved tells of what the run was started from."""
        self._damage_read: dict[Path, str | None] = {}
        """The damage of each checkpoint whose files were read; None where they are what was saved."""

    def save(
        self, step: int, learner: Saveable, prompts: Mapping[str, Any], flush: Callable[[], None] = lambda: None
    ) -> None:
        """Save after `step`. Older checkpoints stay as they are until this one is whole.

        It is sealed only once `flush` has returned, which waits for all else that was written until this step.

        Raises CheckpointError when the disk refuses, or the learner's files cannot be seen from here; what the learner
        or `flush` raises is raised as it is, such as NonFiniteError for weights that are not finite.
        """
        final = self._path(step)
        aside = final.with_name(final.name + ".tmp")
        try:
            for torn in self._folder.glob("step_*.tmp"):
                if CHECKPOINT_NAME.fullmatch(torn.stem):  # else a person's
                    shutil.rmtree(torn, ignore_errors=True)
            aside.mkdir(parents=True)
            digests = {f"learner/{name}": digest for name, digest in learner.save(aside / "learner").items()}
            await_files(aside, digests)
            flush()
            state = {"format": FORMAT, "step": step, "prompts": dict(prompts), "fingerprints": self.fingerprints}
            seal(aside, state, digests)
            shutil.rmtree(final, ignore_errors=True)  # an unsealed or damaged one of a run before the resume
            self._damage_read.pop(final, None)
            aside.rename(final)
            sync(self._folder)
        except OSError as error:
            raise CheckpointError(
                f"cannot write the checkpoint of step {step} to {final}: {error.strerror or error}. Earlier ones are "
                "untouched: free space there and start the same command again to resume"
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        # Later ones were passed over by the resume, as damaged: they are none of those that are kept.
        until_now = [folder for folder in self._all() if step_of(folder) <= step and was_saved_as(folder)]
        for old in until_now[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint that has all its files, by their sizes; None when there is none.

        This reads manifests only: load what `verify_latest` returns.

        Raises CheckpointError when there are some but every one is damaged.
        """
        return self._newest(self._damage_seen)

    def verify_latest(self) -> Checkpoint | None:
        """Return the newest checkpoint whose files are what was saved, by their digests; None when there is none.

        A checkpoint is read once, however often this is called. `latest` passes over what it finds damaged, too.

        Raises CheckpointError when there are some but every one is damaged.
        """

        def read(folder: Path) -> str | None:
            if folder not in self._damage_read:
                self._damage_read[folder] = damage_of(folder, file_digest)
            return self._damage_read[folder]

        return self._newest(read)

    def _damage_seen(self, folder: Path) -> str | None:
        return self._damage_read.get(folder) or damage_of(folder, lambda path: f"{path.stat().st_size}:")

    def _newest(self, damage_in: Callable[[Path], str | None]) -> Checkpoint | None:
        found = self._all()
        for folder in reversed(found):
            damage = damage_in(folder)
            if damage is None:
                return open_sealed(folder)
            logger.warning("checkpoint %s is damaged (%s) and left aside; trying the one before it", folder, damage)
        if found:
            raise CheckpointError(
                f"every checkpoint in {self._folder} is damaged ({damage_in(found[-1])}): restore one from a backup, "
                "or remove that folder to start the run from its beginning"
            )
        return None

    def _all(self) -> list[Path]:
        """Return the checkpoints, oldest first. Folders of other names, such as a person's copies, are none."""
        found = [path for path in self._folder.glob("step_*") if CHECKPOINT_NAME.fullmatch(path.name)]
        return sorted((path for path in found if path.is_dir() and not path.is_symlink()), key=step_of)

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:06d}"


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint, by its folder's name."""
    return int(folder.name.removeprefix("step_"))


def await_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Return when the learner's files are here; those of another node may come late on a network's file system.

    Raises CheckpointError when they do not come: sealed without them the checkpoint would be found empty by a resume.
    """
    deadline = time.monotonic() + VISIBLE_S
    while absent := [name for name in digests if not (folder / name).is_file()]:
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"the learner has saved its state, and {folder} does not hold {absent[0]} here: it was written on "
                "another node. Set runs_dir to a folder that all nodes share"
            )
        time.sleep(0.2)


def seal(folder: Path, state: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Write the manifest: what the folder must hold, by size and SHA-256. Everything is on the disk afterwards."""
    for name in digests:
        sync(folder / name)
    write_atomically(folder / MANIFEST, json.dumps({"state": state, "files": dict(sorted(digests.items()))}, indent=1))


def open_sealed(folder: Path) -> Checkpoint:
    """Return the checkpoint that a whole manifest tells of. Raises CheckpointError when a later version wrote it."""
    state = json.loads((folder / MANIFEST).read_text())["state"]
    if state.get("format", 1) > FORMAT:
        raise CheckpointError(
            f"the checkpoint {folder} was saved by a newer Rayzero (format {state['format']}; this one reads up to "
            f"{FORMAT}): resume the run with that version"
        )
    return Checkpoint(state["step"], folder, state["prompts"], state.get("fingerprints", {}))


def damage_of(folder: Path, digest_of: Callable[[Path], str]) -> str | None:
    """Return what is wrong with a checkpoint; None when it is whole.

    `digest_of` gives a file's digest, or as much of its beginning as is to be compared.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        step, files = manifest["state"]["step"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read: {error}"
    if step != step_of(folder):
        return f"it is a copy of that of step {step}, under another name"
    for name, expected in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if not expected.startswith(digest_of(folder / name)):
            return f"{name} does not match its checksum"
    return None


def was_saved_as(folder: Path) -> bool:
    """Return whether the run saved this folder under this name; a person's has no manifest, or that of another step."""
    try:
        return bool(json.loads((folder / MANIFEST).read_text())["state"]["step"] == step_of(folder))
    except OSError:
        return False
    except (ValueError, KeyError, TypeError):  # torn, or of a bad disk
        return True


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
