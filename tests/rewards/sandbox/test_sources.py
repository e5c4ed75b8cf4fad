"""Programs are read as their writers meant them, whatever became of the indent of their first line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from rewards.sandbox.sources import compiled
from tests.support.shared_data import needs_shared_data, read_rows

HEAD = 'def f(x):\n    """Return it."""\n'
TABS = 'class A:\n    pass\n\ndef f(\n    x: int,\n) -> int:\n\t"""Return it.\n  odd"""\n'
BODIES = [
    "    return x",
    "return x",
    " return x",
    "\treturn x",
    "\n\treturn x\n",
    "   \n    return x\n  ",
    "    return x\r\n",
    "\n  return x\n",
    "\n        y = x\n        return y\n",
    "if x == 1:\n        return 1\n    return x",
    "if x == 1:\n    return 1\nreturn x",
    "\n\tif x == 1:\n\t\treturn x\n\treturn x\n",
    " y = x\n    return y",
    "y = x; return y",
    "    def g(x):\n        return x\n    return g(x)",
    "def f2(x):\n    return x\nreturn f2(x)",
    "    return x\n\n\nprint(f(1))",
    "# it is x\nreturn x",
    '    s = """\na\n"""\n    return x',
]
MODULES = [
    "def f(x): return x",
    " def f(x):\n    return x",
    "    def f(x):\n        return x\n    ",
    "\tdef f(x):\n\t\treturn x",
    "\n\nf = lambda x: x",
    "    def g(x):\n        return x\n    def f(x):\n        return g(x)",
]


def run(context: str, program: str, functions: tuple[str, ...] = ("f",)) -> dict[str, Any]:
    namespace: dict[str, Any] = {"print": lambda *_: None}
    for code in compiled(context, program, functions):
        exec(code, namespace)  # noqa: S102  programs of this file
    return namespace


@pytest.mark.parametrize("context", [HEAD, TABS, f"import math\n\nVALUE = 1\n\n{HEAD}    # your code here\n"])
@pytest.mark.parametrize("program", BODIES + MODULES)
def test_a_body_or_a_whole_function_behind_its_head(program: str, context: str) -> None:
    assert [run(context, program)["f"](value) for value in (1, 5)] == [1, 5]


@pytest.mark.parametrize("program", MODULES)
@pytest.mark.parametrize("context", ["", "VALUE = 1\n"])
def test_a_whole_function_without_a_head(program: str, context: str) -> None:
    assert run(context, program)["f"](5) == 5


@pytest.mark.parametrize(
    "program", ["pass", "    pass", "def g(x): return x", "    def g(x):\n        return x", "x = x"]
)
def test_what_does_not_return_it_is_still_wrong(program: str) -> None:
    with pytest.raises((NameError, AssertionError)):
        assert run(HEAD, program)["f"](5) == 5


@pytest.mark.parametrize("program", ["return x x", "I return x", "    return x x", "return '", "return x\0"])
def test_what_is_no_python_is_said_to_be_none(program: str) -> None:
    with pytest.raises((SyntaxError, ValueError)):
        compiled(HEAD, program, ("f",))


@pytest.mark.parametrize(
    "program",
    [
        " y = 2",
        "    y = 1\n    if y:\n        y = 2",
        "\ty = 1\n\tif y:\n\t\ty = 2",
        " y = 1\nif y:\n    y = 2",
        ' y = len("""\n   a""") // 2',
    ],
)
def test_a_program_that_begins_indented(program: str) -> None:
    assert run("", program, ())["y"] == 2


def with_tabs(body: str) -> str:
    return re.sub("(?m)^ +", lambda found: "\t" * (len(found[0]) // 2), body)


@needs_shared_data
@pytest.mark.parametrize("change", [str, str.lstrip, textwrap.dedent, with_tabs])
def test_the_solutions_of_humaneval_are_read_whatever_became_of_their_indent(change: Callable[[str], str]) -> None:
    for row in read_rows("humaneval.jsonl"):
        head, body, name = (row[key] for key in ("prompt", "canonical_solution", "entry_point"))
        found, wanted = (run(head, program, (name,))[name] for program in (change(body), head + body))
        assert found.__code__.co_code == wanted.__code__.co_code, row["task_id"]
