"""Read what W&B keeps of a run, in its own messages: a log in LevelDB's format of records of protobuf."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK_BYTES = 32768
HEADER_BYTES = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbFile:
    """What one command has told W&B."""

    run_id: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """As logged, with W&B's own `_step`."""
    step_metrics: dict[str, str] = field(default_factory=dict)
    """The x axis of each defined metric or glob."""
    folder: Path = Path()
    artifacts: dict[str, list[str]] = field(default_factory=dict)
    """The files of each artifact."""
    settings: dict[str, Any] = field(default_factory=dict)
    has_ended: bool = False


def read_wandb(folder: Path, num_files: int = 1) -> list[WandbFile]:
    """Return what is in a run directory's offline files, oldest first, once W&B has written so many to their ends."""
    deadline = time.monotonic() + 30
    while True:
        files = [_parsed(file) for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=_began)]
        if len([file for file in files if file.has_ended]) == num_files:
            return files
        assert time.monotonic() < deadline, files
        time.sleep(0.05)


def _began(file: Path) -> float:
    return file.stat().st_mtime  # the name tells seconds only


def _parsed(file: Path) -> WandbFile:
    found = WandbFile(folder=file.parent)
    for content in _records(file.read_bytes()):
        record = Record.FromString(content)
        match record.WhichOneof("record_type"):
            case "run":
                found.run_id = record.run.run_id
                found.settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            case "artifact":
                found.artifacts[record.artifact.name] = [entry.path for entry in record.artifact.manifest.contents]
            case "history":
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                found.rows.append(row)
            case "exit":
                found.has_ended = True
            case "metric":
                found.step_metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    return found


def _records(data: bytes) -> Iterator[bytes]:
    position, parts = HEADER_BYTES, []  # W&B's own header comes first
    while position + HEADER_BYTES <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < HEADER_BYTES:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + HEADER_BYTES])
        parts.append(data[position + HEADER_BYTES : position + HEADER_BYTES + size])
        position += HEADER_BYTES + size
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
