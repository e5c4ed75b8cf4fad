"""Assign prompts to generators, and measure how fast groups come back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from itertools import groupby
from operator import attrgetter

from rollout.types.completions import GroupHeader
from rollout.types.prompts import Prompt
from rollout.types.sampling import SamplingRequest


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """A prompt whose group is requested and not finished: it waits for a generator, or a generator has it."""

    prompt: Prompt
    batch: SamplingRequest
    """The request that it was submitted with. Other prompts of the batch may be with other generators."""
    submitted: float
    """Seconds of the monotonic clock."""

    @property
    def settings(self) -> SamplingRequest:
        """Its sampling settings: equal for prompts that one call can sample."""
        return replace(self.batch, prompts=())


def assign_requests(requests: Sequence[PromptRequest], in_flight: Mapping[str, int]) -> dict[str, list[PromptRequest]]:
    """Give each prompt to the generator with the fewest groups in flight, the first of them where that is a tie.

    With nothing in flight each generator gets the same prompts every time, so that a resumed run repeats every batch
    to the last bit. When sampling runs ahead, a slow generator gets fewer.

    Args:
        in_flight: the number of groups that each generator has already, by its name.
    """
    loads = [(load, place, name) for place, (name, load) in enumerate(in_flight.items())]
    heapify(loads)
    shares: dict[str, list[PromptRequest]] = {name: [] for name in in_flight}
    for request in requests:
        load, place, name = loads[0]
        heapreplace(loads, (load + 1, place, name))
        shares[name].append(request)
    return shares


def group_by_sampling(requests: Sequence[PromptRequest]) -> Iterator[SamplingRequest]:
    """Yield one request for each series of neighbours that are sampled under the same settings."""
    for common, series in groupby(requests, key=attrgetter("settings")):
        yield replace(common, prompts=tuple(request.prompt for request in series))


def waited_for(
    in_flight: Mapping[str, Mapping[str, PromptRequest]], num_asked: int, num_grading: int, num_queued: int
) -> str:
    """Return in words what is still pending.

    Args:
        in_flight: what each generator has, by its name and the prompt's id.
        num_asked: completions that wait for their environments.
        num_grading: groups that the reward workers have.
        num_queued: prompts that no generator has.
    """
    parts = [
        f"{name} ({len(requests)} prompts, {min(requests)} the first)"
        for name, requests in in_flight.items()
        if requests
    ]
    if num_asked:
        parts.append(f"environments ({num_asked} completions)")
    if num_grading:
        parts.append(f"the reward workers ({num_grading} groups)")
    if num_queued:
        parts.append(f"a free generator for {num_queued} prompts")
    return ", ".join(parts) or "nothing"


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast the last groups came. Times are of the monotonic clock, in seconds."""

    sampled: float = 0.0
    """When the last of them had been sampled."""
    tokens_per_s: float = 0.0
    reward_wait_s: float = 0.0
    """How long the caller then waited for their rewards."""

    def after(self, groups: Sequence[GroupHeader], times: Sequence[tuple[float, float]]) -> Throughput:
        """Return the throughput of `groups`, by when each was asked for and sampled.

        Of sampling that ran ahead only the time since the groups before counts.
        """
        if not groups:
            return self
        sampled = max(end for _, end in times)
        seconds = sampled - max(self.sampled, min(submitted for submitted, _ in times))
        tokens = sum(group.num_completion_tokens for group in groups)
        return Throughput(sampled, tokens / seconds if seconds > 0 else 0.0, time.monotonic() - sampled)
