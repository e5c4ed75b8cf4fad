"""Follow a growing metrics.jsonl, also when a resume has cut it and repeats its last steps."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from orchestrator.records.run_directory import whole_lines


class MetricsTail:
    """Reads the new lines of a metrics.jsonl. Reads all of the file only after a resume has replaced it."""

    def __init__(self, file: Path) -> None:
        self.rows: list[dict[str, float]] = []
        """The rows that the file has now, null as NaN."""
        self._file = file
        self._lines: list[bytes] = []
        self._read_to = 0

    def poll(self) -> list[dict[str, float]]:
        """Return the rows that are new since the last call: new steps, and repeated steps that differ."""
        try:
            with self._file.open("rb") as file:
                last = self._lines[-1] if self._lines else b""
                file.seek(self._read_to - len(last))
                if (added := file.read()).startswith(last):
                    return self._take(added[len(last) :])
                file.seek(0)
                content = file.read()
        except FileNotFoundError:
            return []
        pairs = zip(self._lines, content.splitlines(keepends=True), strict=False)
        num_kept = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        del self._lines[num_kept:], self.rows[num_kept:]
        self._read_to = sum(map(len, self._lines))
        return self._take(content[self._read_to :])

    def _take(self, content: bytes) -> list[dict[str, float]]:
        """Store and return the complete lines. A partial last line, still being written, is left to the next call."""
        whole = content[: content.rfind(b"\n") + 1]
        new = []
        for line in whole.splitlines(keepends=True):
            row = next(whole_lines(line.decode(errors="replace")), {})
            self._lines.append(line)
            self.rows.append(row)
            new.append(row)
        self._read_to += len(whole)
        return [row for row in new if row]
