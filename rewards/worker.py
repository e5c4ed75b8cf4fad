"""What runs in a reward worker's process. No Ray here: pool.py makes an actor of it.

This module imports nothing but the standard library, so that a worker boots in a fraction of a second and its thread
settings are in place before a task imports numpy.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.registry import RewardFunction, load

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}
"""Math libraries otherwise start a thread a core, which spin on the cores that sampling needs."""

Outcome = dict[str, float] | str
"""A completion's named parts, or the text of the exception that marking it raised."""

MAX_ERROR_CHARACTERS = 500


class RewardWorker:
    """Marks completions, one call at a time. Trusts neither the text nor the reward function to succeed."""

    def __init__(self, memory_gib: float | None = None) -> None:
        """``memory_gib`` bounds what this process may allocate, in GiB, for good; None leaves it alone."""
        os.environ.update(ONE_THREAD)
        if memory_gib is not None:
            _limit_memory(int(memory_gib * 2**30))
        self._functions: dict[str, RewardFunction] = {}

    def load(self, paths: Sequence[str]) -> int:
        """Imports reward functions, so that the time it takes is no completion's; returns this process's id.

        Raises what the import raises.
        """
        for path in paths:
            if path not in self._functions:
                self._functions[path] = load(path)
        return os.getpid()

    def score(self, path: str, texts: Sequence[str], answer: Mapping[str, Any]) -> list[Outcome]:
        """One outcome for each text, in order. Raises KeyError unless ``path`` was loaded."""
        function = self._functions[path]
        return [_outcome(function, text, answer) for text in texts]

    def peak_memory_gib(self) -> float:
        """Largest resident memory of this process so far, GiB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts it in KiB


def _outcome(function: RewardFunction, text: str, answer: Mapping[str, Any]) -> Outcome:
    try:
        return {str(name): float(value) for name, value in function(text, answer).items()}
    except Exception as error:  # noqa: BLE001  the boundary with untrusted text: the one place that catches anything
        return f"{type(error).__name__}: {error}"[:MAX_ERROR_CHARACTERS]


def _limit_memory(limit_bytes: int) -> None:
    # RLIMIT_DATA and not RLIMIT_AS: the latter would count Ray's object store, which every worker maps.
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
