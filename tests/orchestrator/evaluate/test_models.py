"""Which models are compared, and with whose settings they are asked."""

from pathlib import Path

import pytest

from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate.models import NamedModel, config_for, config_for_all, named_models, tokenizer_of
from orchestrator.model_source import PolicyError


def test_models_are_called_as_given_else_as_their_run_or_repository() -> None:
    given = ["base:Qwen/Qwen2.5-0.5B", "runs/countdown/final", "Qwen/Qwen3-1.7B"]
    assert named_models(given) == [
        NamedModel("base", "Qwen/Qwen2.5-0.5B"),
        NamedModel("countdown", "runs/countdown/final"),
        NamedModel("Qwen3-1.7B", "Qwen/Qwen3-1.7B"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a:x", "a:y"], "2 models would be called 'a': write name:path"),
        (["a/final", "a/final"], "2 models would be called 'a'"),
        ([":x"], "write name:path"),
        (["a:"], "write name:path"),
    ],
)
def test_models_that_cannot_be_told_apart_are_refused(given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        named_models(given)


def run_folder(folder: Path, *overrides: str) -> str:
    (folder / "final").mkdir(parents=True)
    (folder / "config.json").write_text(load("countdown-tiny", [f"name={folder.name}", *overrides]).model_dump_json())
    return str(folder / "final")


def test_a_model_is_asked_as_its_own_run_asked_it(tmp_path) -> None:
    final = run_folder(tmp_path / "mine", "sampling.temperature=0.9")
    found = config_for(final, None, ["prompts.num_held_out=16"])
    assert (found.name, found.sampling.temperature, found.prompts.num_held_out) == ("mine", 0.9, 16)
    assert config_for(final, "countdown-tiny", []).sampling.temperature == 1.0


def test_a_base_model_is_asked_as_the_trained_ones_run_asked(tmp_path) -> None:
    final = run_folder(tmp_path / "mine", "prompts.num_held_out=7")
    models = [NamedModel("base", "Qwen/Qwen2.5-0.5B"), NamedModel("trained", final)]
    assert config_for_all(models, None, []).prompts.num_held_out == 7
    assert config_for_all(models, "countdown-tiny", []).prompts.num_held_out == 256


def test_runs_that_asked_differently_need_a_recipe(tmp_path) -> None:
    models = [
        NamedModel("one", run_folder(tmp_path / "one", "learner.learning_rate=1e-3")),
        NamedModel("two", run_folder(tmp_path / "two")),
        NamedModel("three", run_folder(tmp_path / "three", "prompts.num_held_out=9")),
    ]
    assert config_for_all(models[:2], None, []).name == "one"
    with pytest.raises(ConfigError, match=r"one and three come from runs whose \[prompts\] settings differ.*--recipe"):
        config_for_all(models, None, [])
    assert config_for_all(models, None, ["prompts.num_held_out=5"]).prompts.num_held_out == 5


def test_a_model_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        tokenizer_of(str(tmp_path / "nothing"))
    with pytest.raises(PolicyError, match=r"has no config\.json"):
        tokenizer_of(str(tmp_path))
    with pytest.raises(PolicyError, match="'org/not-here' is not a folder here, and its tokenizer cannot be loaded"):
        tokenizer_of("org/not-here")
