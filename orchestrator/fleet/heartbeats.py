"""Find generators that hang: a process that does not answer, or an engine with prompts that decodes nothing."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError

from orchestrator.cluster.calls import FindHanging, ready_of, result_of

EVERY_S = 2.0
"""Seconds between two heartbeats of a generator that has prompts."""


@dataclass(eq=False)
class _Heart:
    """What is known of one generator."""

    moved: float
    """When it last decoded something, or had nothing to decode; seconds of the monotonic clock."""
    asked: float = 0.0
    call: Any = None
    decoding_steps: int = -1
    num_unfinished: int = 0


class Heartbeats:
    """Asks the generators that have prompts how they are, and keeps the deadline of those that do not move."""

    def __init__(self, hang_timeout_s: float, *, must_decode: bool = True) -> None:
        """`must_decode`: whether a generator that answers hangs when it has prompts and decodes nothing.

        Set it to false while weights are replaced, as nothing is decoded then.
        """
        self._hang_timeout_s = hang_timeout_s
        self._must_decode = must_decode
        self._hearts: dict[str, _Heart] = {}
        self._looked = time.monotonic()

    def hanging(self, busy: Mapping[str, Any]) -> dict[str, str]:
        """Return which of the `busy` generators, actors by name, hang, each with the reason. Never waits."""
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        self._hearts = {name: self._hearts.get(name) or _Heart(now) for name in busy}
        # One look at all of them: at 256 generators a look at each costs a pass more than all else.
        answered = {*ready_of([heart.call for heart in self._hearts.values() if heart.call is not None], 0.0)}
        for name, heart in self._hearts.items():
            if gap > 2 * EVERY_S:  # nobody looked: what it did meanwhile is not known
                heart.moved = min(now, heart.moved + gap)
            if heart.call in answered:
                self._listen(name, heart, now)
            if heart.call is None and now - heart.asked >= EVERY_S:
                heart.call, heart.asked = busy[name].heartbeat.remote(), now
        return {
            name: self._reason(heart)
            for name, heart in self._hearts.items()
            if now - heart.moved > self._hang_timeout_s
        }

    def _listen(self, name: str, heart: _Heart, now: float) -> None:
        call, heart.call = heart.call, None
        try:
            heartbeat = result_of(call, name, "heartbeat")
        except (RayError, RuntimeError):  # dead: its stream tells, sooner than a deadline would
            return
        if not self._must_decode or heartbeat.decoding_steps != heart.decoding_steps or heartbeat.num_unfinished == 0:
            heart.moved = now
        heart.decoding_steps, heart.num_unfinished = heartbeat.decoding_steps, heartbeat.num_unfinished

    def _reason(self, heart: _Heart) -> str:
        if heart.call is not None:
            return f"its process has not answered for {self._hang_timeout_s:g} s (rollout.hang_timeout_s)"
        return (
            f"its engine has {heart.num_unfinished} unfinished prompts and has decoded nothing for "
            f"{self._hang_timeout_s:g} s (rollout.hang_timeout_s)"
        )


def silent_among(generators: Mapping[str, Any], hang_timeout_s: float) -> FindHanging:
    """Return what tells `gather_calls` which of these generators, actors by name, do not even answer a heartbeat."""
    heartbeats = Heartbeats(hang_timeout_s, must_decode=False)

    def find(pending: Collection[str]) -> dict[str, str]:
        return heartbeats.hanging({name: generators[name] for name in pending})

    return find
