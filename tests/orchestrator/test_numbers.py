"""Metrics, and the files they go to."""

import os

import pytest

from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.metrics import Clock, rollout_metrics
from orchestrator.report.summary import draw_curve, summary_table
from tests.orchestrator.evaluate.test_evaluation import paid
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


def test_the_home_folder_is_meant_by_its_sign(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(None, ["runs_dir=~/runs", "name=one"]).directory == tmp_path / "runs" / "one"


def test_a_home_folder_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runs_dir.*home folder of ~nosuchuser is not known; give the whole path"):
        load(None, ["runs_dir=~nosuchuser/runs"])


def test_the_summary_and_the_curve_come_from_the_metrics_alone(tmp_path) -> None:
    groups = [[scored_group("a", [True, False])], [scored_group("a", [True, True])]]
    lines = []
    for step, of_step in enumerate(groups):
        evaluation = summarize([*of_step, *of_step], of_step).metrics()
        lines.append({"step": step} | evaluation | (rollout_metrics(of_step) if step else {}))
    from rich.console import Console

    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(lines))
    assert "+50.0 points" in console.export_text()
    draw_curve(lines, tmp_path / "curve.png", "one")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_of_a_task_without_right_answers_shows_its_reward_as_a_number(tmp_path) -> None:
    lines = []
    for step, groups in enumerate(
        [[paid("a", 0.2, 0.3), paid("b", 0.1, 0.2)], [paid("a", 0.5, 0.6), paid("b", 0.4, 0.7)]]
    ):
        lines.append({"step": step} | summarize(groups, ()).metrics() | (rollout_metrics(groups) if step else {}))
    from rich.console import Console

    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(summary_table(lines))
    text = console.export_text()
    assert "0.200 ± 0.098" in text and "+0.350" in text and "%" not in text
    draw_curve(lines, tmp_path / "curve.png", "one")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
