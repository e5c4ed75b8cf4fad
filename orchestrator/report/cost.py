"""Compute the cost of a run: its actors, their time, and the resources that they held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite

from orchestrator.report.reading.recorded_run import RecordedRun, Row

ACTORS = {"generator": "rollout.num_generators", "learner": "learner.num_ranks", "reward": "rewards.num_workers"}
"""The settings with the numbers of actors, by the beginnings of the actors' names."""


def cost(run: RecordedRun) -> str:
    """Return the GPU-hours or core-hours of a run, and the memory of its processes, as far as they are known.

    If generators and learner take turns (without staleness), only the larger number of cores counts.
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
    """Return the number of processes of each kind, from the run's log if it has them, else from its recipe.

    A machine with few GPUs may get fewer than the recipe asks for. A supervised run has only learner ranks.
    """
    seen = Counter(name.partition("-")[0] for name in run.peak_gib)
    kinds = ["learner"] if run.is_supervised else list(ACTORS)
    return {kind: seen[kind] or run.setting(ACTORS[kind], 0) for kind in kinds}


def cores(run: RecordedRun, cpus: str, threads: str) -> float:
    """Return the cores of one process. Ray may reserve fewer than it uses, because other processes wait meanwhile."""
    held: float = max(run.setting(cpus, 1), run.setting(threads) or 1)
    return held


def training_seconds(rows: Sequence[Row]) -> float:
    """Return the seconds of all steps, without their evaluations."""
    return total(rows, "time/step_s") - evaluating([row for row in rows if "time/step_s" in row])


def evaluating(rows: Sequence[Row]) -> float:
    return total(rows, "time/evaluation_s")


def total(rows: Sequence[Row], key: str) -> float:
    return sum(row[key] for row in rows if isfinite(row.get(key, float("nan"))))


def shown(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
