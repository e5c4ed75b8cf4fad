"""`rayzero plot RUN`: draw a run's learning curve, or any of its metrics, from its files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.config.recipe import ConfigError
from orchestrator.records.run_files import RunFiles, is_supervised
from orchestrator.report.plots import PICTURES, draw_curve, draw_metrics
from rollout.types.names import closest
from rollout.types.paths import from_home


def plot_run(directory: str, keys: Sequence[str], smooth: int, output: str | None) -> Path:
    """Draw the metrics `keys`, or the run's curve if there are none, and return the file.

    The curve of supervised training is its loss.

    Raises ConfigError for a metric that no step has, an output file that is not a picture, and a run without steps.
    """
    run = RunFiles(directory)
    file = Path(from_home(output)) if output else run.path / "plot.png"
    if file.suffix.lower() not in PICTURES:
        raise ConfigError(f"--output {file}: only {' or '.join(PICTURES)} can be drawn; change the end of the name")
    if smooth < 1:
        raise ConfigError(f"--smooth {smooth}: the number of steps that are averaged, at least 1")
    lines = run.metrics()
    if not lines:
        raise ConfigError(f"{run.path} has no step to draw yet: its metrics.jsonl is empty or missing")
    keys = keys or (["optim/loss"] if is_supervised(lines) else [])
    check_known(keys, {key for line in lines for key in line} - {"step"})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if keys:
            draw_metrics(lines, list(dict.fromkeys(keys)), file, run.name, smooth)
        else:
            draw_curve(lines, file, run.name, smooth)
    except OSError as error:
        raise ConfigError(f"--output {file}: cannot be written ({error.strerror}); name another file") from error
    return file


def check_known(keys: Iterable[str], known: set[str]) -> None:
    """Raise ConfigError, with the nearest known keys, for a key that no step has."""
    for key in keys:
        if key not in known:
            # The most frequent mistake is a part of a name: `total`, or `pass_at_1`.
            near = [name for name in sorted(known) if key.lower() in name.lower()]
            near = sorted(near, key=len)[:3]
            if not near and (close := closest(key, known)):
                near = [close]
            has = f"it has {', '.join(sorted(known)[:8])} and others."
            hint = f"did you mean {' or '.join(near)}?" if near else has
            raise ConfigError(f"--metric {key}: no step of the run has it; {hint} docs/metrics.md explains them all")
