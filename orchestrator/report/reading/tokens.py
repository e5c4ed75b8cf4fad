"""Split a completion into the texts of its tokens, with the run's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.report.reading.recorded_run import RecordedRun

MAX_TOKENS = 4_096
"""Most tokens of a completion that are shown one by one."""
FILE = "tokenizer.json"


class TokenTexts:
    """Splits completions into the texts of their tokens."""

    def __init__(self, tokenizer: Any = None, files: Sequence[Path] = ()) -> None:
        """Use `tokenizer`, or else the first readable tokenizer in `files`; without any, show the tokens' numbers.

        Files are read when the first completion is split.
        """
        self._tokenizer, self._files = tokenizer, files

    @property
    def made_by(self) -> list[list[int]]:
        """Return size and time of each file, which identify the tokenizer."""
        return [[stat.st_size, stat.st_mtime_ns] for stat in (file.stat() for file in self._files)]

    def of(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text of each token. If several tokens form one character, the last of them has its text."""
        if self._tokenizer is None:
            self._tokenizer, self._files = read_tokenizer(self._files), ()
        if self._tokenizer is None:
            return [f"⟨{number}⟩" for number in token_ids[:MAX_TOKENS]]
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=False)
        return [stream.step(self._tokenizer, number) or "" for number in token_ids[:MAX_TOKENS]]


def keep_tokenizer(tokenizer: Any, run: Path) -> None:
    """Save the tokenizer in a run's directory, because the model may be elsewhere, or not exported yet.

    Raises OSError if the disk refuses.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and not (run / FILE).exists():
        write_atomically(run / FILE, backend.to_str())


def token_texts(run: RecordedRun) -> TokenTexts:
    """Return the object that splits a run's completions, with the first readable tokenizer."""
    model = run.setting("model.path")
    folders = [run.path, run.path / "final", *([Path(model)] if isinstance(model, str) else [])]
    return TokenTexts(files=[file for folder in folders if (file := folder / FILE).is_file()])


def read_tokenizer(files: Sequence[Path]) -> Any:
    from tokenizers import Tokenizer

    for file in files:
        try:
            return Tokenizer.from_file(str(file))
        except Exception:  # noqa: BLE001  the library raises plain Exception for a file that it cannot read
            continue
    return None
