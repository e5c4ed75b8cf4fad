"""Count recent completions that could not be graded, log why, and end the run if there are too many."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from typing import Literal

from rewards.config import RewardsConfig

logger = logging.getLogger(__name__)

WINDOW = 512
"""Number of completions over which the share of failures is computed."""
MIN_COMPLETIONS = 64
"""Smallest number of completions for a share."""


class RewardFailure(RuntimeError):
    """Grading failed in a way that ends the run; the message says where, why, and what to do."""


@dataclass(frozen=True)
class Failure:
    """One function that failed on one completion."""

    function: str
    """Its ``module:function``."""
    status: Literal["timeout", "error"]
    reason: str
    place: str
    """``prompt train/000123, completion 1``."""


class Failures:
    """Counts failures, logs them, and raises RewardFailure if the recipe says that the run stops."""

    def __init__(self, config: RewardsConfig) -> None:
        self._config = config
        self._recent: deque[tuple[Failure, ...]] = deque(maxlen=WINDOW)
        self._num_failed = 0
        self.timeouts = 0
        """Completions for which a function missed its deadline."""
        self.errors = 0
        """Completions for which a function failed for another reason."""

    def record(self, failures: tuple[Failure, ...]) -> None:
        """Count a graded completion with its failures. Raises RewardFailure."""
        if len(self._recent) == WINDOW:
            self._num_failed -= bool(self._recent[0])
        self._recent.append(failures)
        self._num_failed += bool(failures)
        if self._num_failed == 0:
            return
        statuses = {failure.status for failure in failures}
        self.timeouts += "timeout" in statuses
        self.errors += "error" in statuses
        for failure in failures:
            self._report(failure)
        self._check_share()

    def _report(self, failure: Failure) -> None:
        is_timeout = failure.status == "timeout"
        key, choice = ("on_timeout", self._config.on_timeout) if is_timeout else ("on_error", self._config.on_error)
        message = f"reward of {failure.place}, {failure.function}: {failure.status}: {failure.reason}"
        if choice == "stop":
            remedy = "or raise its deadline in rewards.deadlines_s, " if is_timeout else ""
            raise RewardFailure(
                f'{message}. Fix the function, {remedy}or set rewards.{key} = "zero" to count such as 0'
            )
        logger.warning("%s; counts as 0", message)

    def _check_share(self) -> None:
        total = len(self._recent)
        if total < MIN_COMPLETIONS or self._num_failed <= self._config.max_failed_share * total:
            return
        recent = [failure for failures in self._recent for failure in failures]
        counts = Counter((failure.function, failure.status) for failure in recent)
        examples = {(failure.function, failure.status): failure for failure in recent}
        lines = [
            f"{function}: {count} × {status}, such as {examples[function, status].reason!r} "
            f"({examples[function, status].place})"
            for (function, status), count in counts.most_common()
        ]
        raise RewardFailure(
            f"{self._num_failed} of the last {total} completions could not be graded, more than "
            f"rewards.max_failed_share = {self._config.max_failed_share:g} allows: {'; '.join(lines)}. Fix "
            "what fails (a function should return a value for a text that it cannot read, not raise an exception), "
            "raise rewards.deadlines_s, or raise rewards.max_failed_share"
        )
