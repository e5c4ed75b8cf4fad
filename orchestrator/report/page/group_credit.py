"""The page GRPO: from the rewards of a group to the advantages of its tokens, by the learner's own formulas."""

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
"""Groups with spread that the page explains, and groups without."""
LARGEST = 32
"""Completions of a group that can be read side by side."""
RIGHT_OR_WRONG = "correctness"
MAX_PARTS = 6
"""Distributions that are shown, that of the reward too."""
SPREAD = "group/spread/"
"""Beginning of the keys of how many groups differ in a part of the reward."""


def credit(
    run_settings: Mapping[str, Any], groups: Sequence[dict[str, Any]], train: Digests, keys: Collection[str] = ()
) -> dict[str, Any]:
    """Return the groups that are explained, and how sparse the rewards are.

    Args:
        run_settings: of the run, as they are.
        groups: those that the report keeps.
        train: digests of the training completions, by step.
        keys: what was counted of them.
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
    """Return whether a teacher's KL is all that the run learns from: its advantages move nothing."""
    return ((run_settings.get("learner") or {}).get("algorithm") or {}).get("surrogate") == "none"


def examples(groups: Sequence[dict[str, Any]]) -> list[int]:
    """Return the places of groups to explain, evenly over the run: first those with spread, then a few without."""
    sized = [
        index for index, group in enumerate(groups)
        if group["split"] == "train" and 1 < len(group["completions"]) <= LARGEST
        and all(each["reward"] is not None for each in group["completions"])
    ]  # fmt: skip
    with_spread = [index for index in sized if len({each["reward"] for each in groups[index]["completions"]}) > 1]
    equal = [index for index in sized if index not in set(with_spread)]
    return [*evenly(with_spread, MAX_EXAMPLES), *evenly(equal, MAX_EQUAL)]


def evenly(places: Sequence[int], most: int) -> list[int]:
    """Return `most` of the places, or all where there are fewer."""
    chosen = np.linspace(0, len(places) - 1, min(most, len(places))).astype(int)
    return [places[index] for index in chosen.tolist()]


def explained(group: Mapping[str, Any], index: int, max_tokens: int | None) -> dict[str, Any]:
    """Return what the formulas make of a group's rewards. Nothing of it was recorded, but for the run's advantages."""
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
    """Return the distribution of the reward and of each part, over the first fifth of the steps and the last."""
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
    """Return the share of groups with spread by what is rewarded: what right or wrong alone would teach, and more."""
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
        "Share of groups that teach something if this alone were rewarded. Where partial credit lies above right or "
        "wrong, it would teach from more groups, though not what is right."
    )
    return Chart("What each reward would teach from" + of_all(len(lines), len(names)), "share", lines, note)
