"""Fetch the results of finished calls of actors, and tell a dead actor from a call that failed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile
from textwrap import shorten
from typing import Any

import ray
from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
)

DEATHS = (
    RayActorError,
    OutOfMemoryError,  # killed by Ray, as the node's memory ran out
    RuntimeEnvSetupError,
    ActorUnschedulableError,
    ActorPlacementGroupRemoved,
)
"""Errors that Ray raises for an actor that is dead or will never start; most are not a RayActorError."""
FETCH_TIMEOUT_S = 60.0
"""Deadline in seconds for fetching a result that is ready, possibly on another node."""
MAX_REASON_CHARS = 600
"""Of an exception's text; the whole of it, and its traceback, are in log.txt."""


class RemoteCallError(RuntimeError):
    """An actor did not answer in time, or died."""


def results_at_once(refs: Sequence[Any]) -> dict[Any, Any]:
    """Return the values of finished calls, by reference. Empty if one has failed; `result_of` then tells which.

    Fetched together they cost the caller less than one after the other.
    """
    try:
        return dict(zip(refs, ray.get(list(refs), timeout=FETCH_TIMEOUT_S), strict=True))
    except Exception:  # noqa: BLE001  result_of raises it, with the actor's name
        return {}


def result_of(ref: Any, name: str, call: str) -> Any:
    """Return the value of a finished call of the actor `name`. Raises RemoteCallError when the actor died."""
    try:
        return ray.get(ref, timeout=FETCH_TIMEOUT_S)
    except (RayTaskError, ObjectLostError) as error:
        # The cause alone is what a person should read; the remote traceback stays attached to it, for the log.
        cause = getattr(error, "cause", None)
        if isinstance(error, ObjectLostError) or isinstance(cause, ObjectLostError):
            raise RemoteCallError(f"what {name} needs for {call} is lost with the node that had it: {error}") from error
        raise (cause if isinstance(cause, Exception) else error) from error
    except DEATHS as error:
        raise RemoteCallError(f"{name} died during {call}: {reason_of(error)}") from error
    except GetTimeoutError as error:
        late = f"{name} finished {call}, but its result did not arrive within {FETCH_TIMEOUT_S:g} s"
        raise RemoteCallError(late) from error


def reason_of(error: RayError) -> str:
    """Return in one line why an actor is dead: its constructor's error, or else the first line of Ray's message."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if not getattr(error, "actor_init_failed", False):
        return lines[0]
    # Ray keeps the text of the traceback only. Below its last frame, which is indented, stands the exception.
    last_frame = max((index for index, line in enumerate(lines) if line.startswith('  File "')), default=0)
    raised = list(dropwhile(lambda line: line.startswith(" "), lines[last_frame + 1 :]))
    return shorten(" ".join(raised), MAX_REASON_CHARS) if raised else lines[0]
