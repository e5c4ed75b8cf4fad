"""The digests of a run's files, stored beside them, so that each file is read completely only for the first report."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.records.files.strict_json import to_json
from orchestrator.report.reading.digest import StepDigest, digest
from orchestrator.report.reading.record_stream import groups_of

logger = logging.getLogger(__name__)

KEPT = ".report-digests.jsonl"
"""File in the run directory with a line for each file that was read."""

Key = tuple[str, int, int]
"""A file's name in the run, its size and its time. A file that a resumed run wrote again has another key."""


def key_of(file: Path, stat: os.stat_result) -> Key:
    """Return a key that distinguishes a file of completions from earlier files with the same name."""
    return f"{file.parent.name}/{file.name}", stat.st_size, stat.st_mtime_ns


class KeptDigests:
    """Gives the digest of a file: the stored one, or a new one that is then stored."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._kept = read_kept(run / KEPT)

    def of(self, files: Mapping[int, Path]) -> dict[int, StepDigest]:
        """Return the digests of the files, by step, without files that were removed meanwhile."""
        digests: dict[int, StepDigest] = {}
        for step, file in files.items():
            try:
                digests[step] = self._digest(step, file)
            except FileNotFoundError:  # a resumed run repeats the step
                continue
        return digests

    def _digest(self, step: int, file: Path) -> StepDigest:
        key = key_of(file, file.stat())
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = digest(step, groups_of(file), file.parent.name == "rollouts")
            self._keep(key, kept)
        return kept

    def _keep(self, key: Key, made: StepDigest) -> None:
        try:
            with (self._run / KEPT).open("a") as file:
                file.write(to_json({"file": key, "digest": made.to_json()}) + "\n")
        except OSError as error:  # the next report reads the file again
            logger.info("%s: the counts cannot be written (%s)", self._run / KEPT, error.strerror)


def read_kept(file: Path) -> dict[Key, StepDigest]:
    """Return the stored digests, without partial lines and lines of another version."""
    digests: dict[Key, StepDigest] = {}
    if not file.is_file():
        return digests
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                value = json.loads(line)
                made = StepDigest.from_json(value["digest"])
                name, size, time = value["file"]
            except (ValueError, KeyError, TypeError):
                continue
            if made is not None:
                digests[(name, size, time)] = made
    return digests
