"""The page Compare: what differs between runs, in their settings and on the problems that all of them were asked."""

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
    """None where no completions of an evaluation were kept."""


def comparison(runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Return the settings that differ, and each run's difference in pass@1 to the first."""
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
    """Return the difference in pass@1 over the same problems; None where they, or the completions of each, differ.

    Args:
        right: by problem: right completions, and completions.
        baseline: the same for what it is compared with.
    """
    sizes = {of for counts in (right, baseline) for _, of in counts.values()}
    if not right or right.keys() != baseline.keys() or len(sizes) != 1:
        return None
    theirs = [count for count, _ in baseline.values()]
    return paired_difference([right[problem][0] for problem in baseline], theirs, sizes.pop())


def paired_means(means: Mapping[str, float], baseline: Mapping[str, float]) -> Estimate | None:
    """Return the difference in a mean over the same problems; None where they differ, or there is only one.

    Args:
        means: by problem, over its completions.
        baseline: the same for what it is compared with.
    """
    if len(means) < 2 or means.keys() != baseline.keys():
        return None
    return paired_mean([means[problem] for problem in baseline], [*baseline.values()])


def difference_figures(found: Estimate) -> list[float | None]:
    """Return the difference, its interval, and its p-value where that is known."""
    return [found.mean, found.low, found.high, found.p_value if isinstance(found, Difference) else None]
