"""The page GRPO: from the rewards of a group to the advantages of its tokens, with the learner's own formulas."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from learner.algorithm.advantages import group_advantages
from orchestrator.evaluate.evaluation import natural_order
from orchestrator.report.page.chart import Chart, Line, Role, healthy, present
from orchestrator.report.page.learning import Digests, of_all
from orchestrator.report.reading.digest import StepDigest
from rewards.function import RIGHT_UNTAGGED

MAX_EXAMPLES, MAX_EQUAL = 24, 4
"""Most groups with spread that the page explains, and most groups without spread."""
LARGEST = 32
"""Most completions of a group that can be read side by side."""
RIGHT_OR_WRONG = "correctness"
MAX_PARTS = 6
"""Most distributions that are shown, with the distribution of the reward itself."""
SPREAD = "group/spread/"
"""Beginning of the keys for the share of groups that differ in a reward part."""


def credit(
    run_settings: Mapping[str, Any], groups: Sequence[dict[str, Any]], train: Digests, keys: Collection[str] = ()
) -> dict[str, Any]:
    """Return the groups that the page explains, and charts of the rewards.

    Args:
        run_settings: the run's settings, unchanged.
        groups: the groups in the report.
        train: digests of the training completions, by step.
        keys: the keys of the means over them.
    """
    algorithm = (run_settings.get("learner") or {}).get("algorithm") or {}
    is_distilled = learns_without_rewards(run_settings)
    max_tokens = (run_settings.get("sampling") or {}).get("max_completion_tokens")
    return {
        "algorithm": {
            name: algorithm.get(name)
            for name in ("preset", "baseline", "advantage_scale", "loss_aggregation", "surrogate")
        },
        "examples": [] if is_distilled else [explained(groups[index], index, max_tokens) for index in examples(groups)],
        "charts": present([*distributions(train), spread_chart(keys)]),
    }


def learns_without_rewards(run_settings: Mapping[str, Any]) -> bool:
    """Return whether the run learns only from a teacher's KL, so that advantages have no effect."""
    return ((run_settings.get("learner") or {}).get("algorithm") or {}).get("surrogate") == "none"


def examples(groups: Sequence[dict[str, Any]]) -> list[int]:
    """Return the indices of groups to explain, evenly over the run: first groups with spread, then a few without."""
    sized = [
        index for index, group in enumerate(groups)
        if group["split"] == "train" and 1 < len(group["completions"]) <= LARGEST
        and all(each["reward"] is not None for each in group["completions"])
    ]  # fmt: skip
    with_spread = [index for index in sized if len({each["reward"] for each in groups[index]["completions"]}) > 1]
    equal = [index for index in sized if index not in set(with_spread)]
    return [*evenly(with_spread, MAX_EXAMPLES), *evenly(equal, MAX_EQUAL)]


def evenly(places: Sequence[int], most: int) -> list[int]:
    """Return `most` of the places, evenly spaced, or all if there are fewer."""
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)
    return [places[index] for index in chosen.tolist()]


def explained(group: Mapping[str, Any], index: int, max_tokens: int | None) -> dict[str, Any]:
    """Return the results of the formulas for a group's rewards; only the run's own advantages were recorded."""
    completions = group["completions"]
    rewards = np.array([each["reward"] for each in completions], dtype=float)
    lengths = np.array([max(1, each["length"]) for each in completions], dtype=float)
    (scaled,) = group_advantages([rewards], baseline="group_mean", scale="group_std")
    (plain,) = group_advantages([rewards], baseline="group_mean", scale="none")
    (others,) = group_advantages([rewards], baseline="leave_one_out", scale="none")
    weights = {
        "sequence_mean": scaled / lengths / len(rewards),
        "token_mean": scaled / lengths.sum(),
        **({"constant": scaled / (max_tokens * len(rewards))} if max_tokens else {}),
    }
    return {
        "group": index,
        "mean": float(rewards.mean()),
        "std": float(rewards.std(ddof=1)),
        "advantages": {"GRPO": short(scaled), "Dr. GRPO, no std": short(plain), "RLOO": short(others)},
        "tokens": {name: short(each) for name, each in weights.items()},
        "recorded": [each.get("advantage") for each in completions],
    }


def short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def distributions(train: Digests) -> list[Chart]:
    """Return the distribution of the reward and of each part, over the first and the last fifth of the steps."""
    steps = list(train.values())
    count = max(1, len(steps) // 5)
    ends: list[tuple[str, Sequence[StepDigest], Role]] = [
        ("first fifth of the steps", steps[:count], "muted"),
        ("last fifth", steps[-count:], "main"),
    ]
    names = dict.fromkeys(name for each in steps for name in each.parts if name != RIGHT_UNTAGGED)
    charts = []
    wanted = sorted(names, key=lambda name: (name != "total", name != RIGHT_OR_WRONG, natural_order(name)))
    for name in wanted[:MAX_PARTS]:
        values = sorted({value for _, part, _ in ends for each in part for value, _ in each.parts.get(name, ())})
        x = [f"{value:g}" for value in values]
        lines = [Line(label, role=role, x=x, y=shares(part, name, values)) for label, part, role in ends]
        title = "Rewards" if name == "total" else f"Reward part {name.replace('_', ' ')}"
        title += of_all(MAX_PARTS, len(wanted)) if name == "total" else ""
        std = f"reward/std/{name}"
        note = f"Share of completions with each value. Of their standard deviation, {std}: {healthy(std)}"
        charts.append(Chart(title, "share", lines, note, kind="groups", x_title="value"))
    return charts


def shares(steps: Sequence[StepDigest], name: str, values: Sequence[float]) -> list[float]:
    counts = dict.fromkeys(values, 0.0)
    for value, count in (pair for each in steps for pair in each.parts.get(name, ())):
        counts[value] += count
    total = sum(counts.values())
    return [round(count / total, 5) if total else 0.0 for count in counts.values()]


def spread_chart(keys: Collection[str]) -> Chart | None:
    """Return a chart of the share of groups with spread in the reward, in correctness alone, and in each other part."""
    names = [key.removeprefix(SPREAD) for key in keys if key.startswith(SPREAD)]
    if not names:
        return None
    names.sort(key=lambda name: (name != "total", name != RIGHT_OR_WRONG, natural_order(name)))
    roles: tuple[Role, ...] = ("main", "second", "third", "muted")
    lines = []
    for name, role in zip(names, roles, strict=False):
        label = {"total": "the reward", RIGHT_OR_WRONG: "right or wrong alone"}.get(
            name, f"{name.replace('_', ' ')} alone"
        )
        lines.append(Line(label, f"{SPREAD}{name}", role))
    note = (
        "Share of groups that would teach something if only this were rewarded. If partial credit is above right or "
        "wrong, it would teach from more groups, but it does not teach what is right."
    )
    return Chart("What each reward would teach from" + of_all(len(lines), len(names)), "share", lines, note)
