"""The interface of other programs' trackers, and helper functions for all of them."""

from __future__ import annotations

import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import zstandard

from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.base import RemoteAdvantages, Tracker
from rollout.types.completions import Group

FOLDER = "trackers"
"""Folder in a run's directory with their logs, and the progress of each."""
NUM_ROWS = 32
"""Rows of a table of completions: the first completion of the first prompts, the same prompts at each evaluation."""
LONGEST_TEXT = 10_000
"""Most characters that are sent of a question or a completion."""
COLUMNS = ("prompt", "completion", "reward", "correctness", "tokens", "finish_reason")


class ExternalTracker(Tracker, ABC):
    """A tracker that sends metrics to another program. It runs in its own process: see follow.py."""

    is_empty: bool
    """True if the program has no data of the run yet, or starts again."""

    def rewind(self, step: int) -> int | None:
        """Discard `step` and later steps, because the run repeats them.

        Return the first step that has to be sent again; None if the program cannot change what it has.
        """
        return None

    @abstractmethod
    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        """Send the metrics of a step."""

    @abstractmethod
    def log_completions(self, step: int, rows: Sequence[Sequence[Any]]) -> None:
        """Send an evaluation's completions, as rows of COLUMNS. Their texts are a model's, so do not trust them."""

    @abstractmethod
    def log_curve(self, step: int, file: Path) -> None:
        """Send the learning curve after that step, a PNG file."""

    @abstractmethod
    def log_report(self, file: Path) -> None:
        """Send the report, at the end."""


def external_tracker(name: str, run: RunFiles) -> ExternalTracker:
    """Start or resume the tracker that `tracking.to` names `name`, and return it."""
    module = import_module(f"orchestrator.records.trackers.{name}")
    tracker: ExternalTracker = getattr(module, f"{name.capitalize()}Tracker")(run)
    return tracker


def project(run: RunFiles) -> str:
    """Return the project, or experiment, that the run belongs to."""
    return str(run.config.get("tracking", {}).get("project", "rayzero"))


def kept_id(run: RunFiles, name: str, new: Callable[[], str]) -> tuple[str, bool]:
    """Return the run's id in a program, and whether it is new; `new` creates one.

    The id is stored in the run's directory, because a name does not identify a run: another machine may have a run
    with the same name, or the folder may have been removed.
    """
    file = run.path / FOLDER / f"{name}_id"
    if file.exists():
        return file.read_text().strip(), False
    created = new()
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, created + "\n")
    return created, True


def completion_rows(file: Path) -> list[list[Any]]:
    """Return the rows of COLUMNS for an evaluation, from its file in `held_out/`."""
    rows: dict[str, list[Any]] = {}
    for record in records_of(file):
        if record["prompt_id"] not in rows:
            correctness = record["parts"].get("correctness", {}).get("value")
            texts = [str(record[key])[:LONGEST_TEXT] for key in ("prompt", "completion")]
            tokens = record.get("num_tokens", len(record["token_ids"]))
            figures = [record["reward"], correctness, tokens, record["finish_reason"]]
            rows[record["prompt_id"]] = [*texts, *figures]
        if len(rows) == NUM_ROWS:
            break
    return list(rows.values())


def records_of(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as reader:
        for line in io.TextIOWrapper(reader, encoding="utf-8"):
            yield json.loads(line)


def as_code(text: str) -> str:
    """Return Markdown that shows a model's text unchanged: each line becomes a line of a code block."""
    return "".join(f"    {line}\n" for line in re.split(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", text))
