"""The interface of trackers, and one tracker that combines several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from learner.logprob_record import LogprobRecord
from rollout.types.completions import Group, RemoteGroup


class LearnedGroup(NamedTuple):
    """A group of a step, with what the update recorded about it."""

    group: RemoteGroup
    advantages: Sequence[float]
    """One for each completion."""
    logprobs: LogprobRecord | None = None
    """The learner's logprobs of its tokens; None if they were not recorded, or the group was not trained on."""


RemoteAdvantages = Sequence[LearnedGroup]


class Tracker(Protocol):
    """Receives each step's metrics, its groups, and the groups of held-out prompts. Step 0 is the first evaluation."""

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None: ...

    def flush(self) -> None:
        """Return when everything that was logged is stored. Raise the error that prevented that."""
        return

    def close(self) -> None: ...


class Trackers(Tracker):
    """Passes every call to several trackers."""

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
