"""A Python in a box that runs programs one after another; a program keeps its variables for the next."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rewards.sandbox import plain
from rewards.sandbox.box import REQUIRED, START_S, Box, Limits
from rewards.sandbox.processor import STRETCH, Calls

TOTAL_TIME_S = 120.0
"""CPU seconds that all programs of a session may use together."""
MAX_PROGRAM_BYTES = 10_000
"""As JSON it fits into the pipe, whether the box reads it or not."""
STANDS_S = 24 * 3600.0
"""Limit for a session that its owner forgot to close."""


class Ran(NamedTuple):
    """The result of a program."""

    output: str
    error: str
    """Its exception, or why it was stopped; empty if it ran to its end."""
    is_lost: bool = False
    """Whether the session's variables are lost."""


class Session:
    """Programs, one after another in the same namespace. Use it in a ``with``, or call ``close``."""

    def __init__(
        self, time_limit_s: float = 2.0, memory_mib: int = 512, require: Sequence[str] = REQUIRED, seed: int = 0
    ) -> None:
        """Keep the settings. The box starts with the first program.

        ``time_limit_s`` is the processor time of a program; by the clock it has STRETCH times as much. ``seed`` decides
        what its module ``random`` draws.
        """
        self._seed = seed
        self._time_limit_s = time_limit_s
        self._limits = Limits(TOTAL_TIME_S, memory_mib, output_mib=1, stands_s=STANDS_S)
        self._require = tuple(require)
        self._open: contextlib.ExitStack | None = None
        self._ask = self._answers = -1
        self._calls: Calls | None = None

    def run(self, program: str) -> Ran:
        """Run a program. This returns in bounded time, whatever the program does.

        Raises SandboxError when no program can be run here.
        """
        if len(program.encode("utf-8", "replace")) > MAX_PROGRAM_BYTES:
            return Ran("", f"the program is longer than {MAX_PROGRAM_BYTES:,} bytes")
        if self._open is None:
            self._start()
        assert self._calls is not None
        self._calls.begin_one()
        deadline = time.monotonic() + STRETCH * self._time_limit_s
        try:
            plain.write(self._ask, {"program": program})
            return _ran(plain.read(self._answers, deadline), 2**20 * self._limits.output_mib)
        except TimeoutError:
            error = self._too_long()
        except (EOFError, OSError, plain.NotPlainError):
            error = self._too_long() if self._calls.is_late else "the interpreter ended"
        self.close()
        return Ran("", error, is_lost=True)

    def close(self) -> None:
        """End the session; the next program starts a new one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _too_long(self) -> str:
        return f"the program took longer than {self._time_limit_s:g} s and was ended"

    def _start(self) -> None:
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            requests, self._ask = _pipe(theirs, ours)
            reply, self._answers = _pipe(theirs, ours, is_read_by_us=True)
            calls = os.memfd_create("calls")
            ours.callback(os.close, calls)
            channel = {"requests": requests, "replies": reply, "calls": calls}
            job = {"time_limit_s": self._time_limit_s, "seed": self._seed}
            box = Box("session", job, self._limits, self._require, channel)
            ours.enter_context(box)
            theirs.close()  # so that reading ends when the box ends
            box.active()
            if plain.read(self._answers, time.monotonic() + START_S) != {"ready": True}:
                raise plain.NotPlainError("the session did not begin")
            self._calls = Calls(calls)
            self._open = ours.pop_all()


def _ran(reply: Any, max_characters: int) -> Ran:
    """Return the reply of a box, which is untrusted. Raises NotPlainError."""
    if not isinstance(reply, dict) or not all(isinstance(reply.get(name), str) for name in ("output", "error")):
        raise plain.NotPlainError("no answer")
    return Ran(reply["output"][:max_characters], reply["error"][:max_characters])


def _pipe(theirs: contextlib.ExitStack, ours: contextlib.ExitStack, is_read_by_us: bool = False) -> tuple[int, int]:
    """Return the box's end of a new pipe and ours."""
    read, write = os.pipe()
    ends = (write, read) if is_read_by_us else (read, write)
    theirs.callback(os.close, ends[0])
    ours.callback(os.close, ends[1])
    return ends
