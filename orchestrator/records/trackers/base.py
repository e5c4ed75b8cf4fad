"""The interface of trackers, and several of them as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from learner.logprob_record import LogprobRecord
from rollout.types.completions import Group, RemoteGroup


class LearnedGroup(NamedTuple):
    """A group of a step, and what the update made of it."""

    group: RemoteGroup
    advantages: Sequence[float]
    """Of its completions."""
    logprobs: LogprobRecord | None = None
    """Of its tokens; None where they are not recorded, or the group was not trained on."""


RemoteAdvantages = Sequence[LearnedGroup]


class Tracker(Protocol):
    """Takes the metrics of each step, its groups, and those of held-out prompts; step 0 is the first evaluation."""

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None: ...

    def flush(self) -> None:
        """Return once all that was logged is where it is kept. Raise what has kept some of it from getting there."""
        return

    def close(self) -> None: ...


class Trackers(Tracker):
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        for tracker in self._trackers:
            tracker.log(step, metrics, groups, held_out)

    def flush(self) -> None:
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()
