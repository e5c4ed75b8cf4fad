"""The general parts about tags."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.parts.format import answer_tags, strict, tag_pairs

COUNTDOWN = {"numbers": [3, 7, 9], "target": 34}
NATURAL = {**COUNTDOWN, "extraction": "natural"}
RIGHT = "<think>3 * 9 = 27</think>\n<answer>3 * 9 + 7</answer>"


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        "Let me solve this step by step.\n" + RIGHT,
        RIGHT + "\n",
        RIGHT + "<|im_end|>",
        RIGHT + "<|eot_id|><|endoftext|>\n<|endoftext|>",
        RIGHT + "</s>",
        "<think></think>\n<answer>34</answer>",
        "<think>a < b, and <b>bold</b>\n\n</think>\n<answer>\n3 * 9 + 7\n</answer>",
        r"<think>…</think>\n<answer>\boxed{3 \times 9 + 7}</answer>".replace(r"\n", "\n"),
        "<think>…</think>\n<answer>3 * 9 + 7 = 34</answer>",
    ],
)
def test_the_whole_turn_in_its_tags(text: str) -> None:
    assert strict(text, COUNTDOWN) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3 * 9 + 7",
        RIGHT.replace("<think>", ""),
        RIGHT.replace("</think>", ""),
        RIGHT.replace("<answer>", ""),
        RIGHT.replace("</answer>", ""),
        RIGHT.replace("\n", ""),
        RIGHT.replace("\n", "\n\n"),
        RIGHT.replace("\n", " so "),
        RIGHT + " is my answer",
        RIGHT + "\nUser: another one",
        RIGHT + RIGHT,
        RIGHT + "</answer>",
        RIGHT.replace("27", "27<think>"),
        RIGHT.replace("27", "<answer>27</answer>"),
        "Sure!\n" + RIGHT,
        "<answer>3 * 9 + 7</answer>\n<think>…</think>",
        "<think>…</think>\n<answer></answer>",
        "<think>…</think>\n<answer> \\boxed{} </answer>",
        RIGHT.upper(),
    ],
)
def test_anything_else_is_worth_nothing(text: str) -> None:
    assert strict(text, COUNTDOWN) == 0.0


@pytest.mark.parametrize(
    ("inside", "answer", "value"),
    [
        ("The answer is 3 * 9 + 7", COUNTDOWN, 0.5),
        ("3 * 9 + 7 works", COUNTDOWN, 0.5),
        ("72", {"answer": "72"}, 1.0),
        ("$72.00", {"answer": 72}, 1.0),
        ("72 clips", {"answer": "72"}, 0.5),
        ("C", {"answer": "C"}, 1.0),
        ("(C)", {"answer": "C"}, 1.0),
        ("The answer is C", {"answer": "C"}, 0.5),
        ("Lima, Peru", {"answer": ["Lima", "Lima, Peru"]}, 1.0),
        ("well, I guess it is Lima", {"answer": ["Lima", "Lima, Peru"]}, 0.5),
        ("red, then blue", {"answer": "red then blue"}, 1.0),
        ("first red, then blue", {"answer": "red then blue"}, 0.5),
        ("anything at all", {}, 1.0),
        ("def f(n):\n    return sum(range(n))", {"answer": "def f(n):\n    return n"}, 1.0),
        ("anything at all", {"answer": {"red": 1}}, 1.0),
    ],
)
def test_an_answer_with_words_around_it_is_worth_half(inside: str, answer: dict[str, Any], value: float) -> None:
    assert strict(f"<think>…</think>\n<answer>{inside}</answer>", answer) == value


@pytest.mark.parametrize(
    ("inside", "value"),
    [("3 * 9 + 7", 1.0), (" (3*9)\n+ 7 ", 1.0), ("3 * 9 + 7 = 34", 0.5), (r"\boxed{34}", 0.5), ("thirty-four", 0.5)],
)
def test_nano_aha_moments_rule_is_a_list_of_characters(inside: str, value: float) -> None:
    text = f"Let me solve this step by step.\n<think>…</think>\n<answer>{inside}</answer><|endoftext|>"
    assert strict(text, COUNTDOWN, answer_characters="0123456789+-*/().") == value


def test_what_the_prompt_writes_before_the_first_tag_is_a_setting() -> None:
    assert strict("I think.\n" + RIGHT, COUNTDOWN) == 0.0
    assert strict("I think.\n" + RIGHT, COUNTDOWN, lead_in="I think.\n") == 1.0
    assert strict(RIGHT, COUNTDOWN, lead_in="I think.\n") == 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0.0),
        ("<think>…", 0.0),
        ("3 * 9</answer>", 0.0),
        ("</answer><answer>", 0.0),
        ("<answer> </answer>", 0.0),
        ("<answer>\\boxed{}</answer>", 0.0),
        ("<answer>nonsense</answer>", 1.0),
        ("no thinking <answer>3 * 9</answer> and more", 1.0),
        ("<answer>1</answer> <answer>2</answer>", 1.0),
        ("<answer>1</answer> <answer></answer>", 0.0),
    ],
)
def test_answer_tags_ask_for_something_in_the_last_pair(text: str, value: float) -> None:
    assert answer_tags(text, COUNTDOWN) == value


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (RIGHT, 2),
        ("so <think>…</think> and <answer></answer> done", 2),
        ("<think>…</think> 34", 1),
        ("…</think><answer>34</answer>", 1),
        ("<think>…<answer>34</answer>", 1),
        ("<answer>34</answer><think>…</think>", 1),
        ("<think><answer></think></answer>", 1),
        ("<think>…</think><think>…</think><answer>34</answer>", 1),
        ("<think>…</think><answer>34</answer><answer>34</answer>", 1),
        ("</think>…<think></answer>34<answer>", 0),
        ("3 * 9 + 7", 0),
        ("", 0),
    ],
)
def test_tag_pairs_are_counted(text: str, pairs: int) -> None:
    assert tag_pairs(text, COUNTDOWN) == pairs


def test_the_natural_format_asks_for_no_tags() -> None:
    assert strict("3 * 9 + 7", NATURAL) == answer_tags("3 * 9 + 7", NATURAL) == 1.0
    assert strict(" \n<|im_end|>", NATURAL) == answer_tags(" \n<|im_end|>", NATURAL) == 0.0


PIECES = ["<think>", "</think>", "<answer>", "</answer>", "\n", " ", "3 * 9", "so", "\\boxed{", "}", "<|im_end|>"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_strict_implies_the_lenient_ones(text: str) -> None:
    value = strict(text, COUNTDOWN)
    assert value in (0.0, 0.5, 1.0)
    if value:
        assert answer_tags(text, COUNTDOWN) == 1.0
        assert tag_pairs(text, COUNTDOWN) == 2.0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", ["<think>", "</answer>", "<answer>", " ", "<|", "<|a|>", "a", "</s>", "\\"], ids=repr)
def test_hostile_repetitions_end(piece: str) -> None:
    """Quadratic time would be hours."""
    long = piece * (300_000 // len(piece))
    for text in (long, RIGHT + long, f"<think></think>\n<answer>{long}</answer>"):
        assert strict(text, COUNTDOWN) <= answer_tags(text, COUNTDOWN)
        assert tag_pairs(text, COUNTDOWN) <= 2
