"""The process that calls reward functions: nothing else in Rayzero touches a text that a model wrote.

It is forked with the functions loaded, reads batches of tasks from a socket, and writes a line for each function as
soon as it has returned, so that whoever waits knows which one it hangs in. It may be killed at any moment.
"""

from __future__ import annotations

import json
import pickle
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rewards.function import Outcome, RewardFunction, call
from rewards.parts.markers import markers

HEADER = struct.Struct("!Q")
"""A message is its length in bytes, then what is pickled."""

Functions = Mapping[str, tuple[RewardFunction, Callable[..., Any]]]


def run(channel: socket.socket, functions: Functions, memory_gib: float | None) -> None:
    """Grade until ``channel`` is closed."""
    limit(memory_gib)
    for batch in messages(channel):
        for names, text, answer, prefix_characters in batch:
            for name in names:
                outcome = _grade(functions[name], text, answer)
                if name == names[-1]:
                    outcome = outcome._replace(markers=markers(text[prefix_characters:]))
                channel.sendall(json.dumps(outcome).encode() + b"\n")


def messages(channel: socket.socket) -> Iterator[Any]:
    """Yield what ``encode_message`` wrote, until ``channel`` is closed."""
    with channel.makefile("rb") as requests:
        while header := requests.read(HEADER.size):
            (size,) = HEADER.unpack(header)
            yield pickle.loads(requests.read(size))


def encode_message(message: Any) -> bytes:
    """Return a message to a process that is trusted less than its sender."""
    content = pickle.dumps(message)
    return HEADER.pack(len(content)) + content


def encode_batch(tasks: Iterable[tuple[Sequence[RewardFunction], str, Mapping[str, Any], int]]) -> bytes:
    """Return a batch as ``run`` reads it: each task's functions, text, what verifies it, and length of the prefix.

    The length is that of the text that the prompt had begun, in characters.
    """
    return encode_message([([function.name for function in functions], *task) for functions, *task in tasks])


def decode_outcome(line: bytes) -> Outcome:
    """Return the outcome that a line holds. Raises ValueError when a process that went wrong wrote something else."""
    status, grades, reason, seconds, shown = json.loads(line)
    if status not in ("ok", "error") or not isinstance(grades, dict):
        raise ValueError(f"not an outcome: {line[:80]!r}")
    return Outcome(status, grades, reason, seconds, None if shown is None else tuple(shown))


def _grade(loaded: tuple[RewardFunction, Callable[..., Any]], text: str, answer: Mapping[str, Any]) -> Outcome:
    start = time.perf_counter()
    outcome = call(*loaded, text, answer)
    return outcome._replace(seconds=time.perf_counter() - start)


def limit(memory_gib: float | None) -> None:
    """Limit what this process may allocate, and have it leave no core file."""
    _limit(resource.RLIMIT_CORE, 0)
    if memory_gib is not None:
        # Not RLIMIT_AS, which would count what is only mapped.
        _limit(resource.RLIMIT_DATA, int(memory_gib * 2**30))


def _limit(what: int, soft: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
