"""OpenEnv's environments, by the real library: its own template, and a game with a rubric. No network."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator.config.recipe import ConfigError, load
from rewards.environments import openenv, openenv_packages
from rewards.environments.registry import EnvironmentConfigError, environment_spec
from rollout.prompts.mixture import Mixture
from rollout.types.prompts import Prompt
from tests.support.environments import answers_of
from tests.support.openenv_package import GAME, write_package

TENSOR = GAME.replace("class Digits", "class Other(Environment):\n    pass\n\n\nclass Digits")


@pytest.fixture(autouse=True)
def library() -> None:
    pytest.importorskip(
        "openenv.core.env_server.interfaces", reason="openenv-core is not installed (pyproject's extra `openenv`)"
    )


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder of a package of an environment, `digits_env`."""
    folder = write_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder
    openenv_packages.classes_of.cache_clear()
    openenv._parts.cache_clear()
    for name in [name for name in sys.modules if name.startswith(("digits_env", "say_env"))]:
        del sys.modules[name]


def test_a_game_is_played_in_a_process_of_its_own_and_its_rewards_are_parts(package: Path) -> None:
    spec = environment_spec("openenv:digits_env", {"init": {"highest": 1}, "reset": {"low": 1}})
    assert spec.stop == ("</action>",)
    assert spec.parts == ("env_reward", "env_last_reward", "env_actions", "env_refused", "rubric_found")
    turns = ["I say <action>4</action>", "<action>forty</action>", '<action>{"number": 1, "loudly": true}</action>']
    start, wrong, refused, found = answers_of(spec, turns)
    assert start.text == "<observation>1 to 1</observation>" and not start.is_over
    assert wrong.text == "<observation>no</observation>" and wrong.parts["env_reward"] == pytest.approx(-0.1)
    assert refused.text.startswith("<observation>error: number: Input should be a valid integer")
    assert refused.parts["env_refused"] == 1 and not refused.is_over
    assert found.is_over and found.status == "ok"
    last = {"env_reward": 0.8, "env_last_reward": 0.9, "env_actions": 2, "env_refused": 1, "rubric_found": 1}
    assert found.parts == pytest.approx(last)


def test_all_completions_of_a_prompt_play_the_same_game_and_another_prompt_another(package: Path) -> None:
    def number(prompt: Prompt, seed: int) -> int:
        game = openenv.OpenEnv("digits_env", init={"highest": 10**6})
        game.start(prompt, seed)
        return int(game._environment.number)

    prompts = [Prompt(f"train/{n}", np.zeros(1, np.int32), "", "game", {}) for n in range(4)]
    assert number(prompts[0], 1) == number(prompts[0], 2)
    assert len({number(prompt, 1) for prompt in prompts}) == 4
    named = [Prompt(f"train/{n}", np.zeros(1, np.int32), "", "game", {"seed": 3}) for n in range(2)]
    assert number(named[0], 1) == number(named[1], 1)


def test_a_turn_without_an_action_is_the_last(package: Path) -> None:
    *_, last = answers_of(environment_spec("openenv:digits_env", {}), ["I give up."])
    assert last.is_over and last.parts["env_reward"] == 0


def test_the_template_of_openenv_itself_can_be_played(package: Path, tmp_path: Path) -> None:
    from openenv import cli

    template = Path(cli.__file__).parent / "templates" / "openenv_env"
    shutil.copytree(template, tmp_path / "say_env", ignore=shutil.ignore_patterns("__pycache__"))
    for file in [file for file in (tmp_path / "say_env").rglob("*") if file.is_file()]:
        text = file.read_text().replace("__ENV_CLASS_NAME__", "Say").replace("__ENV_NAME__", "say")
        file.unlink()
        file.with_name(file.name.replace("__ENV_NAME__", "say")).write_text(text)
    spec = environment_spec("openenv:say_env", {"show": ["echoed_message"]})
    start, said = answers_of(spec, ["<action>hello</action>"])
    assert start.text.endswith("environment ready!</observation>")
    assert (said.text, said.parts["env_reward"]) == ("<observation>hello</observation>", pytest.approx(0.5))


def test_a_recipe_names_it_weighs_its_parts_and_gets_its_prompts(package: Path) -> None:
    settings = ["prompts.task=game", "prompts.environment=openenv:digits_env", "warm_start.num_steps=0"]
    wording = ["prompts.template=Say a digit. ", "prompts.natural_template=Say a digit. "]
    room = ["environment.max_observed_tokens=64", "model.build.max_position_embeddings=1024"]
    config = load("countdown-tiny", [*settings, *wording, *room, 'rewards.weights={"rubric_found"=1.0}'])
    prompts = Mixture(config.prompts)
    seeds = [problem.answer["seed"] for _, problem in prompts.held_out]
    assert len({*seeds}) == len(seeds) == config.prompts.num_held_out
    with pytest.raises(ConfigError, match=r"task 'game' has no such part.*did you mean 'rubric_found'"):
        load("countdown-tiny", [*settings, *wording, *room, 'rewards.weights={"rubric_fund"=1.0}'])


@pytest.mark.parametrize(
    ("name", "parameters", "source", "says"),
    [
        ("digit_env", {}, GAME, "no package with that name is installed: install the environment's package"),
        ("digits_env", {}, "import no_such_thing", r"digits_env\.server\.app, .*No module named 'no_such_thing'"),
        ("digits_env", {}, "", r"must import one class of environments, and has none"),
        ("digits_env", {}, TENSOR, r"must import one class of environments, and has \['Digits', 'Other'\]"),
        ("digits_env", {"reset": {"lw": 1}}, GAME, r"digits_env = \{'reset': \{'lw': 1\}\} cannot be made .*'lw'"),
        ("digits_env", {"init": {"top": 1}}, GAME, r"cannot be made and reset: TypeError.*'top'"),
        ("digits_env", {"show": ["hnt"]}, GAME, r"cannot be made and reset: KeyError: 'hnt'"),
        ("digits_env", {"rest": {}}, GAME, r"environment\.parameters\.digits_env\.rest: .*did you mean 'reset'"),
    ],
)
def test_what_cannot_be_adapted_is_refused_by_name(
    package: Path, name: str, parameters: dict[str, object], source: str, says: str
) -> None:
    (package / "server" / "app.py").write_text(source)
    with pytest.raises(EnvironmentConfigError, match=says):
        environment_spec(f"openenv:{name}", parameters)
