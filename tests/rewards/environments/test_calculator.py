"""The calculator reads what models write, exactly and within bounds."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.environments.calculator import Calculator, calculate
from rollout.types.environments import Observation
from rollout.types.prompts import Prompt

PROMPT = Prompt("train/1", np.array([1], dtype=np.int32), "question", "countdown", {}, environment="calculator")


def begun() -> Calculator:
    calculator = Calculator()
    assert calculator.start(PROMPT, 1) == Observation("")
    return calculator


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("3+4*5", "23"),
        (" 48 / 2 = ", "24"),
        ("1,234,567 + 1", "1234568"),
        ("-3 - -4", "1"),
        ("0.1 + 0.2", "0.3"),
        (".5*4", "2"),
        ("12.50*4", "50"),
        ("2^10", "1024"),
        ("2**-2", "0.25"),
        ("(1/3)*3", "1"),
        ("1/3", "0.3333333333"),
        ("2\\times3 × 4 ÷ 6", "4"),
        ("9999999999*9999999999", "99999999980000000001"),
        ("5/4", "1.25"),
    ],
)
def test_calculations(expression: str, result: str) -> None:
    assert calculate(expression) == (result, "")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("1/0", "division by zero"),
        ("0**-1", "division by zero"),
        ("", "empty"),
        ("2**0.5", "exponent"),
        ("2**(1/2)", "not whole"),
        ("9**9**9", "an exponent"),
        ("10**20*10**20", "larger than 1e30"),
        ("9999999999**20", "larger than 1e30"),
        ("12345678901", "11 digits"),
        ("9" * 400 + ".5", "400 digits"),
        ("__import__('os')", "unexpected '_'"),
        ("x+1", "unexpected 'x'"),
        ("1 2", "after a complete expression"),
        ("(" * 40 + "1" + ")" * 40, "nested deeper"),
        ("1+" * 5000 + "1", "characters, more than 500"),
        ("1\0+1", "unexpected '\\x00'"),
        ("١+١", "unexpected"),
    ],
)
def test_what_it_does_not_compute_it_says(expression: str, says: str) -> None:
    result, error = calculate(expression)
    assert result is None
    assert says in error


@settings(max_examples=50, deadline=None)
@given(st.text("0123456789.+-*/^()= ,", max_size=60))
def test_it_is_fast_whatever_it_reads(expression: str) -> None:
    start = time.perf_counter()
    result, error = calculate(expression)
    assert time.perf_counter() - start < 0.5
    assert (result is None) == bool(error)
    assert len(result or "") <= 700


def test_it_agrees_with_fractions_on_what_it_reads() -> None:
    assert calculate("7*(9-3)-5/2") == ("39.5", "")


def test_a_turn_that_ends_with_a_call_is_answered_and_another_one_is_the_last() -> None:
    calculator = begun()
    said = calculator.step("I need <calc>12*3</calc>")
    assert (said.text, said.is_over) == ("<result>36</result>", False)
    last = calculator.step("so it is <answer>36</answer>")
    assert (last.text, last.is_over) == ("", True)
    assert last.parts == {"tool_called": 1.0, "tool_calls": 1.0, "tool_failures": 0.0, "tool_used": 1.0}


def test_a_call_that_fails_is_counted_and_its_words_are_not_used() -> None:
    calculator = begun()
    assert calculator.step("<calc>1/0</calc>").text == "<result>error: division by zero</result>"
    assert calculator.step("<calc>1+1</calc>").text == "<result>2</result>"
    last = calculator.step("<answer>22, 2.5 and 12</answer>")
    assert last.parts == {"tool_called": 1.0, "tool_calls": 2.0, "tool_failures": 1.0, "tool_used": 0.0}


@pytest.mark.parametrize("text", ["", "4</calc>", "<calc>4", "</calc><calc>", "<calc>4</calc> and more"])
def test_what_is_no_call_ends_the_completion(text: str) -> None:
    said = begun().step(text)
    assert said.is_over
    assert said.parts["tool_called"] == 0.0


def test_of_several_opening_tags_the_last_counts() -> None:
    assert begun().step("<calc>1+<calc>2+2</calc>").text == "<result>4</result>"
