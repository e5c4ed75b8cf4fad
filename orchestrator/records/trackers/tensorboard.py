"""TensorBoard: event files in the run's directory, written by tensorboardX, which needs no TensorFlow."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.base import RemoteAdvantages
from orchestrator.records.trackers.external import COLUMNS, ExternalTracker, as_code
from rollout.types.completions import Group

FOLDER = "tensorboard"


@contextmanager
def without_torch() -> Iterator[None]:
    """Hide torch: tensorboardX imports it if it is installed, which would cost seconds and 150 MiB for nothing."""
    is_hidden = "torch" not in sys.modules
    if is_hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules["torch"]


class TensorboardTracker(ExternalTracker):
    """Writes event files. TensorBoard reads all of a folder: `tensorboard --logdir runs` shows every run by its name.

    A file may say that the run repeats steps of earlier files: TensorBoard then shows only the new ones. It stores no
    artifacts, so the report is logged as its path.
    """

    def __init__(self, run: RunFiles) -> None:
        """Start a new file beside the files of earlier commands."""
        self._folder = run.path / FOLDER
        self.is_empty = not [*self._folder.glob("events.*")]
        self._step = 0
        self._begin(None)
        if self.is_empty:
            self._text("settings", as_code(json.dumps(run.config, indent=1)))

    def rewind(self, step: int) -> int:
        self.close()
        self._begin(step)
        return step

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        self._step = step
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def log_completions(self, step: int, rows: Sequence[Sequence[Any]]) -> None:
        for index, (prompt, completion, *figures) in enumerate(rows):
            header = ", ".join(f"{name} {value}" for name, value in zip(COLUMNS[2:], figures, strict=True))
            text = f"{header}\n\n{as_code(prompt)}\nCompletion:\n\n{as_code(completion)}"
            self._writer.add_text(f"held_out/{index:02}", text, step)

    def log_curve(self, step: int, file: Path) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        # The writer's own call would decode the PNG and encode it again.
        image = Summary.Image(encoded_image_string=file.read_bytes())
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag="curve", image=image)]), step)

    def log_report(self, file: Path) -> None:
        self._text("report", as_code(str(file)))

    def close(self) -> None:
        self._writer.close()

    def _begin(self, purge_step: int | None) -> None:
        with without_torch():
            from tensorboardX import SummaryWriter

        # tensorboardX puts only the time in seconds into the name, and two files may start within one second.
        suffix = f".{len([*self._folder.glob('events.*')])}"
        self._writer = SummaryWriter(str(self._folder), purge_step=purge_step, filename_suffix=suffix)

    def _text(self, tag: str, text: str) -> None:
        self._writer.add_text(tag, text, self._step)
