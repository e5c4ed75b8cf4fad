"""Show the metrics of each step in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from orchestrator.records.trackers.base import RemoteAdvantages, Tracker
from rollout.types.completions import Group
from rollout.types.prompts import PromptFormat


class ConsoleTracker(Tracker):
    """Prints one line for each step, and below them a progress bar with the remaining time."""

    def __init__(self, console: Console, num_steps: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps · elapsed"),
            TimeElapsedColumn(),
            TextColumn("· left"),
            TimeRemainingColumn(),
            console=console,
            # In a log file each redraw of the bar would become a line.
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("steps", total=num_steps)
        self._num_steps = num_steps

    def log(
        self, step: int, metrics: Mapping[str, float], groups: RemoteAdvantages = (), held_out: Sequence[Group] = ()
    ) -> None:
        self._progress.start()  # only the first call has an effect
        if any(key.startswith("eval/") for key in metrics):
            for line in evaluation_lines(step, metrics):
                self._console.print(line, highlight=False)
        if "reward/total" in metrics:
            self._console.print(step_line(step, self._num_steps, metrics), highlight=False)
        self._progress.update(self._task, completed=step)

    def close(self) -> None:
        self._progress.stop()


def step_line(step: int, num_steps: int, metrics: Mapping[str, float]) -> str:
    """Return the line of a step, which begins like `step 12/40  reward 0.512  right 46.1%`."""
    phases = " ".join(f"{name} {metrics[f'time/{name}_s']:.1f}" for name in ("rollout", "update", "publish"))
    left = (num_steps - step) * (metrics["time/step_s"] - metrics.get("time/evaluation_s", 0.0))
    right = f"right {100 * metrics['reward/correctness']:.1f}%  " if "reward/correctness" in metrics else ""
    return (
        f"step [bold]{step:>3}[/]/{num_steps}  reward [bold green]{metrics['reward/total']:.3f}[/]  {right}"
        f"tokens {metrics['rollout/completion_tokens']:.0f}  {metrics['rollout/tokens_per_s'] / 1000:.1f}k tok/s  "
        f"gap {metrics['rollout/logprob_gap']:.1e}  [dim]{metrics['time/step_s']:.1f} s ({phases})  "
        f"ETA {left // 60:.0f}:{left // 1 % 60:02.0f}[/]"
    )


def evaluation_lines(step: int, metrics: Mapping[str, float]) -> list[str]:
    """Return a line for each evaluated format, which begins like `held-out after step 20  pass@1 57.3% ± 2.9`."""
    when = f"after step {step}" if step else "before training"
    others = [format for format in get_args(PromptFormat) if f"eval/{format}/completion_tokens" in metrics]
    return [
        evaluation_line(when, metrics, "eval/"),
        *(evaluation_line(f"{when}, {format}", metrics, f"eval/{format}/") for format in others),
    ]


def evaluation_line(when: str, metrics: Mapping[str, float], prefix: str) -> str:
    shown = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    width = f" ± {shown['reward_ci95']:.3f}" if "reward_ci95" in shown else ""  # a single prompt has no interval
    reward = f"reward [bold cyan]{shown['reward']:.3f}[/]{width}"
    rates = [
        f"{name.replace('pass_at_', 'pass@').replace('_', ' ')} "
        f"[bold cyan]{100 * shown[name]:.1f}%[/] ± {100 * shown[f'{name}_ci95']:.1f}"
        for name in shown
        if f"{name}_ci95" in shown and name != "reward" and "/" not in name
    ]
    # If answers are right or wrong, the rates are clearer than the reward.
    return f"held-out {when}  {'  '.join(rates or [reward])}  tokens {shown['completion_tokens']:.0f}"
