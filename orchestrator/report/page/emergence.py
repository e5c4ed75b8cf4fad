"""The page Emergence: which reasoning behaviours emerged, stayed or faded, and in which completions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from orchestrator.evaluate.statistics import Clusters, Estimate
from orchestrator.report.page.chart import Chart, Line, healthy, metric_chart, present
from orchestrator.report.page.learning import Digests, right_and_wrong
from orchestrator.report.reading.digest import StepDigest
from orchestrator.report.reading.kept import ends_and_middle
from rewards.parts.markers import AGREEMENT, BEHAVIOURS

SEEN = 0.05
"""A behaviour with a smaller share is hardly seen."""
CRITERION = (
    "Compare the 95% interval of a behaviour's share over the last fifth of the steps with the interval over the first "
    "fifth. If the last interval is above the first, the behaviour has emerged if its share was below 5% and no longer "
    "is, and it grew if its share was above 5% before. If the last interval is below the first, it faded. Intervals "
    "are over prompts. A behaviour shows that the words are there, not that they are true."
)


def emergence(keys: Collection[str], train: Digests, held_out: Digests) -> dict[str, Any]:
    """Return the page's summary in words, its charts, and the steps whose answers to the same questions are shown."""
    return {
        "behaviours": [behaviour(name, train) for name in BEHAVIOURS] if train else [],
        "criterion": CRITERION,
        "charts": present([*(marker_chart(name, keys) for name in BEHAVIOURS), length_chart(keys)]),
        "lengths": lengths(train) if train else [],
        "questions": sorted(ends_and_middle(list(held_out))),
    }


def marker_chart(name: str, keys: Collection[str]) -> Chart | None:
    key = f"marker/{name}"
    sides = [line for line in right_and_wrong(key) if line.key in keys]
    lines = [Line("all", key, "muted" if sides else "main"), *sides] if key in keys else []
    return Chart(name.replace("_", " ").capitalize(), "share", lines, healthy(key)) if lines else None


def length_chart(keys: Collection[str]) -> Chart | None:
    return metric_chart("Length of completions", keys, Line("all", "rollout/completion_tokens"))


def fifths(train: Digests, side: str, figure: str) -> tuple[Clusters, Clusters]:
    """Return the sums of a figure over the first fifth of the steps, and over the last fifth."""
    steps = list(train.values())
    count = max(1, len(steps) // 5)
    return pooled(steps[:count], side, figure), pooled(steps[-count:], side, figure)


def pooled(steps: Sequence[StepDigest], side: str, figure: str) -> Clusters:
    sums = [found for each in steps if (found := each.sides[side].get(figure))]
    return Clusters(*map(sum, zip(*sums, strict=True)))


def behaviour(name: str, train: Digests) -> dict[str, Any]:
    """Return a row of the summary: the share at the start and at the end, and a verdict."""
    figure = f"marker/{name}"
    first, last = (each.rate() for each in fifths(train, "all", figure))
    right, wrong = (fifths(train, side, figure)[1].rate() for side in ("right", "wrong"))
    steps = [step for step, each in train.items() if name in each.first_shown]
    return {
        "name": name.replace("_", " "),
        "start": interval(first), "end": interval(last), "right": interval(right), "wrong": interval(wrong),
        "first": steps[0] if steps else None, "last": steps[-1] if steps else None,
        "verdict": verdict(first, last),
        "agreement": str(AGREEMENT[name]),
    }  # fmt: skip


def interval(found: Estimate | None) -> list[float] | None:
    return None if found is None else [round(value, 5) for value in (found.mean, found.low, found.high)]


def verdict(first: Estimate | None, last: Estimate | None) -> str:
    if first is None or last is None:
        return "not measured"
    if last.low > first.high and last.mean >= SEEN:
        return "emerged" if first.mean < SEEN else "grew"
    if last.high < first.low and first.mean >= SEEN:
        return "faded"
    if max(first.mean, last.mean) < SEEN:
        return "hardly seen"
    return "no clear change"


def lengths(train: Digests) -> list[float | None]:
    """Return the mean length in tokens over the first fifth of the steps, and over the last fifth."""
    means = [each.average() for each in fifths(train, "all", "tokens")]
    return [None if each is None else round(each.mean, 2) for each in means]
