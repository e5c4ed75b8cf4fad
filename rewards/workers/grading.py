"""The process that calls reward functions: nothing else in Rayzero touches a text that a model wrote.

It is forked with the functions loaded, reads batches of marks from a socket, and writes a line for each mark as soon as
it is made, so that whoever waits knows which one it hangs in. It may be killed at any moment.
"""

from __future__ import annotations

import json
import pickle
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rewards.function import Outcome, RewardFunction, call

HEADER = struct.Struct("!Q")
"""A batch is its length in bytes, then a pickled list of (function's name, text, answer)."""

Functions = Mapping[str, tuple[RewardFunction, Callable[..., Any]]]


def run(channel: socket.socket, functions: Functions, memory_gib: float | None) -> None:
    """Marks until ``channel`` is closed."""
    _limit(resource.RLIMIT_CORE, 0)
    if memory_gib is not None:
        # Not RLIMIT_AS, which would count what is only mapped.
        _limit(resource.RLIMIT_DATA, int(memory_gib * 2**30))
    with channel.makefile("rb") as requests:
        while header := requests.read(HEADER.size):
            (size,) = HEADER.unpack(header)
            for name, text, answer in pickle.loads(requests.read(size)):
                channel.sendall(_marked(functions[name], text, answer))


def request(marks: Iterable[tuple[str, str, Mapping[str, Any]]]) -> bytes:
    """A batch, as ``run`` reads it."""
    batch = pickle.dumps(list(marks))
    return HEADER.pack(len(batch)) + batch


def answer_of(line: bytes) -> Outcome:
    """What a line says. Raises ValueError when a child that went wrong wrote something else."""
    status, marks, reason, seconds = json.loads(line)
    if status not in ("ok", "error") or not isinstance(marks, dict):
        raise ValueError(f"not an outcome: {line[:80]!r}")
    return Outcome(status, marks, reason, seconds)


def _marked(loaded: tuple[RewardFunction, Callable[..., Any]], text: str, answer: Mapping[str, Any]) -> bytes:
    start = time.perf_counter()
    outcome = call(*loaded, text, answer)
    return json.dumps(outcome._replace(seconds=time.perf_counter() - start)).encode() + b"\n"


def _limit(what: int, soft: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
