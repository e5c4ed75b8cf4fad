"""Real runs with a LoRA whose completions an environment answers: proven logprobs, kills, a resume, and solve."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import zstandard

from benchmarks.real_runs.observed import GENERATOR, REWARD, Run
from tests.support.commands import rayzero
from tests.support.paths import ROOT, WARM_START
from tests.support.small import SMALL

pytestmark = pytest.mark.slow

TURNS = (
    *SMALL,
    "prompts.environment=tests.support.turn_environments:Lines",
    "environment.max_turns=3",
    "environment.max_observed_tokens=32",
    'rewards.weights={"correctness"=0.7,"lines"=0.1}',
    "prompts.num_held_out=4",
    "sampling.max_completion_tokens=96",
    "num_steps=3",
    "checkpoint.every_steps=1",
    "rollout.hang_timeout_s=30",
    "rollout.stall_timeout_s=200",
    f'model={{path="{WARM_START}", dtype="float32", lora={{rank=4, alpha=8}}}}',
    "learner.learning_rate=2e-3",
    "learner.num_ranks=1",
)
ONE_GENERATOR = "rollout.num_generators=1"
UNTIMED = ("reward/", "rollout/", "loss/", "optim/", "eval/")


def start(folder: Path, name: str, *settings: str) -> Run:
    return Run(folder, name, *TURNS, *settings, environment={"PYTHONPATH": str(ROOT)})


def untimed(run: Run) -> list[dict[str, float]]:
    """Return the figures that a run repeats to the last bit."""
    return [
        {key: value for key, value in line.items() if key.startswith(UNTIMED) and not key.endswith("_per_s")}
        for line in run.metrics
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Run:
    run = start(tmp_path_factory.mktemp("runs"), "whole", ONE_GENERATOR)
    run.finish()
    return run


def records(run: Run) -> list[dict]:
    files = sorted((run.directory / "rollouts").glob("step_*.zst"))
    return [
        json.loads(line) for file in files for line in zstandard.decompress(file.read_bytes()).decode().splitlines()
    ]


def test_merged_weights_agree_with_the_learner_on_every_token_of_every_turn(whole) -> None:
    assert max(line["rollout/logprob_gap"] for line in whole.metrics[1:]) < 1e-5
    assert all(line["rollout/turns"] > 1 and line["rollout/observed_tokens"] > 0 for line in whole.metrics[1:])


def test_the_records_say_who_wrote_what(whole) -> None:
    several = [record for record in records(whole) if len(record.get("turns", ())) > 1]
    assert several
    for record in several:
        first, second = record["turns"][:2]
        between = record["completion"][first["text_end"] : second["text_start"]]
        assert between == "9-3=6: " and record["completion"][: first["text_end"]].endswith(" no\n")
        own = sum(turn["end"] - turn["start"] for turn in record["turns"])
        assert record["num_tokens"] == own == sum(each is not None for each in record["rollout_logprobs"])
        assert record["parts"]["lines"]["value"] >= len(record["turns"]) - 1
    assert {"stop"} <= {record["finish_reason"] for record in records(whole)} <= {"stop", "length", "turns"}


@pytest.mark.long
def test_a_run_that_was_killed_resumes_bit_for_bit(whole, tmp_path) -> None:
    run = start(tmp_path, "killed", ONE_GENERATOR)
    run.wait_for_step(2)
    run.process.kill()
    run.process.wait()
    run.start()
    run.finish()
    assert "resuming run 'killed' after step" in run.output
    assert untimed(run) == untimed(whole)


def finish_without(actor: str, run: Run) -> None:
    """Kill an actor in a pause between two turns, and see all groups trained on once."""
    run.wait_for_step(0)
    run.wait_for(lambda: run.is_in(GENERATOR, "sample_turns"), "a turn")
    run.wait_for(lambda: not run.is_in(GENERATOR, "sample_turns"), "a pause, in which environments think")
    os.kill(run.pids(actor)[-1], signal.SIGKILL)
    run.finish()
    assert run.lost_and_twice() == (0, 0) and sorted(run.trained()) == [1, 2, 3]


@pytest.mark.long
def test_a_generator_killed_between_two_turns_costs_no_group_and_no_environment(whole, tmp_path) -> None:
    run = start(tmp_path, "kill", "environment.parameters.Lines.seconds=0.2", "environment.parameters.Lines.longest=3")
    finish_without(GENERATOR, run)
    assert "is lost" in run.log and run.metrics[-1]["rollout/environment_errors"] == 0
    # Its prompts were sampled under the same ids and seeds: the same tokens, but for what rounding decides.
    same = [a["token_ids"] == b["token_ids"] for a, b in zip(records(run)[:32], records(whole)[:32], strict=True)]
    assert sum(same) > 28


@pytest.mark.long
def test_a_reward_worker_killed_while_its_environments_think_costs_no_group_and_no_token(whole, tmp_path) -> None:
    run = start(tmp_path, "worker", ONE_GENERATOR, "environment.parameters.Lines.seconds=0.2")
    finish_without(REWARD, run)
    assert "died and is replaced" in run.log
    assert all(line["rollout/environment_errors"] == 0 for line in run.metrics[1:])
    same = [a["token_ids"] == b["token_ids"] for a, b in zip(records(run)[:32], records(whole)[:32], strict=True)]
    assert all(same)  # environments began again from their seeds, and were taken through the same turns


@pytest.mark.long
def test_solve_shows_what_the_environment_says_between_the_turns(whole) -> None:
    asked = "Using the numbers [4, 7, 3], create an equation that equals 25"
    final = str(whole.directory / "final")
    solved = rayzero("solve", final, asked, "--attempts", "4", environment={"PYTHONPATH": str(ROOT)})
    assert solved.returncode in (0, 1), solved.stderr
    assert " no\n9-3=6: " in solved.stdout
    assert solved.stdout.count("right") + solved.stdout.count("wrong:") + solved.stdout.count("no answer:") >= 4
