"""The metrics of a step."""

import pytest

from orchestrator.records.metrics import Clock, rollout_metrics
from tests.support.groups import scored_group


def test_rollout_metrics_count_what_they_say() -> None:
    groups = [scored_group("a", [True, False]), scored_group("b", [False, False], tokens=5, status="timeout")]
    metrics = rollout_metrics(groups)
    assert metrics["reward/total"] == pytest.approx((1.0 + 0.1 * 3) / 4)
    assert metrics["reward/correctness"] == 0.25
    assert metrics["reward/timeouts"] == 2
    assert metrics["rollout/sampled_tokens"] == 16
    assert metrics["rollout/groups_without_spread"] == 0.5


def test_the_clock_accounts_for_all_of_a_step() -> None:
    clock = Clock()
    with clock("rollout"):
        sum(range(10_000))
    seconds = clock.seconds()
    assert seconds["time/step_s"] == pytest.approx(seconds["time/rollout_s"] + seconds["time/other_s"])
