"""Digests of files: ``size:sha256``, computed while a file is written, or by reading it. Standard library only."""

from __future__ import annotations

import hashlib
from pathlib import Path

Digests = dict[str, str]
"""Digest of each file, by its path relative to a folder."""


def file_digest(path: Path) -> str:
    """Read a file and return its digest."""
    with path.open("rb") as file:
        return f"{path.stat().st_size}:{hashlib.file_digest(file, 'sha256').hexdigest()}"


class DigestingFile:
    """A file that is hashed while it is written from beginning to end."""

    def __init__(self, path: Path) -> None:
        # Not buffered, so that the writer gets errors of the disk at once.
        self._file = path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self.refusal: OSError | None = None
        """The error of the disk, which the caller of `write` may hide behind another exception."""

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        left = memoryview(data).cast("B")
        try:
            while left.nbytes:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.refusal = error
            raise
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Do nothing: all data has already been passed to the system."""

    def close(self) -> str:
        """Close the file and return its digest."""
        size = self._file.tell()
        self._file.close()
        return f"{size}:{self._hash.hexdigest()}"
