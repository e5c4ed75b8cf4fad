"""`rayzero watch RUN`: show a run's progress in another terminal until it ends."""

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
"""Waits up to the given number of seconds, and returns whether to continue."""


def watch(directory: str, console: Console) -> int:
    """Show the run until it ends, or until Ctrl-C: a live view in a terminal, otherwise lines. Return exit code 0.

    Raises ConfigError if the directory is not a run.
    """
    reader = RunReader(directory)
    try:
        if console.is_terminal:
            show(reader, console, wait)
            console.print(RunView(reader.read()))
        else:
            print_lines(reader, console, wait)
    except KeyboardInterrupt:  # the normal way to leave; the run continues
        pass
    return 0


def wait(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def show(reader: RunReader, console: Console, wait: Wait) -> None:
    """Show the view on the terminal's alternate screen, until the run ends or `wait` returns False."""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while not show_once(reader, live).is_over and wait(REFRESH_S):
            pass


def show_once(reader: RunReader, live: Live) -> RunState:
    state = reader.read()
    live.update(RunView(state), refresh=True)
    return state


def print_lines(reader: RunReader, console: Console, wait: Wait) -> None:
    """Print the same lines as the run itself prints into a pipe, starting with its first step."""
    num_shown = 0
    while True:
        state = reader.read()
        num_shown = min(num_shown, len(state.rows))  # a resumed run repeats some steps
        for row in state.rows[num_shown:]:
            for line in lines_of_row(row, state.num_steps):
                console.print(line, highlight=False)
        num_shown = len(state.rows)
        if state.is_over:
            console.print(f"{state.name}: {state.phase} at step {state.step} of {state.num_steps}", highlight=False)
            return
        wait(REFRESH_S)


def lines_of_row(row: Mapping[str, float], num_steps: int) -> Iterator[str]:
    """Yield the lines for one row of metrics.jsonl, which may have an evaluation, a step, or both."""
    step = int(row["step"])
    if "eval/completion_tokens" in row:
        yield from evaluation_lines(step, row)
    if "reward/total" in row:
        yield step_line(step, num_steps, row)
    elif "optim/loss" in row:
        yield f"step {step:>3}/{num_steps}  loss {row['optim/loss']:.3f}  {row.get('time/step_s', 0.0):.1f} s"
