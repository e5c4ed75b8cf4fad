"""Runs that a tracker of another program is told of, and what TensorBoard's event files hold."""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.records.run_files import RunFiles
from orchestrator.records.trackers.external import FOLDER, external_tracker
from orchestrator.records.trackers.follow import Follower
from tests.support.run_files import WrittenRun


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


PNG = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(b"\0\0"))
    + chunk(b"IEND", b"")
)
"""A black dot."""


class Told:
    """A command that tells one tracker of a run, in this process: `with Told(run, "mlflow", after) as told`."""

    def __init__(self, run: WrittenRun, name: str, after: int = -1) -> None:
        files, folder = RunFiles(run.path), run.path / FOLDER
        folder.mkdir(exist_ok=True)
        self._run = run
        tracker = external_tracker(name, files)
        self._follower = Follower(files, tracker, folder / f"{name}.json", after)

    def log(self, *rows: Mapping[str, float]) -> None:
        self._run.log(*rows)
        self._follower.send()

    def send(self) -> None:
        self._follower.send()

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.close()


def events(folder: Path) -> list[Any]:
    """Return the events of a folder's files, oldest file first."""
    from tensorboardX.proto.event_pb2 import Event

    files = sorted(folder.glob("events.*"), key=lambda file: int(file.suffix[1:]))
    return [Event.FromString(record) for file in files for record in tf_records(file.read_bytes())]


def tf_records(content: bytes) -> Iterator[bytes]:
    """Yield TensorFlow's records: length, its checksum, the bytes, their checksum."""
    position = 0
    while position < len(content):
        (size,) = struct.unpack("<Q", content[position : position + 8])
        yield content[position + 12 : position + 12 + size]
        position += 12 + size + 4


def shown_by_tensorboard(found: Iterable[Any]) -> dict[str, list[tuple[int, Any]]]:
    """Return what TensorBoard shows of the events: a session that begins at a step removes that step and later ones."""
    shown: dict[str, list[tuple[int, Any]]] = {}
    for event in found:
        if event.HasField("session_log"):
            shown = {tag: [pair for pair in pairs if pair[0] < event.step] for tag, pairs in shown.items()}
        for value in event.summary.value:
            content = value.image if value.HasField("image") else value.tensor.string_val or value.simple_value
            shown.setdefault(value.tag, []).append((event.step, content))
    return shown


def state(run: WrittenRun, name: str) -> int:
    step: int = json.loads((run.path / FOLDER / f"{name}.json").read_text())["step"]
    return step
