"""Answers that were graded wrongly, or might be: right ones score 1, whatever their dress, and wrong ones 0.

tests/data/cases/answers.jsonl came from users, further_answers.jsonl are their siblings, in both directions.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import pytest

from tests.support.paths import ROOT

CASES = [
    json.loads(line)
    for name in ("answers", "further_answers")
    for line in (ROOT / "tests" / "data" / "cases" / f"{name}.jsonl").read_text("utf-8").splitlines()
]
FUNCTION = {
    "kind": "function",
    "functions": ["f"],
    "context": 'def f(x):\n    """Return it."""\n',
    "tests": "assert f(1) == 1",
}


def grade(case: dict[str, Any]) -> float:
    answer = {"answer": case["reference"]} | (FUNCTION if case["task"] == "code" else {}) | case
    score = import_module(f"rewards.tasks.{case['task']}").score
    return float(score(case["completion"], answer)["correctness"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['task']}: {case['completion'][:60]}")
def test_an_answer_is_graded_right(case: dict[str, Any]) -> None:
    assert grade(case) == float(case["right"])
