"""The figures that are means over completions: what each completion, or each group, adds to them.

Those of all completions have the keys of the metrics that they are. The interval of a metric comes from here, for the
metrics alone do not say how far the groups of a step were apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from orchestrator.evaluate.statistics import Clusters, Estimate
from orchestrator.report.reading.record_stream import Record
from rewards.function import RIGHT_UNTAGGED
from rewards.parts.markers import BEHAVIOURS, markers
from rollout.types.completions import TRUNCATED

Figures = dict[str, list[float]]
"""By figure, the six sums of `Clusters`."""
SIDES = ("all", "right", "wrong")
RIGHT = "correctness"
KEYS = {
    "tokens": "rollout/completion_tokens",
    "truncated": "rollout/truncated",
    "solved": "group/solved",
    "spread": "rollout/groups_without_spread",
}
"""By figure, the key of its mean over all completions; others have one by their own name."""
HELD_OUT = {f"{side}/rollout/completion_tokens": f"eval/{side}_completion_tokens" for side in ("right", "wrong")} | {
    "rollout/completion_tokens": "eval/completion_tokens"
}
"""Means of an evaluation for which the run logs no interval, by what they are called of training completions."""
POOLED = ("tokens", "marker/")
"""Figures of which the page shows means over several steps, or the beginning of their names."""
SHARES = ("truncated", "solved", "spread", "marker/", "reward/correctness", "group/spread/")
"""Figures between 0 and 1, or the beginning of their names."""


def figures_of(records: Sequence[Record], shown: Sequence[Sequence[str]]) -> Iterator[tuple[str, str, list[float]]]:
    """Yield of a group for each side and figure the values of its completions.

    What is counted by groups has one value a group.
    """
    rights = [is_right(record) for record in records]
    for side, wanted in zip(SIDES, (None, True, False), strict=True):
        chosen = [n for n, right in enumerate(rights) if wanted is None or right is wanted]
        if not chosen:
            continue
        yield side, "tokens", [float(length(records[n])) for n in chosen]
        yield side, "truncated", [float(records[n].get("finish_reason") in TRUNCATED) for n in chosen]
        for name in BEHAVIOURS:
            yield side, f"marker/{name}", [float(name in shown[n]) for n in chosen]
    by_part: dict[str, list[float]] = {}
    for name, value in (pair for record in records for pair in parts_of(record)):
        by_part.setdefault(name, []).append(value)
    for name, values in by_part.items():
        if name != RIGHT_UNTAGGED:  # counted of a few completions
            yield "all", f"reward/{name}", values
            yield "all", f"group/spread/{name}", [float(max(values) > min(values))]
    if "total" in by_part:
        yield "all", "spread", [float(max(by_part["total"]) == min(by_part["total"]))]
    if rights[0] is not None:
        yield "all", "solved", [float(True in rights)]
        if source := records[0].get("source"):
            yield "all", f"reward/{RIGHT}/{source}", [float(right is True) for right in rights]


def step_figures(
    sides: Mapping[str, Mapping[str, Clusters]], renamed: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Return the keys of a step's means, a line each, and each mean with the ends of its interval: `0.25,0.2,0.31`.

    They are texts because a report writes those of all steps each time, and makes none of them again. The keys of right
    and of wrong completions begin with the side. A single entry of a mixture is not told apart. With `renamed`, only
    its keys are told, by other names.
    """
    sources = [figure for figure in sides["all"] if figure.startswith(f"reward/{RIGHT}/")]
    made = {}
    for side, figures in sides.items():
        for figure, clusters in figures.items():
            if [figure] != sources:
                key = KEYS.get(figure, figure)
                made[key if side == "all" else f"{side}/{key}"] = told(estimate(figure, clusters))
    if renamed is not None:
        made = {name: made[key] for key, name in renamed.items() if key in made}
    return "\n".join(made), ",".join(made.values())


def estimate(figure: str, clusters: Clusters) -> Estimate | None:
    return clusters.rate() if figure.startswith(SHARES) else clusters.average()


def told(found: Estimate | None) -> str:
    return "nan,nan,nan" if found is None else f"{found.mean:.6g},{found.low:.6g},{found.high:.6g}"


def length(record: Record) -> int:
    """Return how many tokens the policy wrote."""
    return int(record.get("num_tokens", len(record.get("token_ids", ()))))


def shown_in(record: Record) -> Sequence[str]:
    """Return the behaviours that a completion shows: as recorded, or found now in a record of an earlier version."""
    recorded = record.get("markers")
    if isinstance(recorded, list):
        return recorded
    text = record["completion"]
    turns = record.get("turns") or [{"text_start": 0, "text_end": len(text)}]
    return markers("\n".join(text[turn["text_start"] : turn["text_end"]] for turn in turns))


def is_right(record: Record) -> bool | None:
    """Return whether a completion is right; None where answers are neither right nor wrong."""
    part = record.get("parts", {}).get(RIGHT)
    return None if part is None else part["value"] == 1.0


def parts_of(record: Record) -> Iterator[tuple[str, float]]:
    """Yield the reward as `total`, and each of its parts, as far as they are numbers."""
    found = {"total": record.get("reward")}
    found |= {name: part.get("value") for name, part in record.get("parts", {}).items()}
    for name, value in found.items():
        if isinstance(value, int | float) and isfinite(value):
            yield name, float(value)
