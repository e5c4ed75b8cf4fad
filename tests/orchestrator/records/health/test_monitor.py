"""What a run says of its health: once, over a resume too, and in the end."""

from __future__ import annotations

import json
import logging

import pytest

from orchestrator.config.recipe import load
from orchestrator.evaluate.evaluation import summarize
from orchestrator.records.health import replay
from orchestrator.records.health.monitor import Health
from tests.orchestrator.evaluate.test_evaluation import paid
from tests.orchestrator.records.health.test_alarms import HEALTHY, RIGHT, WRONG, rows
from tests.support.groups import scored_group


def run(health: Health, *steps: dict[str, float], after: int = 0) -> list[dict[str, float]]:
    """Give it steps as the loop does, and return the rows that are logged."""
    logged = []
    for step, change in enumerate(steps, start=after + 1):
        metrics = HEALTHY | change
        logged.append({"step": float(step)} | metrics | health.observe(step, metrics))
    return logged


def test_an_alarm_is_said_once_in_log_and_terminal_and_logged_from_then_on(caplog) -> None:
    said: list[str] = []
    with caplog.at_level(logging.WARNING):
        logged = run(Health(load("countdown-tiny"), said.append), *[WRONG] * 8, {}, *[WRONG] * 5)
    assert [sentence.partition(":")[0] for sentence in said] == ["health/no_spread after step 5"]
    assert caplog.messages == said
    assert [row.get("health/no_spread") for row in logged[3:10]] == [None, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert [row["health/alarms"] for row in logged[3:9]] == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("killed_after", range(1, 12))
def test_a_run_that_resumes_anywhere_says_and_logs_the_same(killed_after: int) -> None:
    steps = [WRONG] * 6 + [{"rollout/truncated": 0.9}] * 6
    whole: list[str] = []
    expected = run(Health(load("countdown-tiny"), whole.append), *steps)
    parts: list[str] = []
    before = run(Health(load("countdown-tiny"), parts.append), *steps[:killed_after])
    resumed = Health(load("countdown-tiny"), parts.append)
    resumed.recall(json.loads(json.dumps(before)))
    after = run(resumed, *steps[killed_after:], after=killed_after)
    assert (before + after, parts) == (expected, whole) and len(whole) == 2


def test_a_run_of_a_version_without_alarms_hears_them_when_it_resumes() -> None:
    said: list[str] = []
    health = Health(load("countdown-tiny"), said.append)
    health.recall(rows(*[WRONG] * 10))
    assert said == []
    run(health, WRONG, after=10)
    assert len(said) == 1 and "after step 11" in said[0]


def test_a_learner_that_was_lost_takes_what_was_seen_since_back() -> None:
    health = Health(load("countdown-tiny"))
    logged = run(health, *[WRONG] * 4)
    health.recall(logged[:2])
    run(health, *[WRONG] * 2, after=2)
    assert health.holding() == {}


def test_before_training_the_verdict_of_eval_is_said() -> None:
    said: list[str] = []
    Health(load("countdown-tiny"), said.append).judge(summarize([scored_group(str(i), [False] * 8) for i in range(20)]))
    assert said[0] == "before training: too hard" and "100.0% were never solved" in said[1]
    assert any("prompts.curriculum" in sentence for sentence in said)


def test_good_news_before_training_is_told_apart_from_warnings() -> None:
    warned: list[str] = []
    praised: list[str] = []
    groups = [scored_group(str(number), [number % 2 == 0] * 3 + [False] * 5) for number in range(40)]
    Health(load("countdown-tiny"), warned.append, praised.append).judge(summarize(groups))
    assert praised[0] == "before training: trainable" and warned == []


def test_nothing_is_said_before_training_where_answers_are_not_right_or_wrong() -> None:
    said: list[str] = []
    Health(load("countdown-tiny"), said.append).judge(summarize([paid("a", 1.0, 2.0)]))
    assert said == []


def test_a_run_stops_after_so_many_steps_in_a_row_from_which_nothing_was_learned() -> None:
    health = Health(load("countdown-tiny", ["health.stop_after=3", "num_steps=20"]))
    run(health, WRONG, WRONG, {}, WRONG, WRONG)
    assert not health.is_hopeless and health.closing is None
    run(health, WRONG, after=5)
    assert health.is_hopeless and health.closing is not None
    assert "was stopped after step 6 of 20: 3 steps in a row" in health.closing
    assert "learner.learning_rate" in health.closing  # it was better before


def test_it_never_stops_by_itself_and_not_for_what_is_only_partly_wrong() -> None:
    endless = Health(load("countdown-tiny"))
    run(endless, *[WRONG] * 50)
    assert not endless.is_hopeless
    cut_off = Health(load("countdown-tiny", ["health.stop_after=1"]))
    run(cut_off, *[{"rollout/truncated": 1.0}] * 10)
    assert not cut_off.is_hopeless


def test_a_run_without_any_signal_says_so_in_the_end() -> None:
    health = Health(load("countdown-tiny"))
    run(health, *[RIGHT] * 2)
    assert health.closing is not None
    assert "has learned nothing: none of its 2 steps had a learning signal" in health.closing
    assert "too easy" in health.closing
    run(health, {}, after=2)
    assert health.closing is None
    assert Health(load("countdown-tiny")).closing is None  # no step at all


def test_finished_runs_are_judged_again(tmp_path, capsys, monkeypatch) -> None:
    config = load("countdown-tiny", ["name=old"])
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    logged = [{"step": 0, "eval/completion_tokens": 3.0}, *run(Health(config), *[WRONG] * 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in logged))
    monkeypatch.setattr("sys.argv", ["replay", str(tmp_path)])
    replay.main()
    printed = capsys.readouterr().out
    assert "7 rows, 1 alarms" in printed and "health/no_spread after step 5: 100%" in printed
