"""A whole run in which a pretrained model plays an environment of OpenEnv, and learns what its rewards say."""

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
    """A game whose first guess is wrong, as a completion has it."""
    said = "<observation>{}</observation>".format
    return f"Guess the digit.\n{said('7 to 7')}<action>{digit}</action>{said('no')}<action>7</action>{said('found')}\n"


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
    "num_steps=5",
    "prompts_per_step=4",
    "group_size=8",
    "checkpoint.every_steps=5",
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


def test_its_rewards_are_what_is_learned_from(lines: list[dict[str, float]]) -> None:
    found = [line["reward/rubric_found"] for line in lines[1:]]
    assert len(found) == 5 and found[-1] > found[0] + 0.2
    assert all(line["reward/env_reward"] < line["reward/env_actions"] for line in lines[1:])


def test_sampler_and_learner_agree_on_the_turns_that_it_answers(lines: list[dict[str, float]]) -> None:
    assert all(line["rollout/turns"] > 1 and line["rollout/observed_tokens"] > 0 for line in lines[1:3])
    assert max(line["rollout/logprob_gap"] for line in lines[1:]) < 1e-4
    assert all(line["rollout/environment_errors"] == 0 for line in lines[1:])
