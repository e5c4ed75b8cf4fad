"""Deadlines for remote calls: one that passes it names the actor, the call, how long it took, and what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from textwrap import shorten
from typing import Any, Protocol

import ray
from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    GetTimeoutError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

from orchestrator.cluster.watchdog import Watchdog

DEATHS = (
    RayActorError,
    OutOfMemoryError,  # killed by Ray, as the node's memory ran out
    RuntimeEnvSetupError,
    ActorUnschedulableError,
    ActorPlacementGroupRemoved,
)
"""What Ray raises for an actor that is dead or will never live; most are no RayActorError."""
TICK_S = 1.0
"""Longest wait before what else goes on is looked after, seconds."""


MAX_REASON_CHARS = 600
"""Of an exception's text; the whole of it, and its traceback, are in log.txt."""


class RemoteCallError(RuntimeError):
    """An actor did not answer in time, or died."""


class RestartBudgetExceededError(RemoteCallError):
    """No generator may be started again, and one more is needed."""


class Background(Protocol):
    """What goes on while a call is waited for."""

    def refs(self) -> Sequence[Any]:
        """What it waits for itself."""
        ...

    def advance(self, ready: Sequence[Any]) -> None:
        """Take what is ready, and look after the rest. Never waits."""
        ...


def wait_for(
    calls: Mapping[str, Any], call: str, timeout_s: float, advice: str, beside: Background | None = None
) -> dict[str, Any]:
    """Results by actor name. `calls` maps an actor's name to the reference it returned from `call`.

    What goes on `beside` is looked after meanwhile. Raises RemoteCallError for an actor that is late or died; what the
    call itself raised is raised as it is.
    """
    deadline = time.monotonic() + timeout_s
    # The first failure is raised even while others still wait: they may wait for the one that failed.
    pending = {ref: name for name, ref in calls.items()}
    results: dict[str, Any] = {}
    watchdog = Watchdog(lambda: f"{', '.join(sorted(pending.values()))} to answer {call}")
    while pending:
        left = deadline - time.monotonic()
        ready = ready_of([*pending, *(beside.refs() if beside else ())], min(max(0.0, left), TICK_S))
        if beside is not None:
            beside.advance(ready)
        for ref in [ref for ref in ready if ref in pending]:
            name = pending.pop(ref)
            results[name] = result_of(ref, name, call)
            watchdog.moved()
        watchdog.look()
        if pending and left <= 0 and not ready:
            names = ", ".join(sorted(pending.values()))
            raise RemoteCallError(f"{names} did not answer {call} within {timeout_s:g} s: {advice}")
    return {name: results[name] for name in calls}


def ready_of(refs: Sequence[Any], timeout_s: float) -> list[Any]:
    """Those that are ready, once one is or the time is up; waits even where there is nothing to wait for."""
    if not refs:
        time.sleep(timeout_s)
        return []
    ready, others = ray.wait(list(refs), num_returns=1, timeout=timeout_s)
    # Without this a ref that is always ready, at the front, would keep those behind it waiting.
    return [*ready, *(ray.wait(others, num_returns=len(others), timeout=0)[0] if ready and others else ())]


def result_of(ref: Any, name: str, call: str) -> Any:
    """The value of a finished call of the actor `name`."""
    try:
        return ray.get(ref, timeout=60)
    except RayTaskError as error:
        # The cause alone is what a person should read; the remote traceback stays attached to it, for the log.
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
    except DEATHS as error:
        raise RemoteCallError(f"{name} died during {call}: {reason_of(error)}") from error
    except GetTimeoutError as error:
        raise RemoteCallError(f"{name} finished {call}, but its result did not arrive within 60 s") from error


def reason_of(error: RayError) -> str:
    """Why an actor is dead, in one line: what its constructor raised, or else what Ray says first."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if not getattr(error, "actor_init_failed", False):
        return lines[0]
    # Ray keeps the text of the traceback only. Below its last frame, which is indented, stands the exception.
    last_frame = max((index for index, line in enumerate(lines) if line.startswith('  File "')), default=0)
    raised = list(dropwhile(lambda line: line.startswith(" "), lines[last_frame + 1 :]))
    return shorten(" ".join(raised), MAX_REASON_CHARS) if raised else lines[0]
