"""The metrics of all steps for the page, as texts, which take a fraction of the time and space of lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

from orchestrator.report.reading.digest import StepDigest

DIGITS = "%.6g"
"""Metrics have six significant digits."""


@dataclass(slots=True)
class StepTable:
    """The values of each step, such as `0.25,nan,3`, and their keys. Most steps have the same keys."""

    keys: list[Sequence[str]] = field(default_factory=list)
    rows: list[tuple[int, int, str]] = field(default_factory=list)
    """For each step: the step, the index of its keys in `keys`, and the values. A key may have several values; the page
    knows how many."""
    _places: dict[Any, int] = field(default_factory=dict)

    def add(self, step: int, name: Any, keys: Sequence[str], values: str) -> None:
        """Add a step; `name` identifies its set of keys."""
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
    """Return the metrics of the rows of metrics.jsonl, with `nan` for a value that is not a number."""
    table, formats = StepTable(), dict[int, str]()
    for row in rows:
        form = formats.setdefault(len(row), ",".join([DIGITS] * len(row)))
        keys = tuple(row)
        try:
            values = form % tuple(row.values())
        except TypeError:  # another program wrote this line
            values = form % tuple(value if isinstance(value, int | float) else nan for value in row.values())
        table.add(int(row["step"]), keys, keys, values)
    return table


def counted_table(*found: Mapping[int, StepDigest]) -> StepTable:
    """Return the means over each step's completions, three values for each key (see `figures.step_figures`).

    `found` are the digests of training completions, and of held-out completions, by step.
    """
    table = StepTable()
    for step, each in (pair for digests in found for pair in digests.items()):
        if any(each.estimates):
            keys, values = each.estimates
            table.add(step, keys, keys.split("\n"), values)
    return table
