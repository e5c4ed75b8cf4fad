"""Print a comparison for people: models × formats in one table, breakdowns, trainability, and completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.config.schema import RunConfig
from orchestrator.evaluate.comparison import ModelResult
from orchestrator.evaluate.evaluation import Evaluation, by_label, is_right
from orchestrator.evaluate.statistics import Difference, Estimate
from orchestrator.evaluate.trainability import judge_trainability, sentences
from orchestrator.report.page.completions import shortened
from orchestrator.watch.printable import printable
from rewards.parts.markers import AGREEMENT
from rollout.types.completions import Completion, Group, Reward
from rollout.types.prompts import Prompt

LONGEST_SHOWN = 2000
"""Most characters of a completion that are printed, half of them from its end."""

Cells = list[str]
LABELS: Mapping[str, Callable[[Prompt], str]] = {
    "difficulty": lambda prompt: prompt.difficulty,
    "source": lambda prompt: prompt.source,
}
"""The labels of prompts by which pass@1 is broken down."""


def print_comparison(results: Sequence[ModelResult], config: RunConfig, console: Console) -> None:
    """Print the tables of a comparison, whether each model can be trained, and some completions."""
    console.print(comparison_table(results, config))
    figures = "; ".join(f"{name} {agreement}" for name, agreement in AGREEMENT.items())
    console.print(f"Behaviours shown, against hand-made labels: {figures}", highlight=False, soft_wrap=True)
    for label in LABELS:
        table = breakdown_table(results, label)
        if table is not None:
            console.print(table)
    for result in results:
        if result.evaluation.pass_at:
            console.print()
            judgement = judge_trainability(result.evaluation, config)
            title = Text(f"Training {result.model.name}, {result.format}: {judgement.verdict}.", "bold")
            for line in (title, *(f"  {sentence}" for sentence in sentences(judgement))):
                console.print(line, highlight=False, soft_wrap=True)
    for result in results:
        print_completions(result, console)


def comparison_table(results: Sequence[ModelResult], config: RunConfig) -> Table:
    """Return a table with a row for each figure and a column for each model and format, without empty rows."""
    groups = results[0].evaluation.groups
    title = (
        f"{len(groups)} held-out prompts × {config.evaluation.completions_per_prompt} completions, temperature "
        f"{config.evaluation.temperature:g}; 95% intervals in brackets"
    )
    table = model_columns("", results, title)
    for name, cells in rows(results):
        if any(cells):
            table.add_row(Text(name), *cells)
    return table


def model_columns(first: str, results: Sequence[ModelResult], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for result in results:
        table.add_column(Text(f"{result.model.name}\n{result.format}"), justify="right")
    return table


def rows(results: Sequence[ModelResult]) -> Iterator[tuple[str, Cells]]:
    """Yield the title of each row, and a cell for each result."""
    found = [result.evaluation for result in results]
    for k in sorted(found[0].pass_at):
        yield f"pass@{k} (sampled)", [percent(evaluation.pass_at.get(k)) for evaluation in found]
    yield "pass@1 (greedy)", [percent(evaluation.greedy) for evaluation in found]
    baseline = results[0].model.name
    yield f"pass@1 minus {baseline}'s, points", [points(result.difference) for result in results]
    yield "p-value", [p_value(result.difference) for result in results]
    yield "well-formed answers", [percent(evaluation.format_rate) for evaluation in found]
    yield "mean reward", [reward(evaluation.reward) for evaluation in found]
    yield "mean completion, tokens", [tokens(evaluation.completion_tokens) for evaluation in found]
    yield "right ones", [tokens(evaluation.right_tokens) for evaluation in found]
    yield "wrong ones", [tokens(evaluation.wrong_tokens) for evaluation in found]
    yield "cut off at the limit", [share(evaluation.truncated) for evaluation in found]
    if any(evaluation.unmarked for evaluation in found):
        yield "could not be graded", [share(evaluation.unmarked) for evaluation in found]
    for marker in dict.fromkeys(name for evaluation in found for name in evaluation.markers):
        cells = [share(evaluation.markers.get(marker)) for evaluation in found]
        yield f"shows {marker.removeprefix('shows_').replace('_', ' ')}", cells


def percent(estimate: Estimate | None) -> str:
    """Format an estimate as `54.2% [51.2, 57.3]`."""
    if estimate is None:
        return ""
    return f"{100 * estimate.mean:.1f}% [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(difference: Difference | None) -> str:
    if difference is None:
        return ""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def p_value(difference: Difference | None) -> str:
    if difference is None:
        return ""
    return "< 0.0001" if difference.p_value < 1e-4 else f"{difference.p_value:.4f}"


def reward(estimate: Estimate) -> str:
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def tokens(length: float | None) -> str:
    return "" if length is None else f"{length:.1f}"


def share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"


def breakdown_table(results: Sequence[ModelResult], label: str) -> Table | None:
    """Return pass@1 by a label of the prompts; None if there is only one label, or answers are not right or wrong."""
    if not results[0].evaluation.pass_at:
        return None
    broken_down = [by_label(result.evaluation.groups, LABELS[label]) for result in results]
    if len(broken_down[0]) < 2:
        return None
    table = model_columns(label, results, f"pass@1 by {label}")
    for name, (num_prompts, _) in broken_down[0].items():
        table.add_row(Text(f"{name or 'none'} ({num_prompts})"), *(percent(found[name][1]) for found in broken_down))
    return table


def print_completions(result: ModelResult, console: Console) -> None:
    """Print the first right and the first wrong completion; or just the first one if they are neither."""
    for group, completion, scored in shown(result.evaluation):
        title = f"{result.model.name}, {result.format}, {group.prompt.id}, reward {scored.total:g}"
        console.rule(Text(title, "rule.text"), align="left")
        said = printable(shortened(completion.text, LONGEST_SHOWN))
        console.print(Text.assemble(printable(group.prompt.text), (said, "bold")), soft_wrap=True)


def shown(evaluation: Evaluation) -> Iterator[tuple[Group, Completion, Reward]]:
    """Yield the completions to print, each with its group and reward."""
    every = [
        (group, *pair) for group in evaluation.groups for pair in zip(group.completions, group.rewards, strict=True)
    ]
    if not evaluation.pass_at:
        yield every[0]
        return
    for wanted in (True, False):
        yield from [found for found in every if is_right(found[2]) == wanted][:1]
