"""Wait for calls of actors, with a deadline.

`wait_for` needs every answer, and raises the first failure. `gather_calls` returns the outcome of each call. Errors
name the late actor, the call, the time, and what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol

import ray

from orchestrator.cluster.results import RemoteCallError, result_of, results_at_once
from orchestrator.cluster.watchdog import Watchdog

PAUSE_S, MAX_PAUSE_S, BESIDE_PAUSE_S = 0.0005, 0.05, 0.01
"""Seconds that more is waited for once something is ready: for each thing that is missing, and at most; and for what
goes on beside a call."""
TICK_S = 1.0
"""Longest wait in seconds before other work is looked after."""


class Background(Protocol):
    """Work that continues during the wait for a call."""

    def refs(self) -> Sequence[Any]:
        """Return the references that this work waits for."""
        ...

    def advance(self, ready: Sequence[Any]) -> None:
        """Handle what is ready, and look after the rest. Never waits."""
        ...


class Liveness(Protocol):
    """Knows which of the called actors hang. Never waits."""

    def hanging(self, pending: Collection[str]) -> Mapping[str, str]:
        """Return those of the named actors that hang, each with the reason."""
        ...

    def progress(self, name: str) -> str:
        """Return an actor's progress in words; empty if unknown."""
        ...


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The outcomes of a call to several actors. Each actor is in one of the fields; failures have a message."""

    answered: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    late: dict[str, str] = field(default_factory=dict)
    died: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """Actors that live but did not do it."""
        return self.refused | self.late

    def then(self, later: Outcomes) -> Outcomes:
        """Return the outcomes after another call to the actors that had answered."""
        return Outcomes(later.answered, self.refused | later.refused, self.late | later.late, self.died | later.died)


def wait_for(
    calls: Mapping[str, Any],
    call: str,
    timeout_s: float,
    advice: str,
    beside: Background | None = None,
    liveness: Liveness | None = None,
) -> dict[str, Any]:
    """Return the results by actor name.

    Args:
        calls: the reference that each actor returned from `call`, by the actor's name.
        advice: what to do about an actor that is late.
        beside: what to look after meanwhile.
        liveness: which of the actors hang; without it only the deadline tells.

    Raises RemoteCallError for an actor that is late, hangs or died; what the call itself raised is raised as it is. The
    first failure is raised even while others still wait: they may wait for the one that failed.
    """
    results: dict[str, Any] = {}
    for name, answer in _answers(calls, call, timeout_s, beside, liveness):
        results[name] = answer()
    if late := [_with_progress(name, liveness) for name in sorted(calls.keys() - results.keys())]:
        raise RemoteCallError(f"{', '.join(late)} did not answer {call} within {timeout_s:g} s: {advice}")
    return {name: results[name] for name in calls}


def gather_calls(
    calls: Mapping[str, Any],
    call: str,
    timeout_s: float,
    advice: str = "look at that generator's log, it may hang",
    liveness: Liveness | None = None,
    beside: Background | None = None,
) -> Outcomes:
    """Wait for all `calls`, by actor name, and return the outcome of each. A failure does not affect the others.

    An actor that hangs by its `liveness` counts as dead, and is waited for no longer.
    """
    outcomes, pending = Outcomes(), set(calls)
    for name, answer in _answers(calls, call, timeout_s, beside, liveness):
        pending.discard(name)
        try:
            outcomes.answered[name] = answer()
        except RemoteCallError as error:
            outcomes.died[name] = str(error)
        except Exception as error:  # noqa: BLE001  one actor's failure; the caller decides what it means
            outcomes.refused[name] = f"{name} refused {call}: {type(error).__name__}: {error}"
    late = f"did not answer {call} within {timeout_s:g} s: {advice}"
    outcomes.late.update({name: f"{name} {late}" for name in calls if name in pending})
    return outcomes


def _answers(
    calls: Mapping[str, Any],
    call: str,
    timeout_s: float,
    beside: Background | None,
    liveness: Liveness | None,
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield each actor's name when its call ends, with a function that returns or raises the outcome.

    Ends when all calls have, or when the time is up and no more of them has ended.
    """
    deadline = time.monotonic() + timeout_s
    pending = {ref: name for name, ref in calls.items()}

    def waiting_for() -> str:
        return f"{', '.join(_with_progress(name, liveness) for name in sorted(pending.values()))} to answer {call}"

    watchdog, waited_for = Watchdog(waiting_for), ""
    while pending:
        left = deadline - time.monotonic()
        pause = max(pause_s(len(pending)), BESIDE_PAUSE_S if beside else 0.0)
        ready = ready_of([*pending, *(beside.refs() if beside else ())], min(max(0.0, left), TICK_S), pause)
        if beside is not None:
            beside.advance(ready)
        ended = [ref for ref in ready if ref in pending]
        values = results_at_once(ended)
        for ref in ended:
            name = pending.pop(ref)
            yield name, partial(values.__getitem__, ref) if ref in values else partial(result_of, ref, name, call)
            watchdog.moved()
        hanging = liveness.hanging(pending.values()) if liveness else {}
        before, waited_for = waited_for, waiting_for()
        if waited_for != before:
            watchdog.moved()
        watchdog.look()
        pending = {ref: name for ref, name in pending.items() if name not in hanging}
        for name, reason in hanging.items():
            yield name, partial(_raise, RemoteCallError(f"{name} hangs in {call}: {reason}"))
        if left <= 0 and not ended:
            return


def _with_progress(name: str, liveness: Liveness | None) -> str:
    progress = liveness.progress(name) if liveness else ""
    return f"{name} ({progress})" if progress else name


def _raise(error: Exception) -> NoReturn:
    raise error


def pause_s(num_missing: int) -> float:
    """Return how long to wait for more results after the first is ready, by the number of missing ones.

    A look at hundreds of references costs the same for one as for all. The last are not kept waiting.
    """
    return min(MAX_PAUSE_S, PAUSE_S * num_missing)


def ready_of(refs: Sequence[Any], timeout_s: float, pause_s: float = 0.0) -> list[Any]:
    """Return the ready references when there is one or the time is up. Without references, wait for that time.

    `pause_s`: once one is ready, wait so long for more.
    """
    if not refs:
        time.sleep(timeout_s)
        return []
    ready, others = ray.wait(list(refs), num_returns=1, timeout=timeout_s)
    if ready and pause_s:  # a single stream may have more, too
        time.sleep(pause_s)
    # Without this a ref that is always ready, at the front, would keep those behind it waiting.
    return [*ready, *(ray.wait(others, num_returns=len(others), timeout=0)[0] if ready and others else ())]
