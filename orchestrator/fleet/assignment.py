"""Which generator gets which prompts, and how fast the groups come back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from itertools import groupby

from rollout.config import SamplingConfig
from rollout.types.completions import Group
from rollout.types.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt on its way to a group."""

    prompt: Prompt
    sampling: SamplingConfig
    group_size: int
    submitted: float
    """Seconds of the monotonic clock."""


def assign_requests(requests: Sequence[Request], in_flight: Mapping[str, int]) -> dict[str, list[Request]]:
    """Each prompt to the generator with the fewest groups in flight, the first of them where that is a tie.

    With nothing in flight that is a fixed deal, so that a resumed run repeats every batch to the last bit; when
    sampling runs ahead, a slow generator gets less.

    Args:
        in_flight: the number of groups that each generator has already.
    """
    loads = [(load, place, name) for place, (name, load) in enumerate(in_flight.items())]
    heapify(loads)
    shares: dict[str, list[Request]] = {name: [] for name in in_flight}
    for request in requests:
        load, place, name = loads[0]
        heapreplace(loads, (load + 1, place, name))
        shares[name].append(request)
    return shares


def group_by_sampling(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Neighbours that are sampled group_by_sampling."""
    for _, same in groupby(requests, key=lambda request: (request.sampling, request.group_size)):
        yield list(same)


@dataclass(frozen=True, slots=True)
class Throughput:
    """How fast the last groups came. Times are of the monotonic clock."""

    sampled: float = 0.0
    """When the last of them had been sampled."""
    tokens_per_s: float = 0.0
    reward_wait_s: float = 0.0
    """How long their rewards kept the caller waiting after that."""

    def after(self, groups: Sequence[Group], times: Sequence[tuple[float, float]]) -> Throughput:
        """The pace of `groups`, by when each was asked for and sampled; what ran ahead counts from those before on."""
        if not groups:
            return self
        sampled = max(end for _, end in times)
        seconds = sampled - max(self.sampled, min(submitted for submitted, _ in times))
        tokens = sum(group.num_completion_tokens for group in groups)
        return Throughput(sampled, tokens / seconds if seconds > 0 else 0.0, time.monotonic() - sampled)
