"""Find actors that hang: a process that does not answer, or an engine with prompts that decodes nothing."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError

from orchestrator.cluster.calls import ready_of
from orchestrator.cluster.results import result_of
from rollout.types.sampling import Heartbeat

EVERY_S = 2.0
"""Seconds between two heartbeats of an actor that has work."""


@dataclass(eq=False)
class _Heart:
    """The state of one actor."""

    moved: float
    """When it last made progress; seconds of the monotonic clock."""
    asked: float
    answered: float = 0.0
    call: Any = None
    last: Any = None
    """Its last answer."""
    has_failed: bool = False
    """Whether its last heartbeat raised, as one of an actor does that is dead or cannot be reached."""


class Heartbeats:
    """Asks busy actors for a heartbeat, and keeps the deadlines of those without progress."""

    def __init__(self, hang_timeout_s: float, *, must_decode: bool = True) -> None:
        """`must_decode`: whether a generator that answers hangs when it has prompts and decodes nothing.

        Set it to false while weights are replaced, as nothing is decoded then, and for learner ranks, of which one that
        answers does not hang: how long a microbatch may take is not known.
        """
        self._hang_timeout_s = hang_timeout_s
        self._must_decode = must_decode
        self._hearts: dict[str, _Heart] = {}
        self._begun = self._looked = time.monotonic()
        self._asked: dict[str, float] = {}
        """When each actor was last asked, busy or not."""
        self.peak_gib = 0.0
        """Largest memory that a generator has told, GiB; 0 before one has."""

    def hanging(self, busy: Mapping[str, Any]) -> dict[str, str]:
        """Return which of the `busy` actors, by name, hang, each with the reason. Never waits."""
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        self._hearts = {name: self._hearts.get(name) or self._new_heart(name, now) for name in busy}
        # One look at all of them: at 256 generators a look at each costs a pass more than all else.
        answered = {*ready_of([heart.call for heart in self._hearts.values() if heart.call is not None], 0.0)}
        for name, heart in self._hearts.items():
            if gap > 2 * EVERY_S:  # nobody looked: what it did meanwhile is not known
                heart.moved = min(now, heart.moved + gap)
                heart.asked = min(now, heart.asked + gap) if heart.call is not None else heart.asked
            if heart.call in answered:
                self._listen(name, heart, now)
            if heart.call is None and now - heart.asked >= EVERY_S:
                heart.call, heart.asked = busy[name].heartbeat.remote(), now
                self._asked[name] = now
        return {name: self._reason(heart) for name, heart in self._hearts.items() if self._is_late(heart, now)}

    def last(self, name: str) -> Any:
        """Return the actor's last answer; None before the first."""
        return self._hearts[name].last if name in self._hearts else None

    def _new_heart(self, name: str, now: float) -> _Heart:
        # Not asked at once: most calls are answered before a heartbeat would be.
        return _Heart(now, self._asked.get(name, self._begun))

    def _listen(self, name: str, heart: _Heart, now: float) -> None:
        call, heart.call = heart.call, None
        heart.answered = now
        try:
            before, heart.last, heart.has_failed = heart.last, result_of(call, name, "heartbeat"), False
        except (RayError, RuntimeError):  # dead: its stream or call tells, sooner than a deadline would
            heart.has_failed = True
            return
        if isinstance(heart.last, Heartbeat):
            self.peak_gib = max(self.peak_gib, heart.last.peak_gib)
        if not self._must_decode or before is None or has_decoded(before, heart.last):
            heart.moved = now

    def _is_late(self, heart: _Heart, now: float) -> bool:
        """Return whether it did not answer for the time allowed, or answered after it that it had not moved.

        Between two heartbeats nothing is known of it, however short that time is.
        """
        if heart.call is not None:
            return now - heart.moved > self._hang_timeout_s and now - heart.asked > self._hang_timeout_s / 2
        return heart.answered - heart.moved > self._hang_timeout_s

    def _reason(self, heart: _Heart) -> str:
        if heart.call is not None or heart.has_failed:
            return f"its process has not answered for {self._hang_timeout_s:g} s (rollout.hang_timeout_s)"
        version = heart.last.policy_version
        weights = "no whole weights" if version is None else f"weights of version {version}"
        return (
            f"its engine ({weights}) has {heart.last.num_unfinished} unfinished prompts and has decoded nothing for "
            f"{self._hang_timeout_s:g} s (rollout.hang_timeout_s)"
        )


def has_decoded(before: Any, now: Any) -> bool:
    """Return whether a generator has decoded something between two heartbeats, or had nothing to decode."""
    return bool(now.decoding_steps != before.decoding_steps or now.num_unfinished == 0)


class Listener:
    """Finds the called actors that do not answer a heartbeat, and reports the progress of the others."""

    def __init__(self, actors: Mapping[str, Any], hang_timeout_s: float) -> None:
        """`actors`: generators or learner ranks, by name."""
        self._actors = actors
        self._heartbeats = Heartbeats(hang_timeout_s, must_decode=False)

    def hanging(self, pending: Collection[str]) -> dict[str, str]:
        """Return which of these actors hang, each with the reason. Never waits."""
        return self._heartbeats.hanging({name: self._actors[name] for name in pending})

    def progress(self, name: str) -> str:
        """Return a learner rank's progress in words; nothing for a generator."""
        last = self._heartbeats.last(name)
        return f"{last} microbatches done" if isinstance(last, int) else ""
