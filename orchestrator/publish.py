"""Publishing: send the learner's weights to every generator, and prove that they arrived.

The proof has two halves. Here every generator confirms the version it runs. And at each step the learner compares
its own logprobs with the generators' (learner/parity.py), which shows that the weights behind a version are the right ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator.remote import wait_for

ADVICE = "raise rollout.publish_timeout_s if the model is large; else look at that generator's log, it may hang"


class PublishError(RuntimeError):
    """A generator runs another version than the one that was published."""


class WeightSender(Protocol):
    """The learner's side."""

    def weight_buckets(self, max_bytes: int) -> list[Any]:
        """References to all buckets of weights, fetched from the learner once."""
        ...


def publish(
    sender: WeightSender, generators: Mapping[str, Any], version: int, *, timeout_s: float, bucket_bytes: int
) -> None:
    """Make every generator run `version`. Generators fetch the same buckets, so the learner sends once.

    Raises PublishError when a generator confirms another version, RemoteCallError when one is late or dead.
    """
    buckets = sender.weight_buckets(bucket_bytes)
    calls = {name: generator.update_weights.remote(version, *buckets) for name, generator in generators.items()}
    confirmed = wait_for(calls, f"update_weights(version {version})", timeout_s, ADVICE)
    behind = {name: got for name, got in confirmed.items() if got != version}
    if behind:
        raise PublishError(
            f"published version {version}, but " + ", ".join(f"{name} runs {got}" for name, got in behind.items())
        )
