"""Print the findings of `rayzero doctor`, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence

from orchestrator.doctor.examination import examine
from orchestrator.doctor.runner import Finding, Status

COLORS: dict[Status, str] = {"ok": "32", "warning": "33", "broken": "31"}
STATUS_WIDTH, NAME_WIDTH = 9, 19


def doctor(*, as_json: bool) -> int:
    """Examine this machine and print the findings. Return 0 if nothing is broken, otherwise 1."""
    findings = examine(say_progress)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        print(table(findings, width, in_color=sys.stdout.isatty()))
    return exit_code(findings)


def exit_code(findings: Sequence[Finding]) -> int:
    return int(any(finding.status == "broken" for finding in findings))


def say_progress(waiting: Sequence[str]) -> None:
    """Print the running checks on one line that is overwritten each time. Does nothing outside a terminal."""
    if sys.stderr.isatty():
        line = f"examining (about 30 s): {', '.join(waiting)}"
        print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)


def table(findings: Sequence[Finding], width: int, *, in_color: bool = False) -> str:
    """Return the table: a line for each finding, with the expected state and the fix below it if it is not ok.

    Broken findings come last, where a user of a terminal sees them first.
    """
    lines = []
    for finding in sorted(findings, key=lambda finding: list(COLORS).index(finding.status)):
        status = f"{finding.status:<{STATUS_WIDTH}}"
        if in_color:
            status = f"\033[{COLORS[finding.status]}m{status}\033[0m"
        lines += entry(status, finding.name, finding.found, width)
        if finding.status != "ok":
            blank = " " * STATUS_WIDTH
            lines += entry(blank, "  expected", finding.expected, width) + entry(blank, "  fix", finding.fix, width)
    counts = Counter(finding.status for finding in findings)
    return "\n".join([*lines, "", ", ".join(f"{counts[status]} {status}" for status in reversed(COLORS))])


def entry(status: str, name: str, text: str, width: int) -> list[str]:
    """Return the lines of one text, wrapped below its status and name."""
    margin = STATUS_WIDTH + NAME_WIDTH
    # Users copy these commands, so a word or an option is never split.
    wrapped = textwrap.wrap(text, max(width - margin, 30), break_long_words=False, break_on_hyphens=False) or [""]
    first = f"{status}{name:<{NAME_WIDTH - 1}} {wrapped[0]}"
    return [first, *(" " * margin + line for line in wrapped[1:])]
