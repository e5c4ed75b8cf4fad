"""Running means of grading times: they decide the size of batches, and which calls are unusually slow."""

from __future__ import annotations

SMOOTHING = 0.05
"""Weight of the newest measurement."""


class RunningMeans:
    """Exponentially weighted means of seconds, by name."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def record(self, name: str, seconds: float) -> None:
        """Take one measurement into account."""
        mean = self._means.setdefault(name, seconds)
        self._means[name] = mean + SMOOTHING * (seconds - mean)

    def mean(self, name: str) -> float | None:
        """Return the mean in seconds; None before the first measurement."""
        return self._means.get(name)

    def count_within(self, name: str, seconds: float, at_most: int) -> int:
        """Return how many fit into ``seconds``: at least one, and exactly one before the first measurement."""
        mean = self._means.get(name)
        if mean is None:
            return 1
        return at_most if mean * at_most <= seconds else max(1, int(seconds / mean))
