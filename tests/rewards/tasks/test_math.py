"""Grading of expressions: math-verify behind our own extraction and limits."""

from __future__ import annotations

import threading

import pytest

from rewards.parsing.costs import is_costly
from rewards.parsing.latex import in_latex
from rewards.tasks.math import reference, score, stated_expression


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<answer>\frac12</answer>", r"\frac{1}{2}"),
        (r"So \boxed{\frac{1}{2}}.", "0.5"),
        (r"\boxed{\tfrac{2}{4}}", "1/2"),
        ("The answer is $x=5$.", "5"),
        ("The answer is $5$ because $x = 3$.", "5"),
        ("**Answer:** 5 cm", "5"),
        (r"Answer: \(2\sqrt{2}\)", r"\sqrt{8}"),
        (r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{1}{\sqrt2}"),
        (r"\boxed{(-\infty, 2] \cup [5, \infty)}", r"(-\infty,2]\cup[5,\infty)"),
        (r"\boxed{x \in [-2,7]}", "[-2,7]"),
        (r"\boxed{\{3, 1, 2\}}", r"\{1,2,3\}"),
        (r"\boxed{2, 1}", "1,2"),
        (r"\boxed{\left( 3, \frac{\pi}{2} \right)}", r"(3, \pi/2)"),
        (r"\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
        (r"\boxed{(x+1)^2}", "x^2+2x+1"),
        (r"\boxed{-5i + 6}", "6 - 5i"),
        (r"\boxed{90^\circ}", "90"),
        (r"\boxed{\$32.00}", "32"),
        (r"\boxed{11,\! 111}", "11111"),
        (r"\boxed{\text{east}}", "east"),
        ("<answer>east</answer>", r"\text{east}"),
        ("<answer>(A)</answer>", r"\text{(A)}"),
        (r"\boxed{2^{2010}}", r"4^{1005}"),
        (r"<answer>So it is \boxed{5}</answer>", "5"),
        (r"\boxed{1} no, \boxed{5}", "5"),
        (r"\boxed{5}", r"It is $\boxed{4}$, no: $\boxed{5}$."),
        (r"\boxed{5}", r"so \boxed 5"),
        (r"\boxed{9^{9^9}}", r"9^{ 9^9 }"),
    ],
)
def test_equal(text: str, answer: str) -> None:
    assert score(text, {"answer": answer}) == {"correctness": 1.0}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5", "5"),
        ("", "5"),
        ("<answer></answer> \\boxed{5}", "5"),
        (r"\boxed{}", "5"),
        (r"\boxed{5", "5"),
        (r"\boxed{5} or rather \boxed{6}", "5"),
        (r"\boxed{5, 6}", "5"),
        ("<answer>5 or 6</answer>", "5"),
        (r"\boxed{[1,2]}", "(1,2)"),
        (r"\boxed{y=5}", "x=5"),
        (r"\boxed{-5}", "5"),
        (r"\boxed{0.33}", r"\frac{1}{3}"),
        (r"\boxed{\text{odd}}", r"\text{even}"),
        (r"\boxed{\begin{pmatrix}1&2\\3&5\end{pmatrix}}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"),
        ("The answer is 5!", "5"),
    ],
)
def test_not_equal(text: str, answer: str) -> None:
    assert score(text, {"answer": answer}) == {"correctness": 0.0}


@pytest.mark.parametrize(
    "expression",
    [
        "9^{9^{9^9}}",
        "9^9^9",
        "9^{9}^{9}",
        "9^{20!}",
        "9^{9^9}",
        "(x^{999})^{999}",
        "2^{9*9*9*9*9*9}",
        "10**99999",
        "99999!",
        "(9!)!",
        "5!!",
        r"\binom{99999}{500}",
        r"\sum_{k=1}^{n} k",
        r"\int_0^1 x",
        "1" * 60,
        "(" * 20 + "1" + ")" * 20,
        "x+" * 200 + "1",
    ],
)
@pytest.mark.timeout(60)
def test_what_is_sure_to_take_long_is_refused_unless_it_is_spelled_as_the_reference(expression: str) -> None:
    assert is_costly(in_latex(expression))
    assert score(f"<answer>{expression}</answer>", {"answer": "12"}) == {"correctness": 0.0}
    assert score(f"<answer> {expression} </answer>", {"answer": expression}) == {"correctness": 1.0}


@pytest.mark.parametrize(
    "expression",
    [
        "2^{2010}",
        "x^{100}",
        "e^{x^2} + 1234",
        "x^n - 99999",
        "(x+1)^{10}",
        "100!",
        r"\binom{12}{5}",
        r"\frac{3}{4}^{5}",
    ],
)
def test_what_references_hold_is_not(expression: str) -> None:
    assert not is_costly(expression)


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("The answer is $1$ and $2$.", "$1$ and $2$"),
        ("The answer is 3.5.", "3.5"),
        ("<answer>$$x$$</answer>", "x"),
        (r"<answer>\[x\]</answer>", "x"),
        ("nothing", None),
    ],
)
def test_what_is_stated(text: str, expression: str | None) -> None:
    assert stated_expression(text) == expression


@pytest.mark.parametrize(
    ("text", "is_right"),
    [("Hence it is $\\frac12$.", 1), ("we get 1 - 0.5 = 0.5", 1), ("it is $2$", 0), ("", 0), ("9^9^9^9", 0)],
)
def test_in_the_natural_format_the_last_expression_counts(text: str, is_right: float) -> None:
    assert score(text, {"answer": r"\frac{1}{2}", "extraction": "natural"})["correctness"] == is_right


@pytest.mark.parametrize(
    ("text", "reference_", "is_right"),
    [
        ("Great! So x is $5$.", "5", 1),
        ("Great! So x is 5!", "5", 1),
        ("Great! So x is $5$. Wonderful!", "5", 1),
        (r"We sum up: $\sum_{k=1}^4 k = 10$", "10", 1),
        (r"We sum up: $\sum_{k=1}^4 k = 10$", "11", 0),
        ("The expansion of $(x+1)^{13}$ ends in $1$.", "1", 1),
        ("First $3$, then\n3 + 4 = 7", "7", 1),
        (r"It is $\frac{3}{4}$, which is 0.75.", "0.75", 1),
        ("No numbers here!", "5", 0),
        ("$9^{9^{9^9}}$", "5", 0),
        (r"$x = 9^{9^{9^9}}$", "5", 0),
    ],
)
def test_of_prose_only_the_last_expression_is_looked_at(text: str, reference_: str, is_right: float) -> None:
    assert score(text, {"answer": reference_, "extraction": "natural"})["correctness"] == is_right


def test_it_works_off_the_main_thread() -> None:
    """math-verify's own time limits raise there: `signal only works in main thread`."""
    grades: list[float] = []
    thread = threading.Thread(
        target=lambda: grades.extend(
            score(text, {"answer": "0.5"})["correctness"] for text in (r"\boxed{\frac12}", r"\boxed{2}")
        )
    )
    thread.start()
    thread.join()
    assert grades == [1.0, 0.0]


def test_an_empty_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="reference is empty"):
        reference(r"\boxed{}")
