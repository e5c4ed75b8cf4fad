"""The page Emergence: which reasoning behaviours came, stayed or went, and in which completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.evaluate.statistics import Estimate
from orchestrator.report.page.chart import Chart, Line, metric_chart, present
from orchestrator.report.page.learning import Digests, intervals, mean_tokens, side_line
from orchestrator.report.reading.digest import Side
from orchestrator.report.reading.kept import ends_and_middle
from rewards.parts.markers import AGREEMENT, BEHAVIOURS

SEEN = 0.05
"""Share below which a behaviour is hardly seen."""
CRITERION = (
    "A behaviour has emerged where the 95% interval of its share over the last fifth of the steps lies above that over "
    "the first fifth, and the share was below 5% and no longer is; it grew where it was above that already, and faded "
    "where the last interval lies below the first. Intervals are over prompts. A behaviour shows that the words "
    "are there, not that they are true."
)


def emergence(keys: Mapping[str, Any], train: Digests, held_out: Digests) -> dict[str, Any]:
    """Return the page's summary in words, its charts, and the steps at which the same questions are shown."""
    return {
        "behaviours": [behaviour(name, train) for name in BEHAVIOURS] if train else [],
        "criterion": CRITERION,
        "charts": present([*(marker_chart(name, keys, train) for name in BEHAVIOURS), length_chart(keys, train)]),
        "lengths": lengths(train),
        "questions": sorted(ends_and_middle(list(held_out))),
    }


def marker_chart(name: str, keys: Mapping[str, Any], train: Digests) -> Chart | None:
    title = name.replace("_", " ").capitalize()
    note = f"Against hand-made labels: {AGREEMENT[name]}."
    if not train:
        return metric_chart(title, keys, Line("all", f"marker/{name}"), note=note)
    lines = [
        intervals(
            "all, with interval", list(train), [each.sides["all"].estimate(name) for each in train.values()], "muted"
        )
    ]
    if any(each.sides["right"].completions for each in train.values()):
        lines += [side_line(train, side, lambda found: share(found, name)) for side in ("wrong", "right")]
    return Chart(title, "share", lines, note)


def share(side: Side, name: str) -> float | None:
    return digits(side.markers.get(name, 0) / side.completions) if side.completions else None


def digits(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def length_chart(keys: Mapping[str, Any], train: Digests) -> Chart | None:
    if not train:
        return metric_chart("Length of completions", keys, Line("mean", "rollout/completion_tokens"))
    return Chart(
        "Length of completions", "tokens", [side_line(train, "all", mean_tokens)],
        "Reasoning that pays makes completions longer; so does rambling. Read it beside the share of right answers.",
    )  # fmt: skip


def pooled(sides: Sequence[Side]) -> Side:
    """Return the sum of several steps."""
    found = Side()
    for side in sides:
        found.completions += side.completions
        found.tokens += side.tokens
        found.prompts += side.prompts
        for name, count in side.markers.items():
            found.markers[name] = found.markers.get(name, 0) + count
            sums, added = found.shares.setdefault(name, [0.0, 0.0]), side.shares[name]
            found.shares[name] = [sums[0] + added[0], sums[1] + added[1]]
    return found


def fifths(train: Digests, side: str) -> tuple[Side, Side]:
    """Return the first fifth of the steps, and the last."""
    found = [each.sides[side] for each in train.values()]
    count = max(1, len(found) // 5)
    return pooled(found[:count]), pooled(found[-count:])


def behaviour(name: str, train: Digests) -> dict[str, Any]:
    """Return a row of the summary: the share at the start and the end, and what is to be said of it."""
    first, last = (side.estimate(name) for side in fifths(train, "all"))
    right, wrong = (fifths(train, side)[1].estimate(name) for side in ("right", "wrong"))
    steps = [step for step, each in train.items() if each.sides["all"].markers.get(name)]
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
    """Return the mean length over the first fifth of the steps and over the last."""
    return [mean_tokens(side) for side in fifths(train, "all")] if train else []
