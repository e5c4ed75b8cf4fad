"""Where an answer stands: boxes, announcements, and which of them counts.

The tags' own cases are in test_countdown_extraction.py.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.parsing.extraction import extract_answer, is_natural, last_box, stated_answer, unboxed


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"so \boxed{72}.", "72"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} or rather \boxed{2}", "2"),
        (r"\boxed{1}, \boxed{2", "1"),
        (r"\boxed{a \boxed{b} c}", r"a \boxed{b} c"),
        (r"\fbox{5}", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right\}}", r"\left\{ x \right\}"),
        (r"{stray \boxed{3}", "3"),
        (r"stray } \boxed{3} }", "3"),
        (r"\boxed{}", ""),
        (r"\boxed{5", None),
        ("boxed{5}", None),
        (r"\boxed{1} and $\boxed{2}$", "1, 2"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} and so \boxed{2}", "2"),
        ("", None),
    ],
)
def test_last_box(text: str, inside: str | None) -> None:
    box = last_box(text)
    assert (None if box is None else box.text) == inside


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>1</answer> The answer is 2. \\boxed{3}", "1"),
        ("The answer is 2. \\boxed{3}", "3"),
        ("\\boxed{3} So the answer is 2.", "2."),
        ("<answer></answer> The answer is 2.", ""),
        ("<answer>unclosed. The answer is 2.", "2."),
        ("**Final Answer:** 72 clips\nThanks!", "72 clips"),
        ("Final answer:\n\n72\n", "72"),
        ("ANSWER:72", "72"),
        ("the answer to the question is 5", "5"),
        ("Answer (in dollars): 5", "5"),
        ("The answers are 1 and 2", "1 and 2"),
        ("answer = 5", "5"),
        ("The final answer is: **5**", "5**"),
        ("To answer this we add 5", None),
        ("It answers the call: 5", None),
        ("72", None),
    ],
)
def test_which_mark_counts(text: str, answer: str | None) -> None:
    assert stated_answer(text) == answer


def test_a_box_is_taken_off_only_around_everything() -> None:
    assert unboxed(r"\boxed{3} or 4") == r"\boxed{3} or 4"
    assert unboxed(r"$\boxed{3}$.") == "3"
    assert unboxed("$3$") == "$3$"
    assert extract_answer(r"<answer>\boxed{3}</answer>") == "3"


def test_only_the_prompt_says_what_is_natural() -> None:
    assert is_natural({"answer": 1, "extraction": "natural"})
    assert not is_natural({"answer": 1})


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 40_000,
        "{}" * 150_000,
        "}" * 300_000,
        "answer " * 40_000,
        "answer is " * 30_000,
        "answer to " * 30_000,
    ],
    ids=["boxes", "pairs", "closed", "word", "announced", "to"],
)
@pytest.mark.timeout(60)
def test_hostile_repetitions_do_not_hang(text: str) -> None:
    """A quadratic scan of 300,000 characters would take many minutes."""
    assert stated_answer(text) in (None, "", text[text.rfind("is") + 2 :].strip())


@settings(deadline=None)
@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "5", "x ", "\\}"])))
def test_boxes_against_a_recursive_pattern(pieces: list[str]) -> None:
    """The oracle takes matched pairs out from the inside, and keeps the last box that closes."""
    text = "".join(pieces)
    plain = text.replace("\\}", "ab")
    pairs = []
    while match := re.search(r"(\\boxed)?\{([^{}]*)\}", plain):
        pairs.append((match.end(), bool(match[1]), match.start(2), match.end(2)))
        blank = "ab" * len(match[0])
        plain = plain[: match.start()] + blank[: len(match[0])] + plain[match.end() :]
    boxes = [text[start:end].strip() for _, is_box, start, end in sorted(pairs) if is_box]
    box = last_box(text)
    assert (None if box is None else box.text) == (boxes[-1] if boxes else None)
