"""The page Compare: the differences between runs, in their settings and on their common held-out problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.evaluate.statistics import Difference, Estimate, paired_difference, paired_mean
from orchestrator.report.reading.digest import StepDigest
from orchestrator.report.reading.privacy import shareable
from orchestrator.report.reading.recorded_run import RecordedRun
from orchestrator.report.settings_text import flat


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run, and its last evaluation."""

    run: RecordedRun
    last: StepDigest | None
    """None if the run kept no completions of an evaluation."""


def comparison(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Return the settings that differ, and each run's difference in pass@1 to the first run."""
    return {"settings": differing([each.run for each in runs]), "pairs": [pair(runs[0], each) for each in runs[1:]]}


def differing(runs: Sequence[RecordedRun]) -> list[list[str]]:
    """Return a row for each setting that is not the same in all runs: its key, and its value in each."""
    settings = [dict(flat(shareable(run.settings))) for run in runs]
    keys = dict.fromkeys(key for each in settings for key in each if key != "name")
    rows = [[key, *(each.get(key, "") for each in settings)] for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def pair(first: ComparedRun, other: ComparedRun) -> dict[str, Any]:
    """Return the paired difference of two runs' last evaluations, or why there is none."""
    made: dict[str, Any] = {"name": other.run.name, "to": first.run.name}
    if first.last is None or other.last is None:
        return made | {"why": "one of them kept no completions of an evaluation"}
    found = paired(other.last.right, first.last.right)
    if found is None:
        return made | {"why": "they were not asked the same held-out problems equally often"}
    steps = [other.last.step, first.last.step]
    return made | {"steps": steps, "problems": len(first.last.right), "difference": difference_figures(found)}


def paired(right: Mapping[str, Sequence[int]], baseline: Mapping[str, Sequence[int]]) -> Difference | None:
    """Return the paired difference in pass@1; None if the problems, or the numbers of completions, are not the same.

    Args:
        right: by problem, the number of right completions and of all completions.
        baseline: the same for the baseline.
    """
    sizes = {of for counts in (right, baseline) for _, of in counts.values()}
    if not right or right.keys() != baseline.keys() or len(sizes) != 1:
        return None
    theirs = [count for count, _ in baseline.values()]
    return paired_difference([right[problem][0] for problem in baseline], theirs, sizes.pop())


def paired_means(means: Mapping[str, float], baseline: Mapping[str, float]) -> Estimate | None:
    """Return the paired difference of means; None if the problems are not the same, or there is only one.

    Args:
        means: by problem, the mean over its completions.
        baseline: the same for the baseline.
    """
    if len(means) < 2 or means.keys() != baseline.keys():
        return None
    return paired_mean([means[problem] for problem in baseline], [*baseline.values()])


def difference_figures(estimate: Estimate) -> list[float | None]:
    """Return the difference, the ends of its interval, and its p-value (None if unknown)."""
    p_value = estimate.p_value if isinstance(estimate, Difference) else None
    return [estimate.mean, estimate.low, estimate.high, p_value]
