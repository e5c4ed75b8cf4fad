"""Word problems: told as the arithmetic says, seeded, disjoint; traces are true, and careless as often as asked for."""

import re
from collections import Counter
from itertools import islice

import pytest

from orchestrator.config.recipe import ConfigError, load
from rewards.parts.process import process
from rewards.tasks.gsm8k import score
from rollout.prompts.stream import PromptStream
from rollout.supervised.word_problems import solution, traces
from rollout.tasks.word_problems import WordProblemsConfig, source
from tests.support.byte_tokenizer import Bytes

TOLD = (
    (re.compile(r"(\w+) (?:buys|finds|wins|collects|makes) (\d+) more (\w+)"), "+"),
    (re.compile(r"\w+ gives (\w+) (\d+) more (\w+)"), "+"),
    (re.compile(r"(\w+) (?:sells|loses|breaks|hides|drops) (\d+) (\w+)"), "-"),
    (re.compile(r"(\w+) gives \w+ (\d+) (\w+)"), "-"),
    (re.compile(r"\w+ has (\d+) times as many (\w+) as (\w+)"), "*"),
    (re.compile(r"(\w+) packs all (\w+) equally into (\d+) \w+ and keeps one \w+"), "/"),
)


def steps_told(question: str) -> list[str]:
    """The arithmetic of a story, read off its sentences."""
    first, *sentences, asked = re.split(r"(?<=[.?]) ", question)
    value, steps = int(re.fullmatch(r"\w+ has (\d+) \w+\.", first)[1]), []
    assert re.fullmatch(r"How many \w+ does \w+ have now\?", asked)
    for sentence in sentences:
        operators = [operator for told, operator in TOLD if told.fullmatch(sentence[:-1])]
        assert len(operators) == 1, sentence
        number = int(re.search(r"\d+", sentence)[0])
        before, value = (
            value,
            {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[operators[0]],
        )
        steps.append(f"{before:g}{operators[0]}{number}={value:g}")
    return steps


def test_stories_tell_their_arithmetic_in_whole_numbers_within_the_range() -> None:
    problems = source(WordProblemsConfig(min_steps=1, max_steps=5, max_number=30), 10, 0)
    counts = Counter()
    for index in range(600):
        problem = problems.train(index)
        steps = problem.answer["steps"]
        assert steps_told(problem.fields["question"]) == steps
        assert steps[-1].endswith(f"={problem.answer['answer']}")
        assert all(1 <= int(number) <= 30 for number in re.findall(r"\d+", problem.fields["question"]))
        assert all(1 <= int(step.split("=")[1]) <= 30 for step in steps)
        assert problem.difficulty == (f"{len(steps)} steps" if len(steps) > 1 else "1 step")
        counts[len(steps)] += 1
    assert set(counts) == {1, 2, 3, 4, 5} and all(80 < count < 160 for count in counts.values())


def test_who_is_asked_about_owns_the_number() -> None:
    for index in range(200):
        question = source(WordProblemsConfig(), 1, 0).train(index).fields["question"]
        owners = re.findall(r"^(\w+) has|(\w+) has \d+ times", question)
        last_owner = [name for pair in owners for name in pair if name][-1]
        assert f"does {last_owner} have now?" in question


def test_problems_are_seeded_and_never_held_out() -> None:
    problems, again = source(WordProblemsConfig(), 60, 0), source(WordProblemsConfig(), 60, 0)
    held_out = {problem.key for problem in problems.held_out}
    assert len(held_out) == 60 and not held_out & {problems.train(index).key for index in range(500)}
    assert [problems.train(index) for index in (7, 3)] == [again.train(index) for index in (7, 3)]
    assert source(WordProblemsConfig(), 60, 1).train(7) != problems.train(7)


def test_answers_are_marked_as_gsm8ks_and_steps_are_paid_by_process() -> None:
    recipe = load("word-problems-tiny")
    for prompt in PromptStream(recipe.prompts.model_copy(update={"max_prompt_tokens": 900}), Bytes()).take(50):
        assert prompt.grader == "gsm8k"
        right, steps = prompt.answer["answer"], "\n".join(prompt.answer["steps"])
        assert score(f"<think>{steps}\n</think><answer>{right}</answer>", prompt.answer)["correctness"] == 1.0
        assert score(f"<think></think><answer>{int(right) + 1}</answer>", prompt.answer)["correctness"] == 0.0
        assert process(steps, prompt.answer) == 1.0


def test_a_trace_takes_the_steps_or_the_first_of_them() -> None:
    steps = ["4+8=12", "12*3=36", "36/6=6"]
    assert solution(steps) == "4+8=12\n12*3=36\n36/6=6\n</think><answer>6</answer>"
    assert solution(steps, num_steps=1) == "4+8=12\n</think><answer>12</answer>"


def test_the_number_of_steps_decides_how_many_traces_are_right() -> None:
    def share(**changes) -> float:
        recipe = load("word-problems-tiny")
        endless = traces(recipe.prompts, recipe.traces.model_copy(update=changes), 0)
        right = [score(text, problem.answer)["correctness"] for problem, text in islice(endless, 300)]
        return sum(right) / len(right)

    assert share(give_up_rate=0.0) == 1.0
    assert 0.25 < share() < 0.5


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_steps = 5 is above max_steps = 4: lower it"):
        load("word-problems-tiny", ["prompts.word_problems.min_steps=5"])
