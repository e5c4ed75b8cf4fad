"""Fingerprints of a run's problems, pairs and models at its start. A resume reports what has changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.records.files.strict_json import to_json
from orchestrator.records.run_directory import RunDirectoryError
from rollout.problems.fingerprint import Fingerprint
from rollout.problems.listed import SplitRule
from rollout.prompts.entry_fingerprints import EntryFingerprint

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the fingerprints. Fingerprints of another version are not compared."""
SUMMARY = "fingerprints.json"
ROWS = "fingerprints.npz"
"""File with the hash of every row, which shows the rows that have changed."""
BASE, WARM_STARTED, TEACHER = "the base model", "the warm-started model", "the teacher"
"""Names of models. The reference is the teacher if there is one, else the warm-started model, else the base model."""
ALLOW = "checkpoint.allow_changes=true"


@dataclass
class Fingerprints:
    """Hashes of the data and models that a run starts with."""

    problems: dict[str, EntryFingerprint] = field(default_factory=dict)
    """By the key in the recipe, such as `prompts.gsm8k`."""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    """The hash of each file, by the model's name, such as `the base model`."""
    split: SplitRule = "by_key"

    def __or__(self, more: Fingerprints) -> Fingerprints:
        """Return the union of both, with the split of `more`."""
        return Fingerprints(self.problems | more.problems, self.models | more.models, more.split)

    def summary(self) -> dict[str, Any]:
        """Return counts and hashes, in the format that a checkpoint and the run directory store."""
        problems = {
            name: {"source": entry.source, **{part: self._summary(rows) for part, rows in parts(entry)}}
            for name, entry in self.problems.items()
        }
        return {"format": FORMAT, "split": self.split, "problems": problems, "models": self.models}

    def write(self, folder: Path) -> None:
        """Write the summary and the hash of every row into a run's directory."""
        arrays = {
            f"{name}:{part}:{kind}": array
            for name, entry in self.problems.items()
            for part, rows in parts(entry)
            for kind, array in (("keys", rows.keys), ("contents", rows.contents))
        }
        rows = BytesIO()
        np.savez(rows, allow_pickle=False, **arrays)
        write_atomically(folder / ROWS, rows.getvalue())
        write_atomically(folder / SUMMARY, to_json(self.summary(), indent=1) + "\n")

    def changes(self, before: Mapping[str, Any], folder: Path, *, only_keys: bool = False) -> list[str]:
        """Return a line for each change.

        Args:
            before: the earlier summary.
            folder: the run directory, which may have the hash of every row.
            only_keys: compare neither the questions, whose wording may differ, nor the reference answers.
        """
        if before.get("format") != FORMAT:
            return []
        problems = (
            line
            for name, entry in self.problems.items()
            if name in before["problems"]
            for line in self._entry_changes(name, entry, before["problems"][name], folder, only_keys)
        )
        models = (
            line
            for name, files in self.models.items()
            if before["models"].get(name)
            for line in model_changes(name, before["models"][name], files)
        )
        return [*problems, *models]

    def _summary(self, rows: Fingerprint) -> dict[str, Any]:
        return rows.summary(is_ordered=self.split == "by_position")

    def _entry_changes(
        self, name: str, entry: EntryFingerprint, before: Mapping[str, Any], folder: Path, only_keys: bool
    ) -> Iterator[str]:
        compared = ("count", "keys") if only_keys else ("count", "keys", "contents")
        for part, rows in parts(entry):
            then, now = before.get(part), self._summary(rows)
            if then is None or all(then[key] == now[key] for key in compared):
                continue
            earlier = self._earlier(folder, f"{name}:{part}", then)
            if part == "rows":
                what = "other rows" if earlier is None else rows.since(earlier) or "the same rows in another order"
                yield f"{name} ({entry.source}) had {then['count']:,} rows and has {now['count']:,}: {what}"
            else:
                if then["keys"] == now["keys"]:
                    others, differ = "some", "have another question or answer"
                else:
                    others = "some" if earlier is None else f"{rows.num_new_keys(earlier):,}"
                    differ = "were not held out before: the policy may have been trained on them"
                yield f"{name}: {others} of the {now['count']:,} held-out problems {differ}"

    def _earlier(self, folder: Path, name: str, then: Mapping[str, Any]) -> Fingerprint | None:
        """Return the hashes of the earlier rows; None if they are missing, or do not match the summary `then`."""
        try:
            with np.load(folder / ROWS, allow_pickle=False) as arrays:
                rows = Fingerprint(arrays[f"{name}:keys"], arrays[f"{name}:contents"])
        except (OSError, ValueError, KeyError, BadZipFile):
            return None
        return rows if self._summary(rows) == dict(then) else None


def parts(entry: EntryFingerprint) -> list[tuple[str, Fingerprint]]:
    """Return the fingerprints of an entry by name."""
    return [(name, rows) for name, rows in (("rows", entry.rows), ("held_out", entry.held_out)) if rows is not None]


def model_changes(name: str, before: Mapping[str, str], files: Mapping[str, str]) -> Iterator[str]:
    """Yield a line that names the differing files if a model has changed."""
    differ = [file for file in sorted({*before, *files}) if before.get(file) != files.get(file)]
    if differ == ["revision"]:
        yield f"{name} was commit {before.get('revision')} of the hub, now {files.get('revision')}"
    elif differ:
        yield f"{name} has changed: {', '.join(differ)}"


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of fingerprints in a run's directory; None if it is missing or cannot be read."""
    try:
        summary = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def check_changes(
    changes: list[str], what: str, *, is_allowed: bool, error: Callable[[str], Exception] = RunDirectoryError
) -> None:
    """Raise an error that lists the changes, or log a warning if the user allows them.

    Args:
        what: the beginning of the sentence, such as `the run 'one' would continue with other data`.
    """
    if not changes:
        return
    message = f"{what}:\n  " + "\n  ".join(changes)
    if not is_allowed:
        raise error(f"{message}\nRestore what it was, or add {ALLOW} to continue anyway")
    logger.warning("%s. Continuing because of %s", message, ALLOW)
