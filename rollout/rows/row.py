"""A row of a file or a data set, with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Row = Mapping[str, Any]
"""The columns of a row by their names, as JSON holds them, or as Parquet's own types."""


class RowError(ValueError):
    """A row that cannot be used; the message names the source, the row, what is wrong and what to do."""


class LocatedRow(NamedTuple):
    """A row, or why it cannot be read. Other rows of the source may still be good."""

    where: str
    """Source and place, for errors: `rows.jsonl, line 3` as editors count, or `rows.parquet, row 2`, counted from 0."""
    found: Row | RowError

    @property
    def row(self) -> Row:
        """The row. Raises its RowError when it cannot be read."""
        if isinstance(self.found, RowError):
            raise self.found
        return self.found
