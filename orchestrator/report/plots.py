"""Draw pictures of a run from its metrics.jsonl alone: its learning curve, and any metrics by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

from orchestrator.records.files.atomic_file import write_atomically
from orchestrator.records.meanings.table import find_metric
from orchestrator.report.summary import OWN, Lines, evaluations, prefixes

PICTURES = (".png", ".svg")
"""Endings of the files that can be drawn."""
COLORS = ("tab:orange", "tab:purple", "tab:red")
"""Colors of the held-out curves, the recipe's own format first."""
TRAINING = "training prompts, each step"


def draw_curve(lines: Lines, path: Path, title: str, smooth: int = 1) -> None:
    """Draw the learning curve of a run: right answers in training and on held-out problems, and completion length.

    If answers are not right or wrong, the mean reward replaces the share of right answers.

    Args:
        lines: the lines of metrics.jsonl.
        path: the file, a PNG or an SVG by its ending. It is replaced atomically.
        title: the title of the picture, such as the run's name.
        smooth: number of steps of the running mean; 1 draws the values themselves.

    Raises OSError if the disk refuses.
    """
    figure, (top, bottom) = new_figure(2, (2, 1))
    steps = [line for line in lines if "reward/total" in line]
    if any("eval/pass_at_1" in line for line in lines):
        key = "reward/correctness" if steps and "reward/correctness" in steps[0] else "reward/total"
        draw_metric(top, steps, key, smooth, label=TRAINING)
        draw_estimates(top, evaluations(lines), "pass_at_1", "held-out pass@1, 95% interval")
        greedy = series(evaluations(lines), "eval/greedy_pass_at_1")
        top.plot(*greedy, color="tab:green", marker="s", linestyle="--", label="held-out, greedy")
        top.set(ylabel="share of right answers", ylim=(0, 1))
    else:
        draw_metric(top, steps, "reward/total", smooth, label=TRAINING)
        draw_estimates(top, evaluations(lines), "reward", "held-out, 95% interval")
        top.set(ylabel="mean reward")
    top.legend(loc="lower right")
    draw_metric(bottom, steps, "rollout/completion_tokens", smooth, color="tab:gray")
    bottom.set(ylabel="mean completion, tokens")
    save(figure, path, title)


def draw_metrics(lines: Lines, keys: Sequence[str], path: Path, title: str, smooth: int = 1) -> None:
    """Draw metrics by step, one below the other, with their intervals if known. Arguments are as in `draw_curve`."""
    figure, panels = new_figure(len(keys), (1,) * len(keys))
    for axes, key in zip(panels, keys, strict=True):
        draw_metric(axes, lines, key, smooth)
        metric = find_metric(key)
        axes.set_ylabel(literal(f"{key}\n[{metric.unit}]" if metric else key), fontsize="small")
    save(figure, path, title)


def new_figure(count: int, heights: Sequence[float]) -> tuple[Any, Sequence[Any]]:
    """Return a figure and its panels from top to bottom, which share the axis of steps."""
    from matplotlib.figure import Figure  # takes half a second, and no other command needs it

    # Not pyplot: it keeps all figures in memory, and is not thread-safe.
    figure = Figure(figsize=(8, max(3.0, 2.0 * sum(heights))))
    panels = list(figure.subplots(count, 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    panels[-1].set(xlabel="step")
    return figure, panels


def save(figure: Any, path: Path, title: str) -> None:
    """Write the figure with a title, in the format of the file's ending."""
    figure.suptitle(literal(title))
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.tight_layout()
    picture, ending = BytesIO(), path.suffix.removeprefix(".").lower()
    figure.savefig(picture, format=ending, dpi=120)
    write_atomically(path, picture.getvalue())


def draw_metric(axes: Any, lines: Lines, key: str, smooth: int, color: str = "tab:blue", label: str = "") -> None:
    """Draw one metric: its values with their intervals, or a running mean on top of the values in a light colour."""
    steps, values = series(lines, key)
    name = literal(label or key)
    if any(f"{key}_ci95" in line for line in lines):
        widths = [line.get(f"{key}_ci95", 0.0) for line in lines if key in line]
        axes.errorbar(steps, values, widths, color=color, marker="o", capsize=4, label=name)
        return
    # A line with a single point is invisible.
    marker = "o" if len(steps) == 1 else ""
    if smooth > 1:
        axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3, marker=marker)
        values, name = running_mean(values, smooth), f"{name}, mean of {smooth} steps"
    axes.plot(steps, values, color=color, linewidth=1.2 if smooth > 1 else 1, marker=marker, label=name)


def draw_estimates(axes: Any, held_out: Sequence[Mapping[str, float]], name: str, label: str) -> None:
    """Draw a curve of the figure for each format."""
    formats = prefixes(held_out[-1]) if held_out else {OWN: ""}
    for (prefix, format), color in zip(formats.items(), COLORS, strict=False):
        key = f"{prefix}{name}"
        half_widths = [line.get(f"{key}_ci95", 0.0) for line in held_out if key in line]
        title = f"{label}, {format}" if len(formats) > 1 else label
        axes.errorbar(*series(held_out, key), half_widths, color=color, marker="o", capsize=4, label=title)


def series(lines: Lines, key: str) -> tuple[list[float], list[float]]:
    """Return the steps that have the metric, and its value at each of them."""
    return [line["step"] for line in lines if key in line], [line[key] for line in lines if key in line]


def running_mean(values: Sequence[float], steps: int) -> list[float]:
    """Return the mean of each value and up to `steps - 1` values before it. Values that are not finite are ignored."""
    means = []
    for end in range(1, len(values) + 1):
        known = [value for value in values[max(0, end - steps) : end] if isfinite(value)]
        means.append(sum(known) / len(known) if known else float("nan"))
    return means


def literal(text: str) -> str:
    """Return the text so that matplotlib does not read a formula in it."""
    return text.replace("$", r"\$")
