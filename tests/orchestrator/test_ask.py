"""Questions from the command line."""

import json

import pytest
from rich.console import Console

from orchestrator.ask import config_for, parse_question, solve
from orchestrator.policy import PolicyError, check_model
from orchestrator.recipes import ConfigError, load


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Using the numbers [4, 7, 3], create an equation that equals 25", ([4, 7, 3], 25)),
        ("Using the numbers [4, 7, 3], create an equation that equals 25.", ([4, 7, 3], 25)),
        ("4 7 3 -> 25", ([4, 7, 3], 25)),
        ("Numbers: 3 7\nTarget: 21", ([3, 7], 21)),
    ],
)
def test_a_question_is_read(question, expected) -> None:
    assert parse_question(question) == expected


@pytest.mark.parametrize("question", ["", "What is 3 + 4?", "no numbers", "1.5 and 2.5 make 4", "9" * 500])
def test_a_question_without_numbers_and_target_shows_how_to_ask(question) -> None:
    with pytest.raises(ConfigError, match="create an equation that equals"):
        parse_question(question)


def test_a_model_is_asked_as_its_own_run_asked_it(tmp_path) -> None:
    config = load(None, ["name=mine", "sampling.temperature=0.9"])
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "final").mkdir()
    found = config_for(str(tmp_path / "final"), None, ["prompts.num_held_out=16"])
    assert (found.name, found.sampling.temperature, found.prompts.num_held_out) == ("mine", 0.9, 16)
    assert config_for(str(tmp_path / "final"), "countdown-tiny", []).sampling.temperature == 1.0


def test_only_countdown_can_be_asked_by_hand(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        ConfigError, match=r"'period_count': `rayzero solve` asks Countdown's questions only.*rayzero eval"
    ):
        solve(str(tmp_path), "4 7 3 -> 25", "period-count-tiny", 1, Console(quiet=True))


def test_a_folder_that_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        check_model(str(tmp_path / "nothing"))
    with pytest.raises(PolicyError, match=r"has no config\.json"):
        check_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    assert check_model(str(tmp_path)) == str(tmp_path)
    assert check_model("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"
