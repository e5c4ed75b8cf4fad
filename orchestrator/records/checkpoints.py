"""Checkpoints of a run: written to a temporary folder, sealed with a manifest, renamed. Never load a partial one."""

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
FORMAT = 3
"""Version of the manifest's content. A manifest without a version has the first one. All are read in the same way, but
for prompts in flight, which batches.py reads."""
CHECKPOINT_NAME = re.compile(r"step_[0-9]{6,}")
VISIBLE_S = 60.0
"""Seconds within which a file that another node wrote must be visible on this node."""


class Saveable(Protocol):
    """The learner's interface for checkpoints."""

    def save(self, folder: Path) -> Mapping[str, str]:
        """Write the state to `folder`, and return the digest of each file by its path in the folder."""
        ...


class CheckpointError(RuntimeError):
    """No checkpoint can be loaded, or a checkpoint cannot be written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed checkpoint."""

    step: int
    folder: Path
    prompts: Mapping[str, Any]
    """The prompt stream's state."""
    fingerprints: Mapping[str, Any] = field(default_factory=dict)
    """Fingerprints of the data and models at the start of the run; empty in checkpoints of earlier versions."""

    @property
    def learner_folder(self) -> Path:
        return self.folder / "learner"


class Checkpoints:
    """The last `keep` checkpoints of one run; older ones are removed."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self.fingerprints: Mapping[str, Any] = {}
        """Fingerprints of the data and models at the start of the run, stored in each new checkpoint."""
        self._damage_read: dict[Path, str | None] = {}
        """The damage of each checkpoint whose files were read; None if there is no damage."""

    def save(
        self, step: int, learner: Saveable, prompts: Mapping[str, Any], flush: Callable[[], None] = lambda: None
    ) -> None:
        """Save the state after `step`. Older checkpoints stay unchanged until this one is complete.

        It is sealed only after `flush` has returned, which waits until the run's other files up to this step are
        written.

        Raises CheckpointError if the disk refuses, or the learner's files are not visible on this node. Errors of the
        learner or `flush` pass through, such as NonFiniteError for weights that are not finite.
        """
        final = self._path(step)
        aside = final.with_name(final.name + ".tmp")
        try:
            for torn in self._folder.glob("step_*.tmp"):
                if CHECKPOINT_NAME.fullmatch(torn.stem):  # other names are a person's own folders
                    shutil.rmtree(torn, ignore_errors=True)
            aside.mkdir(parents=True)
            digests = {f"learner/{name}": digest for name, digest in learner.save(aside / "learner").items()}
            await_files(aside, digests)
            flush()
            state = {"format": FORMAT, "step": step, "prompts": dict(prompts), "fingerprints": self.fingerprints}
            seal(aside, state, digests)
            shutil.rmtree(final, ignore_errors=True)  # an unsealed or damaged checkpoint from before the resume
            self._damage_read.pop(final, None)
            aside.rename(final)
            sync(self._folder)
        except OSError as error:
            raise CheckpointError(
                f"cannot write the checkpoint of step {step} to {final}: {error.strerror or error}. Earlier "
                "checkpoints are unchanged: free space there and start the same command again to resume"
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        # The resume skipped later checkpoints because they are damaged, so they do not count among the kept ones.
        until_now = [folder for folder in self._all() if step_of(folder) <= step and was_saved_as(folder)]
        for old in until_now[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint whose files all exist with the right size; None if there is no checkpoint.

        This reads manifests only: load what `verify_latest` returns.

        Raises CheckpointError if checkpoints exist but all are damaged.
        """
        return self._newest(self._damage_seen)

    def verify_latest(self) -> Checkpoint | None:
        """Return the newest checkpoint whose files have the saved digests; None if there is no checkpoint.

        Each checkpoint is read once, even if this is called often. Afterwards `latest` also skips the checkpoints that
        this found damaged.

        Raises CheckpointError if checkpoints exist but all are damaged.
        """

        def read(folder: Path) -> str | None:
            if folder not in self._damage_read:
                self._damage_read[folder] = damage_of(folder, file_digest)
            return self._damage_read[folder]

        return self._newest(read)

    def _damage_seen(self, folder: Path) -> str | None:
        return self._damage_read.get(folder) or damage_of(folder, lambda path: f"{path.stat().st_size}:")

    def _newest(self, damage_in: Callable[[Path], str | None]) -> Checkpoint | None:
        folders = self._all()
        for folder in reversed(folders):
            damage = damage_in(folder)
            if damage is None:
                return open_sealed(folder)
            logger.warning("checkpoint %s is damaged (%s) and skipped; trying the one before it", folder, damage)
        if folders:
            raise CheckpointError(
                f"every checkpoint in {self._folder} is damaged ({damage_in(folders[-1])}): restore one from a backup, "
                "or remove that folder to start the run from its beginning"
            )
        return None

    def _all(self) -> list[Path]:
        """Return the checkpoints' folders, oldest first, without folders of other names, such as a person's copies."""
        named = [path for path in self._folder.glob("step_*") if CHECKPOINT_NAME.fullmatch(path.name)]
        return sorted((path for path in named if path.is_dir() and not path.is_symlink()), key=step_of)

    def _path(self, step: int) -> Path:
        return self._folder / f"step_{step:06d}"


def step_of(folder: Path) -> int:
    """Return the step in the name of a checkpoint's folder."""
    return int(folder.name.removeprefix("step_"))


def await_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Wait until the learner's files are visible: on a network file system, files of another node may appear late.

    Raises CheckpointError if they do not appear: a resume could not load a checkpoint without them.
    """
    deadline = time.monotonic() + VISIBLE_S
    while absent := [name for name in digests if not (folder / name).is_file()]:
        if time.monotonic() > deadline:
            raise CheckpointError(
                f"the learner has saved its state, but on this node {folder} does not contain {absent[0]}: it was "
                "written on another node. Set runs_dir to a folder that all nodes share"
            )
        time.sleep(0.2)


def seal(folder: Path, state: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Write the manifest, with the size and SHA-256 of each file. Everything is on the disk when this returns."""
    for name in digests:
        sync(folder / name)
    write_atomically(folder / MANIFEST, json.dumps({"state": state, "files": dict(sorted(digests.items()))}, indent=1))


def open_sealed(folder: Path) -> Checkpoint:
    """Return the checkpoint in a folder with a complete manifest. Raises CheckpointError if its version is too new."""
    state = json.loads((folder / MANIFEST).read_text())["state"]
    if state.get("format", 1) > FORMAT:
        raise CheckpointError(
            f"the checkpoint {folder} was saved by a newer Rayzero (format {state['format']}; this one reads up to "
            f"{FORMAT}): resume the run with that version"
        )
    return Checkpoint(state["step"], folder, state["prompts"], state.get("fingerprints", {}))


def damage_of(folder: Path, digest_of: Callable[[Path], str]) -> str | None:
    """Return what is wrong with a checkpoint; None if it is undamaged.

    `digest_of` returns a file's digest, or the first part of it; only that part is compared.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        step, files = manifest["state"]["step"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read: {error}"
    if step != step_of(folder):
        return f"it is a copy of the checkpoint of step {step}, under another name"
    for name, expected in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if not expected.startswith(digest_of(folder / name)):
            return f"{name} does not match its checksum"
    return None


def was_saved_as(folder: Path) -> bool:
    """Return whether the run saved this folder under this name.

    A folder that a person made has no manifest, or the manifest of another step.
    """
    try:
        return bool(json.loads((folder / MANIFEST).read_text())["state"]["step"] == step_of(folder))
    except OSError:
        return False
    except (ValueError, KeyError, TypeError):  # a partial manifest, or a bad disk
        return True


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
