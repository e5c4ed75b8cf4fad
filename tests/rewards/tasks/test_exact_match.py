"""Grading of answers that are words or lists of them."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rewards.tasks import exact_match
from rewards.tasks.exact_match import parts, score


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("<answer>kitchen</answer>", "kitchen"),
        ("<answer> The Kitchen. </answer>", "kitchen"),
        ("<answer>**kitchen**</answer>", "kitchen"),
        (r"\boxed{\text{kitchen}}", "kitchen"),
        ("Answer: kitchen", "kitchen"),
        ("The answer is the kitchen. Mary went there.", "kitchen"),
        ("<answer>New  York!</answer>", "new york"),
        ("<answer>ﬁre</answer>", "fire"),
        ("<answer>a</answer>", "a"),
        ("<answer>apple, football</answer>", "apple,football"),
        ("<answer>the football and the apple</answer>", "apple,football"),
        ("<answer>football; apple</answer>", "apple,football"),
        ("<answer>football\napple</answer>", "apple,football"),
        ("<answer>-5</answer>", "-5"),
        ("<answer>+</answer>", "+"),
    ],
)
def test_the_same(text: str, reference: str) -> None:
    assert score(text, {"answer": reference}) == {"correctness": 1.0}


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("kitchen", "kitchen"),
        ("<answer></answer>", "kitchen"),
        ("<answer>bathroom</answer> Answer: kitchen", "kitchen"),
        ("<answer>not the kitchen</answer>", "kitchen"),
        ("<answer>kitchen or garden</answer>", "kitchen"),
        ("<answer>apple</answer>", "apple,football"),
        ("<answer>apple, apple, football</answer>", "apple,football"),
        ("<answer>apple football</answer>", "apple,football"),
        ("<answer>5</answer>", "-5"),
        ("<answer>the</answer>", "a"),
        ("<answer>" + "kitchen " * 1000 + "</answer>", "kitchen"),
        ("", "kitchen"),
    ],
)
def test_not_the_same(text: str, reference: str) -> None:
    assert score(text, {"answer": reference}) == {"correctness": 0.0}


def test_any_alias_is_right() -> None:
    answer = {"answer": ["New York City", "NYC"]}
    assert [score(f"<answer>{text}</answer>", answer)["correctness"] for text in ("nyc", "new york city", "york")] == [
        1,
        1,
        0,
    ]


def test_a_path_keeps_its_order() -> None:
    answer = {"answer": ["s,e", "south,east"], "ordered": True}
    texts = ("s,e", "South, east", "e,s", "east and south")
    assert [score(f"<answer>{text}</answer>", answer)["correctness"] for text in texts] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "reference", "is_right"),
    [
        ("Mary went there. So she is in the kitchen.", "kitchen", 1),
        ("Kitchen", "kitchen", 1),
        ("She is not in the kitchen.", "kitchen", 0),
        ("She isn't in the kitchen", "kitchen", 0),
        ("The kitchen is where she is.", "kitchen", 0),
        ("She carries the football and the apple.", "apple,football", 1),
        ("She carries the apple.", "apple,football", 0),
        ("She is in the garden or in the kitchen or kitchen.", "kitchen", 0),
        ("She is in the garden or the kitchen.", "kitchen", 0),
        ("It is called Pride and Prejudice.", "Pride and Prejudice", 1),
        ("The answer is garden. The kitchen", "kitchen", 0),
        ("<answer>garden</answer> kitchen", "kitchen", 0),
        ("", "kitchen", 0),
    ],
)
def test_in_the_natural_format_the_end_of_the_text_counts(text: str, reference: str, is_right: float) -> None:
    assert score(text, {"answer": reference, "extraction": "natural"})["correctness"] == is_right


@pytest.mark.parametrize(
    ("given_", "reference", "is_right"),
    [
        ("Pride and Prejudice", "Pride and Prejudice", 1),
        ("Prejudice and Pride", "Pride and Prejudice", 0),
        ("oil, salt and pepper", "salt and pepper, oil", 1),
        ("salt; oil", "salt,oil", 1),
        ("1200", "1,200", 1),
        ("1,200", "1200", 1),
        ("200 and 1", "1,200", 0),
        ("1, 200", "1,200", 0),
    ],
)
def test_only_commas_between_words_make_a_reference_a_list(given_: str, reference: str, is_right: float) -> None:
    assert score(f"<answer>{given_}</answer>", {"answer": reference})["correctness"] == is_right


@pytest.mark.parametrize("reference", ["", " ", ["kitchen", ""]])
def test_an_empty_reference_is_refused(reference: object) -> None:
    with pytest.raises(ValueError, match="reference is empty"):
        score("<answer>x</answer>", {"answer": reference})


SINGLE = "*_#`-+\"'{\\<=!?;:.@$€£°%~^√∑←↑↓♠♥🎉😀✓✗©•—±∞≠≤≥≈∈∉∪∩∨⊕"
SIGNS = [*SINGLE, "**", "--", "++", "&&", "||", "()", "[]", "<<", "<>", "->", ":=", "==", "!!", "::", "...", "//", "+="]


def test_signs_alone_are_themselves_and_no_others() -> None:
    right = {(reference, given) for reference in SIGNS for given in SIGNS if is_right(given, reference)}
    assert right == {(sign, sign) for sign in SIGNS}


def is_right(given: str, reference: str) -> bool:
    return score(f"<answer>{given}</answer>", {"answer": reference})["correctness"] == 1.0


@given(st.text(), st.text(min_size=1).filter(lambda text: any(map(str.isalnum, text))), st.booleans())
def test_any_text_gets_a_mark_and_the_reference_itself_is_right(text: str, reference: str, natural: bool) -> None:
    extraction = {"extraction": "natural"} if natural else {}
    assert score(text, {"answer": "kitchen"} | extraction)["correctness"] in (0.0, 1.0)
    if "<" not in reference and "\\" not in reference:
        assert score(f"<answer>{reference}</answer>", {"answer": reference})["correctness"] == 1.0


PIECES = ["1,200", "1200", "3.5", "U. S.", "us", "C++", "and", "&", "**2**", "kitchen", "The", "x-y", "x - y", "½", " "]


@given(st.lists(st.sampled_from(PIECES)), st.lists(st.sampled_from(PIECES), min_size=1), st.booleans())
def test_what_is_left_out_unread_is_wrong_anyway(text, reference, ordered) -> None:
    sentence, expected = " ".join(text), ", ".join(reference)
    assume(parts(expected, exact_match._COMMA))
    found = exact_match.ends_in(sentence, expected, ordered)
    with mock.patch.object(exact_match, "_may_hold", return_value=True):
        assert exact_match.ends_in(sentence, expected, ordered) == found
