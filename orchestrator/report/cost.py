"""What a run cost: who was there, for how long, and what that held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from orchestrator.report.reading.recorded_run import RecordedRun, Row

ACTORS = {"generator": "rollout.num_generators", "learner": "learner.num_ranks", "reward": "rewards.num_workers"}
"""The settings with their numbers, by what their names begin with."""


def cost(run: RecordedRun) -> str:
    """Return for how long a run held GPUs, or cores, and the memory of its processes, as far as they are known.

    Of generators and learner, which take turns unless a policy may be stale, the cores of those with more count.
    """
    counts = num_actors(run)
    generators, ranks, workers = (counts.get(kind, 0) for kind in ACTORS)
    if run.mode == "cpu":
        sampling = generators * cores(run, "rollout.cpus_per_generator", "rollout.threads_per_generator")
        learning = ranks * cores(run, "learner.cpus_per_rank", "learner.threads_per_rank")
        both = sampling + learning if run.setting("max_staleness") else max(sampling, learning)
        held, unit = both + workers * run.setting("rewards.cpus_per_worker", 1), "core-hours"
    else:
        owners = {"pods": generators * run.setting("rollout.tensor_parallel_size", 1) + ranks, "colocated": ranks}
        held, unit = owners.get(run.mode, 0), "GPU-hours"
    training, evaluations = (held * seconds / 3600 for seconds in (training_seconds(run.rows), evaluating(run.rows)))
    hours = f"{shown(training)} {unit}" if training else ""
    hours += f" and {shown(evaluations)} for evaluations" if hours and evaluations else ""
    memory = f"{sum(run.peak_gib.values()):.1f} GiB of main memory" if run.peak_gib else ""
    return ", ".join(filter(None, [hours, memory]))


def num_actors(run: RecordedRun) -> dict[str, int]:
    """Return how many processes of each kind a run had: as its log counts them, else as its recipe names them.

    A machine with few GPUs gets fewer than the recipe names. A supervised run has learner ranks alone.
    """
    seen = Counter(name.partition("-")[0] for name in run.peak_gib)
    kinds = ["learner"] if run.is_supervised else list(ACTORS)
    return {kind: seen[kind] or run.setting(ACTORS[kind], 0) for kind in kinds}


def cores(run: RecordedRun, cpus: str, threads: str) -> float:
    """Return the cores of one process: what Ray reserves may be less than it uses, where others wait meanwhile."""
    held: float = max(run.setting(cpus, 1), run.setting(threads) or 1)
    return held


def training_seconds(rows: Sequence[Row]) -> float:
    """Return for how long the steps took, without their evaluations."""
    return total(rows, "time/step_s") - evaluating([row for row in rows if "time/step_s" in row])


def evaluating(rows: Sequence[Row]) -> float:
    return total(rows, "time/evaluation_s")


def total(rows: Sequence[Row], key: str) -> float:
    return sum(row[key] for row in rows if isfinite(row.get(key, float("nan"))))


def shown(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
