"""Whole runs of the small tasks: their grades are right, and one of them learns; docs/experiments.md has both."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config.recipe import load
from orchestrator.records.run_directory import RunDirectory, read_records
from tests.rollout.tasks.test_word_problems_prompts import steps_told
from tests.support.commands import Workplace

pytestmark = [pytest.mark.slow, pytest.mark.long]

SMALL = [
    "rollout.num_generators=1",
    "rollout.threads_per_generator=2",
    "num_steps=6",
    "prompts.num_held_out=64",
    "evaluation.every_steps=0",
    "evaluation.completions_per_prompt=4",
]


def sum_of(prompt: str) -> int:
    """The answer to one of chain_sum's questions, without the library."""
    terms = re.fullmatch(r"State the final answer to the following arithmetic problem: (.*) =<think>", prompt)
    return sum(map(int, re.findall(r"-?\d+", terms[1].replace(" ", ""))))


def told(prompt: str) -> int:
    """The answer to a word problem, read off its sentences."""
    return int(steps_told(prompt.removesuffix("<think>"))[-1].split("=")[1])


@pytest.fixture
def workplace(tmp_path: Path, shared_cluster) -> Workplace:
    return Workplace(tmp_path, "train", environment=shared_cluster)


def train(workplace: Workplace, recipe: str, *overrides: str) -> tuple[RunDirectory, dict, dict]:
    """The run's directory, and its first and last metrics."""
    workplace.succeed(recipe, recipe, *SMALL, *overrides)
    directory = RunDirectory(load(recipe, [f"runs_dir={workplace.folder / 'runs'}", *SMALL, *overrides]))
    before, *_, after = workplace.metrics(recipe)
    return directory, before, after


def check_marks(directory: RunDirectory, truth: Callable[[str], int]) -> None:
    rights = []
    for record in (record for step in (1, 2) for record in read_records(directory.rollouts_file(step))):
        answers = re.findall(r"<answer>(-?\d+)</answer>", record["completion"])
        rights.append(float(bool(answers) and int(answers[-1]) == truth(record["prompt"])))
        assert record["parts"]["correctness"]["value"] == rights[-1], record
    assert 0 < sum(rights) < len(rights)


def test_reasoning_gyms_sums_are_marked_right_and_the_policy_learns_to_go_on_to_their_end(workplace) -> None:
    sums = '[{name="chain_sum", settings={min_terms=4, max_terms=4, max_digits=1}}]'
    directory, before, after = train(
        workplace, "reasoning-gym-tiny", f"prompts.reasoning_gym.datasets={sums}", "warm_start.num_steps=250"
    )
    check_marks(directory, sum_of)
    assert after["eval/completion_tokens"] > before["eval/completion_tokens"] + 2
    assert after["eval/pass_at_1"] > before["eval/pass_at_1"]


def test_word_problems_are_marked_right(workplace) -> None:
    few = ("num_steps=2", "prompts.num_held_out=8", "prompts.word_problems.max_number=12", "warm_start.num_steps=120")
    directory, *_ = train(workplace, "word-problems-tiny", *few)
    check_marks(directory, told)
