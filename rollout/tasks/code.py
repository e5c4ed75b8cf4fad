"""Programs to write: functions that tests call (HumanEval, MBPP) and programs that read and print (CodeContests).

The columns of a row tell its schema; the data sets are `openai/openai_humaneval`, `google-research-datasets/mbpp` and
`deepmind/code_contests`, or files with their columns. Rows that cannot be judged are left out: MBPP's whose tests build
objects of the solution's own classes, and contest problems that need a picture or read from a file.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from rollout.tasks.base import ListedProblems, Problem, WorkedExample
from rollout.tasks.datasets import (
    ListedConfig,
    Row,
    RowError,
    column,
    listed_problems,
    same_question,
    shown,
    text_column,
)

TEMPLATE = (
    "{question}\nThink in <think> </think> tags. Then write the whole Python program between <answer> and </answer>, "
    "in one block that begins with ```python and ends with ```."
)
NATURAL_TEMPLATE = (
    "{question}\nThink step by step, and end with the whole Python program in one block that begins with ```python and "
    "ends with ```."
)
EXAMPLE = WorkedExample(
    fields={
        "question": "Write a function that returns the largest even number of a list, or None.\n"
        "It must pass tests such as:\nassert largest_even([3, 8, 4]) == 8"
    },
    completion=(
        "I keep the even numbers. `max` of nothing fails, so I give it a default.</think>\n<answer>\n```python\n"
        "def largest_even(numbers):\n    return max((n for n in numbers if n % 2 == 0), default=None)\n```\n</answer>"
    ),
)

DIFFICULTIES = ("", "easy", "medium", "hard", "harder", "hardest", "external")
"""CodeContests' labels, by number. From 7 on they are the letters of Codeforces, from A."""
RATING_STEP = 400


class CodeConfig(ListedConfig, frozen=True):
    """HumanEval, MBPP or CodeContests. Solutions are run; rewards/sandbox says what protects the machine."""

    source: str = "google-research-datasets/mbpp"
    """A local .jsonl or .parquet file, or a hub data set. Columns of HumanEval: `prompt`, `entry_point`, `test`; of
    MBPP: `text` (or `prompt`), `code`, `test_list`; of CodeContests: `description`, `public_tests`, `private_tests`,
    `generated_tests`. HumanEval has the split `test` only."""
    subset: str = ""
    """Subset (configuration) of the hub data set `source`, such as MBPP's `sanitized`. Empty: its only or default
    one."""
    bare: bool = False
    """HumanEval only: the question is only the head of the function, for a base model to continue. Use it with chat =
    false, format = "natural" and natural_template = "{question}"."""
    max_tests: int = Field(default=20, ge=1)
    """Largest number of tests of a CodeContests problem: first public, then private, then generated ones. Each is a
    run."""
    max_test_bytes: int = Field(default=100_000, ge=1)
    """Longest input and output together of a CodeContests test; longer tests are left out, as prompts travel with
    them."""
    time_limit_s: float = Field(default=2.0, gt=0, le=3_600)
    """CPU seconds for one call, or one run. The wall-clock limit of a test is three times as long. A CodeContests
    problem that states more gets more."""
    total_time_limit_s: float = Field(default=8.0, gt=0, le=3_600)
    """Wall-clock seconds for all tests of a completion. Keep it below the seconds that rewards.deadlines_s or
    rewards.deadline_s allow."""
    memory_mib: int = Field(default=512, ge=64, le=1_048_576)
    """MiB of address space that a program may use, about 30 of them Python's own."""


SETTINGS = CodeConfig


def fields(config: CodeConfig) -> tuple[tuple[str, ...], ...]:
    return (("question",),)


def source(config: CodeConfig, num_held_out: int, seed: int) -> ListedProblems:
    """Return the problems that `config` describes. Raises as `listed_problems` does."""
    return listed_problems(config, "code", lambda row, where: parse_row(row, where, config), num_held_out, seed)


def parse_row(row: Row, where: str, config: CodeConfig) -> Problem | None:
    """Return the problem of a row; None for one that cannot be judged. Raises RowError for one of no known schema."""
    if "entry_point" in row:
        question, answer = _humaneval(row, where, config.bare)
    elif "test_list" in row:
        question, answer = _mbpp(row, where)
    elif "public_tests" in row:
        question, answer = _contest(row, where, config)
    else:
        raise RowError(f"{where}: needs `entry_point` (HumanEval), `test_list` (MBPP) or `public_tests`: {shown(row)}")
    if not answer:
        return None
    limits = {
        "time_limit_s": max(config.time_limit_s, _stated_limit_s(row)),
        "total_time_limit_s": config.total_time_limit_s,
        "memory_mib": config.memory_mib,
    }
    return Problem({"question": question}, {**answer, **limits}, same_question(question), difficulty(row))


def difficulty(row: Row) -> str:
    """Return CodeContests' rating in steps of 400, or else its label; an empty text for the other data sets."""
    rating, label = int(row.get("cf_rating") or 0), int(row.get("difficulty") or 0)
    if rating > 0:
        low = rating // RATING_STEP * RATING_STEP
        return f"rating {low} to {low + RATING_STEP - 1}"
    return DIFFICULTIES[label] if label < len(DIFFICULTIES) else chr(ord("A") + label - len(DIFFICULTIES))


def _humaneval(row: Row, where: str, bare: bool) -> tuple[str, dict[str, Any]]:
    head, name = str(column(row, "prompt", where)), text_column(row, "entry_point", where)
    return head if bare else f"Complete this Python function:\n```python\n{head.strip()}\n```", {
        "kind": "function",
        "functions": [name],
        "context": head,
        "tests": f"{column(row, 'test', where)}\ncheck({name})\n",
        "answer": f"{head}{row.get('canonical_solution') or ''}",
    }


def _mbpp(row: Row, where: str) -> tuple[str, dict[str, Any]]:
    tests = [str(test) for test in (*column(row, "test_list", where), *(row.get("challenge_test_list") or ()))]
    code = text_column(row, "code", where)
    question = f"{text_column(row, ('text', 'prompt'), where)}\nIt must pass tests such as:\n{tests[0]}"
    try:
        setup = "\n".join(
            [*_imports(code, "\n".join(tests)), *(row.get("test_imports") or ()), str(row.get("test_setup_code") or "")]
        )
        functions = _functions(code, "\n".join([setup, *tests]))
    except (SyntaxError, ValueError) as error:
        raise RowError(f"{where}: its code and tests are not valid Python ({error}): {shown(row)}") from error
    if not functions:
        return question, {}
    return question, {
        "kind": "function",
        "functions": functions,
        "context": "",
        "tests": "\n".join([setup, *tests]),
        "answer": code,
    }


def _imports(code: str, tests: str) -> list[str]:
    """Return imports of the reference whose names the tests use too: some tests rely on the solution's imports."""
    used = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in imports if any((name.asname or name.name) in used for name in node.names)]


def _functions(code: str, tests: str) -> list[str]:
    """Return the functions of the reference that the tests name; none when more than plain data would have to cross.

    That is so when the tests name the reference's classes, or pass a type to one of its functions.
    """
    nodes = list(ast.walk(ast.parse(tests)))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    defined = [node for node in ast.parse(code).body if getattr(node, "name", None) in used]
    functions = {node.name for node in defined if isinstance(node, ast.FunctionDef)}
    calls = [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", None) in functions]
    passed = {argument.id for call in calls for argument in call.args if isinstance(argument, ast.Name)}
    if len(functions) < len(defined) or passed & vars(builtins).keys():
        return []
    return sorted(functions)


def _contest(row: Row, where: str, config: CodeConfig) -> tuple[str, dict[str, Any]]:
    description = text_column(row, "description", where)
    tests = [pair for pair in _pairs(row, where) if len(pair[0]) + len(pair[1]) <= config.max_test_bytes]
    if not tests or "<image>" in description or row.get("input_file") or row.get("output_file"):
        return description, {}
    question = f"{description}\n\nWrite a Python program that reads from standard input and prints the result."
    return question, {"kind": "stdio", "tests": tests[: config.max_tests], "answer": ""}


def _pairs(row: Row, where: str) -> Iterator[list[str]]:
    for name in ("public_tests", "private_tests", "generated_tests"):
        tests: Mapping[str, Iterable[str]] = row.get(name) or {}
        try:
            yield from (
                [str(given), str(printed)] for given, printed in zip(tests["input"], tests["output"], strict=True)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RowError(f"{where}: `{name}` must hold as many `input` as `output`: {shown(row)}") from error


def _stated_limit_s(row: Row) -> float:
    limit = row.get("time_limit") or {}
    return float(limit.get("seconds") or 0) + float(limit.get("nanos") or 0) / 1e9
