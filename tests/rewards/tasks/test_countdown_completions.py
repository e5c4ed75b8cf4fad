"""384 completions that a real language model wrote, graded against labels made by hand and a second checker.

The model was asked to close ``</reasoning>``, which grading does not ask for, and to box its answer in tags. The labels
were made by reading; "line" counts from 0.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from countdown_oracle import grade_prose, grade_tagged, tagged

from rewards.parsing.extraction import extract_answer
from rewards.parts.format import answer_tags
from rewards.tasks.countdown import check, grade, score
from tests.support.shared_data import needs_shared_data, read_rows

pytestmark = needs_shared_data

LABELS = [
    # (line, correctness, answer_tags, what is odd about it)
    (0, 0, 1, "boxes the target alone: parses, uses 99, which is not given"),
    (5, 0, 1, "63 - 12 - 20 + 20: uses 20 twice"),
    (6, 0, 0, "right numbers, but no </answer>"),
    (7, 1, 1, "(79 + 48) - 81 = 46, plainly right"),
    (10, 0, 1, "-4+68: a sign, not an operation, and 4 is not given"),
    (11, 0, 1, "76 - 41 - 59 = 24 is false; </,reasoning> closes nothing, which does not matter"),
    (17, 0, 1, "no </reasoning>; 7 * 4 + 57 is 85 though the model says 68"),
    (18, 0, 0, "</answer> without <answer>"),
    (21, 0, 0, "tags broken: </</reasoning> and <>answer>"),
    (22, 0, 1, "82 - 61 = 21: true, but 21 is not the target and 7 is missing"),
    (24, 0, 0, "11 + 35 - 12 is 34 though the model says 36; <answer> is never closed"),
    (32, 0, 1, "a placeholder, \\boxed{...}"),
    (37, 0, 1, "(58 \\div 64) \\times 64: LaTeX operators, but 58 is not given"),
    (56, 0, 0, "an equation in a box without tags"),
    (60, 0, 0, "29 + 46 - 36 = 39 is right, but only boxed, never tagged"),
    (64, 0, 0, "95 - 73 + 7 = 29 is right, but the box breaks off and there are no tags"),
    (65, 0, 1, "goes on after </reasoning> before the answer: allowed; value 0, not 1"),
    (72, 0, 1, "28 + (11 - 5 lacks a parenthesis"),
    (76, 0, 1, "a placeholder; the reasoning breaks off before it"),
    (79, 1, 1, "35 + 52 - 26 = 61; the reasoning was never closed"),
    (83, 1, 1, "(28 * 23) / 28 = 23: 28 is given twice and used twice"),
    (85, 0, 1, "finds 18 + 75 - 68 = 25, then answers 161"),
    (90, 1, 1, "a stray <answer> before </reasoning>; the last pair is right"),
    (94, 0, 0, "</answer> without <answer>, value 78/62"),
    (99, 0, 1, "92 / 2 = 46, but 2 is not given"),
    (100, 0, 0, "a formula of letters, a - b + c"),
    (106, 0, 0, "-boxed{117}, no opening tag"),
    (119, 0, 1, "a line break inside the box; 58 / 6 * 6 = 58, and 6 is used twice"),
    (130, 0, 0, "23 - 22 + 1 = 2 is right, but <answer> is missing"),
    (144, 0, 1, "a placeholder"),
    (151, 0, 0, "the word times between operators, an equation, no opening tag"),
    (159, 1, 1, "a stray </answer> instead of </reasoning>; the pair after it, 80 - 21 + 1 = 60, is right"),
    (169, 1, 1, "91 - 89 + 61 = 63, after no reasoning at all"),
    (179, 0, 1, "<answer> holds {}: braces are no box"),
    (182, 1, 1, "no box at all: 96 - 48  + 26 = 74"),
    (184, 0, 1, "a lone minus"),
    (188, 1, 1, "a stray < between </reasoning> and <answer>; 34 - 24 + 24 = 34"),
    (199, 0, 0, "<answer lacks its bracket"),
    (200, 0, 1, "2 \\times 26 = 52: 2 is not given"),
    (207, 0, 0, "</answer} instead of </answer>"),
    (219, 0, 0, "two candidates and the word or, no tags; the first one would be right"),
    (214, 0, 1, "-44 + 27 begins with a sign"),
    (229, 1, 1, "(81 - 73) + 49 = 57; the reasoning ends in </,>"),
    (231, 0, 1, "\\frac: not a spelling that is accepted; the value would be wrong"),
    (245, 0, 1, "\\frac again; uses 14 twice anyway"),
    (263, 0, 0, "an empty box without a closing tag"),
    (266, 0, 1, "a power, 95^2"),
    (270, 1, 1, "an equation, 91 - 76 + 66 = 81: true, and 81 is the target"),
    (272, 0, 0, "an empty box in its tags"),
    (274, 0, 1, "\\times and 3 twice"),
    (277, 1, 1, "an equation, 33 - 7 - 20 = 6: true, and 6 is the target"),
    (278, 0, 1, "a code fence before the box; 16 is not given"),
    (279, 0, 1, "(43 + 58) - 61 + 46 = 46 is false, and 46 is not given"),
    (290, 1, 1, "97 - 52 - 17 = 28; the reasoning was never closed"),
    (293, 0, 1, "operators without numbers"),
    (297, 1, 1, "2 + 90 - 87 = 5; the reasoning was never closed"),
    (298, 0, 1, "99 - 98 - 13 = 12 is false: it gives -12"),
    (299, 0, 0, "89 - 79 + 88 is 98, and <answer> is split over two lines"),
    (319, 0, 0, "ends in the middle of the reasoning"),
    (321, 0, 1, "-71"),
    (324, 0, 1, "82-17/17: 82 is not given"),
    (337, 0, 1, "99-5428: two numbers run together"),
    (341, 1, 1, "35 + 52 - 26 = 61; the reasoning was never closed"),
    (347, 0, 1, "-47 + 71 begins with a sign"),
    (350, 1, 1, "18 * 2 + 37 = 73"),
    (377, 0, 1, "boxed without its backslash; 32 is not given"),
    (380, 0, 0, "(74 - 56) + 53 = 71 is right, but only boxed"),
]

RIGHT_AS_AN_EQUATION = {270, 277}
OTHER_EQUATIONS = {11, 22, 279, 298}
BEGINS_WITH_A_SIGN = {10, 214, 321, 347}


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    return read_rows("countdown_completions.jsonl")


@pytest.fixture(scope="module")
def graded(lines: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return correctness and answer_tags of each."""
    return [(score(line["completion"], line)["correctness"], answer_tags(line["completion"], line)) for line in lines]


@pytest.mark.parametrize(("line", "correctness", "tags", "why"), LABELS, ids=[f"line {label[0]}" for label in LABELS])
def test_hand_made_labels(graded: list[tuple[float, float]], line: int, correctness: int, tags: int, why: str) -> None:
    assert graded[line] == (correctness, tags), why


def test_totals(graded: list[tuple[float, float]]) -> None:
    assert Counter(graded) == {(1.0, 1.0): 63, (0.0, 1.0): 252, (0.0, 0.0): 69}


def test_against_a_second_checker(lines: list[dict[str, Any]], graded: list[tuple[float, float]]) -> None:
    """countdown_oracle.py shares no code. They disagree about two decisions only: signs and equations."""
    second = [grade_tagged(line) for line in lines]
    second_correct = {i for i, (is_correct, _) in enumerate(second) if is_correct}
    second_parses = {i for i, (_, parses) in enumerate(second) if parses}
    correct = {i for i, (correctness, _) in enumerate(graded) if correctness}
    parses = {i for i, line in enumerate(lines) if parses_here(line)}

    assert {i for i, (_, tags) in enumerate(graded) if tags} == {i for i, line in enumerate(lines) if tagged(line)}
    assert second_correct <= correct
    assert correct - second_correct == RIGHT_AS_AN_EQUATION
    assert second_parses - parses == BEGINS_WITH_A_SIGN
    assert parses - second_parses == RIGHT_AS_AN_EQUATION | OTHER_EQUATIONS
    assert {i for i, line in enumerate(lines) if "=" in tagged(line)} == RIGHT_AS_AN_EQUATION | OTHER_EQUATIONS


# What the natural format, in which a model need not tag its answer, finds where tags do not.
PLAINLY_RIGHT_IN_PROSE = {
    60: "boxed without tags, as are 38, 64, 71, 103, 203, 217, 218, 228, 284, 328 and 380",
    92: "answers the target alone, after 89 - 39 + 21 = 71",
    100: "boxes a formula of letters, after 79 - 78 + 42 = 43",
    130: "boxes 23 - 22 + 1, without <answer>",
    184: "answers a lone minus, after 97 - (12 + 4) = 97 - 16 = 81",
    263: "an empty box after 83 - 72 + 16",
    293: "answers operators without numbers, after 56 - 46 + 53",
    371: "answers the target alone, after using 14 + 32 - 7 = 39 with the word and the number glued: in14",
}
WRONG_IN_PROSE = {
    85: "answers 161, though 18 + 75 - 68 = 25 came before",
    165: "says 74 + 25 in the end, though 74 + 5 + 20 came before",
    205: "answers 92 - 33, though 92 - 33 + 17 came before",
    337: "answers 99-5428, though 99 - 54 + 28 came before",
}


def test_the_natural_format_against_a_second_checker(lines: list[dict[str, Any]]) -> None:
    natural = [{**line, "extraction": "natural"} for line in lines]
    right = {i for i, line in enumerate(natural) if grade(line["completion"], line).is_correct}
    assert right == {i for i, line in enumerate(natural) if grade_prose(line)}
    in_tags = {i for i, line in enumerate(lines) if score(line["completion"], line)["correctness"]}
    assert in_tags < right
    assert len(right - in_tags) == 19
    assert right - in_tags >= PLAINLY_RIGHT_IN_PROSE.keys()
    assert not right & WRONG_IN_PROSE.keys()


def parses_here(line: dict[str, Any]) -> bool:
    expression = extract_answer(line["completion"])
    verdict = None if expression is None else check(expression, line["numbers"], line["target"])
    return verdict is not None and not verdict.reason.startswith("not an expression")
