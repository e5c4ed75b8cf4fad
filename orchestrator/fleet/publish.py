"""Publish: send the learner's weights to every generator, and prove that they arrived.

The proof has two halves. Here every generator confirms the version that it runs. And at each step the learner compares
its own logprobs with the generators' (learner/parity.py), which shows that the weights behind a version are the right
ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.fleet.protocols import WeightSender
from orchestrator.fleet.transports import Attempt, RayTransport, Transport

logger = logging.getLogger(__name__)

RAY_TRANSPORT = RayTransport()


class PublishError(RuntimeError):
    """No generator runs the version that was published, or the weights were refused."""


@dataclass(slots=True)
class PublishProgress:
    """The state of each generator in one publish."""

    waiting: dict[str, Any]
    """Handles of the generators that neither run the version nor are lost."""
    confirmed: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    """The reason, by name."""

    def lose(self, reasons: Mapping[str, str]) -> None:
        """Note that these generators are lost, and why."""
        self.lost |= reasons
        self.waiting = {name: actor for name, actor in self.waiting.items() if name not in reasons}

    def confirm(self, version: int, answers: Mapping[str, int]) -> None:
        """Note which generators run `version`. Raises PublishError for an answer that is another version."""
        if behind := {name: got for name, got in answers.items() if got != version}:
            raise PublishError(
                f"published version {version}, but " + ", ".join(f"{name} runs {got}" for name, got in behind.items())
            )
        self.confirmed += answers
        self.waiting = {name: actor for name, actor in self.waiting.items() if name not in answers}


def publish(
    sender: WeightSender,
    generators: Mapping[str, Any],
    version: int,
    *,
    timeout_s: float,
    bucket_bytes: int,
    hang_timeout_s: float = 60.0,
    transport: Transport = RAY_TRANSPORT,
) -> dict[str, str]:
    """Make every generator run `version`. Return those that are lost instead, and why: dead, or late twice.

    A transaction in two phases, stage and commit. What fails while the weights are staged changes nothing: all
    generators drop them and sample on with what they had, and the publish is repeated once. Whoever is late then is
    lost. A generator whose commit fails has no weights at all until the second attempt, and is lost if that fails too.

    Raises:
        PublishError: nobody runs `version`; or one refuses the weights, and then nobody else got them either.
        LearnerLostError: a learner rank is dead or late.
    """
    progress = PublishProgress(dict(generators))
    for is_last in (False, True):
        attempt = Attempt(sender, version, time.monotonic_ns(), timeout_s, bucket_bytes, hang_timeout_s)
        try:
            failed = run_attempt(transport, attempt, progress, is_last)
        except BaseException:
            transport.drop(attempt, progress.waiting)
            raise
        if not progress.waiting:
            break
        transport.drop(attempt, progress.waiting)
        if is_last:
            progress.lose(failed)
        else:
            logger.warning("publishing version %d failed and is repeated: %s", version, joined(failed))
    if generators and not progress.confirmed:
        raise PublishError(f"version {version} reached no generator: {joined(progress.lost)}")
    for reason in progress.lost.values():
        logger.warning("version %d goes without %s", version, reason)
    return progress.lost


def run_attempt(transport: Transport, attempt: Attempt, progress: PublishProgress, is_last: bool) -> dict[str, str]:
    """Make one attempt, and note its `progress`. Return why those that still wait have failed."""
    staged = transport.stage(attempt, progress.waiting)
    progress.lose(staged.died)
    if staged.refused and is_last and not progress.confirmed:
        raise PublishError(
            f"version {attempt.version} was refused, and every generator continues with its earlier weights: "
            f"{joined(staged.refused)}"
        )
    if staged.failed and not is_last:
        return staged.failed
    progress.lose(staged.failed)
    if not progress.waiting:
        return {}
    committed = transport.commit(attempt, progress.waiting)
    progress.confirm(attempt.version, committed.answered)
    progress.lose(committed.died)
    return committed.failed


def joined(reasons: Mapping[str, str]) -> str:
    """Return all reasons in one line."""
    return "; ".join(reasons.values())
