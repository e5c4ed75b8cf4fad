"""Judge the metrics of finished runs: show which alarms would have been reported, and after which step.

python -m orchestrator.records.health.replay runs/NAME …
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from orchestrator.config.recipe import ConfigError, validate
from orchestrator.config.schema import RunConfig
from orchestrator.records.health.history import Row
from orchestrator.records.health.monitor import ALARMS, Health
from orchestrator.records.run_directory import whole_lines

KEYS = {f"health/{name}" for name in ALARMS}


def replay(rows: Iterable[Row], config: RunConfig) -> dict[str, tuple[int, str]]:
    """Return the alarms for the rows of a metrics.jsonl, each with the step after which it first holds."""
    health = Health(config)
    alarms: dict[str, tuple[int, str]] = {}
    for row in rows:
        health.take(row)
        for name, sentence in health.holding().items():
            alarms.setdefault(name, (int(row["step"]), sentence))
    return alarms


def recall(rows: Sequence[Row], config: RunConfig) -> dict[str, tuple[int, str]]:
    """Return the alarms that a run has reported, like `replay`, but judge a step only if it reported a new alarm.

    Steps of earlier versions, which logged no alarms, are all judged.
    """
    health = Health(config)
    reported: set[str] = set()
    alarms: dict[str, tuple[int, str]] = {}
    if not any(is_to_be_judged(row, reported) for row in rows):
        return alarms
    for row in rows:
        health.take(row)
        if is_to_be_judged(row, reported):
            for name, sentence in health.holding().items():
                alarms.setdefault(name, (int(row["step"]), sentence))
            reported |= row.keys()
    return alarms


def was_stopped(rows: Sequence[Row], settings: Mapping[str, Any]) -> bool:
    """Return whether `health.stop_after` ends a run with these settings after its last row."""
    if not (settings.get("health") or {}).get("stop_after"):
        return False
    try:
        health = Health(validate(settings))
    except ConfigError:  # settings of another version
        return False
    health.recall(rows)
    return health.is_hopeless


def is_to_be_judged(row: Row, reported: Set[str]) -> bool:
    """Return whether a step reported an alarm that is not in `reported`, or was never judged."""
    if "health/alarms" not in row:
        return "reward/total" in row
    return not (KEYS & row.keys()) <= reported


def main() -> None:
    """Print the alarms of each run directory on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory")
    for folder in parser.parse_args().runs:
        rows = list(whole_lines((folder / "metrics.jsonl").read_text("utf-8", "replace")))
        alarms = replay(rows, validate(json.loads((folder / "config.json").read_text("utf-8", "replace"))))
        print(f"{folder}: {len(rows)} rows, {len(alarms)} alarms")
        for name, (step, sentence) in alarms.items():
            print(f"  health/{name} after step {step}: {sentence}")


if __name__ == "__main__":
    main()
