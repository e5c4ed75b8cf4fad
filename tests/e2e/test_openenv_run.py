"""A whole run in which a pretrained model plays an environment of OpenEnv."""

from __future__ import annotations

import importlib.util
import os

import pytest

from tests.support.commands import Workplace
from tests.support.openenv_package import write_package
from tests.support.paths import ROOT
from tests.support.pretrained import gguf_file

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]


def game(digit: int) -> str:
    """A game whose first guess is wrong, as a completion has it. Line breaks keep tokens from crossing its parts."""
    said = "<observation>{}</observation>\n".format
    return f"Guess the digit.\n{said('7 to 7')}<action>{digit}</action>{said('no')}<action>7</action>{said('found')}"


GAME = [
    "prompts.task=game",
    "prompts.environment=openenv:digits_env",
    "environment.parameters.digits_env.init.highest=7",
    "environment.parameters.digits_env.reset.low=7",  # so it is always 7
    "environment.max_turns=2",
    "environment.max_observed_tokens=32",
    f"prompts.template={game(3)}\n{game(5)}\nGuess the digit.\n",
    "prompts.max_prompt_tokens=128",
    "prompts.num_held_out=4",
    "sampling.max_completion_tokens=48",
    "sampling.stop=[]",
    'rewards.weights={"env_reward"=1.0}',
    "num_steps=3",
    "prompts_per_step=4",
    "group_size=8",
    "checkpoint.every_steps=3",
]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    if importlib.util.find_spec("openenv") is None:
        pytest.skip("openenv-core is not installed (pyproject's extra `openenv`)")
    gguf_file()
    folder = tmp_path_factory.mktemp("openenv")
    write_package(folder)
    path = os.pathsep.join(filter(None, [str(ROOT), str(folder), os.environ.get("PYTHONPATH")]))
    workplace = Workplace(folder, "train", "smollm2-135m", environment={"PYTHONPATH": path})
    workplace.succeed("digits", *GAME)
    return workplace.metrics("digits")


def test_sampler_and_learner_agree_on_the_turns_that_it_answers(lines: list[dict[str, float]]) -> None:
    assert all(line["rollout/turns"] > 1 and line["rollout/observed_tokens"] > 0 for line in lines[1:3])
    assert max(line["rollout/logprob_gap"] for line in lines[1:]) < 1e-4
    assert len(lines) == 4 and all(line["rollout/environment_errors"] == 0 for line in lines[1:])


def test_its_rewards_are_those_of_its_actions(lines: list[dict[str, float]]) -> None:
    for line in lines[1:]:
        assert line["reward/total"] == pytest.approx(line["reward/env_reward"])
        assert line["reward/env_reward"] == pytest.approx(
            line["reward/rubric_found"] - 0.1 * line["reward/env_actions"]
        )
