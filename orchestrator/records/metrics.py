"""Compute a step's metrics from its graded groups. Every key has an entry in orchestrator/records/meanings/."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from rewards.function import RIGHT_UNTAGGED, UNTAGGED_ONE_IN
from rewards.parts.markers import marker_shares
from rollout.types.completions import Completion, CompletionHeader, GroupHeader, Reward, RewardPart


def rollout_metrics(groups: Sequence[GroupHeader], mixture: Iterable[str] = ()) -> dict[str, float]:
    """Return `reward/`, `rollout/` and `marker/` metrics of graded groups; `mixture` has the names of its entries."""
    completions = [completion for group in groups for completion in group.completions]
    rewards = [reward for group in groups for reward in group.rewards]
    spread = {"rollout/groups_without_spread": mean(not group.has_spread for group in groups)} | solved_metrics(groups)
    markers = {f"marker/{name}": share for name, share in marker_shares(reward.markers for reward in rewards).items()}
    metrics = reward_metrics(rewards) | length_metrics(completions) | markers | spread
    metrics |= mixture_metrics(groups, mixture) | turn_metrics(groups)
    return metrics | call_metrics(groups) | grading_metrics(groups)


def reward_metrics(rewards: Sequence[Reward]) -> dict[str, float]:
    parts: dict[str, list[RewardPart]] = {}  # in a mixture, each task may have its own parts
    for part in (part for reward in rewards for part in reward.parts):
        parts.setdefault(part.name, []).append(part)
    untagged = parts.pop(RIGHT_UNTAGGED, [])  # exists for one in UNTAGGED_ONE_IN completions without tags
    statuses = [reward.status for reward in rewards]
    values = {"total": [reward.total for reward in rewards]}
    values |= {name: [part.value for part in found] for name, found in parts.items()}
    return {
        **{f"reward/{name}": mean(found) for name, found in values.items()},
        **{f"reward/std/{name}": deviation(found) for name, found in values.items()},
        **{f"reward/failed/{name}": mean(part.status != "ok" for part in found) for name, found in parts.items()},
        f"reward/{RIGHT_UNTAGGED}": min(1.0, UNTAGGED_ONE_IN * sum(part.value for part in untagged) / len(rewards)),
        **{f"reward/logged/{name}": mean(values) for name, values in logged_figures(rewards).items()},
        "reward/timeouts": float(statuses.count("timeout")),
        "reward/errors": float(statuses.count("error")),
    }


def logged_figures(rewards: Iterable[Reward]) -> dict[str, list[float]]:
    """Return the values that reward functions logged, by name: one for each completion that has it."""
    values: dict[str, list[float]] = {}
    for name, value in (item for reward in rewards for item in reward.logged.items()):
        values.setdefault(name, []).append(value)
    return values


def grading_metrics(groups: Sequence[GroupHeader]) -> dict[str, float]:
    """Return the seconds that each reward function took, summed over the step's completions, by its name."""
    seconds: dict[str, float] = {}
    for name, taken in (item for group in groups for reward in group.rewards for item in reward.seconds.items()):
        seconds[name] = seconds.get(name, 0.0) + taken
    return {f"time/grading/{name}_s": taken for name, taken in seconds.items()}


def length_metrics(completions: Sequence[Completion | CompletionHeader]) -> dict[str, float]:
    return {
        "rollout/completion_tokens": mean(completion.num_tokens for completion in completions),
        "rollout/sampled_tokens": float(sum(completion.num_tokens for completion in completions)),
        "rollout/truncated": mean(completion.is_truncated for completion in completions),
    }


def turn_metrics(groups: Sequence[GroupHeader]) -> dict[str, float]:
    """Return metrics of the environments of a step's completions; empty without environments."""
    headers = [
        each if isinstance(each, CompletionHeader) else each.header
        for group in groups
        for each in group.completions
        if group.prompt.environment
    ]
    if not headers:
        return {}
    reasons = [header.finish_reason for header in headers]
    return {
        "rollout/turns": mean(header.num_turns for header in headers),
        "rollout/observed_tokens": mean(header.num_observed_tokens for header in headers),
        "rollout/out_of_turns": reasons.count("turns") / len(reasons),
        "rollout/environment_timeouts": float(reasons.count("timeout")),
        "rollout/environment_errors": float(reasons.count("error")),
    }


def call_metrics(groups: Sequence[GroupHeader]) -> dict[str, float]:
    """Return how useful tool calls were, if answers are right or wrong; empty if no tool was called.

    A call helped if the policy wrote its result afterwards and the completion is right. The gain of calling is the
    pass rate of a group's completions that call, minus the pass rate of its other completions.
    """
    helped: list[bool] = []
    gains: list[float] = []
    for group in groups:
        rights: dict[bool, list[bool]] = {True: [], False: []}
        for values in ({part.name: part.value for part in reward.parts} for reward in group.rewards):
            if {"tool_called", "tool_used", "correctness"} <= values.keys():
                is_right = values["correctness"] == 1.0
                rights[values["tool_called"] > 0].append(is_right)
                if values["tool_called"]:
                    helped.append(is_right and values["tool_used"] > 0)
        if rights[True] and rights[False]:
            gains.append(mean(rights[True]) - mean(rights[False]))
    shares = {"rollout/calls_helped": mean(helped)} if helped else {}
    return shares | ({"rollout/calls_gain": mean(gains)} if gains else {})


def staleness_metrics(step: int, groups: Sequence[GroupHeader]) -> dict[str, float]:
    """Return how many steps the oldest weights that sampled a completion are behind the weights that `step` updates."""
    completions = [completion for group in groups for completion in group.completions]
    staleness = [step - 1 - min(completion.policy_versions) for completion in completions]
    return {
        "rollout/staleness": mean(staleness),
        "rollout/staleness_max": float(max(staleness)),
        "rollout/mixed_versions": mean(len(completion.policy_versions) > 1 for completion in completions),
    }


def solved_metrics(groups: Sequence[GroupHeader]) -> dict[str, float]:
    """Return the shares of groups that are all right and all wrong, among groups whose answers are right or wrong."""
    rates = [rate for rate in (group.pass_rate for group in groups) if rate is not None]
    if not rates:
        return {}
    return {
        "rollout/groups_all_right": rates.count(1.0) / len(rates),
        "rollout/groups_all_wrong": rates.count(0.0) / len(rates),
    }


def mixture_metrics(groups: Sequence[GroupHeader], mixture: Iterable[str]) -> dict[str, float]:
    """Return the share of each entry of a mixture, and its pass rate if answers are right or wrong; empty for one.

    A small step may have prompts of one entry only: the others' shares are 0 then, and not unknown.
    """
    rates: dict[str, list[float | None]] = {name: [] for name in mixture}
    for group in groups:
        rates.setdefault(group.prompt.source, []).append(group.pass_rate)
    if len(rates) == 1:
        return {}
    shares = {f"rollout/share/{source}": len(found) / len(groups) for source, found in rates.items()}
    graded = {source: [rate for rate in found if rate is not None] for source, found in rates.items()}
    return shares | {f"reward/correctness/{source}": mean(found) for source, found in graded.items() if found}


def mean(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation; exactly 0 for equal values, of which `np.std` may leave 1e-17."""
    return float(np.std(values)) if max(values) > min(values) else 0.0


class Clock:
    """A stopwatch for the phases of one step."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._phases: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Measure the time of the context as `time/<phase>_s`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._phases[phase] = self._phases.get(phase, 0.0) + time.perf_counter() - start

    def phases(self) -> dict[str, float]:
        """Return `time/` metrics of the phases so far."""
        return {f"time/{phase}_s": seconds for phase, seconds in self._phases.items()}

    def seconds(self) -> dict[str, float]:
        """Return `phases()` with the whole time so far, `time/step_s`, and the time outside phases, `time/other_s`."""
        total = time.perf_counter() - self._start
        return self.phases() | {"time/step_s": total, "time/other_s": total - sum(self._phases.values())}
