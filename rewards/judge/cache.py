"""Judgements on disk, by the content of what was asked. Several processes may share a folder."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


class JudgementCache:
    """A folder with a small file for each judgement: what the judge said. Safe to delete at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, asked: Any) -> str | None:
        """Return what was said; None where it was not asked before, or cannot be read."""
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads(self._file(asked).read_text("utf-8"))["said"])
        return None

    def put(self, asked: Any, said: str) -> None:
        """Keep what was said. Raises OSError when the disk refuses."""
        file = self._file(asked)
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps({"said": said}), "utf-8")
        aside.replace(file)

    def _file(self, asked: Any) -> Path:
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.json"
