"""Cache judgements on disk, by the content of the request. Several processes may share a folder."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


class JudgementCache:
    """A folder with a small file for each reply of a judge. It is safe to delete it at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, request: Any) -> str | None:
        """Return the reply to a request; None if it is not in the cache, or cannot be read."""
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(self._file(request).read_text("utf-8"))["said"])
        return None

    def put(self, request: Any, reply: str) -> None:
        """Store the reply to a request. Raises OSError if the disk refuses."""
        file = self._file(request)
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps({"said": reply}), "utf-8")
        aside.replace(file)

    def _file(self, request: Any) -> Path:
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.json"
