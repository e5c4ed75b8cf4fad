"""Compose the reward that is trained on from named parts, ensembles and weights.

    function outcomes, parts from an environment -> parts -> ensembles of parts -> total = sum of weight x value

A failed part has the value 0 everywhere: in the weighted sum, and as a member of an ensemble. An ensemble has the
status of its first failed member, so ``ok`` means that all its members were graded.

If a function returned None, it does not apply to the completion: its part is left out, also of ensembles. If no part
with a weight applies, these parts count as failed, because a completion that nothing graded must not count as 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from rewards.config import RESERVED, RewardConfigError, RewardsConfig
from rewards.function import RIGHT_UNTAGGED, Outcome, RewardFunction
from rollout.types.completions import Reward, RewardPart
from rollout.types.names import nearest

MAX_VALUE = 1e12
"""Largest absolute value of a part, so that sums of weighted parts and their squares stay finite."""
COMBINE: dict[str, Callable[[list[float]], float]] = {"max": max, "min": min, "sum": math.fsum}


class Given(NamedTuple):
    """The parts that a completion's environment gave."""

    parts: tuple[RewardPart, ...] = ()
    environment: str = ""
    """Its name."""
    absent: Collection[str] = ()
    """Parts of other environments, which do not apply to the completion."""


def compose(
    functions: Sequence[RewardFunction],
    outcomes: Sequence[Outcome],
    config: RewardsConfig,
    given: Given = Given(),  # noqa: B008  it is immutable
) -> Reward:
    """Return the reward of a completion from the outcome of each function. Weighted parts come first.

    For a function of a whole group, pass its outcome for this completion (``Outcome.of_completion``). Raises
    RewardConfigError if a weighted part is missing, or two functions returned the same part.
    """
    weights, ensembles = config.weights, config.ensembles
    parts = _given_parts(functions, config, given) if given.parts else {}
    for function, outcome in zip(functions, outcomes, strict=True):
        for part in parts_of(function, outcome):
            name = part.name
            is_reserved = name in RESERVED and name != RIGHT_UNTAGGED  # our own function returns that one
            if is_reserved or name in parts or name in ensembles:
                other = "a metric of the whole reward has" if is_reserved else "another gives"
                if any(each.name == name for each in given.parts):
                    other = f"the environment {given.environment} gives"
                raise RewardConfigError(f"{function.path} returns the part {name}, which {other} too: rename it")
            parts[name] = part
    absent = absent_parts(functions, outcomes).union(given.absent)
    for name, ensemble in ensembles.items():
        members = {member: weight for member, weight in ensemble.weights.items() if member not in absent}
        if members:
            parts[name] = _combined(name, ensemble.by, members, parts)
        else:
            absent.add(name)
    for name in weights:
        if name not in absent:
            _require(name, parts, f"rewards.weights.{name}")
    if absent and absent.issuperset(paid := [name for name, weight in weights.items() if weight]):
        parts |= {name: RewardPart(name, 0.0, "error") for name in paid}
    weighted = {name: parts[name] for name in weights if name in parts}
    total = math.fsum([weights[name] * part.value for name, part in weighted.items()])
    shown = next((outcome.markers for outcome in outcomes if outcome.markers is not None), None)
    logged = {name: figure for outcome in outcomes for name, figure in outcome.logged.items()}
    return Reward(total, tuple((weighted | parts).values()), seconds_taken(functions, outcomes), shown, logged)


def _given_parts(functions: Sequence[RewardFunction], config: RewardsConfig, given: Given) -> dict[str, RewardPart]:
    """Return an environment's parts by name. Raises RewardConfigError for a name that something else has too."""
    own = {name for function in functions for name in function.parts}
    for name in (part.name for part in given.parts):
        if name in RESERVED or name in config.ensembles or name in own:
            other = "what grades the completion has" if name in own else "a metric or an ensemble has"
            raise RewardConfigError(
                f"the environment {given.environment} gives the part {name}, which {other} too: rename the "
                "environment's"
            )
    return {part.name: part for part in given.parts}


def absent_parts(functions: Sequence[RewardFunction], outcomes: Sequence[Outcome]) -> set[str]:
    """Return the parts of functions that do not apply to the completion: they returned None."""
    return {
        function.name
        for function, outcome in zip(functions, outcomes, strict=True)
        if outcome.status == "ok" and not outcome.grades and not function.grades_task
    }


def seconds_taken(functions: Sequence[RewardFunction], outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return how long each function took, by its name: its deadline where it passed that."""
    return {
        function.name: outcome.seconds or (function.deadline_s if outcome.status == "timeout" else 0.0)
        for function, outcome in zip(functions, outcomes, strict=True)
    }


def parts_of(function: RewardFunction, outcome: Outcome) -> tuple[RewardPart, ...]:
    """Return a function's parts. NaN, infinity and more than MAX_VALUE are errors, as each part of one that failed."""
    if outcome.status != "ok":
        return tuple(RewardPart(name, 0.0, outcome.status) for name in function.parts)
    return tuple(
        [
            RewardPart(name, value) if abs(value) <= MAX_VALUE else RewardPart(name, 0.0, "error")
            for name, value in outcome.grades.items()
        ]
    )


def _combined(name: str, by: str, weights: Mapping[str, float], parts: Mapping[str, RewardPart]) -> RewardPart:
    for member in weights:
        _require(member, parts, f"rewards.ensembles.{name}.weights.{member}")
    members = [parts[member] for member in weights]
    value = COMBINE[by]([weights[member.name] * member.value for member in members])
    return RewardPart(name, value, Reward(value, tuple(members)).status)


def _require(name: str, parts: Iterable[str], key: str) -> None:
    if name not in parts:
        raise RewardConfigError(f"{key}: no function returned that part; {nearest(name, set(parts))}")
