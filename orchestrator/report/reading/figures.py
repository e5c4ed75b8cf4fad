"""The figures that are means over completions: the contribution of each completion, or each group.

Figures over all completions have the keys of the corresponding metrics. They give a metric its interval, because the
metrics alone do not show how much the groups of a step differ.
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
"""The six sums of `Clusters`, by figure."""
SIDES = ("all", "right", "wrong")
RIGHT = "correctness"
KEYS = {
    "tokens": "rollout/completion_tokens",
    "truncated": "rollout/truncated",
    "solved": "group/solved",
    "spread": "rollout/groups_without_spread",
}
"""The key of a figure's mean over all completions, by figure; other figures have a key with their own name."""
HELD_OUT = {f"{side}/rollout/completion_tokens": f"eval/{side}_completion_tokens" for side in ("right", "wrong")} | {
    "rollout/completion_tokens": "eval/completion_tokens"
}
"""Means of an evaluation for which the run logs no interval, by their key for training completions."""
POOLED = ("tokens", "marker/")
"""Figures whose means over several steps the page shows, or beginnings of their names."""
SHARES = ("truncated", "solved", "spread", "marker/", "reward/correctness", "group/spread/")
"""Figures between 0 and 1, or beginnings of their names."""


def figures_of(records: Sequence[Record], shown: Sequence[Sequence[str]]) -> Iterator[tuple[str, str, list[float]]]:
    """Yield each side and figure of a group, with the values of its completions.

    Figures about groups have one value per group.
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
        if name != RIGHT_UNTAGGED:  # only a few completions have it
            yield "all", f"reward/{name}", values
            yield "all", f"group/spread/{name}", [float(max(values) > min(values))]
    if "total" in by_part:
        yield "all", "spread", [float(max(by_part["total"]) == min(by_part["total"]))]
    if rights[0] is not None:
        yield "all", "solved", [float(True in rights)]
        if source := records[0].get("source"):
            yield "all", f"reward/{RIGHT}/{source}", [float(right is True) for right in rights]


def step_figures(sides: Mapping[str, Mapping[str, Clusters]], renamed: Mapping[str, str] | None) -> tuple[str, str]:
    """Return the keys of a step's means, one per line, and each mean with the ends of its interval: `0.25,0.2,0.31`.

    They are texts because every report writes them for all steps, without computing them again. Keys for right and
    wrong completions begin with the side. If a mixture has only one entry, it gets no key of its own. With `renamed`,
    only its keys are returned, under their new names.
    """
    sources = [figure for figure in sides["all"] if figure.startswith(f"reward/{RIGHT}/")]
    made = {}
    for side, figures in sides.items():
        for figure, clusters in figures.items():
            if [figure] != sources:
                key = KEYS.get(figure, figure)
                made[key if side == "all" else f"{side}/{key}"] = as_text(estimate(figure, clusters))
    if renamed is not None:
        made = {name: made[key] for key, name in renamed.items() if key in made}
    return "\n".join(made), ",".join(made.values())


def estimate(figure: str, clusters: Clusters) -> Estimate | None:
    return clusters.rate() if figure.startswith(SHARES) else clusters.average()


def as_text(mean: Estimate | None) -> str:
    return "nan,nan,nan" if mean is None else f"{mean.mean:.6g},{mean.low:.6g},{mean.high:.6g}"


def length(record: Record) -> int:
    """Return the number of tokens that the policy wrote."""
    return int(record.get("num_tokens", len(record.get("token_ids", ()))))


def shown_in(record: Record) -> Sequence[str]:
    """Return the behaviours that a completion shows: as recorded, or detected now for records of earlier versions."""
    recorded = record.get("markers")
    if isinstance(recorded, list):
        return recorded
    text = record["completion"]
    turns = record.get("turns") or [{"text_start": 0, "text_end": len(text)}]
    return markers("\n".join(text[turn["text_start"] : turn["text_end"]] for turn in turns))


def is_right(record: Record) -> bool | None:
    """Return whether a completion is right; None if answers are neither right nor wrong."""
    part = record.get("parts", {}).get(RIGHT)
    return None if part is None else part["value"] == 1.0


def parts_of(record: Record) -> Iterator[tuple[str, float]]:
    """Yield the reward as `total`, and each of its parts, if they are numbers."""
    values = {"total": record.get("reward")}
    values |= {name: part.get("value") for name, part in record.get("parts", {}).items()}
    for name, value in values.items():
        if isinstance(value, int | float) and isfinite(value):
            yield name, float(value)
