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

from rewards.function import LoadedFunction, Outcome, RewardFunction
from rewards.parts.markers import markers
from rewards.subject import Subject

HEADER = struct.Struct("!Q")
"""A message is its length in bytes, then what is pickled."""

Functions = Mapping[str, tuple[RewardFunction, Callable[..., Any]]]


def run(channel: socket.socket, functions: Functions, memory_gib: float | None) -> None:
    """Grade until ``channel`` is closed."""
    limit(memory_gib)
    loaded = {name: LoadedFunction.of(*each) for name, each in functions.items()}
    for batch in messages(channel):
        for names, subject in batch:
            for name in names:
                outcome = _grade(loaded[name], subject)
                if name == names[-1]:
                    outcome = outcome._replace(markers=markers_of(subject))
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


def encode_batch(tasks: Iterable[tuple[Sequence[RewardFunction], Subject]]) -> bytes:
    """Return a batch as ``run`` reads it: each task's functions, and what they read."""
    return encode_message([([function.name for function in functions], subject) for functions, subject in tasks])


UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a line of a process that went wrong may raise."""


def decode_outcome(line: bytes) -> Outcome:
    """Return the outcome that a line holds. Raises ValueError when a process that went wrong wrote something else."""
    try:
        return outcome_from(json.loads(line))
    except UNREADABLE as error:
        raise ValueError(f"not an outcome: {line[:80]!r}") from error


def outcome_from(fields: Sequence[Any]) -> Outcome:
    """Return the outcome whose fields came as JSON. Raises one of UNREADABLE for something else."""
    status, grades, reason, seconds, shown, each, logged = fields
    if status not in ("ok", "error", "timeout") or not isinstance(reason, str):
        raise ValueError("no status or no reason")
    return Outcome(
        status,
        {name: float(grade) for name, grade in grades.items()},
        reason,
        float(seconds),
        None if shown is None else tuple(map(str, shown)),
        tuple(None if value is None else float(value) for value in each),
        {name: float(figure) for name, figure in logged.items()},
    )


def markers_of(subject: Subject) -> tuple[str, ...] | None:
    """Return the behaviours that a completion shows, in what the model wrote; None for a whole group."""
    if subject.prefix_characters is None:
        return None
    return markers(subject.texts[0][subject.prefix_characters :])


def _grade(loaded: LoadedFunction, subject: Subject) -> Outcome:
    start = time.perf_counter()
    outcome = loaded.call(subject)
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
