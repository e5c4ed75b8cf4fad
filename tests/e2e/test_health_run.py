"""Runs that are built to learn nothing say so, and why; one is stopped."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from orchestrator.config.recipe import RECIPES, load
from orchestrator.records.health.replay import replay
from tests.support.commands import rayzero
from tests.support.paths import WARM_START

SMALL = (
    *("group_size=4", "evaluation.every_steps=0", "evaluation.completions_per_prompt=4", "prompts.num_held_out=8"),
    *("rollout.num_generators=1", "learner.num_ranks=1"),
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """countdown-tiny with its policy loaded instead of built and warm-started."""
    text = (RECIPES / "countdown-tiny.toml").read_text()
    assert tomllib.loads(text)["model"].pop("build")
    start, end = text.index("[model.build]"), text.index("[traces]")
    file = tmp_path / "hopeless.toml"
    file.write_text(f'{text[:start].rstrip()}\npath = "{WARM_START}"\n\n{text[end:]}')
    return file


def train(recipe: Path, cluster, *overrides: str):
    environment = {"RAYZERO_CACHE": str(recipe.parent), **cluster}
    return rayzero("train", str(recipe), f"runs_dir={recipe.parent}", *overrides, environment=environment)


@pytest.mark.slow
@pytest.mark.long
def test_a_hopeless_run_is_stopped_with_its_model_saved_and_does_not_go_on(recipe, shared_cluster) -> None:
    """Eight tokens are too few for any answer."""
    overrides = (*SMALL, "prompts_per_step=4", "sampling.max_completion_tokens=8", "health.stop_after=2")
    done = train(recipe, shared_cluster, *overrides)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "before training: too hard" in done.stdout
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith("run 'hopeless' was stopped after step 2 of 10: 2 steps in a row taught nothing")
    assert "sampling.max_completion_tokens = 8 is too few" in last
    folder = recipe.parent / "hopeless"
    assert (folder / "final" / "model.safetensors").is_file() and (folder / "checkpoints" / "step_000002").is_dir()
    log = (folder / "log.txt").read_text()
    assert last in log and "before training: too hard" in log

    again = train(recipe, shared_cluster, *overrides)
    assert again.returncode == 3 and last in again.stdout and "set health.stop_after = 0" in again.stdout
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


HOPELESS = {
    "limit": (["sampling.max_completion_tokens=8"], {"no_spread", "cut_off"}, "sampling.max_completion_tokens = 8"),
    "tags": (["model.path={folder}/retagged"], {"no_spread", "wrong_format"}, "prompts.format"),
    "hard": (["prompts.countdown.numbers_per_problem=6", "prompts.countdown.min_target=39"], {"no_spread"}, "too hard"),
    # There are only two such problems.
    "easy": (
        ["prompts.countdown.max_number=1", "prompts.countdown.max_target=2", "prompts.num_held_out=1"],
        {"no_spread"},
        "too easy",
    ),
    "rate": (["learner.learning_rate=0.05"], {"no_spread"}, "learner.learning_rate = 0.05"),
}
"""Overrides, alarms that must be said, and words of the cause."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("case", HOPELESS)
def test_a_run_says_why_it_learns_nothing(recipe, shared_cluster, case: str) -> None:
    overrides, expected, cause = HOPELESS[case]
    retagged = recipe.parent / "retagged"
    shutil.copytree(WARM_START, retagged)
    for file in retagged.glob("*.json"):
        file.write_text(file.read_text().replace("answer>", "result>"))
    told = [override.format(folder=recipe.parent) for override in overrides]
    done = train(recipe, shared_cluster, *SMALL, "prompts_per_step=16", "health.steps=3", "num_steps=8", *told)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("health/")]
    assert expected <= {line.split()[0].removeprefix("health/") for line in said}, said
    assert cause in " ".join(said)
    assert done.stdout.count("health/no_spread after") == 1


@pytest.mark.slow
@pytest.mark.long
def test_a_run_that_learns_gives_no_alarm(recipe, shared_cluster) -> None:
    done = train(recipe, shared_cluster, *SMALL, "prompts_per_step=16", "health.steps=3", "num_steps=8")
    assert done.returncode == 0 and "before training: trainable" in done.stdout, done.stdout + done.stderr
    rows = [json.loads(line) for line in (recipe.parent / "hopeless" / "metrics.jsonl").read_text().splitlines()]
    assert replay(rows, load(str(recipe), ["health.steps=3"])) == {}
    assert {row["health/alarms"] for row in rows[1:]} == {0.0}
