"""Judge the metrics of runs that are over: which alarms would have been said, and after which step.

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
    """Return the alarms that the rows of a metrics.jsonl give, each with the step after which it first holds."""
    health = Health(config)
    found: dict[str, tuple[int, str]] = {}
    for row in rows:
        health.take(row)
        for name, sentence in health.holding().items():
            found.setdefault(name, (int(row["step"]), sentence))
    return found


def recall(rows: Sequence[Row], config: RunConfig) -> dict[str, tuple[int, str]]:
    """Return the alarms that a run has said, as `replay` does: a step is judged again only where it said a new one.

    Steps of earlier versions, which logged no alarms, are all judged.
    """
    health = Health(config)
    said: set[str] = set()
    found: dict[str, tuple[int, str]] = {}
    if not any(is_to_be_judged(row, said) for row in rows):
        return found
    for row in rows:
        health.take(row)
        if is_to_be_judged(row, said):
            for name, sentence in health.holding().items():
                found.setdefault(name, (int(row["step"]), sentence))
            said |= row.keys()
    return found


def was_stopped(rows: Sequence[Row], settings: Mapping[str, Any]) -> bool:
    """Return whether `health.stop_after` ends a run of such settings after its last row."""
    if not (settings.get("health") or {}).get("stop_after"):
        return False
    try:
        health = Health(validate(settings))
    except ConfigError:  # of another version
        return False
    health.recall(rows)
    return health.is_hopeless


def is_to_be_judged(row: Row, said: Set[str]) -> bool:
    """Return whether a step said an alarm that was not said before, or whether nobody judged it."""
    if "health/alarms" not in row:
        return "reward/total" in row
    return not (KEYS & row.keys()) <= said


def main() -> None:
    """Print the alarms of each run directory that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory")
    for folder in parser.parse_args().runs:
        rows = list(whole_lines((folder / "metrics.jsonl").read_text("utf-8", "replace")))
        found = replay(rows, validate(json.loads((folder / "config.json").read_text("utf-8", "replace"))))
        print(f"{folder}: {len(rows)} rows, {len(found)} alarms")
        for name, (step, sentence) in found.items():
            print(f"  health/{name} after step {step}: {sentence}")


if __name__ == "__main__":
    main()
