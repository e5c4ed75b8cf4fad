"""Programs to write, from rows of the three schemas: what is asked, what verifies it, what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewards.tasks.code import judge
from rollout.prompts.config import PromptsConfig
from rollout.prompts.stream import PromptStream
from rollout.tasks import code
from rollout.tasks.code import CodeConfig
from rollout.tasks.datasets import RowError
from tests.support.byte_tokenizer import Bytes
from tests.support.paths import SHARED_DATA

DATA = SHARED_DATA

HUMANEVAL = {
    "task_id": "Test/0",
    "prompt": 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """ Sum of a list.\n    """\n',
    "entry_point": "total",
    "canonical_solution": "    return sum(xs)\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n"
    "    assert candidate([]) == 0\n",
}
MBPP = {
    "task_id": 1,
    "text": "Write a function to find the largest number of a list.",
    "code": "import sys\r\ndef largest(xs):\r\n  return max(xs)",
    "test_list": ["assert largest([1, 3, 2]) == 3", "assert largest([-1]) == -1 < sys.maxsize"],
    "test_setup_code": "",
    "challenge_test_list": ["assert largest([5, 5]) == 5"],
}
CONTEST = {
    "name": "1_A. Sum",
    "description": "Read two numbers and print their sum.",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": ["4 5\n"], "output": ["9\n"]},
    "generated_tests": {"input": ["0 0\n", "7 " + "0" * 300 + "8\n"], "output": ["0\n", "15\n"]},
    "difficulty": 7,
    "cf_rating": 0,
    "time_limit": {"seconds": 2, "nanos": 500_000_000},
    "input_file": "",
    "output_file": "",
}


def problem(row: dict[str, Any], **settings: Any):
    return code.parse_row(row, "row 0", CodeConfig(**settings))


def test_humaneval() -> None:
    asked = problem(HUMANEVAL)
    assert HUMANEVAL["prompt"].strip() in asked.fields["question"] and "assert" not in asked.fields["question"]
    assert judge("def total(xs):\n    return sum(xs)", asked.answer).is_correct
    assert judge(asked.answer["answer"], asked.answer).is_correct
    assert judge("def total(xs):\n    return 3", asked.answer).passed == 1
    assert problem(HUMANEVAL, bare=True).fields["question"] == HUMANEVAL["prompt"]


def test_mbpp_shows_one_test_and_judges_by_all() -> None:
    asked = problem(MBPP)
    assert MBPP["test_list"][0] in asked.fields["question"] and "largest([-1])" not in asked.fields["question"]
    verdict = judge(MBPP["code"], asked.answer)
    assert verdict.is_correct and verdict.total == 3
    assert judge("def largest(xs): return 3", asked.answer).passed == 1


def test_mbpp_sanitized_names_its_columns_otherwise() -> None:
    row = {key: MBPP[key] for key in ("code", "test_list")}
    asked = problem(row | {"prompt": MBPP["text"], "test_imports": ["import math"]})
    assert judge(MBPP["code"], asked.answer).is_correct


def test_contests_keep_the_public_tests_and_state_their_limit() -> None:
    asked = problem(CONTEST, max_tests=3, max_test_bytes=100)
    assert asked.answer["tests"] == [["1 2\n", "3\n"], ["4 5\n", "9\n"], ["0 0\n", "0\n"]]
    assert problem(CONTEST, max_tests=2).answer["tests"] == asked.answer["tests"][:2]
    assert asked.answer["time_limit_s"] == 2.5
    assert judge("print(sum(map(int, input().split())))", asked.answer).is_correct


@pytest.mark.parametrize(
    ("row", "difficulty"),
    [
        *[(HUMANEVAL, ""), (MBPP, ""), (CONTEST, "A")],
        *[(CONTEST | {"difficulty": 9}, "C"), (CONTEST | {"difficulty": 2}, "medium")],
        *[(CONTEST | {"cf_rating": 1300}, "rating 1200 to 1599"), (CONTEST | {"difficulty": 0}, "")],
    ],
)
def test_difficulty(row: dict[str, Any], difficulty: str) -> None:
    assert problem(row).difficulty == difficulty


@pytest.mark.parametrize(
    "row",
    [
        MBPP | {"code": "class Pair: pass\ndef longest(xs): return 1", "test_list": ["assert longest([Pair()]) == 1"]},
        MBPP | {"test_list": ["assert largest(int) == 3"]},
        MBPP | {"code": "largest = max"},
        CONTEST | {"description": "See <image>."},
        CONTEST | {"input_file": "input.txt"},
        CONTEST | {name: {"input": [], "output": []} for name in ("public_tests", "private_tests", "generated_tests")},
    ],
)
def test_what_cannot_be_judged_is_left_out(row: dict[str, Any]) -> None:
    assert problem(row) is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "?"}, "needs `entry_point`"),
        ({**HUMANEVAL, "test": None}, "no 'test'"),
        ({**MBPP, "code": "def f("}, "not valid Python"),
        ({**MBPP, "text": None}, "no 'text' or 'prompt'"),
        ({**CONTEST, "public_tests": {"input": ["1"], "output": []}}, "as many `input` as `output`"),
    ],
)
def test_malformed_rows_are_named(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError, match=f"row 0: .*{reason}"):
        problem(row)


def test_held_out_problems_are_never_trained_on(tmp_path: Path) -> None:
    rows = [MBPP | {"text": f"Write function number {number}."} for number in range(12)]
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    config = PromptsConfig(
        task="code", chat=False, num_held_out=4, max_prompt_tokens=2000, code={"source": str(tmp_path / "mbpp.jsonl")}
    )
    stream = PromptStream(config, Bytes())
    held_out = {prompt.key for prompt in stream.held_out()}
    trained = {prompt.key for prompt in stream.take(24)}
    assert (len(held_out), len(trained), held_out & trained) == (4, 8, set())
    assert {prompt.grader for prompt in stream.take(3)} == {"code"}


def test_another_file_may_be_held_out(tmp_path: Path) -> None:
    for name, row in (("train", MBPP), ("eval", HUMANEVAL)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    config = CodeConfig(source=str(tmp_path / "train.jsonl"), held_out_source=str(tmp_path / "eval.jsonl"))
    found = code.source(config, 1, 0)
    assert "total" in found.held_out[0].fields["question"] and "largest" in found.train(0).fields["question"]


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data is not here")
def test_all_of_humaneval_is_asked() -> None:
    found = code.source(CodeConfig(source=str(DATA / "humaneval.jsonl")), 64, 0)
    assert len(found.held_out) == 64 and found.num_problems == 100
    answer = found.train(0).answer
    assert json.loads(json.dumps(answer)) == answer and judge(answer["answer"], answer).is_correct
