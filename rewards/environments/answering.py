"""The process of one completion's environment: it makes the object, calls it, and writes a line for each call.

It is forked with the class loaded. It may be killed at any moment, and the reader does not trust its lines.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal, NamedTuple

from rewards.environments.registry import EnvironmentSpec
from rewards.workers.children.grading import UNREADABLE, limit, messages
from rollout.types.environments import CUT, Environment, Observation

MAX_PARTS = 32
MAX_NAME_CHARACTERS = 100
MAX_REASON_BYTES = 2_000
MAX_PART = 1e12
"""Largest value of a reward part, by its size."""
ESCAPE_BYTES = 6
"""Largest number of JSON bytes for one byte of UTF-8."""
OTHER_BYTES = 2**16
"""More than the rest of a line takes."""


class Reply(NamedTuple):
    """The result of a call, as it is sent."""

    status: Literal["ok", "timeout", "error"]
    text: str
    is_over: bool
    parts: Mapping[str, float]
    reason: str
    seconds: float


def failed(reason: str) -> Reply:
    """Return the reply of an environment that did not answer. It ends the completion."""
    return Reply("error", "", True, {}, bounded(reason, MAX_REASON_BYTES), 0.0)


def run(channel: socket.socket, functions: Mapping[str, tuple[EnvironmentSpec, Any]], memory_gib: float | None) -> None:
    """Answer ``("make", name)`` or ``("start", name, prompt, seed)``, ``("step", text)`` and ``("close",)``.

    Returns when the channel is closed.
    """
    limit(memory_gib)
    environment: Environment | None = None
    max_bytes = 0
    for what, *arguments in messages(channel):
        start = time.perf_counter()
        try:
            observation: Any = Observation("")
            if what in ("make", "start"):
                spec, make = functions[arguments[0]]
                max_bytes = spec.max_bytes
                environment = make(**spec.parameters)
                if what == "start":
                    observation = environment.start(*arguments[1:])
            elif what == "step":
                assert environment is not None
                observation = environment.step(*arguments)
            elif environment is not None:
                environment.close()
            reply = checked(observation, max_bytes)
        except Exception as error:  # noqa: BLE001  the boundary with code that is not ours
            reply = failed(f"{what} raised {type(error).__name__}: {error}")
        seconds = time.perf_counter() - start
        channel.sendall(json.dumps(reply._replace(seconds=seconds), allow_nan=False).encode() + b"\n")


def checked(observation: Any, max_bytes: int) -> Reply:
    """Return the reply for an observation, cut to `max_bytes`. Raises TypeError and ValueError for anything else."""
    if not isinstance(observation, Observation):
        raise TypeError(f"it returned {_shown(observation)}, which is not an Observation: return Observation(text)")
    if not isinstance(observation.text, str) or not isinstance(observation.is_over, bool):
        raise TypeError(f"text must be a str and is_over a bool: {_shown(observation)}")
    parts = dict(observation.parts)
    if len(parts) > MAX_PARTS:
        raise ValueError(f"{len(parts)} reward parts, more than {MAX_PARTS}")
    for name, value in parts.items():
        is_number = isinstance(value, Real) and abs(value) <= MAX_PART  # which NaN is not
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS or not is_number:
            raise ValueError(f"the reward part {_shown(name)} = {_shown(value)} must be a name with a finite number")
    numbers = {name: float(value) for name, value in parts.items()}
    return Reply("ok", bounded(observation.text, max_bytes), observation.is_over, numbers, "", 0.0)


def bounded(text: str, max_bytes: int) -> str:
    """Return the text, cut if its UTF-8 is longer than that; a lone surrogate becomes a question mark."""
    encoded = text[: max_bytes + 1].encode("utf-8", "replace")
    if len(encoded) <= max_bytes:
        return encoded.decode()
    return encoded[: max(0, max_bytes - len(CUT.encode()))].decode("utf-8", "ignore") + CUT


def max_line_bytes(max_bytes: int) -> int:
    """Return the longest line of a reply whose text has at most `max_bytes`."""
    return ESCAPE_BYTES * max_bytes + OTHER_BYTES


def decode_reply(line: bytes, max_bytes: int) -> Reply:
    """Return the reply in a line. Raises ValueError for anything else, which a broken process may write."""
    try:
        status, text, is_over, parts, reason, seconds = json.loads(line)
        if status == "error":
            if not isinstance(reason, str):
                raise TypeError("no reason")
            return failed(reason)._replace(seconds=float(seconds))
        if status != "ok":
            raise ValueError("no status")
        return checked(Observation(text, is_over, parts), max_bytes)._replace(seconds=float(seconds))
    except UNREADABLE as error:
        raise ValueError(f"not a reply: {line[:80]!r}") from error


def _shown(value: Any) -> str:
    """Return a short text for a value; its type if its own `repr` fails."""
    try:
        return repr(value)[:80]
    except Exception:  # noqa: BLE001  it may be a user's
        return f"a {type(value).__name__}"
