"""`rayzero watch RUN`: how a run goes, from another terminal, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.live import Live

from orchestrator.records.trackers.terminal import evaluation_lines, step_line
from orchestrator.watch.run_state import RunReader, RunState
from orchestrator.watch.view import RunView

REFRESH_S = 1.0

Wait = Callable[[float], bool]
"""Waits up to so many seconds, and returns whether to go on."""


def watch(given: str, console: Console) -> int:
    """Show the run until it ends, or Ctrl-C: a view that refreshes, or lines where the output is no terminal."""
    reader = RunReader(given)
    try:
        if console.is_terminal:
            show(reader, console, wait)
            console.print(RunView(reader.read()))
        else:
            print_lines(reader, console, wait)
    except KeyboardInterrupt:  # how one leaves; the run goes on
        pass
    return 0


def wait(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def show(reader: RunReader, console: Console, wait: Wait) -> None:
    """Show the view on a screen of its own, until the run ends or `wait` says so."""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not show_once(reader, live).is_over and wait(REFRESH_S):
            pass


def show_once(reader: RunReader, live: Live) -> RunState:
    state = reader.read()
    live.update(RunView(state), refresh=True)
    return state


def print_lines(reader: RunReader, console: Console, wait: Wait) -> None:
    """Print the lines that the run itself prints into a pipe, those of earlier steps first."""
    num_shown = 0
    while True:
        state = reader.read()
        num_shown = min(num_shown, len(state.rows))  # a resume does some again
        for row in state.rows[num_shown:]:
            for line in lines_of_row(row, state.num_steps):
                console.print(line, highlight=False)
        num_shown = len(state.rows)
        if state.is_over:
            console.print(f"{state.name}: {state.phase} at step {state.step} of {state.num_steps}", highlight=False)
            return
        wait(REFRESH_S)


def lines_of_row(row: Mapping[str, float], num_steps: int) -> Iterator[str]:
    """Yield the lines of one row of metrics.jsonl: of an evaluation, of a step, or of both."""
    step = int(row["step"])
    if "eval/completion_tokens" in row:
        yield from evaluation_lines(step, row)
    if "reward/total" in row:
        yield step_line(step, num_steps, row)
    elif "optim/loss" in row:
        yield f"step {step:>3}/{num_steps}  loss {row['optim/loss']:.3f}  {row.get('time/step_s', 0.0):.1f} s"
