"""What a run achieved, out of its metrics.jsonl: the table at the end, and the curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

Lines = Sequence[Mapping[str, float]]

ROWS = {
    "pass@1 (sampled)": "eval/pass_at_1",
    "pass@1 (greedy)": "eval/greedy_pass_at_1",
    "well-formed answers": "eval/format_rate",
    "mean completion, tokens": "eval/completion_tokens",
}


def evaluations(lines: Lines) -> list[Mapping[str, float]]:
    """The lines that hold an evaluation, by step."""
    return [line for line in lines if "eval/pass_at_1" in line]


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
    """Titles and metric keys, pass@k for the largest k among them."""
    largest = max(
        int(key.removeprefix("eval/pass_at_"))
        for key in line
        if key.startswith("eval/pass_at_") and key[-1].isdigit() and "ci95" not in key
    )
    extra = {f"pass@{largest} (sampled)": f"eval/pass_at_{largest}"} if largest > 1 else {}
    titles = list(ROWS.items())
    return dict([titles[0], *extra.items(), *titles[1:]])


def shown(line: Mapping[str, float], key: str) -> str:
    if f"{key}_ci95" in line:
        return f"{100 * line[key]:.1f}% ± {100 * line[f'{key}_ci95']:.1f}"
    return f"{line[key]:.1f}"


def change(first: Mapping[str, float], last: Mapping[str, float], key: str) -> str:
    difference = last[key] - first[key]
    return f"{100 * difference:+.1f} points" if f"{key}_ci95" in first else f"{difference:+.1f}"


def draw_curve(lines: Lines, path: Path, title: str) -> None:
    """A picture of the run: share of right answers while training and on held-out problems, and completion length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = [line for line in lines if "reward/total" in line]
    held_out = evaluations(lines)
    figure, (top, bottom) = pyplot.subplots(2, 1, figsize=(8, 6), sharex=True, height_ratios=(2, 1))
    top.plot(
        [line["step"] for line in steps],
        [line.get("reward/correctness", line["reward/total"]) for line in steps],
        color="tab:blue",
        linewidth=1,
        label="training prompts, each step",
    )
    top.errorbar(
        [line["step"] for line in held_out],
        [line["eval/pass_at_1"] for line in held_out],
        [line["eval/pass_at_1_ci95"] for line in held_out],
        color="tab:orange",
        marker="o",
        capsize=4,
        label="held-out pass@1, 95% interval",
    )
    top.plot(
        [line["step"] for line in held_out],
        [line["eval/greedy_pass_at_1"] for line in held_out],
        color="tab:green",
        marker="s",
        linestyle="--",
        label="held-out, greedy",
    )
    top.set(ylabel="share of right answers", ylim=(0, 1), title=title)
    top.legend(loc="lower right")
    bottom.plot(
        [line["step"] for line in steps], [line["rollout/completion_tokens"] for line in steps], color="tab:gray"
    )
    bottom.set(xlabel="step", ylabel="mean completion, tokens")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
