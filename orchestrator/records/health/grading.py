"""Alarms about graders that fail, and graders that steps wait for."""

from __future__ import annotations

from orchestrator.config.schema import RunConfig
from orchestrator.records.health.history import History, mean_of, named
from orchestrator.records.health.limits import HealthLimits

FAILED = "reward/failed/(.+)"
GRADING = "time/grading/(.+)_s"
LONG_WAIT = 0.25
"""The alarm is raised if waiting for grades takes at least this share of a step."""
LONG_WAIT_S = 1.0
"""Shorter waits, in seconds per step, do not matter."""


def failing_grader(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that a reward part fails or times out too often, before `rewards.max_failed_share` ends the run."""
    rows = history.last
    shares = {
        name: mean_of(rows, key)
        for name, key in named(FAILED, rows[-1]).items()
        if min(history.values(key), default=0.0) > limits.failed
    }
    if not shares:
        return None
    worst = max(shares.values())
    parts = ", ".join(name for name, share in shares.items() if share == worst)
    timeouts, errors = (mean_of(rows, f"reward/{what}") for what in ("timeouts", "errors"))
    fix = (
        f"its deadline is too short or it hangs: log.txt has the prompts; raise rewards.deadline_s = "
        f"{config.rewards.deadline_s:g} (rewards.deadlines_s for this function alone)"
        if timeouts > errors
        else "it raises an exception on this model's texts: log.txt has the exception; the function should return a "
        "value for a text that it cannot read"
    )
    return (
        f"{100 * worst:.0f}% of the completions of the last {limits.steps} steps got no grade for {parts}, and count "
        f"as 0. Likely cause: {fix}. The run ends at rewards.max_failed_share = {config.rewards.max_failed_share:g}."
    )


def slow_grader(history: History, config: RunConfig, limits: HealthLimits) -> str | None:
    """Report that steps wait for grades, and name the slowest grader."""
    waits, steps = history.values("time/reward_wait_s"), history.values("time/step_s")
    rows = history.last
    seconds = {name: mean_of(rows, key) for name, key in named(GRADING, rows[-1]).items()}
    if not waits or not steps or not seconds:
        return None
    if any(wait < max(LONG_WAIT * step, LONG_WAIT_S) for wait, step in zip(waits, steps, strict=True)):
        return None
    slowest = max(seconds, key=lambda name: seconds[name])
    share = seconds[slowest] / (sum(seconds.values()) or 1.0)
    return (
        f"Each step waits {mean_of(rows, 'time/reward_wait_s'):.1f} s of {mean_of(rows, 'time/step_s'):.1f} s for "
        f"grades. The slowest grader is {slowest}: {seconds[slowest]:.1f} s of work a step, {100 * share:.0f}% of all "
        f"grading. Make it faster, raise rewards.num_workers = {config.rewards.num_workers}, or give each worker a "
        "core of its own (rewards.cpus_per_worker = 1)."
    )
