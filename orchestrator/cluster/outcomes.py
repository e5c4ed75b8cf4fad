"""Calls to several generators of which some may fail: what became of each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.calls import TICK_S, RemoteCallError, ready_of, result_of
from orchestrator.cluster.watchdog import Watchdog
from orchestrator.fleet.heartbeats import Heartbeats

ADVICE = "look at that generator's log, it may hang"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of a call to several generators. Each is in one of these; failures map to what a person should read."""

    answered: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    late: dict[str, str] = field(default_factory=dict)
    died: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Those that live, and did not do it."""
        return self.refused | self.late

    def then(self, later: Outcomes) -> Outcomes:
        """After another call to those that had answered."""
        return Outcomes(later.answered, self.refused | later.refused, self.late | later.late, self.died | later.died)


def gather_calls(
    calls: Mapping[str, Any],
    call: str,
    timeout_s: float,
    generators: Mapping[str, Any] | None = None,
    hang_timeout_s: float = 60.0,
    advice: str = ADVICE,
) -> Outcomes:
    """Waits for all `calls`, by name of the generator, and says what became of each. One that fails fails no other.

    `advice` is what to do about one that is late. Of those whose handles are in `generators`, one that does not even answer a heartbeat for `hang_timeout_s` counts as dead.
    """
    deadline = time.monotonic() + timeout_s
    pending = {ref: name for name, ref in calls.items()}
    outcomes = Outcomes()
    heartbeats = Heartbeats(hang_timeout_s, must_decode=False)
    watchdog = Watchdog(lambda: f"{', '.join(sorted(pending.values()))} to answer {call}")
    while pending:
        left = deadline - time.monotonic()
        ready = ready_of(list(pending), min(max(0.0, left), TICK_S))
        for ref in ready:
            take(outcomes, pending.pop(ref), ref, call)
            watchdog.moved()
        watchdog.look()
        watched = {name: generators[name] for name in pending.values()} if generators else {}
        hanging = heartbeats.hanging(watched)
        outcomes.died.update({name: f"{name} hangs in {call}: {reason}" for name, reason in hanging.items()})
        pending = {ref: name for ref, name in pending.items() if name not in hanging}
        if left <= 0 and not ready:
            break
    outcomes.late.update(
        {name: f"{name} did not answer {call} within {timeout_s:g} s: {advice}" for name in pending.values()}
    )
    return outcomes


def take(outcomes: Outcomes, name: str, ref: Any, call: str) -> None:
    """Add what has become of one finished call."""
    try:
        outcomes.answered[name] = result_of(ref, name, call)
    except RemoteCallError as error:
        outcomes.died[name] = str(error)
    except Exception as error:  # noqa: BLE001  one generator's trouble; whoever publishes decides what it means
        outcomes.refused[name] = f"{name} refused {call}: {type(error).__name__}: {error}"
