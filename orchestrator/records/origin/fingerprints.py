"""What a run was started from: its problems, pairs and models. A resume on others says what has changed."""

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
"""Version of the fingerprints. Those of another one are not compared."""
SUMMARY = "fingerprints.json"
ROWS = "fingerprints.npz"
"""The hash of every row, from which the rows that have changed are told."""
BASE, WARM_STARTED, TEACHER = "the base model", "the warm-started model", "the teacher"
"""Names of models. The reference is the teacher where there is one, else the warm-started model, else the base."""
ALLOW = "checkpoint.allow_changes=true"


@dataclass
class Fingerprints:
    """What a run is started from."""

    problems: dict[str, EntryFingerprint] = field(default_factory=dict)
    """By the key in the recipe, such as `prompts.gsm8k`."""
    models: dict[str, dict[str, str]] = field(default_factory=dict)
    """The hash of each file, by what the model is, such as `the base model`."""
    split: SplitRule = "by_key"

    def __or__(self, more: Fingerprints) -> Fingerprints:
        """Return both together; the split is that of `more`."""
        return Fingerprints(self.problems | more.problems, self.models | more.models, more.split)

    def summary(self) -> dict[str, Any]:
        """Return counts and hashes, as a checkpoint and the run directory keep them."""
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
        """Return a line for each thing that is not as it was.

        Args:
            before: the summary of then.
            folder: the run directory, where the hash of every row may be.
            only_keys: do not compare what is asked, which is worded in another way, nor the references.
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
        """Return the hashes of the rows of then; None where they are gone, or of another time."""
        try:
            with np.load(folder / ROWS, allow_pickle=False) as arrays:
                found = Fingerprint(arrays[f"{name}:keys"], arrays[f"{name}:contents"])
        except (OSError, ValueError, KeyError, BadZipFile):
            return None
        return found if self._summary(found) == dict(then) else None


def parts(entry: EntryFingerprint) -> list[tuple[str, Fingerprint]]:
    """Return the fingerprints of an entry by name."""
    return [(name, rows) for name, rows in (("rows", entry.rows), ("held_out", entry.held_out)) if rows is not None]


def model_changes(name: str, before: Mapping[str, str], files: Mapping[str, str]) -> Iterator[str]:
    """Yield a line where a model is another one; it names the files."""
    differ = [file for file in sorted({*before, *files}) if before.get(file) != files.get(file)]
    if differ == ["revision"]:
        yield f"{name} was commit {before.get('revision')} of the hub, now {files.get('revision')}"
    elif differ:
        yield f"{name} is another one: {', '.join(differ)}"


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprints of a run's directory; None where there are none that can be read."""
    try:
        found = json.loads((folder / SUMMARY).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def settle(
    changes: list[str], what: str, *, is_allowed: bool, error: Callable[[str], Exception] = RunDirectoryError
) -> None:
    """Raise an error that says what has changed, or warn of it where the user allows it.

    Args:
        what: the beginning of the sentence, such as `the run 'one' goes on from other data or models`.
    """
    if not changes:
        return
    said = f"{what}:\n  " + "\n  ".join(changes)
    if not is_allowed:
        raise error(f"{said}\nRestore what it was, or add {ALLOW} to continue anyway")
    logger.warning("%s. %s says to go on", said, ALLOW)
