"""gsm8k, math, multiple_choice and exact_match: rows of each schema become problems that their own task grades."""

from __future__ import annotations

import json
import string
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rewards.tasks.math import score as math_score
from rollout.tasks import exact_match, gsm8k, math, multiple_choice
from rollout.tasks.base import Problem
from rollout.tasks.datasets import RowError
from rollout.types.numbers import written_float
from tests.support.paths import SHARED_DATA

DATA = SHARED_DATA
TASKS = {"gsm8k": gsm8k, "math": math, "multiple_choice": multiple_choice, "exact_match": exact_match}

GSM8K = {
    "question": "Natalia sold 48 clips in April, and half as many in May. How many in all?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
}
AQUA = {"question": "How fast?", "options": ["A)32400", "B)6000", "C)600"], "rationale": "…", "correct": "B"}
ARC = {
    "id": "1",
    "question": "Which is a solid?",
    "choices": {"text": ["water", "ice", "steam"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
LOGIQA = {"context": "All hamsters sleep.", "query": "What follows?", "options": ["Yes", "No"], "correct_option": 1}
ELEUTHER_LOGIQA = {
    "label": "b",
    "context": "All hamsters sleep.",
    "question": "What follows?",
    "options": ["Yes", "No"],
}
MMLU = {"question": "1 + 1?", "subject": "algebra", "choices": ["1", "2", "3", "4"], "answer": 1}
MATH_500 = {
    "problem": "Half of one?",
    "solution": "It is $\\boxed{\\frac{1}{2}}$.",
    "answer": "\\frac{1}{2}",
    "subject": "Algebra",
    "level": 5,
    "unique_id": "1",
}
MATH = {
    "problem": "Half of one?",
    "level": "Level 5",
    "type": "Algebra",
    "solution": "no: $\\boxed{3}$, but $\\boxed{\\frac{1}{2}}$.",
}
BABI = {"passage": "Mary moved to the garden.\n", "question": "Where is Mary?", "answer": "garden", "task": 1}
BABI_PATH = {"passage": "The hall is south of …", "question": "How do you go?", "answer": "s,e", "task": 19}


def parsed(task: str, row: dict[str, Any]) -> Problem:
    problem: Problem = import_module(f"rollout.tasks.{task}").parse_row(row, "rows.jsonl, row 0")
    return problem


def grade(task: str, text: str, problem: Problem) -> float:
    return float(import_module(f"rewards.tasks.{task}").score(text, problem.answer)["correctness"])


@pytest.mark.parametrize(
    ("task", "row", "right", "wrong", "difficulty"),
    [
        ("gsm8k", GSM8K, "72", "71", "2 steps"),
        ("gsm8k", {"question": "1 + 1?", "answer": "$1,002.50"}, "1002.5", "1002", ""),
        ("gsm8k", {"question": "1 + 1?", "answer": 2}, "2.0", "1", ""),
        ("gsm8k", {"question": "1 + 1?", "answer": written_float("2.50")}, "5/2", "2", ""),
        ("gsm8k", {"question": "1 + 1?", "answer": written_float("1e3")}, "1000", "1", ""),
        ("gsm8k", {"question": "1 + 1?", "answer": 10**30}, str(10**30), str(10**30 + 1), ""),
        ("math", MATH_500, "0.5", "5", "level 5"),
        ("math", MATH, "0.5", "3", "level 5"),
        ("math", {"question": "1 + 1?", "answer": 2}, "2", "3", ""),
        ("math", {"problem": "1 + 1?", "solution": "so $\\boxed 2$"}, "2", "3", ""),
        ("multiple_choice", AQUA, "B", "C", ""),
        ("multiple_choice", ARC, "ice", "water", ""),
        ("multiple_choice", LOGIQA, "B", "A", ""),
        ("multiple_choice", ELEUTHER_LOGIQA, "B) No", "A) Yes", ""),
        ("multiple_choice", MMLU, "(B)", "(A)", ""),
        ("exact_match", BABI, "The garden.", "hall", "task 1"),
        ("exact_match", BABI_PATH, "south, east", "east, south", "task 19"),
        ("exact_match", {"question": "Which city?", "answer": ["New York City", "NYC"]}, "nyc", "York", ""),
    ],
)
def test_what_a_row_asks_is_what_the_task_marks(
    task: str, row: dict[str, Any], right: str, wrong: str, difficulty: str
) -> None:
    problem = parsed(task, row)
    assert [grade(task, f"<answer>{text}</answer>", problem) for text in (right, wrong)] == [1.0, 0.0]
    assert problem.difficulty == difficulty
    assert json.loads(json.dumps(problem.answer)) == problem.answer


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("gsm8k", {"question": "q"}, "no 'answer'"),
        ("gsm8k", {"question": " ", "answer": "2"}, "`question` must be text"),
        ("gsm8k", {"question": "q", "answer": "many"}, "must be a number, or a solution that ends in `#### 72`"),
        ("gsm8k", {"question": "q", "answer": True}, "must be a number"),
        ("math", {"problem": "q", "solution": "no box"}, "no answer; set `answer`, or end `solution`"),
        ("math", {"problem": "q", "solution": "\\boxed{3"}, "no answer"),
        ("math", {"answer": "2"}, "no 'problem' or 'question'"),
        ("multiple_choice", {"question": "q", "answer": "A"}, "no 'options' or 'choices'"),
        ("multiple_choice", {"question": "q", "options": ["1"], "answer": "A"}, "a list of 2 to 10"),
        ("multiple_choice", {"question": "q", "options": ["1", "2"], "answer": "C"}, "none of the 2 options"),
        ("multiple_choice", {"question": "q", "options": ["1", "2"], "answer": 2}, "none of the 2 options"),
        (
            "multiple_choice",
            {"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answer": "A"},
            "1 labels for 2",
        ),
        ("exact_match", {"question": "q", "answer": ["x", " "]}, "`answer` must be text and not empty"),
        ("exact_match", {"question": "q", "answer": ["x", None]}, "`answer` must be text and not empty"),
        ("exact_match", {"question": "q", "answer": {"text": "x"}}, "`answer` must be text and not empty"),
        ("math", {"problem": "q", "answer": ["4"]}, "`answer` must be text or a number, one for each row"),
        ("math", {"problem": "q", "answer": True}, "`answer` must be text or a number"),
        ("multiple_choice", {"question": "q", "options": ["1", "2"], "answer": True}, "none of the 2 options"),
        ("multiple_choice", {"question": "q", "options": ["1", None], "answer": "A"}, "a list of 2 to 10"),
    ],
)
def test_a_malformed_row_is_named(task: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message) as raised:
        parsed(task, row)
    assert "rows.jsonl, row 0" in str(raised.value)


def test_options_get_the_letters_from_a() -> None:
    assert parsed("multiple_choice", ARC).fields["options"] == "A) water\nB) ice\nC) steam"
    assert parsed("multiple_choice", AQUA).fields["options"] == "A) 32400\nB) 6000\nC) 600"
    assert parsed("multiple_choice", LOGIQA).fields["question"] == "All hamsters sleep.\nWhat follows?"


def test_gsm8k_hands_on_the_results_of_the_steps() -> None:
    assert parsed("gsm8k", GSM8K).answer == {"answer": "72", "steps": ["24", "72"]}


def test_a_level_that_math_marks_is_a_difficulty() -> None:
    assert parsed("math", MATH | {"level": "Level ?"}).difficulty == "level ?"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


QUESTIONS = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]


def config(task: str, **settings: str) -> Any:
    return TASKS[task].SETTINGS(**settings)  # type: ignore[attr-defined]


def test_train_and_held_out_are_disjoint_though_questions_stand_twice(tmp_path: Path) -> None:
    twice = QUESTIONS + [{"question": row["question"].upper() + " ", "answer": row["answer"]} for row in QUESTIONS]
    problems = gsm8k.source(config("gsm8k", source=write(tmp_path / "rows.jsonl", twice)), 5, seed=0)
    held_out = {problem.key for problem in problems.held_out}
    trained = {problems.train(index).key for index in range(60)}
    assert len(held_out) == 5
    assert len(trained) == 15
    assert not held_out & trained
    assert problems.num_problems == 15


def test_held_out_problems_can_come_from_another_file(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.jsonl", QUESTIONS), write(tmp_path / "test.jsonl", QUESTIONS[15:])
    problems = exact_match.source(config("exact_match", source=train, held_out_source=test), 5, seed=0)
    assert {problem.key for problem in problems.held_out} == {row["question"].lower() for row in QUESTIONS[15:]}
    assert {problems.train(index).key for index in range(30)} == {row["question"].lower() for row in QUESTIONS[:15]}


def test_the_order_is_the_seed_s(tmp_path: Path) -> None:
    settings = config("gsm8k", source=write(tmp_path / "rows.jsonl", QUESTIONS))
    first, again, other = (gsm8k.source(settings, 5, seed) for seed in (0, 0, 1))
    assert [first.train(i) for i in range(40)] == [again.train(i) for i in range(40)]
    assert [first.train(i) for i in range(40)] != [other.train(i) for i in range(40)]
    assert first.held_out == again.held_out


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"20 rows, too few for prompts.num_held_out = 20"):
        gsm8k.source(config("gsm8k", source=write(tmp_path / "rows.jsonl", QUESTIONS)), 20, seed=0)


@pytest.mark.parametrize("split", ["test", "validation", ""])
def test_held_out_problems_come_from_the_split_that_is_named(split: str, tmp_path: Path) -> None:
    """The hub cannot be reached from the tests: a folder that is laid out as a data set stands in for it."""
    for name, rows in (("train", QUESTIONS[:10]), ("test", QUESTIONS[10:15]), ("validation", QUESTIONS[15:])):
        write(tmp_path / f"{name}.jsonl", rows)
    problems = gsm8k.source(config("gsm8k", source=str(tmp_path), subset="", held_out_split=split), 5, seed=0)
    held_out = {int(problem.answer["answer"]) for problem in problems.held_out}
    assert held_out <= {"test": set(range(11, 16)), "validation": set(range(16, 21)), "": set(range(1, 11))}[split]
    assert problems.num_problems == (10 if split else 5)


@pytest.mark.parametrize("task", TASKS)
def test_the_wording_shows_what_there_is_and_the_example_is_right(task: str) -> None:
    module = TASKS[task]
    groups = module.fields(module.SETTINGS())  # type: ignore[attr-defined]
    for template in (module.TEMPLATE, module.NATURAL_TEMPLATE):  # type: ignore[attr-defined]
        shown = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        assert all(shown & set(group) for group in groups)
        assert template.format(**module.EXAMPLE.fields)  # type: ignore[attr-defined]
    assert "<answer>" in module.TEMPLATE  # type: ignore[attr-defined]
    assert "<" not in module.NATURAL_TEMPLATE  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("gsm8k", {"answer": "18"}),
        ("math", {"answer": "[1,3]"}),
        ("multiple_choice", {"answer": "C", "options": ["50 mph", "55 mph", "60 mph", "65 mph", "75 mph"]}),
        ("exact_match", {"answer": "attic"}),
    ],
)
def test_the_worked_example_is_right(task: str, answer: dict[str, Any]) -> None:
    assert import_module(f"rewards.tasks.{task}").score(TASKS[task].EXAMPLE.completion, answer)["correctness"] == 1.0  # type: ignore[attr-defined]


def test_a_reference_out_of_a_solution_is_right_by_its_own_task() -> None:
    problem = parsed("math", MATH)
    assert math_score(MATH["solution"], problem.answer) == {"correctness": 1.0}


@pytest.mark.skipif(not DATA.exists(), reason=f"the shared problems are not on this machine: {DATA}")
@pytest.mark.parametrize(
    ("task", "file", "count"), [("gsm8k", "gsm8k_train_1000.jsonl", 1000), ("multiple_choice", "aqua_dev.jsonl", 254)]
)
def test_the_real_files_load_whole(task: str, file: str, count: int) -> None:
    problems = TASKS[task].source(config(task, source=str(DATA / file)), 54, seed=0)  # type: ignore[attr-defined]
    trained = {problems.train(index).key for index in range(count - 54)}
    assert len(trained) + len({problem.key for problem in problems.held_out}) == count
    assert all(problem.answer["answer"] for problem in problems.held_out)
