"""References that nothing could match are found before anything is sampled."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from rewards.config import RewardsConfig
from rewards.references import reference_check

ANY_TASK = {"length": 1.0}


def fault(grader: str, answer: dict[str, Any], **settings: Any) -> str | None:
    check = reference_check(grader, RewardsConfig(weights=ANY_TASK, **settings))
    assert check is not None
    return check(answer)


@pytest.mark.parametrize(
    ("grader", "answer"),
    [
        ("gsm8k", {"answer": "1,234.50", "steps": ["3"]}),
        ("math", {"answer": "\\frac{1}{2}"}),
        ("math", {"answer": "\\text{even}"}),
        ("multiple_choice", {"answer": "B", "options": ["6000", "600"]}),
        ("exact_match", {"answer": ["New York", "NYC"]}),
        ("exact_match", {"answer": "s,e", "ordered": True}),
        ("countdown", {"numbers": [3, 7, 9], "target": 33}),
        ("text_length", {"target_words": 3}),
        ("period_count", {}),
        ("code", {"kind": "stdio", "tests": [["1", "2"]]}),
        ("reasoning_gym", {"dataset": "graph_color", "settings": {}, "answer": None, "metadata": {}}),
    ],
)
def test_references_that_can_be_matched(grader: str, answer: dict[str, Any]) -> None:
    assert fault(grader, answer) is None


@pytest.mark.parametrize(
    ("grader", "answer", "message"),
    [
        ("gsm8k", {"answer": "many"}, "must be one number"),
        ("gsm8k", {"answer": ""}, "must be one number"),
        ("gsm8k", {}, "KeyError: 'answer'"),
        ("math", {"answer": " "}, "the reference is empty"),
        ("exact_match", {"answer": "a</answer>b"}, "cannot be matched"),
        ("exact_match", {"answer": ["Lima", ""]}, "the reference is empty"),
        ("exact_match", {"answer": []}, "the reference is empty"),
        ("multiple_choice", {"answer": "B"}, "options"),
        ("countdown", {"numbers": [3, 7]}, "KeyError: 'target'"),
        ("text_length", {"target_words": 0}, "set 1 or more"),
        ("code", {"kind": "stdio", "tests": []}, "tests is empty"),
    ],
)
def test_references_that_cannot(grader: str, answer: dict[str, Any], message: str) -> None:
    found = fault(grader, answer)
    assert found is not None and message in found


def test_a_reference_is_checked_once_however_many_rows_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import rewards.tasks.math as math

    asked = []
    score = math.score
    monkeypatch.setattr(math, "score", lambda text, answer: asked.append(text) or score(text, answer))
    check = reference_check("math", RewardsConfig(weights=ANY_TASK))
    assert check is not None
    assert [check({"answer": "72", "steps": [str(number)]}) for number in range(5)] == [None] * 5
    assert len(asked) == 1


@pytest.fixture
def own_grader(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("own_package.own_grader")
    module.PARTS = ("correctness",)  # type: ignore[attr-defined]
    module.score = lambda text, answer: {"correctness": 1 / 0}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_package", ModuleType("own_package"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_grader_of_ones_own_is_not_called_on_copies(own_grader: ModuleType) -> None:
    """Its reference may be anything, and grading may cost whatever it costs."""
    assert reference_check(own_grader.__name__, RewardsConfig(weights=ANY_TASK)) is None
    replaced = RewardsConfig(weights=ANY_TASK, tasks={"gsm8k": "own_package.own_grader:score"})
    assert reference_check("gsm8k", replaced) is None


def test_a_grader_may_say_itself_what_is_wrong(own_grader: ModuleType) -> None:
    own_grader.check_reference = lambda answer: None if answer["tests"] else "tests is empty"  # type: ignore[attr-defined]
    assert fault(own_grader.__name__, {"tests": ["x"]}) is None
    assert fault(own_grader.__name__, {"tests": []}) == "tests is empty"
    assert fault(own_grader.__name__, {}) == "KeyError: 'tests'"
