"""Read a run's directory, also during the run or after it died."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import ConfigError
from orchestrator.records.run_directory import whole_lines
from rollout.types.paths import from_home


def is_supervised(rows: Sequence[Mapping[str, float]]) -> bool:
    """Return whether `rayzero sft` wrote the lines of metrics.jsonl: a recipe alone may be for `train` or `sft`."""
    return bool(rows) and not any(key.startswith(("reward/", "eval/")) for key in rows[-1])


class RunFiles:
    """Reads a run's directory. It locks and writes nothing, and accepts settings of other versions unchecked."""

    def __init__(self, directory: str | Path) -> None:
        """Read the settings in `directory`. Raises ConfigError, with advice, if it holds no run."""
        self.path = Path(from_home(str(directory)))
        try:
            config = json.loads((self.path / "config.json").read_text("utf-8"))
            if not isinstance(config, dict):
                raise ValueError("it holds no settings")
        except OSError as error:
            raise ConfigError(f"{self.path} is not a run: it has no config.json. {self._instead()}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.path / 'config.json'} is not JSON ({error})") from error
        self.config: dict[str, Any] = config
        self.name = str(config.get("name", self.path.name))

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    def metrics(self) -> list[dict[str, float]]:
        """Return the lines of metrics.jsonl, null as NaN; empty if nothing was logged yet."""
        if not self.metrics_file.is_file():
            return []
        return list(whole_lines(self.metrics_file.read_text("utf-8", "replace")))

    def _instead(self) -> str:
        folders: Sequence[Path] = [file.parent for file in sorted(Path("runs").glob("*/config.json"))]
        meant = next((folder for folder in folders if folder.name == self.path.name), None)
        if meant is not None:
            return f"Did you mean {meant}?"
        known = f" Runs here: {', '.join(map(str, folders[:5]))}" if folders else ""
        return f"Give a run's directory, such as runs/<name>.{known}"


def asked_steps(config: Mapping[str, Any], rows: Sequence[Mapping[str, float]]) -> int:
    """Return the number of steps that the run should train; 0 if the settings do not say."""
    steps = ((config.get("warm_start") or {}) if is_supervised(rows) else config).get("num_steps")
    return steps if isinstance(steps, int) else 0
