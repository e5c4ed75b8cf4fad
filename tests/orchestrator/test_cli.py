"""Reading the command line."""

import pytest

from orchestrator.arguments import evaluation_overrides, parse
from orchestrator.cli import main
from orchestrator.config.recipe import load


def test_settings_may_stand_anywhere_on_the_line() -> None:
    line = "eval --recipe r one:a prompts.num_held_out=5 two:b --pass-at 1 8 sampling.temperature=0.5 --seed 142"
    given = parse(line.split())
    assert given.arguments == ["one:a", "two:b", "prompts.num_held_out=5", "sampling.temperature=0.5"]
    assert (given.recipe, given.pass_at, given.seed) == ("r", ["1", "8"], 142)


def test_the_options_of_eval_are_settings() -> None:
    line = "eval model --formats zero_shot natural --num-prompts 20 --seed 142 --pass-at 1 4 16"
    config = load("countdown-tiny", evaluation_overrides(parse(line.split())))
    found = config.evaluation
    assert (found.formats, found.num_prompts, found.seed, config.seed) == (("zero_shot", "natural"), 20, 142, 142)
    assert (found.sizes, found.completions_per_prompt) == ((1, 4, 16), 16)


def test_completions_that_are_asked_for_are_not_overruled() -> None:
    line = "eval model --pass-at 4 evaluation.completions_per_prompt=32"
    assert evaluation_overrides(parse(line.split())) == ["evaluation.pass_at=[4]"]
    assert load("countdown-tiny", evaluation_overrides(parse(["eval", "model"]))) == load("countdown-tiny")


def test_a_question_may_hold_an_equals_sign() -> None:
    given = parse(["solve", "model", "What is x if 2x = 8?", "--answer", "x=4"])
    assert (given.question, given.answer) == ("What is x if 2x = 8?", "x=4")


def test_a_plan_shows_texts_with_square_brackets_as_they_are(capsys, tmp_path) -> None:
    """`[/INST]` ends turns of several models; rich would take it for its own markup."""
    assert main(["plan", "countdown-tiny", 'sampling.stop=["[/INST]", "[end]"]', f"runs_dir={tmp_path}/of[/old]"]) == 0
    said = capsys.readouterr().out
    assert "[/INST]" in said and "[end]" in said and "of[/old]" in said


@pytest.mark.parametrize(
    "line", ["eval", "eval --formats natural", "train --bogus", "solve model", "eval m --num-prompts x"]
)
def test_a_line_that_cannot_be_read_exits_with_2(line, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())
    assert ended.value.code == 2 and "usage: rayzero" in capsys.readouterr().err
