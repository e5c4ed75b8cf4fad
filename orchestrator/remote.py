"""Deadlines for remote calls: one that passes it names the actor, the call, how long it took, and what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError


class RemoteCallError(RuntimeError):
    """An actor did not answer in time, or died."""


def wait_for(calls: Mapping[str, Any], call: str, timeout_s: float, advice: str) -> dict[str, Any]:
    """Results by actor name. `calls` maps an actor's name to the reference it returned from `call`.

    Raises RemoteCallError for an actor that is late or died; what the call itself raised is raised as it is.
    """
    deadline = time.monotonic() + timeout_s
    # The first failure is raised even while others still wait: they may wait for the one that failed.
    pending = {ref: name for name, ref in calls.items()}
    results: dict[str, Any] = {}
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            names = ", ".join(sorted(pending.values()))
            raise RemoteCallError(f"{names} did not answer {call} within {timeout_s:g} s: {advice}")
        name = pending.pop(ready[0])
        results[name] = result_of(ready[0], name, call)
    return {name: results[name] for name in calls}


def result_of(ref: Any, name: str, call: str) -> Any:
    """The value of a finished call of the actor `name`."""
    try:
        return ray.get(ref, timeout=60)
    except RayTaskError as error:
        # The cause alone is what a person should read; the remote traceback stays attached to it, for the log.
        raise (error.cause if isinstance(error.cause, Exception) else error) from error
    except RayActorError as error:
        raise RemoteCallError(f"{name} died during {call}: {first_line(error)}") from error
    except GetTimeoutError as error:
        raise RemoteCallError(f"{name} finished {call}, but its result did not arrive within 60 s") from error


def first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
