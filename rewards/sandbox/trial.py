"""A candidate's box and a judge's, connected by two pipes and a count of calls.

The worker that starts them sees no value of either.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.sandbox.box import REQUIRED, Box, Limits


def run_trial(
    role: str,
    job: Mapping[str, Any],
    problem: Mapping[str, Any],
    limits: Limits,
    require: Sequence[str] = REQUIRED,
) -> dict[str, Any] | None:
    """Run a program against its tests and return the judge's verdict (judge.py); None if the tests did not end.

    Args:
        role: the candidate's: functions or programs (candidate.py).
        job: what the candidate is told.
        problem: what the judge is told.

    Raises SandboxError when what is required is not protected here.
    """
    with contextlib.ExitStack() as boxes:
        with contextlib.ExitStack() as ours:
            requests, ask = _pipe(ours)
            answers, reply = _pipe(ours)
            calls = os.memfd_create("calls")
            ours.callback(os.close, calls)
            candidate = Box(role, job, limits, require, {"requests": requests, "replies": reply, "calls": calls})
            boxes.enter_context(candidate)
            channel = {"requests": ask, "replies": answers, "calls": calls}
            judge = Box("judge", {"problem": problem}, limits, require, channel)
            boxes.enter_context(judge)
        # Close our ends, so that each box notices the end of the other.
        candidate.active()
        judge.active()
        return judge.result()


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends
