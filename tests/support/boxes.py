"""Run programs in a box without a judge."""

from __future__ import annotations

import contextlib
import os
import textwrap
import time

from rewards.sandbox import plain
from rewards.sandbox.box import Box, Limits
from rewards.sandbox.processor import Calls


def run(
    program: str, given: str = "", time_limit_s: float = 2.0, memory_mib: int = 512
) -> tuple[str, int | None] | None:
    """Return what a program prints in a box, and its exit code; None when it was late."""
    (requests, ask), (answers, reply) = os.pipe(), os.pipe()
    job = {"program": textwrap.dedent(program), "time_limit_s": time_limit_s}
    limits = Limits(time_s=20, memory_mib=memory_mib)
    try:
        with Box("programs", job, limits, channel={"requests": requests, "replies": reply}) as box:
            box.active()
            assert plain.read(answers, time.monotonic() + 20) == {"ready": True}
            plain.write(ask, {"input": given})
            answer = plain.read(answers, time.monotonic() + 20)
            return None if "late" in answer else tuple(answer["ran"])
    finally:
        for end in (requests, ask, answers, reply):
            os.close(end)


def call(program: str, *arguments: float, time_limit_s: float) -> tuple[list[object], bool]:
    """Return what a program's ``f`` returns of each argument until its box ends, and whether a call was too long."""
    (requests, ask), (answers, reply), calls = os.pipe(), os.pipe(), os.memfd_create("calls")
    job = {"program": program, "context": "", "functions": ["f"], "time_limit_s": time_limit_s}
    returned: list[object] = []
    try:
        with Box("functions", job, Limits(20), channel={"requests": requests, "replies": reply, "calls": calls}) as box:
            box.active()
            os.close(reply)
            with contextlib.suppress(EOFError):
                assert plain.read(answers, time.monotonic() + 20) == {"ready": True}
                assert plain.read(answers, time.monotonic() + 20) == {"loaded": True}
                for argument in arguments:
                    Calls(calls).begin_one()
                    plain.write(ask, plain.encode(["f", (argument,), {}]))
                    returned.append(plain.read(answers, time.monotonic() + 20)["returned"])
            return returned, Calls(calls).is_late
    finally:
        for end in (requests, ask, answers, calls):
            os.close(end)
