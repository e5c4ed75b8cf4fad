"""Groups as they travel between actors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollout.types.completions import Group, RemoteGroup
from rollout.types.packed import PackedGroup
from rollout.types.sampling import SamplingRequest


def gathered(rollouts: Any, request: SamplingRequest) -> list[RemoteGroup]:
    """Sample and grade a request, as the loop does."""
    rollouts.submit(request)
    return rollouts.gather(request.prompts)


def for_update(groups: Sequence[Group]) -> list[Any]:
    """Return the arguments of a rank's `update` after the step; it records logprobs."""
    return [[group.totals.tolist() for group in groups], True, *map(PackedGroup.of, groups)]
