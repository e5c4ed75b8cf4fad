"""Trackers of other programs: what each has to offer, and what all of them need."""

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

PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboardX", "trackio": "trackio", "mlflow": "mlflow"}
"""What has to be installed, by the name in `tracking.to`, which is also that of the extra in pyproject.toml."""
FOLDER = "trackers"
"""Where a run's directory keeps their logs, and how far each has got."""
NUM_ROWS = 32
"""Rows of a table of completions: the first completion of the first prompts, the same ones at each evaluation."""
LONGEST_TEXT = 10_000
"""Characters of a question or a completion."""
COLUMNS = ("prompt", "completion", "reward", "correctness", "tokens", "finish_reason")


class ExternalTracker(Tracker, ABC):
    """A tracker whose figures another program keeps. It runs in a process of its own: see follow.py."""

    is_empty: bool
    """True if the tracker has nothing of the run yet, or starts again."""

    def rewind(self, step: int) -> int | None:
        """Forget that step and later ones, which are done again.

        Return the step from which on all is told again; None where what is kept cannot be changed: it stays as it is.
        """
        return None

    @abstractmethod
    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        """Take the metrics of a step."""

    @abstractmethod
    def log_completions(self, step: int, rows: Sequence[Sequence[Any]]) -> None:
        """Take rows of COLUMNS: completions of an evaluation. Their texts are a model's."""

    @abstractmethod
    def log_curve(self, step: int, file: Path) -> None:
        """Take the curve as it is after that step, a PNG."""

    @abstractmethod
    def log_report(self, file: Path) -> None:
        """Take the report, at the end."""


def external_tracker(name: str, run: RunFiles) -> ExternalTracker:
    """Return the tracker with that name in `tracking.to`, started or resumed for the run."""
    module = import_module(f"orchestrator.records.trackers.{name}")
    tracker: ExternalTracker = getattr(module, f"{name.capitalize()}Tracker")(run)
    return tracker


def project(run: RunFiles) -> str:
    """Return the project, or experiment, that the run belongs to."""
    return str(run.config.get("tracking", {}).get("project", "rayzero"))


def kept_id(run: RunFiles, name: str, new: Callable[[], str]) -> tuple[str, bool]:
    """Return the id that a run goes by in a program, and whether it is new.

    The run's directory keeps it, for another run of that name, of another machine or in a folder that was removed, is
    another run.
    """
    file = run.path / FOLDER / f"{name}_id"
    if file.exists():
        return file.read_text().strip(), False
    found = new()
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, found + "\n")
    return found, True


def completion_rows(file: Path) -> list[list[Any]]:
    """Return a table of an evaluation's completions, from its file in `held_out/`."""
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
