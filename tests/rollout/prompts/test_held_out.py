"""Held-out questions are known again: in other entries of a mixture, and in what a warm start teaches."""

import json
from pathlib import Path

import pytest

from rollout.prompts.config import PromptsConfig
from rollout.prompts.held_out import contains, normal
from rollout.prompts.mixture import Mixture
from rollout.prompts.stream import PromptStream
from tests.support.byte_tokenizer import Bytes


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def sums(tmp_path: Path) -> str:
    rows = [
        {
            "id": f"row {number}",
            "question": f"What is {number} plus {number}?",
            "answer": f"{2 * number}",
            "hint": "Add.",
        }
        for number in range(150)
    ]
    return write(tmp_path / "sums.jsonl", rows)


def config(mixture: dict, **changes) -> PromptsConfig:
    return PromptsConfig.model_validate(
        {"chat": False, "num_held_out": 75, "max_prompt_tokens": 1000, "mixture": mixture, **changes}
    )


def questions(prompts) -> set[str]:
    return {normal(prompt.text.partition("?")[0]) for prompt in prompts}


@pytest.mark.parametrize(
    "other",
    [
        {"task": "jsonl", "jsonl": {"key_column": "id", "reward": "gsm8k"}},
        {"task": "exact_match"},
        {"task": "math"},
        {"task": "jsonl", "template": "{question} Hint: {hint}"},
        {"task": "gsm8k", "template": "{question} Answer with a number."},
    ],
    ids=["another key column", "another task", "another field", "more columns", "another wording"],
)
def test_what_one_entry_holds_out_no_other_trains_on(sums, other) -> None:
    task = other["task"]
    other = {**other, task: {**other.get(task, {}), "source": sums}}
    stream = PromptStream(config({"a": {"task": "gsm8k", "gsm8k": {"source": sums}}, "b": other}), Bytes())
    held_out = questions(stream.held_out())
    trained = stream.take(600)
    assert {prompt.source for prompt in trained} == {"a", "b"} and len(stream.held_out()) == 75
    assert not held_out & questions(trained)


def test_a_key_column_makes_rows_one_problem_in_every_entry(tmp_path: Path) -> None:
    rows = [
        {"id": f"{number}", "question": f"{words} {number}?", "answer": "1"}
        for number in range(60)
        for words in ("How much is", "What is")
    ]
    entry = {"task": "jsonl", "jsonl": {"source": write(tmp_path / "rows.jsonl", rows), "key_column": "id"}}
    stream = PromptStream(config({"a": entry, "b": entry}, num_held_out=20), Bytes())
    assert not {p.key for p in stream.held_out()} & {p.key for p in stream.take(300)}


def test_a_question_that_stands_twice_with_two_keys_is_held_out_twice(tmp_path: Path) -> None:
    rows = [{"id": f"{number}", "question": f"What is {number % 60}?", "answer": "1"} for number in range(120)]
    entry = {"task": "jsonl", "jsonl": {"source": write(tmp_path / "rows.jsonl", rows), "key_column": "id"}}
    stream = PromptStream(PromptsConfig.model_validate({"chat": False, "num_held_out": 20, **entry}), Bytes())
    assert not questions(stream.held_out()) & questions(stream.take(400))


def test_the_same_keys_in_another_file_are_other_problems(tmp_path: Path) -> None:
    files = {
        name: write(
            tmp_path / f"{name}.jsonl", [{"id": n, "question": f"{name} {n}?", "answer": "1"} for n in range(20)]
        )
        for name in ("first", "second")
    }
    entries = {
        name: {"task": "jsonl", "jsonl": {"source": file, "key_column": "id"}, "weight": weight}
        for (name, file), weight in zip(files.items(), (1.0, 0.0), strict=True)
    }
    stages = [{"weights": {"second": 1.0}, "num_steps": 1}, {"weights": {"first": 1.0}}]
    stream = PromptStream(config(entries, num_held_out=19, curriculum={"stages": stages}), Bytes())
    assert len({prompt.key for prompt in stream.take(40)}) == 20


def test_one_question_with_other_options_is_another_problem(tmp_path: Path) -> None:
    rows = [
        {"question": "Which of these is a mineral?", "options": [f"stone {n}", f"wood {n}"], "answer": "A"}
        for n in range(40)
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    columns = {"key_column": "options.0", "answer_columns": {"options": "options"}, "reward": "multiple_choice"}
    entries = {
        "choices": {"task": "multiple_choice", "multiple_choice": {"source": file}},
        "plain": {
            "task": "jsonl",
            "template": "{question} {options}",
            "jsonl": {"source": file, **columns},
        },
    }
    stream = PromptStream(config(entries, num_held_out=10), Bytes())
    numbers = {"".join(filter(str.isdigit, p.text.partition("stone")[2][:4])) for p in stream.held_out()}
    trained = {"".join(filter(str.isdigit, p.text.partition("stone")[2][:4])) for p in stream.take(400)}
    assert len(numbers) >= 5 and not numbers & trained and len(numbers | trained) == 40


@pytest.mark.parametrize("format", ["zero_shot", "natural"])
def test_one_question_about_other_expressions_of_the_same_numbers_is_many_problems(tmp_path: Path, format) -> None:
    rows = [
        {"question": "Compute it.", "sum": f"{a} {sign} {b}", "answer": "1"}
        for a in range(1, 7)
        for b in range(1, 7)
        for sign in "+-"
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    key = "template" if format == "zero_shot" else "natural_template"
    entry = {"task": "jsonl", "format": format, key: "{question} {sum}", "jsonl": {"source": file}}
    stream = PromptStream(PromptsConfig.model_validate({"chat": False, "num_held_out": 24, **entry}), Bytes())
    held_out, trained = ({prompt.text for prompt in each} for each in (stream.held_out(), stream.take(200)))
    assert len(held_out) == 24 and len(trained) == 48 and not held_out & trained


def test_the_same_options_in_another_order_are_the_same_problem(tmp_path: Path) -> None:
    rows = [
        {"question": "Which is a mineral?", "options": options, "answer": "A"}
        for n in range(20)
        for options in ([f"stone {n}", f"wood {n}"], [f"wood {n}", f"stone {n}"])
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    asked = {"task": "multiple_choice", "chat": False, "num_held_out": 5, "multiple_choice": {"source": file}}
    stream = PromptStream(PromptsConfig.model_validate(asked), Bytes())
    numbers = [{p.text.partition("stone")[2].split()[0] for p in each} for each in (stream.held_out(), stream.take(99))]
    assert len(numbers[1]) >= 15 and not numbers[0] & numbers[1]


def test_a_run_that_began_by_position_compares_task_and_key_only(sums) -> None:
    entries = {
        "a": {"task": "gsm8k", "gsm8k": {"source": sums}},
        "b": {"task": "exact_match", "exact_match": {"source": sums}},
    }
    asked = config(entries)
    old = PromptStream(asked, Bytes(), Mixture(asked, "by_position"))
    assert old.state()["format"] == 1
    assert questions(old.held_out()) & questions(old.take(600))


def test_a_run_that_began_by_position_tells_rows_apart_by_their_question_alone(tmp_path: Path) -> None:
    rows = [{"question": f"What is it {n % 10}?", "hint": f"Hint {n}.", "answer": "1"} for n in range(40)]
    task = {"task": "jsonl", "template": "{question} {hint}", "jsonl": {"source": write(tmp_path / "a.jsonl", rows)}}
    asked = PromptsConfig.model_validate({"num_held_out": 5, **task})
    assert Mixture(asked).sources["jsonl"].num_problems == 35
    assert Mixture(asked, "by_position").sources["jsonl"].num_problems == 5


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("sums", "User: what is  7 plus 7? Think first.\nAssistant:"),
        ("sums", "A worked example. What is 7 plus 7? It is 14. And now: What is 2000 plus 1?"),
        ("countdown", "Make 33 of these: 3 7 9. Go."),
        ("countdown", "Using the numbers [3, 7, 9], create an equation that equals 33."),
        ("countdown", "Using the numbers [9, 3, 7], create an equation that equals 33."),
        ("countdown", "Make 33 of 7, 9 and 3."),
    ],
)
def test_a_text_that_asks_a_held_out_question_in_other_words(task, text, tmp_path) -> None:
    if task == "sums":
        file = write(tmp_path / "a.jsonl", [{"question": f"What is {n} plus {n}?", "answer": "1"} for n in (7, 8)])
        settings = {"task": "gsm8k", "gsm8k": {"source": file, "held_out_source": file}}
    else:
        file = write(tmp_path / "a.jsonl", [{"nums": [3, 7, n], "target": 33} for n in (9, 10)])
        settings = {"task": "countdown", "countdown": {"source": file}}
    for seed in range(20):
        asked = PromptsConfig.model_validate({"num_held_out": 1, "seed": seed, **settings})
        mixture = Mixture(asked)
        is_held_out = any(str(number) in mixture.held_out[0].problem.key for number in ("7 plus 7", "3 7 9"))
        assert mixture.questions.is_asked_in(text) == is_held_out
        assert not mixture.questions.is_asked_in(text.replace("7", "17").replace("9", "19"))


def test_a_text_is_not_found_within_a_longer_word() -> None:
    assert contains("make 42 of it", "42") and not contains("make 142 of it", "42") and not contains("make 420", "42")
    assert contains("142, 42", "42")


def test_a_held_out_problem_that_is_too_long_is_drawn_anew_and_no_other_moves() -> None:
    asked = PromptsConfig.model_validate({"task": "word_problems", "chat": False, "num_held_out": 30})
    whole, some = Mixture(asked), Mixture(asked)
    longest = max(len(draw.problem.fields["question"]) for draw in whole.held_out)

    def fault_of(problem):
        return "too long" if len(problem.fields["question"]) >= longest else None

    left = list(some.hold_out_others("word_problems", fault_of))
    pairs = zip(whole.held_out, some.held_out, strict=True)
    moved = [(a.problem, b.problem) for a, b in pairs if a != b]
    assert [a for a, _ in moved] == left and left
    assert all(len(b.fields["question"]) < longest for _, b in moved)
    assert len({draw.problem.key for draw in some.held_out}) == 30
    keys = {draw.problem.key for draw in some.held_out}
    assert not keys & {some.draw(n, {"word_problems": 1.0}, lambda *_: False).problem.key for n in range(2000)}


def test_a_problem_that_is_too_long_is_drawn_anew_and_a_resumed_run_asks_the_same() -> None:
    asked = PromptsConfig.model_validate(
        {"task": "word_problems", "chat": False, "num_held_out": 2, "template": "{question}", "max_prompt_tokens": 140}
    )
    whole, first, second = (PromptStream(asked, Bytes()) for _ in range(3))
    prompts = whole.take(100)
    assert max(len(prompt.token_ids) for prompt in prompts) <= 140
    assert whole.state()["mixture"]["word_problems"] > 100
    first.take(37)
    second.restore(json.loads(json.dumps(first.state())))
    assert [p.text for p in second.take(63)] == [p.text for p in prompts[37:]]
    with pytest.raises(
        ValueError, match=r"1000 problems of 'word_problems' were drawn, and none of .*max_prompt_tokens = 5"
    ):
        PromptStream(asked.model_copy(update={"max_prompt_tokens": 5}), Bytes()).take(1)
