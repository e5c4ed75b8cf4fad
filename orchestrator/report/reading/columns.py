"""The metrics of all steps as the page gets them: texts, which take a fraction of the time and room of lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

from orchestrator.report.reading.digest import StepDigest

DIGITS = "%.6g"
"""A metric has six significant digits."""


@dataclass(slots=True)
class StepTable:
    """The values of each step, as `0.25,nan,3`, with the keys that they belong to. Most steps have the same keys."""

    keys: list[Sequence[str]] = field(default_factory=list)
    rows: list[tuple[int, int, str]] = field(default_factory=list)
    """Each step, which keys it has, and their values. A key may have several values: the page knows how many."""
    _places: dict[Any, int] = field(default_factory=dict)

    def add(self, step: int, name: Any, keys: Sequence[str], values: str) -> None:
        """Add a step; `name` tells its keys from others."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = len(self.keys)
            self.keys.append(keys)
        self.rows.append((step, place, values))

    def all_keys(self) -> Collection[str]:
        return dict.fromkeys(key for keys in self.keys for key in keys)

    def to_json(self) -> dict[str, Any]:
        return {"keys": self.keys, "rows": self.rows}


def metrics_table(rows: Iterable[Mapping[str, float]]) -> StepTable:
    """Return the metrics of the rows of metrics.jsonl, `nan` for what is none."""
    table, formats = StepTable(), dict[int, str]()
    for row in rows:
        form = formats.setdefault(len(row), ",".join([DIGITS] * len(row)))
        keys = tuple(row)
        try:
            values = form % tuple(row.values())
        except TypeError:  # a line that this project did not write
            values = form % tuple(value if isinstance(value, int | float) else nan for value in row.values())
        table.add(int(row["step"]), keys, keys, values)
    return table


def counted_table(*found: Mapping[int, StepDigest]) -> StepTable:
    """Return the means that were counted of each step's completions: three values a key, see `figures.step_figures`.

    `found`: training completions, and held-out ones, by step.
    """
    table = StepTable()
    for step, each in (pair for digests in found for pair in digests.items()):
        if any(each.estimates):
            keys, values = each.estimates
            table.add(step, keys, keys.split("\n"), values)
    return table
