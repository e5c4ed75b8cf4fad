"""Named parts and their weights -> the reward that is trained on."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

from rollout.types import PartStatus, Reward, RewardPart


class RewardConfigError(ValueError):
    """The weights and what the reward function returns do not name the same parts."""


def weigh(parts: Mapping[str, float], weights: Mapping[str, float]) -> Reward:
    """The weighted sum of ``parts``. A part that is NaN or infinite gets the status ``error`` and counts as 0.

    Raises RewardConfigError unless ``parts`` and ``weights`` have the same names.
    """
    if parts.keys() != weights.keys():
        raise RewardConfigError(_mismatch(parts.keys(), weights.keys()))
    made = tuple(_part(name, parts[name]) for name in weights)
    return Reward(total=math.fsum(weights[part.name] * part.value for part in made), parts=made)


def failed(weights: Mapping[str, float], status: PartStatus) -> Reward:
    """The reward of a completion that could not be marked: every part 0 with ``status``."""
    return Reward(total=0.0, parts=tuple(RewardPart(name, 0.0, status) for name in weights))


def _part(name: str, value: float) -> RewardPart:
    return RewardPart(name, float(value)) if math.isfinite(value) else RewardPart(name, 0.0, "error")


def _mismatch(returned: Iterable[str], weighted: Iterable[str]) -> str:
    returned, weighted = sorted(returned), sorted(weighted)
    lines = [f"the reward function returns parts {returned}, but rewards.weights names {weighted}."]
    for name in weighted:
        if name not in returned:
            nearest = difflib.get_close_matches(name, returned, n=1)
            fix = f"rename it to {nearest[0]}" if nearest else "remove it"
            lines.append(f"rewards.weights.{name} weighs nothing: {fix}.")
    lines += [
        f"Part {name} has no weight: set rewards.weights.{name}, to 0 if it is only to be logged."
        for name in returned
        if name not in weighted
    ]
    return " ".join(lines)
