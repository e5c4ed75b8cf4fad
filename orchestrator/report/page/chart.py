"""A chart as data: its lines, its unit, and what is healthy. The page draws it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from orchestrator.records.meanings.metric import MetricMeaning
from orchestrator.records.meanings.table import find_metric

Role = Literal["main", "second", "third", "muted", "right", "wrong", "run3", "run4"]
"""The role of a line. The page gives each role its colour and dash; `run3` and `run4` are two more colours."""
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
    """A metric of the run, or a mean over its completions (`figures.step_figures`). If its interval is known, it is
    `<key>_ci95` among the metrics, or comes with the mean."""
    role: Role = "main"
    x: Places = ()
    y: Values = ()
    low: Values = ()
    """Lower ends of the intervals; empty without intervals."""
    high: Values = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the steps, or bars."""

    title: str
    unit: str
    lines: Sequence[Line]
    note: str = ""
    """A sentence on what is healthy, or on how to read the chart."""
    kind: Literal["lines", "stack", "areas", "bars", "groups", "timeline"] = "lines"
    """`stack`: areas of shares that add up to 1. `areas`, `bars`: stacked values. `groups`: bars side by side, with
    intervals. `timeline`: spans from `low` to `high`, in rows named by `x`."""
    rest: str = ""
    """For a stack: the name of the remaining share, between its lines."""
    log: bool = False
    x_title: str = "step"

    def to_json(self) -> dict[str, Any]:
        return shown(self, ("unit", "x_title")) | {"lines": [shown(line) for line in self.lines]}


def shown(of: Chart | Line, always: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields that are not empty, and the fields named in `always`."""
    values = {each.name: getattr(of, each.name) for each in fields(of)}
    return {name: value for name, value in values.items() if value or name in always}


def metric_chart(title: str, keys: Collection[str], *lines: Line, note: str = "", log: bool = False) -> Chart | None:
    """Return a chart of the lines whose metrics the run has, described by the first; None if it has none of them."""
    shown = [line for line in lines if line.y or line.key in keys]
    if not shown:
        return None
    first = next((line.key for line in shown if line.key), "")
    return Chart(title, unit_of(first), shown, note or healthy(first), log=log)


def unit_of(key: str) -> str:
    """Return the unit of a metric, or of a mean over completions or groups, in words for a reader."""
    if key.startswith("group/"):
        return "share"
    metric = documented(key)
    unit = metric.unit if metric else ""
    return {"0 to 1": "share", "0 or 1": ""}.get(unit, unit)


def healthy(key: str) -> str:
    """Return the healthy values of a metric and the advice for others, from its documentation, as plain text."""
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
    """Return the healthy values of all lines in one sentence, from the documentation; empty if it names none."""
    metrics = [(line.label, documented(line.key)) for line in lines]
    values = [f"{label} {metric.healthy}" for label, metric in metrics if metric is not None and metric.healthy]
    return plain(f"Healthy: {'; '.join(values)}.") if values else ""


def documented(key: str) -> MetricMeaning | None:
    """Return the documentation of a metric, also for its mean over right or wrong completions."""
    key = key.removeprefix("right/").removeprefix("wrong/")
    return find_metric(key) if key else None


def plain(text: str) -> str:
    """Return the text of Markdown, without its marks and links."""
    return LINK.sub("", text).replace("`", "")


def present(charts: Iterable[Chart | None]) -> list[dict[str, Any]]:
    return [chart.to_json() for chart in charts if chart is not None]
