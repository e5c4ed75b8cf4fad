"""reasoning_gym's scorers: right answers pass after a trip through JSON, and no text runs, hangs or fools them."""

import json
import random

import pytest

from rewards.tasks.reasoning_gym import PARTS, score
from rollout.tasks.reasoning_gym import MAX_INDEX, SIZES, UNFIT, DatasetConfig, load_dataset, problem
from tests.support.marks import only_in_test_all

KNOWN = {
    "graph_color": lambda metadata: json.dumps(metadata["possible_answer"]),
    "propositional_logic": lambda metadata: metadata["example_answer"],
    "rubiks_cube": lambda metadata: metadata["example_correct_answer"],
}
"""Data sets with many right answers, which name one of them in their metadata only."""
UNKNOWN = {"boxnet", "rush_hour"}
"""Those that know no right answer at all."""


def entry(name: str, index: int | None = None, **settings) -> dict:
    """Return the answer mapping of a problem, after a trip through JSON."""
    dataset = DatasetConfig(name=name, settings=settings)
    if index is None:
        index = random.Random(name).randrange(SIZES.get(name, MAX_INDEX))
    return json.loads(json.dumps(problem(dataset, load_dataset(dataset, 0)[index]).answer))


def grade(given: str, answer: dict) -> tuple[float, float]:
    parts = score(f"I think.</think>\n<answer>{given}</answer>", answer)
    return tuple(parts[name] for name in PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("every", [only_in_test_all(1), 8])
def test_of_every_data_set_the_own_answer_is_right_and_none_or_nonsense_is_wrong(every: int) -> None:
    from reasoning_gym.factory import DATASETS

    names = sorted(set(DATASETS) - set(UNFIT))
    assert len(names) > 100
    wrong = []
    for name in names[::every]:
        # Some of intermediate_integration's own answers are an integral that sympy left as it was.
        answer = entry(name, index=1 if name == "intermediate_integration" else None)
        before = json.dumps(answer)
        own = KNOWN[name](answer["metadata"]) if name in KNOWN else answer["answer"]
        if name not in UNKNOWN and grade(own, answer) != (1.0, 1.0):
            wrong.append((name, "its own answer", own))
        nonsense = ("", "what?", "nan", "((((", "{}", "9" * 5000)
        wrong += [(name, given) for given in nonsense if grade(given, answer)[0] != 0.0]
        if score("It is 4, I think.", answer) != {"correctness": 0.0, "score": 0.0}:
            wrong.append((name, "no answer"))
        if json.dumps(answer) != before:
            wrong.append((name, "the scorer changed the entry"))
    assert not wrong


def test_the_last_complete_pair_of_tags_counts_and_in_the_natural_format_the_last_line() -> None:
    answer = entry("chain_sum", index=3)
    right = answer["answer"]
    assert score(f"<answer>999</answer> no: <answer> {right} </answer>", answer)["correctness"] == 1.0
    assert score(f"<answer>{right}</answer> no: <answer>999</answer>", answer)["correctness"] == 0.0
    assert score(f"It is {right}", answer)["correctness"] == 0.0
    natural = answer | {"extraction": "natural"}
    assert score(f"I add.\n\n{right}\n \n", natural)["correctness"] == 1.0
    assert score(f"{right}\nDone.", natural)["correctness"] == 0.0
    assert score("", natural)["correctness"] == 0.0


def test_partly_right_answers_have_a_score_and_are_not_correct() -> None:
    correctness, part = grade("olleh"[:3], entry("spell_backward") | {"answer": "olleh"})
    assert correctness == 0.0 and part == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion"])
def test_python_in_an_answer_is_read_but_never_run(name, tmp_path) -> None:
    answer, made = entry(name), tmp_path / "made"
    for attack in (f"open({str(made)!r}, 'w')", f"[open({str(made)!r}, 'w')]", "[x for x in ().__class__.__bases__]"):
        assert grade(attack, answer) == (0.0, 0.0)
    assert not made.exists()
    value = answer["metadata"].get("solution")
    as_list = answer["answer"].split() if name == "spiral_matrix" else value
    if name == "n_queens":
        as_list = [row.split() for row in answer["metadata"]["valid_answers"][0].split("\n")]
    # The library pays a list in Python's notation a part, and still does.
    assert 0.0 < grade(repr(list(as_list)), answer)[1] < 1.0


@pytest.mark.parametrize("name", ["simple_integration", "polynomial_multiplication", "countdown", "puzzle24"])
def test_sympy_never_sees_more_than_arithmetic(name, tmp_path) -> None:
    answer, made = entry(name), tmp_path / "made"
    for attack in (
        f"open({str(made)!r}, 'w')",
        f"__import__('pathlib').Path({str(made)!r}).touch()",
        f"x + exec(\"open({str(made)!r}, 'w')\")",
        "9**9**9**9",
        "((((9**20)**20)**20)**20)**20",
        "factorial(10**8)",
        f"{answer['answer']} if open({str(made)!r}, 'w') else 0",
    ):
        assert grade(attack, answer)[0] == 0.0, attack
    assert not made.exists()


def test_formulas_may_be_written_another_way() -> None:
    answer = entry("simple_integration", index=0)
    variable = answer["metadata"]["variable"]
    assert grade(answer["answer"], answer) == (1.0, 1.0)
    assert grade(f"7 + {answer['answer']} - {variable}**2*2 + 2*{variable}*{variable}", answer) == (1.0, 1.0)
    assert grade(f"{answer['answer']} + {variable}", answer) == (0.0, 0.0)


def test_what_fools_the_librarys_scorers_is_wrong_here() -> None:
    from reasoning_gym.factory import create_dataset

    halting = next(answer for i in range(50) if (answer := entry("game_of_life_halting", i))["answer"] == "False")
    flip = next(answer for i in range(50) if (answer := entry("coin_flip", i))["answer"].startswith("0.2"))
    cases = [
        ("game_of_life_halting", halting, "whatever", "false"),
        ("coin_flip", flip, "0", None),
        ("complex_arithmetic", entry("complex_arithmetic", 0), "nan", None),
        ("puzzle24", entry("puzzle24", 0) | {"metadata": {"numbers": [2, 3, 4, 1]}}, "8 + 8 + 4 + 4", "2*3*4*1"),
        ("puzzle24", entry("puzzle24", 0) | {"metadata": {"numbers": [7, 7, 2, 1]}}, "7*7/2*1", None),
    ]
    for name, answer, fooling, right in cases:
        theirs = create_dataset(name).score_answer(fooling, answer)
        assert theirs == 1.0, f"{name} is mended: take it out of rewards/tasks/reasoning_gym.py"
        assert grade(fooling, answer) == (0.0, 0.0)
        assert grade(right or answer["answer"], answer)[0] == (1.0 if right or name != "puzzle24" else 0.0)


def test_an_answer_of_another_shape_is_wrong_even_where_the_scorer_raises(capfd) -> None:
    assert grade("two times three", entry("prime_factorization")) == (0.0, 0.0)
    assert grade("{}", entry("game_of_life")) == (0.0, 0.0)
    assert grade("[[1]]", entry("boxnet")) == (0.0, 0.0)
    assert grade("Move disk 1 from Peg 9 to Peg 2", entry("tower_of_hanoi")) == (0.0, 0.0)
    assert capfd.readouterr().out == ""
