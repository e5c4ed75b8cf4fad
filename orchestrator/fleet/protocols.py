"""The interfaces of a run's actors for the loop: sampling, updating, and taking turns on a shared device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from learner.metrics import Update
from rollout.types.completions import Group, RemoteGroup
from rollout.types.prompts import Prompt
from rollout.types.sampling import SamplingRequest


class Rollouts(Protocol):
    """Samples and grades."""

    def submit(self, request: SamplingRequest) -> None:
        """Have a group of completions of each prompt sampled and graded from now on. Returns at once."""
        ...

    def gather(self, prompts: Sequence[Prompt]) -> list[RemoteGroup]:
        """Wait for the groups of submitted prompts, and return their headers in the prompts' order."""
        ...

    def collect(self, request: SamplingRequest) -> list[Group]:
        """Submit, gather, and fetch tokens and texts."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return metrics of what was gathered since the last call, and of what is in flight now."""
        ...


class LearnerService(Protocol):
    """The group of learner ranks as one object."""

    def update(self, step: int, groups: Sequence[RemoteGroup]) -> Update:
        """Train on the groups of a step."""
        ...

    def score_again(self, update: Update) -> Update:
        """Return the last update with what it changed of each token. Nothing else depends on it."""
        ...

    def save(self, folder: Path) -> Mapping[str, str]:
        """Write weights and optimizer into the folder. Return the SHA-256 of each file."""
        ...

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""
        ...


class Fleet(Protocol):
    """The actors as the loop sees them, in any placement."""

    @property
    def rollouts(self) -> Rollouts: ...

    @property
    def learner(self) -> LearnerService: ...

    def generating(self) -> AbstractContextManager[None]:
        """Keep the generators awake within the context."""
        ...

    def learning(self) -> AbstractContextManager[None]:
        """Let the learner use the whole device within the context."""
        ...

    def publish(self, version: int) -> None:
        """Make every generator run the learner's weights, as `version`."""
        ...


class WeightSender(Protocol):
    """The learner's interface for a publish."""

    @property
    def ranks(self) -> Mapping[str, Any]:
        """Actor handles of all ranks, by name."""
        ...

    def weight_buckets(self, max_bytes: int, timeout_s: float | None = None) -> list[Any]:
        """Return references to all buckets of the weights, which leave the learner once."""
        ...

    def call_ranks(self, method: str, *args: Any) -> dict[str, Any]:
        """Call `method` of every rank. Returns the pending calls by the rank's name."""
        ...
