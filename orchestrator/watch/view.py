"""Draw a run's state in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.watch.printable import printable, shortened
from orchestrator.watch.run_state import RunState
from orchestrator.watch.sparkline import BARS, PLAIN_BARS, sparkline

LABEL_WIDTH, VALUE_WIDTH, RANGE_WIDTH = 20, 16, 20
MIN_WIDTH = 10
LONGEST_SHOWN = 600
"""Characters that are shown of a question's end and of a completion's start."""
MAX_LINES = 12
"""Lines that are shown of a question or a completion."""


def number(value: float) -> str:
    return f"{value:.3f}"


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def whole(value: float) -> str:
    return f"{value:.0f}"


def seconds(value: float) -> str:
    return f"{value:.1f} s"


CURVES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "reward/total": ("reward", number),
    "reward/correctness": ("pass rate", percent),
    "eval/pass_at_1": ("held-out pass@1", percent),
    "eval/reward": ("held-out reward", number),
    "rollout/completion_tokens": ("completion, tokens", whole),
    "optim/entropy": ("entropy, nats", number),
    "optim/loss": ("loss", number),
    "time/step_s": ("step", seconds),
    "time/rollout_s": ("  rollout", seconds),
    "time/update_s": ("  update", seconds),
    "time/score_again_s": ("  scoring again", seconds),
    "time/publish_s": ("  publish", seconds),
    "time/evaluation_s": ("  evaluation", seconds),
    "time/other_s": ("  other", seconds),
}
"""The metrics that are shown if a run has them, each with its title and a function that formats a value."""
INSTEAD = {"eval/reward": "eval/pass_at_1", "optim/loss": "reward/total"}
"""Metrics that are shown only if the run does not have the other one."""


class RunView:
    """Shows a run's state: progress, curves, the last warnings, one completion.

    Texts are not parsed as markup, and their control characters are replaced.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        has_unicode = console.encoding.lower().startswith("utf")
        yield self._heading()
        yield ProgressBar(total=max(1, self._state.num_steps), completed=self._state.step, width=options.max_width)
        yield self._curves(options.max_width, BARS if has_unicode else PLAIN_BARS)
        yield from self._warnings()
        yield from self._completion()

    def _heading(self) -> Text:
        state = self._state
        parts = [f"step {state.step}/{state.num_steps}"]
        spent = sum(row.get("time/step_s", 0.0) for row in state.rows)
        parts.append(f"elapsed {clock(spent)}")
        if state.seconds_left is not None:
            parts.append(f"left {clock(state.seconds_left)}")
        status = {
            "running": f"running, {state.holder}",
            "unknown": f"trained by {state.holder}",
            "complete": "complete",
            "stopped": "stopped: the same command resumes it",
            "stopped as hopeless": "stopped as hopeless: raise health.stop_after, or set it to 0, to continue",
        }[state.phase]
        if not state.is_over:
            status += f"; last written {clock(state.silent_s)} ago" if state.rows else "; no step yet"
        return Text.assemble((printable(state.name), "bold"), "  ", " · ".join([*parts, printable(status)]))

    def _curves(self, width: int, bars: str) -> Table:
        table = Table.grid(padding=(0, 1))
        room = max(MIN_WIDTH, width - LABEL_WIDTH - VALUE_WIDTH - RANGE_WIDTH - 4)
        known = {key for row in self._state.rows for key in row}
        for key, (title, write) in CURVES.items():
            if key not in known or INSTEAD.get(key) in known:
                continue
            rows = [row for row in self._state.rows if key in row]
            values = [row[key] for row in rows]
            half_width_95 = rows[-1].get(f"{key}_ci95")
            last = write(values[-1]) + (f" ± {write(half_width_95)}" if half_width_95 is not None else "")
            limits = f"{write(min(values))} … {write(max(values))}"
            table.add_row(
                Text(title), Text(last, "bold", justify="right"), Text(sparkline(values, room, bars), "cyan"),
                Text(limits, "dim"),
            )  # fmt: skip
        return table

    def _warnings(self) -> Iterator[Text]:
        for warning in self._state.warnings:
            is_past = self._state.is_past(warning)
            yield Text(
                f"{'no longer: ' if is_past else ''}{shortened(warning, LONGEST_SHOWN)}",
                "dim" if is_past else "yellow",
                overflow="fold",
            )

    def _completion(self) -> Iterator[Panel]:
        record = self._state.completion
        if record is None:
            return
        question = str(record.get("prompt", "")).strip()[-LONGEST_SHOWN:]
        text = Text(overflow="fold")
        text.append(lines_of(shortened(question, LONGEST_SHOWN)) + "\n", "dim")
        text.append(lines_of(shortened(str(record.get("completion", "")).strip(), LONGEST_SHOWN)))
        title = Text(f"step {record.get('step')}, a completion: {grade(record)}")
        yield Panel(text, title=title, title_align="left")


def grade(record: Mapping[str, Any]) -> str:
    """Return a record's grade and reward, in words."""
    value = ((record.get("parts") or {}).get("correctness") or {}).get("value")
    right = "right, " if value == 1 else "wrong, " if value == 0 else ""
    reward = record.get("reward")
    return f"{right}reward {reward:.3f}" if isinstance(reward, int | float) else f"{right}without a reward"


def lines_of(text: str) -> str:
    lines = text.splitlines()
    return "\n".join(lines[:MAX_LINES] + ["…"] * (len(lines) > MAX_LINES))


def clock(value: float) -> str:
    """Return seconds as `1:05` or `2:03:09`."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
