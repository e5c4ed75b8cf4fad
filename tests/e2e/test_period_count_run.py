"""A whole run of another task than Countdown: PPO on Period count, from its warm start to `rayzero eval`."""

import json

import pytest

from tests.support.commands import rayzero

pytestmark = [pytest.mark.slow, pytest.mark.long]

SMALL = [
    "rollout.num_generators=1",
    "rollout.threads_per_generator=2",
    "num_steps=10",
    "warm_start.num_steps=200",
    "prompts.num_held_out=48",
    "evaluation.every_steps=0",
]


def test_ppo_raises_the_number_of_full_stops_and_nothing_speaks_of_right_answers(tmp_path, shared_cluster) -> None:
    environment = {"RAYZERO_CACHE": str(tmp_path / "cache"), **shared_cluster}
    done = rayzero("train", "period-count-tiny", f"runs_dir={tmp_path}", *SMALL, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "period-count-tiny"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert 1.8 < lines[1]["reward/periods"] < 3.2  # the traces have 2.5 on average
    assert lines[-1]["eval/reward"] - lines[0]["eval/reward"] > 0.15  # half a full stop
    assert not [key for line in lines for key in line if "pass_at" in key or "format" in key]
    assert "mean reward" in done.stdout and "rayzero eval" in done.stdout and "rayzero solve" in done.stdout
    assert (run / "curve.png").stat().st_size > 10_000
    evaluated = rayzero("eval", str(run / "final"), "--num-prompts", "8", environment=environment)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "mean reward" in evaluated.stdout and "pass@" not in evaluated.stdout
    refused = rayzero("solve", str(run / "final"), "4 7 3 -> 25")
    assert refused.returncode == 2 and "the model cannot be asked this" in refused.stderr
