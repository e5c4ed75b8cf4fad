"""The page Time: the seconds of each phase, the work of the actors over time, and restarts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from orchestrator.report.cost import total
from orchestrator.report.page.chart import Chart, Line, Role, healthy_each, metric_chart, present
from orchestrator.report.reading.recorded_run import RecordedRun, Row

PHASES: dict[str, tuple[str, Role]] = {
    "rollout": ("sampling and grading", "main"),
    "update": ("update", "second"),
    "score_again": ("scoring again", "run3"),
    "publish": ("publishing", "wrong"),
    "evaluation": ("evaluation", "muted"),
    "other": ("other", "run4"),
}
"""Phases of a step: the name of each, and its role in a chart."""
TIMED = PHASES | {"reward_wait": ("grading, after the last completion", "run4")}
"""The phases in the timeline."""
GENERATORS, LEARNER, REWARD_WORKERS = "generators", "learner", "reward workers"
WORKERS = {
    "rollout": (GENERATORS,),
    "evaluation": (GENERATORS,),
    "update": (LEARNER,),
    "score_again": (LEARNER,),
    "publish": (GENERATORS, LEARNER),
}
SHOWN = 12
"""Number of steps in the timeline: the last ones."""
MANY = 60
"""With more steps, a chart has areas instead of bars."""


def machines(run: RecordedRun, keys: Collection[str]) -> dict[str, Any]:
    """Return the page's charts, and the seconds of each phase over the whole run."""
    timed = [row for row in run.rows if "time/step_s" in row]
    spent = totals(timed)
    return {
        "phases": [[PHASES[phase][0], round(total, 1)] for phase, total in spent.items()],
        "charts": present([*times(spent, len(timed)), timeline(run, timed)]),
        "service": present([*throughput(keys), peaks(keys), memory(run), *service(keys)]),
    }


def seconds(row: Row, phase: str) -> float:
    value = row.get(f"time/{phase}_s", 0.0)
    return value if value == value else 0.0


def totals(timed: Sequence[Row]) -> dict[str, float]:
    """Return the seconds of each phase, without phases that took no time."""
    sums = {phase: total(timed, f"time/{phase}_s") for phase in PHASES}
    return {phase: spent for phase, spent in sums.items() if spent > 0}


def times(spent: Iterable[str], num_steps: int) -> list[Chart]:
    if not num_steps:
        return []
    lines = [Line(PHASES[phase][0], f"time/{phase}_s", PHASES[phase][1]) for phase in spent]
    note = healthy_each(lines)
    return [Chart("Seconds of each step by phase", "s", lines, note, kind="areas" if num_steps > MANY else "bars")]


def timeline(run: RecordedRun, timed: Sequence[Row]) -> Chart | None:
    """Return a timeline of the last steps. Phases follow one another; parallel work is not recorded."""
    spans_of: dict[str, list[tuple[str, float, float]]] = {}
    clock = 0.0
    for row in timed[-SHOWN:]:
        for phase in ("rollout", "update", "score_again", "publish", "evaluation"):
            took = seconds(row, phase)
            alone = min(took, seconds(row, "reward_wait")) if phase == "rollout" else 0.0
            for worker in WORKERS[phase] if took > alone else ():
                spans_of.setdefault(phase, []).append((worker, round(clock, 3), round(clock + took - alone, 3)))
            clock += took
            if alone > 0:
                span = (REWARD_WORKERS, round(clock - alone, 3), round(clock, 3))
                spans_of.setdefault("reward_wait", []).append(span)
        clock += seconds(row, "other")
    if not spans_of:
        return None
    shown = []
    for phase, spans in spans_of.items():
        (name, role), (x, low, high) = TIMED[phase], zip(*spans, strict=True)
        shown.append(Line(name, role=role, x=x, low=low, high=high))
    note = "Time is lost when generators and learner both wait, mostly when only reward workers are busy. "
    if run.setting("max_staleness"):
        note += "Generators also sample during the update; only the time that the loop waited is recorded."
    else:
        note += "With max_staleness = 0 they take turns, unless generators already work for the next step."
    count = min(SHOWN, len(timed))
    title = f"Who worked when, the last {count} steps" if count > 1 else "Who worked when"
    return Chart(title, "s", shown, note, kind="timeline", x_title="seconds")


def throughput(keys: Collection[str]) -> list[Chart | None]:
    return [
        metric_chart("Tokens sampled a second", keys, Line("tokens/s", "rollout/tokens_per_s")),
        metric_chart("Waiting for grades", keys, Line("waiting", "time/reward_wait_s")),
    ]


def peaks(keys: Collection[str]) -> Chart | None:
    """Return a chart of the memory of the largest process of each kind so far, by step."""
    return metric_chart(
        "Peak memory so far, the largest of each kind", keys,
        Line("generator", "system/generator_peak_gib"), Line("learner rank", "system/learner_peak_gib", "second"),
        Line("reward worker", "system/reward_worker_peak_gib", "muted"),
    )  # fmt: skip


def memory(run: RecordedRun) -> Chart | None:
    """Return a chart of the peak memory of each process, from the run's log."""
    if not run.peak_gib:
        return None
    names = sorted(run.peak_gib)
    line = Line("peak", role="main", x=names, y=[round(run.peak_gib[name], 2) for name in names])
    return Chart("Peak memory of each process", "GiB", [line], "At the end of the run.", kind="groups", x_title="")


def service(keys: Collection[str]) -> list[Chart | None]:
    return [
        metric_chart("Generators that sample", keys, Line("generators", "system/generators")),
        metric_chart(
            "Restarts since the command began", keys,
            Line("generators", "system/generator_restarts"), Line("learner", "system/learner_restarts", "second"),
            Line("reward workers", "system/reward_worker_restarts", "muted"),
        ),
        metric_chart("Groups that wait for grades", keys, Line("groups", "system/reward_queue")),
    ]  # fmt: skip
