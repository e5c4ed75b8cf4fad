"""Build the table at the end of a run, from its metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from rich.table import Table
from rich.text import Text

from rollout.types.prompts import PromptFormat

Lines = Sequence[Mapping[str, float]]

ROWS = {
    "pass@1 (sampled)": "pass_at_1",
    "pass@1 (greedy)": "greedy_pass_at_1",
    "well-formed answers": "format_rate",
    "mean reward": "reward",
    "mean completion, tokens": "completion_tokens",
}
"""The figures of the rows, by title. A task without right answers has no pass@1, an old run no mean reward."""
RATES = ("pass_at_", "greedy_pass_at_1", "format_rate")
"""Beginnings of the names of figures that are shown in percent."""
OWN = "eval/"
"""Prefix of the figures in the recipe's own format; figures of another format are under `eval/<format>/`."""


def evaluations(lines: Lines) -> list[Mapping[str, float]]:
    """Return the lines that contain an evaluation."""
    return [line for line in lines if f"{OWN}completion_tokens" in line]


def prefixes(line: Mapping[str, float]) -> dict[str, str]:
    """Return the evaluated formats of a line, by the prefix of their keys; the recipe's own comes first."""
    others = [format for format in get_args(PromptFormat) if f"{OWN}{format}/completion_tokens" in line]
    return {OWN: "the recipe's format"} | {f"{OWN}{format}/": format for format in others}


def summary_table(lines: Lines, caption: str | None = None) -> Table:
    """Return the held-out figures before and after, and their change, with 95% intervals; formats side by side.

    `caption` is a text below the table, such as that the run learned nothing.
    """
    first, last = evaluations(lines)[0], evaluations(lines)[-1]
    formats = prefixes(last)
    before, after = f"before (step {first['step']})", f"after (step {last['step']})"
    if len(formats) == 1:
        table = columns(caption, "", before, after, "change")
        for title, name in rows(first).items():
            table.add_row(title, *cells(first, last, f"{OWN}{name}"))
        return table
    table = columns(caption, "", "", *formats.values())
    for title, name in rows(first).items():
        by_format = [cells(first, last, f"{prefix}{name}") for prefix in formats]
        for when, row in zip((before, after, "change"), zip(*by_format, strict=True), strict=True):
            table.add_row(title if when == before else "", when, *row, end_section=when == "change")
    return table


def columns(caption: str | None, *titles: str) -> Table:
    below = None if caption is None else Text(caption)  # not read as markup
    table = Table(title="held-out problems", title_justify="left", caption=below, caption_justify="left")
    for title in titles:
        table.add_column(title, justify="right" if title else "left")
    return table


def rows(line: Mapping[str, float]) -> dict[str, str]:
    """Return titles and names of the figures in the line, with pass@k for the largest k."""
    titles = [(title, name) for title, name in ROWS.items() if f"{OWN}{name}" in line]
    sizes = [
        int(key.removeprefix(f"{OWN}pass_at_"))
        for key in line
        if key.startswith(f"{OWN}pass_at_") and not key.endswith("_ci95")
    ]
    if max(sizes, default=1) > 1:
        titles.insert(1, (f"pass@{max(sizes)} (sampled)", f"pass_at_{max(sizes)}"))
    return dict(titles)


def cells(first: Mapping[str, float], last: Mapping[str, float], key: str) -> tuple[str, str, str]:
    """Return the figure before, after, and its change; empty text for a figure that was not measured."""
    if key not in first or key not in last:
        return shown(first, key), shown(last, key), ""
    return shown(first, key), shown(last, key), change(first, last, key)


def shown(line: Mapping[str, float], key: str) -> str:
    if key not in line:
        return ""
    half_width = line.get(f"{key}_ci95")  # the reward of a single prompt has no interval
    if is_rate(key):
        return f"{100 * line[key]:.1f}% ± {100 * line[f'{key}_ci95']:.1f}"
    return f"{line[key]:.1f}" if half_width is None else f"{line[key]:.3f} ± {half_width:.3f}"


def change(first: Mapping[str, float], last: Mapping[str, float], key: str) -> str:
    difference = last[key] - first[key]
    if is_rate(key):
        return f"{100 * difference:+.1f} points"
    return f"{difference:+.3f}" if f"{key}_ci95" in first else f"{difference:+.1f}"


def is_rate(key: str) -> bool:
    return key.rpartition("/")[2].startswith(RATES)
