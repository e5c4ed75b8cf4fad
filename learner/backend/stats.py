"""Statistics, summed over the microbatches of a step and then over the ranks."""

from __future__ import annotations

from collections import defaultdict

import torch.distributed as dist
from torch import Tensor

from learner.algorithm.losses import Stats
from learner.backend.forward_backward import Backend


class StatsAccumulator:
    """The statistics of a step so far: sums, but the largest of those whose name ends in ``_max``."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, stats: Stats) -> None:
        """Add the scalars of one microbatch. Nothing is read from the device before ``reduce``."""
        for name, value in stats.items():
            self._values[name].append(value.detach())

    def reduce(self, backend: Backend) -> dict[str, float]:
        """Return the totals over all microbatches of all ranks. Collective; every rank must have the same names."""
        values = {name: [float(value) for value in values] for name, values in self._values.items()}
        maxima = {name: max(values[name]) for name in values if name.endswith("_max")}
        sums = {name: sum(values[name]) for name in values if name not in maxima}
        return backend.all_reduce(sums, dist.ReduceOp.SUM) | backend.all_reduce(maxima, dist.ReduceOp.MAX)
