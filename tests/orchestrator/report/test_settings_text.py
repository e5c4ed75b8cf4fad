"""Settings as a recipe that can be run again."""

import tomllib
from math import inf

import pytest

from orchestrator.config.recipe import RECIPES, load, validate
from orchestrator.report.settings_text import changed, to_toml


def test_the_settings_that_differ_make_the_same_run() -> None:
    config = load(None, ["num_steps=3", 'sampling.stop=["\\n", "</answer>"]', "seed=7"])
    shown = tomllib.loads(to_toml(changed(config.model_dump(mode="json"))))
    assert shown["seed"] == 7 and "placement" not in shown
    again = validate(shown)
    elsewhere = {"runs_dir", "placement", "tracking"}
    assert again.model_dump(exclude=elsewhere) == config.model_dump(exclude=elsewhere)


def test_what_json_does_not_have_is_toml_all_the_same() -> None:
    assert tomllib.loads(to_toml({"a": inf, "b": {"c": [1.5, True], "d": None}})) == {"a": inf, "b": {"c": [1.5, True]}}


def test_texts_are_read_back_as_they_are_and_nothing_is_null() -> None:
    texts = {"template": '𝑥² 🦜 \x7f \x1b \u2028 "\\\t\r\n{question}', "größe 🦜": {"\x7f": 1}}
    settings = {"texts": texts, "entries": [{"name": "a", "settings": None, "weight": 1.0}]}
    shown = tomllib.loads(to_toml(settings))
    assert shown == {"texts": texts, "entries": [{"name": "a", "weight": 1.0}]}


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECIPES.glob("*.toml")))
def test_every_recipe_is_shown_so_that_it_can_be_run_again(recipe: str) -> None:
    config = load(recipe, [], supervised_only=recipe == "sft")
    again = validate(tomllib.loads(to_toml(changed(config.model_dump(mode="json")))), supervised_only=recipe == "sft")
    assert again.model_dump(exclude={"runs_dir", "placement", "tracking"}) == config.model_dump(
        exclude={"runs_dir", "placement", "tracking"}
    )


def test_settings_that_this_version_does_not_know_are_shown_as_they_are() -> None:
    assert tomllib.loads(to_toml(changed({"name": "old", "gone": {"a b": [1, {"c": "d"}], "e": None}}))) == {
        "name": "old",
        "gone": {"a b": [1, {"c": "d"}]},
    }
