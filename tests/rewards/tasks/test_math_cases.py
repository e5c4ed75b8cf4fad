r"""Mathematical answers that were graded wrongly, or might be, and the pairs of Math-Verify's public tests.

tests/data/cases/math.jsonl came from users. math_equivalence.jsonl holds pairs that Math-Verify (Apache-2.0) promises.
"""

from __future__ import annotations

import json
import time
from typing import Any

import math_verify
import pytest

from rewards.parsing.extraction import last_box
from rewards.tasks.math import score
from tests.support.paths import ROOT


def read(name: str) -> list[dict[str, Any]]:
    path = ROOT / "tests" / "data" / "cases" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


CASES, PAIRS = read("math"), read("math_equivalence")
LONGEST_ANSWER = 300
LIMIT_S = 20.0
"""Seconds of CPU: none of these takes one on a quiet machine, and without bounds most would take hours."""
DIFFERENCES = {
    31: "an answer in dollars that stands on a line of its own is read (Math-Verify's parser reads it too)",
    32: "as 31, in round brackets",
    60: "the reference is a whole solution without a box: a reference is one expression",
    62: "the box of the completion is torn by dollars",
    109: "an unknown command cannot be read, so neither can what stands around it",
    133: "0.33 is not a third",
    139: "2.6667 is not eight thirds",
    182: "two boxes that nothing joins are two answers, of which the last counts",
    186: "the file promises both that this is right and, in line 187, that it is wrong",
    190: "the reference doubles its backslashes",
    191: "as 190",
    192: "as 190",
    196: "a bound on an absolute value is not solved for its variable",
    217: "the reference doubles its backslashes, and its box stays open",
    220: "a bound on f(x) is not an interval",
    253: "f(x) is not f(y)",
}
"""Lines, counted from 0, where the grade is not what the file promises, and why."""


def grade(text: str, reference: str, extraction: str = "tags") -> float:
    return score(text, {"answer": reference, "extraction": extraction})["correctness"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["completion"][:60])
def test_a_case_is_graded_right_in_bounded_time(case: dict[str, Any]) -> None:
    grade(r"\boxed{x}", "y")  # SymPy takes its time to import
    start = time.process_time()
    assert grade(case["completion"], case["reference"]) == float(case["right"])
    assert time.process_time() - start < LIMIT_S


@pytest.mark.parametrize("number", range(len(PAIRS)))
def test_a_pair_is_as_promised_but_for_the_differences_that_are_explained(number: int) -> None:
    pair = PAIRS[number]
    grades = [grade(pair["answer"], pair["reference"], "natural")]
    if len(pair["answer"]) <= LONGEST_ANSWER:
        grades.append(grade(f"<answer>{pair['answer']}</answer>", pair["reference"]))
    assert (max(grades) == pair["expected"]) is (number not in DIFFERENCES)


def test_math_verify_alone_gets_only_these_of_the_differences_right() -> None:
    def promised(pair: dict[str, Any]) -> bool:
        sides = [math_verify.parse(pair[key], parsing_timeout=None) for key in ("reference", "answer")]
        return bool(math_verify.verify(*sides, timeout_seconds=None)) == bool(pair["expected"])

    right = {number for number in DIFFERENCES if promised(PAIRS[number])}
    assert right == {60, 62, 109, 182, 190, 191, 192, 196, 217, 220}


@pytest.mark.parametrize("reference", sorted({case["reference"] for case in CASES + PAIRS}))
def test_a_copy_of_the_reference_is_right(reference: str) -> None:
    assert grade(f"<answer>{reference}</answer>", reference) == 1
    boxed = rf"\boxed{{{reference}}}"
    box = last_box(boxed)
    if box is not None and box.text == reference:
        assert grade(boxed, reference) == 1


@pytest.mark.parametrize(
    ("reference", "answer", "is_right"),
    [
        (r"3\sqrt{5}", "3√5", 1),
        ("3", "3√5", 0),
        ("7.25", "7¼", 1),
        ("7", "7¼", 0),
        ("8", "2³", 1),
        ("2", "2³", 0),
        ("x_1+x_2", "x₁+x₂", 1),
        (r"\frac{2\pi}{3}", "2π/3", 1),
        ("5", "−5", 0),
        ("-5", "−5", 1),
        (r"x \ge 2", "x ≥ 2", 1),
        (r"x \ge 2", "x ≤ 2", 0),
        (r"x \ge 2", "x > 2", 0),
        ("7", "7 apples", 1),
        ("7", "7 or more", 0),
        ("7", "7 thirds", 0),
        ("7", "7 squared", 0),
        ("7", "7 million", 0),
        ("7", r"7\text{ cm}^2", 1),
        ("7", "7x", 0),
        ("7", "7!", 0),
        ("7", "about 7 and 8", 0),
        ("7", "7 mod 3", 0),
        ("12", "1 2", 0),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix} 1 \\  2 \end{pmatrix}", 1),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1 & 2\end{pmatrix}", 0),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}2 \\ 1\end{pmatrix}", 0),
        ("(1,2)", "(2,1)", 0),
        ("[1,2)", "(1,2]", 0),
        ("x^2-1", "(x-1)(x+1)", 1),
        ("x^2-1", "(x-1)^2", 0),
        (r"\sin^2 x + \cos^2 x", "1", 1),
        ("5", "x = 5", 1),
        ("5", r"x \neq 5", 0),
        ("11_2", "11_3", 0),
        ("0.5", r"50\%", 1),
        ("1,2,3", "3,2,1", 1),
        ("1,2,3", "1,2", 0),
        ("1,2", "1,2,2,3", 0),
        ("5", "5 - 0i", 1),
        ("5", "5, not 6", 0),
        ("5", "5 / 0", 0),
    ],
)
def test_answers_in_both_directions(reference: str, answer: str, is_right: float) -> None:
    assert grade(f"<answer>{answer}</answer>", reference) == is_right


@pytest.mark.parametrize(
    "answer",
    [
        "(a+b+c+d+e+f)^{999}",
        "((x+1)^{99}+1)^{99}",
        r"\frac{(x+y+z)^{500}}{(x-y)^{500}}",
        "*".join(f"({letter}+1)" for letter in "abcdefghijklmnopqrstuvwxyz"),
        r"\sqrt{" * 15 + "2" + "}" * 15,
        "x^{9999}-1=0",
        "x^5+y^5+z^5 < 3",
        "+".join(rf"\sqrt{{{number}}}" for number in range(2, 40)),
        r"\sin(" * 14 + "x" + ")" * 14,
        "1000!/999!",
        r"\binom{1000}{500}",
        "9" * 50,
        ",".join(str(number) for number in range(80)),
    ],
)
@pytest.mark.parametrize("reference", ["12", "x^2 < 3", r"x \in [1, 2]", r"\{1, 2\}"])
def test_costly_answers_take_bounded_time(answer: str, reference: str) -> None:
    grade(r"\boxed{x}", "y")
    start = time.process_time()
    assert grade(f"<answer>{answer}</answer>", reference) == 0
    assert time.process_time() - start < LIMIT_S
