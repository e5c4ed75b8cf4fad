"""A chart as data: what it shows, in which unit, and what is healthy. The page draws it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from orchestrator.records.meanings.metric import MetricMeaning
from orchestrator.records.meanings.table import find_metric

Role = Literal["main", "second", "third", "muted", "right", "wrong", "run3", "run4"]
"""What a line is to the reader; the page gives each a colour and a dash. `run3`, `run4`: colours that no other has."""
Values = Sequence[float | None]
Places = Sequence[float | str]
"""Steps, or the names of bars."""
LINK = re.compile(r" ?\(\[[^]]*\]\([^)]*\)\)")
"""A reference to another page in brackets, which a report does not have."""


@dataclass(frozen=True, slots=True)
class Line:
    """A metric over the steps, or values that were computed for the report."""

    label: str
    key: str = ""
    """A metric of the run, or a mean that was counted of its completions (`figures.step_figures`), with an interval
    where one is known: as `<key>_ci95` in metrics, or as counted."""
    role: Role = "main"
    x: Places = ()
    y: Values = ()
    low: Values = ()
    """Lower ends of the intervals, where there are any."""
    high: Values = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the steps, or bars."""

    title: str
    unit: str
    lines: Sequence[Line]
    note: str = ""
    """A sentence: what is healthy, or how to read it."""
    kind: Literal["lines", "stack", "areas", "bars", "groups", "timeline"] = "lines"
    """`stack`: shares that add up to 1, as areas. `areas`, `bars`: added up. `groups`: bars side by side, with
    intervals. `timeline`: spans from `low` to `high` in the rows that `x` names."""
    rest: str = ""
    """Of a stack: what the shares leave, between its lines."""
    log: bool = False
    x_title: str = "step"

    def to_json(self) -> dict[str, Any]:
        return shown(self, ("unit", "x_title")) | {"lines": [shown(line) for line in self.lines]}


def shown(of: Chart | Line, always: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields that say something."""
    found = {each.name: getattr(of, each.name) for each in fields(of)}
    return {name: value for name, value in found.items() if value or name in always}


def metric_chart(title: str, keys: Collection[str], *lines: Line, note: str = "", log: bool = False) -> Chart | None:
    """Return a chart of those lines whose metrics the run has, described by the first; None where it has none."""
    shown = [line for line in lines if line.y or line.key in keys]
    if not shown:
        return None
    first = next((line.key for line in shown if line.key), "")
    return Chart(title, unit_of(first), shown, note or healthy(first), log=log)


def unit_of(key: str) -> str:
    """Return the unit of a metric, or of what was counted of completions or groups, as a reader says it."""
    if key.startswith("group/"):
        return "share"
    metric = documented(key)
    unit = metric.unit if metric else ""
    return {"0 to 1": "share", "0 or 1": ""}.get(unit, unit)


def healthy(key: str) -> str:
    """Return what the documentation of a metric says is healthy, and what to do otherwise, in plain text."""
    metric = documented(key)
    if metric is None:
        return ""
    sentences = (
        [f"Healthy: {metric.healthy}."] if metric.healthy else [f"{metric.meaning[:1].upper()}{metric.meaning[1:]}."]
    )
    if metric.otherwise:
        sentences.append(f"Otherwise: {metric.otherwise}." if metric.healthy else f"{metric.otherwise}.")
    return plain(" ".join(sentences)).replace("..", ".")


def healthy_each(lines: Iterable[Line]) -> str:
    """Return what the documentation says is healthy of each line, in one sentence; empty where it says nothing."""
    metrics = [(line.label, documented(line.key)) for line in lines]
    said = [f"{label} {metric.healthy}" for label, metric in metrics if metric is not None and metric.healthy]
    return plain(f"Healthy: {'; '.join(said)}.") if said else ""


def documented(key: str) -> MetricMeaning | None:
    """Return the documentation of a metric, also where it was counted of right or of wrong completions."""
    key = key.removeprefix("right/").removeprefix("wrong/")
    return find_metric(key) if key else None


def plain(text: str) -> str:
    """Return what stands in Markdown without its marks and links."""
    return LINK.sub("", text).replace("`", "")


def present(charts: Iterable[Chart | None]) -> list[dict[str, Any]]:
    return [chart.to_json() for chart in charts if chart is not None]
