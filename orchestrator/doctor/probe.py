"""Runs a line of Python in a process of its own: whatever it does there, raise, crash or hang, is an outcome here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

MARK = "rayzero-doctor-facts:"
# The alarm ends a child whose parent was killed. At the end no library gets to crash while it tidies up.
FRAME = """import json, os, signal, sys
signal.alarm({alarm_s})
facts = {{}}
{code}
sys.stderr.flush()
print("\\n{mark}" + json.dumps(facts), flush=True)
os._exit(0)
"""


@dataclass(frozen=True)
class ProbeOutcome:
    """How it went."""

    status: Literal["done", "failed", "crashed", "hung"]
    seconds: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the code put into its dictionary ``facts``; empty unless done."""
    words: str = ""
    """Why: the last line of a traceback, or the signal. When done, all that was printed."""


def probe(code: str, timeout_s: float, environment: Mapping[str, str] | None = None) -> ProbeOutcome:
    """Run `code`, which may fill the dictionary ``facts``, with this Python and, beside our own, these variables."""
    start = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-c", FRAME.format(code=code, mark=MARK, alarm_s=int(timeout_s) + 10)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, complaints = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        end(child)
        return ProbeOutcome("hung", time.monotonic() - start, words=f"no answer within {timeout_s:g} s")
    seconds = time.monotonic() - start
    said, _, facts = output.rpartition(MARK)
    if child.returncode == 0 and MARK in output:
        return ProbeOutcome("done", seconds, json.loads(facts), (said + complaints).strip())
    if child.returncode < 0:
        return ProbeOutcome("crashed", seconds, words=f"died of {signal.Signals(-child.returncode).name}")
    lines = complaints.strip().splitlines() or [f"ended with exit code {child.returncode} and no word"]
    return ProbeOutcome("failed", seconds, words=lines[-1][:300])


def end(child: subprocess.Popen[str]) -> None:
    """Kill the child and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    # A grandchild that left the group may still hold the pipes: do not wait for it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=2)
