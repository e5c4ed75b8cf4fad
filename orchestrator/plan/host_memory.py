"""What all actors together hold in host memory."""

from __future__ import annotations

import math

from orchestrator.config.schema import RunConfig
from orchestrator.plan.terms import GIB, HostTerm, Sizes, is_colocated, reference_kind

HOST_GENERATOR, HOST_LEARNER, HOST_REWARD, HOST_DRIVER = 4 * GIB, 3 * GIB, GIB // 4, 2 * GIB
"""Code and libraries of a process in host memory."""


def host_terms(config: RunConfig, sizes: Sizes) -> list[HostTerm]:
    """Of all actors together."""
    learner, b, T, N = config.learner, sizes.b, sizes.T, sizes.N
    generators, workers = config.rollout.num_generators, config.rewards.num_workers
    base = b * sizes.shape.num_parameters
    terms = [
        HostTerm("driver", "Ray and the loop", HOST_DRIVER, "2 GiB"),
        HostTerm("generators", "processes", generators * HOST_GENERATOR, f"{generators} × 4 GiB"),
        HostTerm("generators", "weights while asleep", generators * base, f"{generators} × {b} P"),
        HostTerm("learner", "processes", N * HOST_LEARNER, f"{N} × 3 GiB"),
        HostTerm("learner", "weights on their way", base, f"{b} P, in Ray's object store"),
        HostTerm("rewards", "workers", workers * HOST_REWARD, f"{workers} × 0.25 GiB"),
    ]
    if not is_colocated(config):
        terms = [term for term in terms if term.name != "weights while asleep"]
    if learner.offload_optimizer:
        pinned = 2 * _pinned(4 * T / N) + _pinned(b * T / N)
        sums = b * T / N if learner.zero_stage > 1 else 0
        formula = "N × (8 T / N + 4 T / N and 4 T / N and " + f"{b} T / N, each pinned: a power of 2)"
        terms.append(HostTerm("learner", "offloaded optimizer", N * (8 * T / N + pinned + sums), formula))
    if reference_kind(config) == "offloaded":
        terms.append(HostTerm("learner", "reference", N * base, f"N × {b} × the base's parameters"))
    return terms


def _pinned(num_bytes: float) -> int:
    """What PyTorch's allocator of page-locked memory takes for it."""
    return 1 << max(0, math.ceil(num_bytes) - 1).bit_length()
