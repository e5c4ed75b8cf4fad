"""Reward parts from environments: which ones a completion has, and which do not apply to it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from rewards.environments.registry import EnvironmentSpec
from rewards.score import Given
from rollout.types.completions import RewardPart

logger = logging.getLogger(__name__)

MAX_UNDECLARED = 32
"""Largest number of undeclared names that are logged. Each name makes metrics."""


class GivenParts:
    """Keeps the parts that each environment of a run declares, and the others that it has given so far."""

    def __init__(self, specs: Mapping[str, EnvironmentSpec]) -> None:
        """`specs`: by `Prompt.environment`."""
        self._declared = {name: spec.parts for name, spec in specs.items()}
        self._undeclared: dict[str, set[str]] = {}
        self._warned: set[str] = set()
        self.names = frozenset(part for parts in self._declared.values() for part in parts)
        """The parts that any environment declares."""

    def of_group(self, environment: str, given: Sequence[Mapping[str, float]]) -> tuple[Given, ...]:
        """Return the parts of each completion of a group; nothing if no environment gives any.

        A part that their environment declares and did not give is 0. Parts that only environments of other entries of a
        mixture declare do not apply.
        """
        return tuple(self._of(environment, each) for each in given) if self._declared or any(given) else ()

    def _of(self, environment: str, given: Mapping[str, float]) -> Given:
        declared = self._declared.get(environment, ())
        parts = {**dict.fromkeys(declared, 0.0), **self._bounded(environment, declared, given)}
        values = tuple(RewardPart(name, value) for name, value in parts.items())
        return Given(values, environment, self.names - parts.keys())

    def _bounded(self, environment: str, declared: Collection[str], given: Mapping[str, float]) -> dict[str, float]:
        """Leave out undeclared parts beyond the first names."""
        known = self._undeclared.setdefault(environment, set())
        for name in sorted(given.keys() - {*declared} - known):
            if len(known) < MAX_UNDECLARED:
                known.add(name)
            elif environment not in self._warned:
                self._warned.add(environment)
                logger.warning(
                    "the environment %s gives reward parts with more and more names, such as %r: of those that its "
                    "class does not declare in parts = (...) only the first %d are logged. Put what changes into the "
                    "value, not the name",
                    environment,
                    name,
                    MAX_UNDECLARED,
                )
        return {name: value for name, value in given.items() if name in known or name in declared}
