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
    settings: SamplingRequest
    """The request that it was submitted with, but without prompts: equal for prompts that one call can sample."""
    submitted: float
    """Seconds of the monotonic clock."""


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
    """How fast the groups of a step came, which may be gathered in several rounds. Times are monotonic, in seconds."""

    sampled: float = 0.0
    """When the last of the groups had been sampled."""
    tokens: int = 0
    seconds: float = 0.0
    """How long their sampling took."""
    reward_wait_s: float = 0.0
    """How long the caller waited for rewards after everything had been sampled."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def after(self, groups: Sequence[GroupHeader], times: Sequence[tuple[float, float]], asked: float) -> Throughput:
        """Return the throughput after one more round of `groups`.

        If sampling ran ahead, only the time since the groups before counts, unless these came before those were done.

        Args:
            times: when each group was requested, and when it had been sampled.
            asked: when the caller began to wait for them. What was graded before that was not waited for.
        """
        if not groups:
            return self
        now, first, sampled = time.monotonic(), min(start for start, _ in times), max(end for _, end in times)
        since = first if sampled <= self.sampled else max(self.sampled, first)
        return Throughput(
            sampled,
            self.tokens + sum(group.num_completion_tokens for group in groups),
            self.seconds + sampled - since,
            self.reward_wait_s + now - max(sampled, asked),
        )

    def next_step(self) -> Throughput:
        """Return the throughput before the first groups of the next step."""
        return Throughput(self.sampled)
