"""Countdown's questions: solvable, as the settings say, disjoint, and the same for a seed as they always were."""

import hashlib
import json
import random
from fractions import Fraction
from itertools import permutations, product
from pathlib import Path

import pytest

from rewards.tasks.countdown import score
from rollout.tasks import countdown
from rollout.tasks.countdown_problems.draws import reachable
from rollout.tasks.countdown_problems.settings import CountdownConfig
from rollout.tasks.countdown_problems.solver import count_solutions


def numbers_of(problem) -> list[int]:
    return problem.answer["numbers"]


def first(config: CountdownConfig, count: int, num_held_out: int = 20, seed: int = 0):
    source = countdown.source(config, num_held_out, seed)
    return source, [source.train(index) for index in range(count)]


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
        for one, two in product(operators, repeat=2):
            inner = apply[one](a, b)
            if fits(inner) and target in [v for v in (apply[two](inner, c), apply[two](c, inner)) if fits(v)]:
                return True
    return False


@pytest.mark.parametrize(
    ("config", "num_held_out", "seed", "num_train", "digest"),
    [
        (CountdownConfig(), 256, 0, 500, "48005adf0e7362092603add7d067e4771599f861de6671655e93825ec71f8d85"),
        (CountdownConfig(), 256, 1, 500, "61024a0e3c2dbf4fa618a44372812bedab169aa299e54e08228b78b4a9e35995"),
        (
            CountdownConfig(
                numbers_per_problem=4, max_number=99, max_target=99, max_intermediate=1000, operators="+-*/"
            ),
            *(64, 0, 100, "926fab9a98a293e1ee9a345a166b55b36878f7917e94f11323a8a6ea45bebebb"),
        ),
    ],
)
def test_the_problems_of_a_seed_are_those_they_always_were(config, num_held_out, seed, num_train, digest) -> None:
    """Digests of the version that docs/experiments.md was measured with: a change here is a change of every figure."""
    source, train = first(config, num_train, num_held_out, seed)
    rows = [
        (
            p.answer["numbers"],
            p.answer["target"],
            p.answer["must_use_all"],
            p.fields["numbers"],
            p.fields["numbers_spaced"],
        )
        for p in [*source.held_out, *train]
    ]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == digest


def test_generated_problems_are_solvable_and_follow_the_ranges() -> None:
    for problem in first(CountdownConfig(), 300)[1]:
        numbers, target = numbers_of(problem), problem.answer["target"]
        assert len(numbers) == 3 and all(1 <= number <= 10 for number in numbers) and 1 <= target <= 40
        assert is_solvable(numbers, target), (numbers, target)


def test_reachable_agrees_with_brute_force_on_every_target() -> None:
    rng = random.Random(0)
    for _ in range(40):
        numbers = [rng.randint(1, 10) for _ in range(3)]
        found = reachable(tuple(sorted(numbers)), "+-*/", 60, True)
        assert found == {target for target in range(61) if is_solvable(numbers, target, "+-*/")}


def test_a_subset_may_do_when_not_all_numbers_must_be_used() -> None:
    assert 7 in reachable((3, 7, 9), "+", 60, False)
    assert 7 not in reachable((3, 7, 9), "+", 60, True)
    _, train = first(CountdownConfig(must_use_all=False), 50)
    assert any(not is_solvable(numbers_of(p), p.answer["target"]) for p in train)


def test_no_training_problem_is_held_out_not_even_with_its_numbers_in_another_order() -> None:
    source, train = first(CountdownConfig(), 3000, num_held_out=100)
    held_out = {(tuple(sorted(numbers_of(p))), p.answer["target"]) for p in source.held_out}
    assert len(held_out) == 100
    assert not held_out & {(tuple(sorted(numbers_of(p))), p.answer["target"]) for p in train}


def test_a_range_of_counts_gives_each_count_as_often() -> None:
    config = CountdownConfig(numbers_per_problem=4, min_numbers_per_problem=2)
    counts = [len(numbers_of(problem)) for problem in first(config, 600)[1]]
    assert all(150 < counts.count(count) < 250 for count in (2, 3, 4))


def test_numbers_come_from_a_fixed_set_and_no_more_often_than_it_lists_them() -> None:
    choices = (1, 2, 5, 10, 25, 50, 75, 100)
    config = CountdownConfig(number_choices=choices, max_target=100, max_intermediate=1000, numbers_per_problem=4)
    drawn = [numbers_of(problem) for problem in first(config, 200)[1]]
    assert {number for numbers in drawn for number in numbers} == set(choices)
    assert any(len(set(numbers)) < 4 for numbers in drawn)
    once = first(config.model_copy(update={"repeat_numbers": False}), 200)[1]
    assert all(len(set(numbers_of(problem))) == 4 for problem in once)
    twice = first(config.model_copy(update={"repeat_numbers": False, "number_choices": (1, 1, 2, 2, 25)}), 100)[1]
    assert {numbers_of(problem).count(1) for problem in twice} == {1, 2}
    assert (
        config.largest_integer == 1000
        and CountdownConfig(number_choices=(1, 2, 99), max_intermediate=20).largest_integer == 99
    )


def test_even_problems_are_held_out_and_never_trained_on() -> None:
    source, train = first(CountdownConfig(even_held_out=True), 1000, num_held_out=64)
    assert len(source.held_out) == 64
    assert all(number % 2 == 0 for problem in source.held_out for number in numbers_of(problem))
    assert all(any(number % 2 for number in numbers_of(problem)) for problem in train)


def test_a_list_of_distinct_problems_comes_whole_each_epoch() -> None:
    source, train = first(CountdownConfig(num_problems=50), 150)
    keys = [problem.key for problem in train]
    assert source.num_problems == 50
    assert all(len(set(keys[start : start + 50])) == 50 for start in (0, 50, 100))
    assert sorted(keys[:50]) == sorted(keys[50:100]) and keys[:50] != keys[50:100]
    endless = countdown.source(CountdownConfig(), 20, 0)
    assert {problem.key for problem in source.held_out} == {problem.key for problem in endless.held_out}
    assert not set(keys) & {problem.key for problem in endless.held_out}


def test_more_distinct_problems_than_there_are_is_refused() -> None:
    config = CountdownConfig(numbers_per_problem=2, max_number=3, num_problems=500)
    with pytest.raises(ValueError, match=r"num_problems = 500: only \d+ different ones .* widen prompts\.countdown"):
        countdown.source(config, 2, 0)


@pytest.mark.parametrize(("fewest", "most"), [(1, 1), (2, 2), (3, None)])
def test_problems_have_as_many_solutions_as_asked_for(fewest, most) -> None:
    _, train = first(CountdownConfig(min_solutions=fewest, max_solutions=most), 40)
    for problem in train:
        found = count_solutions(numbers_of(problem), problem.answer["target"], "+-*", limit=100)
        assert fewest <= found <= (most or 100), problem


def test_difficulty_counts_numbers_and_solutions_of_held_out_problems() -> None:
    source, train = first(CountdownConfig(), 5, num_held_out=200)
    labels = {problem.difficulty for problem in source.held_out}
    assert labels == {"3 numbers, 1 solution", "3 numbers, 2 solutions", "3 numbers, 3+ solutions"}
    assert {problem.difficulty for problem in train} == {"3 numbers"}
    five = CountdownConfig(numbers_per_problem=5)
    assert countdown.source(five, 3, 0).held_out[0].difficulty == "5 numbers"


def test_exact_division_reaches_the_marking() -> None:
    text = "<answer>3 / 2 * 4</answer>"
    loose, exact = countdown.problem([2, 3, 4], 6, True), countdown.problem([2, 3, 4], 6, True, True)
    assert (score(text, loose.answer)["correctness"], score(text, exact.answer)["correctness"]) == (1.0, 0.0)
    assert score("<answer>3 * 4 / 2</answer>", exact.answer)["correctness"] == 1.0
    assert first(CountdownConfig(exact_division=True), 1)[1][0].answer["exact_division"] is True
    assert "exact_division" not in first(CountdownConfig(), 1)[1][0].answer


@pytest.fixture
def rows(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rng = random.Random(1)
    file = tmp_path / "problems.jsonl"
    lines = [{"nums": [rng.randint(1, 9) for _ in range(3)], "target": rng.randint(10, 99)} for _ in range(50)]
    lines += [{"nums": line["nums"][::-1], "target": line["target"]} for line in lines[:10]]  # the same problems again
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_problems_from_a_file_come_once_an_epoch_and_held_out_ones_never(rows) -> None:
    source = countdown.source(CountdownConfig(source=str(rows)), 8, 0)
    held_out = {problem.key for problem in source.held_out}
    size = source.num_problems
    epochs = [[source.train(index).key for index in range(start, start + size)] for start in (0, size)]
    assert len(held_out) == 8 and not held_out & set(epochs[0])
    assert size == len(set(epochs[0])) and sorted(epochs[0]) == sorted(epochs[1]) and epochs[0] != epochs[1]
    assert len(held_out | set(epochs[0])) == 50


def test_even_rows_are_held_out_of_a_file_too(rows) -> None:
    source = countdown.source(CountdownConfig(source=str(rows), even_held_out=True), 3, 0)
    assert all(number % 2 == 0 for problem in source.held_out for number in numbers_of(problem))
    train = [source.train(index) for index in range(source.num_problems)]
    assert all(any(number % 2 for number in numbers_of(problem)) for problem in train)
    with pytest.raises(
        ValueError, match=r"even numbers only, has 8 rows, 5 different problems, too few for prompts\.num_held_out = 30"
    ):
        countdown.source(CountdownConfig(source=str(rows), even_held_out=True), 30, 0)


def test_a_parquet_file_of_the_hub_schema_loads(tmp_path: Path, monkeypatch) -> None:
    import pandas

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "problems.parquet"
    pandas.DataFrame({"target": [24, 30, 31], "nums": [[4, 6, 1], [5, 6, 1], [5, 6, 1]]}).to_parquet(file)
    source = countdown.source(CountdownConfig(source=str(file)), 1, 0)
    assert {p.answer["target"] for p in [*source.held_out, source.train(0), source.train(1)]} == {24, 30, 31}
    labels = {
        p.answer["target"]: p.difficulty for p in countdown.source(CountdownConfig(source=str(file)), 2, 0).held_out
    }
    assert (
        labels.items()
        <= {24: "3 numbers, 2 solutions", 30: "3 numbers, 2 solutions", 31: "3 numbers, 1 solution"}.items()
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"nums": [1, 2]}, "file.jsonl, line 2: no 'target'"),
        ({"target": 3}, "line 2: no 'nums'"),
        ({"nums": [1, "2"], "target": 3}, "line 2: `nums` must be a list of whole numbers"),
        ({"nums": [], "target": 3}, "line 2"),
    ],
)
def test_a_malformed_row_is_named(row, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        countdown.source(CountdownConfig(source=file_of(tmp_path, {"nums": [1, 2], "target": 3}, row)), 1, 0)


def test_too_few_rows_for_the_held_out_problems(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"too few for prompts\.num_held_out = 5"):
        countdown.source(CountdownConfig(source=file_of(tmp_path, {"nums": [1, 2], "target": 3})), 5, 0)


def file_of(tmp_path, *rows) -> str:
    (tmp_path / "file.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "file.jsonl")


def test_a_missing_file_and_an_unreachable_hub_say_what_to_do(monkeypatch) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        countdown.source(CountdownConfig(source="nowhere.jsonl"), 1, 0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConnectionError, match=r"'Nobody/Nothing', subset 'four', split 'test': .*Check the name.*generated"
    ):
        countdown.source(CountdownConfig(source="Nobody/Nothing", subset="four", split="test"), 1, 0)


def test_impossible_ranges_are_refused_rather_than_searched_forever() -> None:
    with pytest.raises(ValueError, match="no solvable problem"):
        countdown.source(CountdownConfig(max_number=1, min_target=39), 1, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_number": 11}, "min_number = 11 is above max_number = 10"),
        ({"min_target": 50}, "min_target = 50 is above max_target = 40"),
        ({"min_numbers_per_problem": 4}, "min_numbers_per_problem = 4 is above numbers_per_problem = 3"),
        ({"min_solutions": 3, "max_solutions": 2}, "min_solutions = 3 is above max_solutions = 2"),
        ({"operators": "+^"}, r"operators = '\+\^' holds \['\^'\]"),
        ({"number_choices": (1, 2), "repeat_numbers": False}, "repeat_numbers = false with 2 numbers"),
        ({"numbers_per_problem": 5, "max_solutions": 1}, "numbers_per_problem = 5: counting takes too long above 4"),
        ({"source": "f.jsonl", "num_problems": 9}, "leave them out with source = 'f.jsonl'"),
    ],
)
def test_a_wrong_setting_names_key_value_and_fix(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        CountdownConfig(**settings)


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
    answer = countdown.read_question(question, None, CountdownConfig()).answer
    assert (answer["numbers"], answer["target"]) == expected


@pytest.mark.parametrize("question", ["", "What is 3 + 4?", "no numbers", "1.5 and 2.5 make 4", "9" * 500])
def test_a_question_without_numbers_and_target_shows_how_to_ask(question) -> None:
    with pytest.raises(ValueError, match="create an equation that equals"):
        countdown.read_question(question, None, CountdownConfig())
