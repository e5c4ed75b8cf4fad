"""What a run achieved, out of its metrics.jsonl: the table at the end, and the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

Lines = Sequence[Mapping[str, float]]

ROWS = {
    "pass@1 (sampled)": "eval/pass_at_1",
    "pass@1 (greedy)": "eval/greedy_pass_at_1",
    "well-formed answers": "eval/format_rate",
    "mean reward": "eval/reward",
    "mean completion, tokens": "eval/completion_tokens",
}
"""What a table may show; a task without right answers has no pass@1, and runs of old have no mean reward."""
RATES = ("eval/pass_at_", "eval/greedy_pass_at_1", "eval/format_rate")
"""Keys that begin so are shown in percent."""


def evaluations(lines: Lines) -> list[Mapping[str, float]]:
    """The lines that hold an evaluation, by step."""
    return [line for line in lines if "eval/completion_tokens" in line]


def summary_table(lines: Lines) -> Table:
    """Held-out figures before, after, and the change, with 95% intervals."""
    first, last = evaluations(lines)[0], evaluations(lines)[-1]
    table = Table(title="held-out problems", title_justify="left")
    for column in ("", f"before (step {first['step']})", f"after (step {last['step']})", "change"):
        table.add_column(column, justify="left" if not column else "right")
    for title, key in rows(first).items():
        table.add_row(title, shown(first, key), shown(last, key), change(first, last, key))
    return table


def rows(line: Mapping[str, float]) -> dict[str, str]:
    """Titles and metric keys of what the line has, pass@k for the largest k among them."""
    titles = [(title, key) for title, key in ROWS.items() if key in line]
    sizes = [
        int(key.removeprefix("eval/pass_at_"))
        for key in line
        if key.startswith("eval/pass_at_") and not key.endswith("_ci95")
    ]
    if max(sizes, default=1) > 1:
        titles.insert(1, (f"pass@{max(sizes)} (sampled)", f"eval/pass_at_{max(sizes)}"))
    return dict(titles)


def shown(line: Mapping[str, float], key: str) -> str:
    half_width = line.get(f"{key}_ci95")
    if key.startswith(RATES):
        return f"{100 * line[key]:.1f}% ± {100 * line[f'{key}_ci95']:.1f}"
    return f"{line[key]:.1f}" if half_width is None else f"{line[key]:.3f} ± {half_width:.3f}"


def change(first: Mapping[str, float], last: Mapping[str, float], key: str) -> str:
    difference = last[key] - first[key]
    if key.startswith(RATES):
        return f"{100 * difference:+.1f} points"
    return f"{difference:+.3f}" if f"{key}_ci95" in first else f"{difference:+.1f}"


def draw_curve(lines: Lines, path: Path, title: str) -> None:
    """A picture of the run: what is rewarded, while training and on held-out problems, and completion length.

    Where answers are right or wrong it is the share of right ones, else the mean reward.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [line for line in lines if "reward/total" in line]
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=(2, 1))
    if any("eval/pass_at_1" in line for line in lines):
        draw_right_answers(top, steps, evaluations(lines))
    else:
        draw_reward(top, steps, evaluations(lines))
    top.set(title=title)
    top.legend(loc="lower right")
    bottom.plot(*series(steps, "rollout/completion_tokens"), color="tab:gray")
    bottom.set(xlabel="step", ylabel="mean completion, tokens")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_right_answers(axes: Any, steps: Lines, held_out: Lines) -> None:
    key = "reward/correctness" if steps and "reward/correctness" in steps[0] else "reward/total"
    axes.plot(*series(steps, key), color="tab:blue", linewidth=1, label="training prompts, each step")
    draw_estimate(axes, held_out, "eval/pass_at_1", "held-out pass@1, 95% interval")
    greedy = series(held_out, "eval/greedy_pass_at_1")
    axes.plot(*greedy, color="tab:green", marker="s", linestyle="--", label="held-out, greedy")
    axes.set(ylabel="share of right answers", ylim=(0, 1))


def draw_reward(axes: Any, steps: Lines, held_out: Lines) -> None:
    axes.plot(*series(steps, "reward/total"), color="tab:blue", linewidth=1, label="training prompts, each step")
    draw_estimate(axes, held_out, "eval/reward", "held-out, 95% interval")
    axes.set(ylabel="mean reward")


def draw_estimate(axes: Any, lines: Lines, key: str, label: str) -> None:
    half_widths = series(lines, f"{key}_ci95")[1]
    axes.errorbar(*series(lines, key), half_widths, color="tab:orange", marker="o", capsize=4, label=label)


def series(lines: Lines, key: str) -> tuple[list[float], list[float]]:
    """Steps, and the metric at each of them."""
    return [line["step"] for line in lines if key in line], [line[key] for line in lines if key in line]
