"""Where prompts come from: solvable, disjoint, in a seeded order, the same after a resume."""

import json
import random
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path

import pytest

from rollout.prompts import countdown
from rollout.prompts.config import PromptsConfig
from rollout.prompts.countdown import Config as CountdownConfig
from rollout.prompts.stream import PromptStream
from rollout.prompts.template import Template
from tests.rollout.byte_tokenizer import Bytes


def settings(**changes) -> PromptsConfig:
    return PromptsConfig(chat=False, template="{numbers_spaced} -> {target}\n", **changes)


def key(prompt):
    return tuple(sorted(prompt.answer["numbers"])), prompt.answer["target"]


def is_solvable(numbers, target, operators="+-*", highest=60) -> bool:
    """By brute force over three numbers, written apart from the code under test."""
    apply = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: Fraction(a, b) if b else None,
    }

    def fits(value):
        return value is not None and value == int(value) and 0 <= value <= highest

    for a, b, c in permutations(numbers):
        for first, second in product(operators, repeat=2):
            inner = apply[first](a, b)
            if fits(inner) and target in [v for v in (apply[second](inner, c), apply[second](c, inner)) if fits(v)]:
                return True
    return False


def test_generated_problems_are_solvable_and_follow_the_ranges() -> None:
    stream = PromptStream(settings(), Bytes())
    for prompt in stream.take(300):
        numbers, target = prompt.answer["numbers"], prompt.answer["target"]
        assert len(numbers) == 3 and all(1 <= number <= 10 for number in numbers) and 1 <= target <= 40
        assert is_solvable(numbers, target), (numbers, target)
        assert prompt.text == f"{numbers[0]} {numbers[1]} {numbers[2]} -> {target}\n"


def test_reachable_agrees_with_brute_force_on_every_target() -> None:
    rng = random.Random(0)
    for _ in range(40):
        numbers = [rng.randint(1, 10) for _ in range(3)]
        found = countdown.reachable(tuple(sorted(numbers)), "+-*/", 60, True)
        assert found == {target for target in range(61) if is_solvable(numbers, target, "+-*/")}


def test_a_subset_may_do_when_not_all_numbers_must_be_used() -> None:
    assert 7 in countdown.reachable((3, 7, 9), "+", 60, False)
    assert 7 not in countdown.reachable((3, 7, 9), "+", 60, True)


def test_no_training_problem_is_held_out_not_even_with_its_numbers_in_another_order() -> None:
    stream = PromptStream(settings(num_held_out=100), Bytes())
    held_out = {key(prompt) for prompt in stream.held_out()}
    assert len(held_out) == 100
    assert not held_out & {key(prompt) for prompt in stream.take(3000)}


def test_the_order_is_seeded_and_resumes_where_it_stopped() -> None:
    whole = PromptStream(settings(), Bytes()).take(30)
    first = PromptStream(settings(), Bytes())
    first.take(12)
    second = PromptStream(settings(), Bytes())
    second.restore(json.loads(json.dumps(first.state())))
    assert [(p.id, p.text) for p in second.take(18)] == [(p.id, p.text) for p in whole[12:]]
    other = PromptStream(settings(seed=1), Bytes()).take(30)
    assert [p.text for p in other] != [p.text for p in whole]
    assert len({p.id for p in whole}) == 30


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    rng = random.Random(1)
    file = tmp_path / "problems.jsonl"
    lines = [{"nums": [rng.randint(1, 99) for _ in range(4)], "target": rng.randint(10, 99)} for _ in range(50)]
    lines += lines[:10]  # duplicates must not leak out of the held-out problems
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_problems_from_a_file_are_split_and_shuffled_anew_each_epoch(rows: Path, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    stream = PromptStream(settings(num_held_out=8, countdown=CountdownConfig(source=str(rows))), Bytes())
    held_out = {key(prompt) for prompt in stream.held_out()}
    prompts = stream.take(200)
    assert len(held_out) == 8 and not held_out & {key(prompt) for prompt in prompts}
    size = next(n for n in range(1, 60) if countdown_epoch(stream, n))
    epochs = [[p.text for p in prompts[start : start + size]] for start in (0, size)]
    assert sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]


def countdown_epoch(stream: PromptStream, n: int) -> bool:
    return len(stream._source._train) == n


def test_a_parquet_file_of_the_hub_schema_loads(tmp_path: Path) -> None:
    import pandas

    file = tmp_path / "problems.parquet"
    pandas.DataFrame({"target": [24, 30, 31], "nums": [[4, 6, 1], [5, 6, 1], [5, 6, 1]]}).to_parquet(file)
    stream = PromptStream(settings(num_held_out=1, countdown=CountdownConfig(source=str(file))), Bytes())
    assert {key(prompt)[1] for prompt in [*stream.held_out(), *stream.take(2)]} == {24, 30, 31}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"nums": [1, 2]}, "row 1: no 'target'"),
        ({"target": 3}, "row 1: no 'nums'"),
        ({"nums": [1, "2"], "target": 3}, "row 1: `nums` must be a list of whole numbers"),
        ({"nums": [], "target": 3}, "row 1"),
    ],
)
def test_a_malformed_row_is_named(row, message) -> None:
    rows = [{"nums": [1, 2], "target": 3}, row]
    with pytest.raises(ValueError, match=message):
        countdown.ListedProblems(rows, CountdownConfig(source="file.jsonl"), 1, 0)


def test_too_few_rows_for_the_held_out_problems() -> None:
    with pytest.raises(ValueError, match=r"too few for prompts\.num_held_out = 5"):
        countdown.ListedProblems([{"nums": [1, 2], "target": 3}], CountdownConfig(source="f"), 5, 0)


def test_a_missing_file_and_an_unreachable_hub_say_what_to_do(monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        PromptStream(settings(countdown=CountdownConfig(source="nowhere.jsonl")), Bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"Check the name and the network"):
        PromptStream(settings(countdown=CountdownConfig(source="Nobody/Nothing")), Bytes())


def test_impossible_ranges_are_refused_rather_than_searched_forever() -> None:
    config = CountdownConfig(min_number=1, max_number=1, min_target=39, max_target=40)
    with pytest.raises(ValueError, match="no solvable problem"):
        PromptStream(settings(countdown=config), Bytes())


def test_chat_and_prefix_wrap_the_question() -> None:
    tokenizer = Bytes()
    tokenizer.chat_template = "yes"
    config = PromptsConfig(chat=True, system="Be brief.", template="{numbers} {target}", assistant_prefix="<think>")
    text = Template(config, tokenizer).text(countdown.problem([3, 7], 21, True))
    assert text == "<system>Be brief.<user>[3, 7] 21<assistant><think>"


def test_a_tokenizer_without_chat_template_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"set prompts\.chat = false"):
        Template(PromptsConfig(chat=True), Bytes())


def test_a_prompt_that_is_too_long_is_refused_with_its_id() -> None:
    stream = PromptStream(settings(max_prompt_tokens=5), Bytes())
    with pytest.raises(ValueError, match=r"prompt train/000000 has \d+ tokens, above prompts\.max_prompt_tokens = 5"):
        stream.take(1)
