"""List the limits of a run's results for the model's card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.report.page.group_credit import learns_without_rewards
from orchestrator.report.reading.privacy import without_places
from orchestrator.report.reading.recorded_run import RecordedRun

MANY_CUT_OFF = 0.05
"""Share of truncated completions above which the card has a sentence about them."""


def limits(run: RecordedRun, shown: Mapping[str, Any]) -> Iterator[str]:
    """Yield one or two sentences for each limit.

    Args:
        shown: the content of the report's page Summary.
    """
    figures = {figure["title"]: figure for figure in shown["figures"]}
    if figures:
        yield (
            f"Measured on {shown['problems']} held-out problems of {shown['task']}, with the prompts of training. "
            "Other tasks, prompts and languages were not measured."
        )
    yield (
        f"These are the results of one run, with seed {run.setting('seed', '?')}. The intervals are over problems; "
        "they do not include differences between seeds."
    )
    yield from learned_little(figures.get("pass@1 (sampled)"))
    if run.setting("num_steps"):
        yield from learned_from(run)
    last = run.rows[-1] if run.rows else {}
    if (cut_off := last.get("rollout/truncated", 0.0)) > MANY_CUT_OFF:
        is_of_turns = 2 * last.get("rollout/out_of_turns", 0.0) > cut_off
        limit = f"{run.setting('sampling.max_completion_tokens')} tokens"
        limit = f"{run.setting('environment.max_turns')} turns" if is_of_turns else limit
        yield f"{100 * cut_off:.0f}% of the last step's completions were truncated at {limit}."
    for verdict in shown["verdicts"]:
        if verdict["holds"]:
            yield f"At its end the run gave a warning ({verdict['name']}): {without_places(verdict['text'])}"
    yield "There was no safety training; the base model's faults and biases remain."


def learned_from(run: RecordedRun) -> Iterator[str]:
    """Yield what a model learned from, and what that does not prove."""
    is_distilled, supervised = learns_without_rewards(run.settings), run.setting("warm_start.num_steps")
    yield "An answer counts as right if the grading program accepts it. " + (
        "The model learned from its teacher's probabilities, with the teacher's faults, not from rewards."
        if is_distilled
        else "A model learns to get rewards, even where the rewards do not measure exactly what was intended."
    )
    if supervised:
        what, source = ("Distillation", "its teacher") if is_distilled else ("Reinforcement learning", "rewards")
        yield (
            f"{what} followed {supervised:,} steps of supervised training, so not all of the model's behavior comes "
            f"from {source}."
        )


def learned_little(figure: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield how often the model is wrong, and whether its improvement is not significant."""
    if figure is None:
        return
    if (after := figure["after"][0]) is not None:
        yield f"{100 * (1 - after):.0f}% of its sampled answers to held-out problems are wrong."
    if figure.get("change") and figure["change"][1] <= 0 <= figure["change"][2]:
        yield "The change in pass@1 is not significant: its interval contains 0."
