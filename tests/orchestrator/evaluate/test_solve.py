"""One question from the command line: how it is read, asked and checked."""

import asyncio

import pytest
from rich.console import Console

from orchestrator.config.recipe import ConfigError, load
from orchestrator.evaluate.solve import grade, read_question, solve, verdict, worded
from orchestrator.run import example_command
from rollout.prompts.mixture import Mixture
from rollout.types.prompts import Prompt
from tests.support.byte_tokenizer import Bytes
from tests.support.marks import only_in_test_all
from tests.support.paths import WARM_START

WARM_START = str(WARM_START)


def test_a_question_of_a_task_with_references_is_worded_as_it_is() -> None:
    problem = read_question(load("period-count-tiny"), "the old cat", None)
    assert (problem.fields, problem.answer) == ({"opening": "the old cat"}, {})
    assert read_question(load("period-count-tiny"), "the old cat", "72").answer == {"answer": "72"}


def questions(task: str, template: str = "{question}", *overrides: str):
    """countdown-tiny with questions of another task."""
    example = 'prompts.example={fields={question="a", hint="b"}, completion="c"}'
    worded = [f"prompts.task={task}", f"prompts.template={template}", "prompts.natural_template={question}", example]
    return load("countdown-tiny", [*worded, "warm_start.num_steps=0", *overrides])


def test_answers_are_marked_as_the_tasks_problems_are() -> None:
    math = questions("jsonl", "{question}", "prompts.jsonl.reward=math")
    for config, task in ((questions("word_problems"), "gsm8k"), (math, "math")):
        assert worded(read_question(config, "How many?", "72"), config, Bytes(), attempt=0).grader == task


def test_a_question_that_does_not_fill_the_template_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"asks with \{hint\} and \{question\}, which one question does not fill"):
        read_question(questions("jsonl", "{question} {hint}"), "How many?", "72")


def test_a_round_of_a_game_is_asked_by_its_number() -> None:
    config = load("guess-tiny")
    (command,) = example_command(config, Mixture(config.prompts))
    assert command == ["solve", "1"]
    assert read_question(config, "7", None).answer == {"seed": 7, "number": 7, "highest": 15}
    for wrong in ("16", "0", "seven"):
        with pytest.raises(ConfigError, match="asks with a number to be guessed, from 1 to 15"):
            read_question(config, wrong, None)
    told, shown = judged(prompt("guess", {"number": 7}), "<guess>6</guess>", config)
    assert told is False and "the number is 7" in shown


@pytest.mark.parametrize("recipe", ["countdown-tiny", "smollm2-135m", "word-problems-tiny", "period-count-tiny"])
def test_what_the_end_of_a_run_suggests_to_ask_can_be_asked(recipe) -> None:
    config = load(recipe)
    ((command, question, *answer),) = example_command(config, Mixture(config.prompts))
    assert command == "solve" and read_question(config, question, answer[1] if answer else None).fields


@pytest.mark.slow
@pytest.mark.parametrize(("given", "expected"), [("28", True), ("29", False)])
def test_a_question_of_reasoning_gym_is_checked_by_its_data_sets_own_scorer(given, expected) -> None:
    config = load("smollm2-135m")
    asked = prompt("reasoning_gym", read_question(config, "Calculate 20 + 8.", given).answer, prefix="")
    found, _ = judged(asked, " 20 + 8 = 28 <answer>28</answer>", config)
    assert found is expected


def test_countdown_needs_no_reference() -> None:
    with pytest.raises(ConfigError, match="--answer is not for Countdown"):
        read_question(load("countdown-tiny"), "4 7 3 -> 25", "25")


def test_a_mixture_does_not_say_which_of_its_tasks_is_meant() -> None:
    mixed = load("countdown-tiny", ["prompts.mixture.small.weight=1", "prompts.mixture.large.weight=1"])
    with pytest.raises(ConfigError, match=r"mixes the questions of \['large', 'small'\]: name a recipe with one kind"):
        read_question(mixed, "4 7 3 -> 25", None)


def test_what_the_model_cannot_read_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"the model cannot be asked this: .* cannot encode"):
        solve(WARM_START, "400 700 300 -> 1000", None, None, 1, Console(quiet=True))
    with pytest.raises(ConfigError, match="--attempts 0: must be 1 or more"):
        solve(WARM_START, "4 7 3 -> 25", None, None, 0, Console(quiet=True))


def test_attempts_differ_in_their_ids_and_so_in_their_seeds() -> None:
    from orchestrator.base_model import load_tokenizer

    config = load("countdown-tiny")
    problem = read_question(config, "4 7 3 -> 25", None)
    first, second = (worded(problem, config, load_tokenizer(WARM_START), attempt) for attempt in (0, 1))
    assert first.text == second.text == "Numbers: 4 7 3\nTarget: 25\n<think>" and first.id != second.id


def prompt(task: str, answer, prefix: str = "<think>") -> Prompt:
    import numpy as np

    return Prompt("solve/0", np.zeros(1, np.int32), "", task, answer, assistant_prefix=prefix)


def judged(asked: Prompt, text: str, config) -> tuple[bool | None, str]:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    found = verdict(asked, text, config, console)
    return found, console.export_text().strip()


COUNTDOWN = {"numbers": [4, 7, 3], "target": 25}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "answer", "text", "expected", "said"),
    [
        ("countdown", COUNTDOWN, "</think><answer>4 * 7 - 3</answer>", True, "right"),
        ("countdown", COUNTDOWN, "</think><answer>4 + 7 + 3</answer>", False, "wrong: gives 14, not 25"),
        ("countdown", COUNTDOWN, "I give up [red]", False, "wrong: no answer"),
        ("gsm8k", {"answer": "72"}, "48 + 24 = 72\n#### 72", True, "right"),
        ("gsm8k", {"answer": "72"}, "#### 71", False, "wrong: the reference is 72"),
        (
            "gsm8k",
            {"answer": "many"},
            "#### 71",
            None,
            "not checked: gsm8k cannot grade it with only --answer (ValueError",
        ),
        ("period_count", {}, "The cat. The dog.", None, "periods 2"),
    ],
)
def test_an_answer_is_marked_by_its_own_task(task, answer, text, expected, said) -> None:
    recipe = "period-count-tiny" if task == "period_count" else "countdown-tiny"
    found, printed = judged(prompt(task, answer), text, load(recipe))
    assert found is expected
    assert said in printed


def test_without_a_reference_an_answer_is_not_checked_and_says_so() -> None:
    found, printed = judged(prompt("gsm8k", {}), "#### 72", load("countdown-tiny"))
    assert found is None and "not checked: give the right answer with --answer" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("datasets", "text", "expected", "said"),
    [
        ('[{name="basic_arithmetic"}]', "<answer>13</answer>", True, "right"),
        only_in_test_all('[{name="basic_arithmetic"}]', "<answer>12</answer>", False, "wrong: the reference is 13"),
        ('[{name="chain_sum"}]', "<answer>13.0</answer>", True, "right"),
        ('[{name="graph_color"}]', "<answer>13</answer>", None, "not checked: reasoning_gym cannot grade it with"),
        only_in_test_all('[{name="gcd"}, {name="lcm"}]', "<answer>13</answer>", True, "right"),
        ('[{name="gcd"}, {name="chain_sum"}]', "<answer>13</answer>", None, "not checked: reasoning_gym cannot grade"),
    ],
)
def test_a_typed_answer_is_enough_for_data_sets_that_compare_it(datasets, text, expected, said) -> None:
    config = load("smollm2-135m", [f"prompts.reasoning_gym.datasets={datasets}"])
    problem = read_question(config, "Calculate 4 + 9.", " 13")
    found, printed = judged(prompt("reasoning_gym", problem.answer, prefix=""), text, config)
    assert found is expected and said in printed


def endless(text, answer):
    while True:
        pass


@pytest.mark.slow
def test_marking_that_never_ends_is_stopped() -> None:
    config = load(
        "countdown-tiny",
        ["rewards.deadline_s=0.5", 'rewards.tasks={gsm8k="tests.orchestrator.evaluate.test_solve:endless"}'],
    )
    outcome = asyncio.run(grade(prompt("gsm8k", {"answer": "72"}), "#### 72", config))
    assert outcome.status == "timeout"
