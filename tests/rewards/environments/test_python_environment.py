"""Python as a tool: what a program defines stays, what it attacks holds, and it always gets an answer."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator

import numpy as np
import pytest

from rewards.environments.python import Python
from rollout.types.prompts import Prompt
from tests.support.cheating_programs import CHEATS
from tests.support.marks import only_in_test_all

HARSHEST = {
    *("leaves when it is called", "writes the verdict", "kills its parent", "never ends"),
    *("forks without end", "takes all memory", "returns too much", "crashes"),
}
"""Attacks that every `make test` tries on the tool. All are tried on the code reward, whose sandbox it has."""
assert CHEATS.keys() >= HARSHEST

PROMPT = Prompt("train/1", np.array([1], dtype=np.int32), "question", "code", {}, environment="python")


@contextlib.contextmanager
def begun(**parameters: object) -> Iterator[Python]:
    python = Python(**parameters)  # type: ignore[arg-type]
    try:
        assert python.start(PROMPT, 1).text == ""
        yield python
    finally:
        python.close()


def ran(python: Python, program: str) -> str:
    """Return what a program's output is, without the tags."""
    said = python.step(f"Let me see.\n<python>{textwrap.dedent(program)}</python>")
    assert not said.is_over
    assert said.text.startswith("\n<output>\n") and said.text.endswith("\n</output>\n")
    return said.text.removeprefix("\n<output>\n").removesuffix("\n</output>\n")


def test_what_a_program_defines_the_next_one_has() -> None:
    with begun() as python:
        assert ran(python, "x = 40\ndef f(y):\n    return x + y\n") == ""
        assert ran(python, "f(2)") == "42"
        assert ran(python, "```python\nprint('a')\nf(3)\n```") == "a\n43"
        assert ran(python, "\n    import math\n    print(math.pi)\n") == "3.141592653589793"
        last = python.step("So it is <answer>42</answer>")
    assert (last.text, last.is_over) == ("", True)
    assert last.parts == {"tool_called": 1.0, "tool_calls": 4.0, "tool_failures": 0.0, "tool_used": 1.0}


def test_fresh_each_call() -> None:
    with begun(stateful=False) as python:
        assert ran(python, "x = 1\nx") == "1"
        assert ran(python, "x") == "line 1: NameError: name 'x' is not defined"


def test_mistakes_are_told_and_lose_nothing() -> None:
    with begun() as python:
        ran(python, "x = 7")
        assert ran(python, "y = 1\nprint('so far')\ny / 0") == "so far\nline 3: ZeroDivisionError: division by zero"
        assert ran(python, "def f(:") == "line 1: SyntaxError: invalid syntax"
        assert ran(python, "import sys\nsys.exit(3)") == ""
        assert ran(python, "class Odd(Exception):\n    def __str__(self): raise KeyError\nraise Odd") == "Odd"
        assert ran(python, "input()") == "line 1: EOFError: EOF when reading a line"
        assert ran(python, "x") == "7"
        assert python.step("That is it.").parts["tool_failures"] == 4.0


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("while True: pass", "the program took longer than 0.3 s and was ended; the variables are lost"),
        ("import os\nos._exit(0)", "the interpreter ended; the variables are lost"),
        ("import ctypes\nctypes.string_at(0)", "the interpreter ended; the variables are lost"),
        ("import os\nos.closerange(0, 64)", "the interpreter ended; the variables are lost"),
    ],
)
def test_a_program_that_ends_its_interpreter_gets_an_answer_and_the_next_a_new_one(program: str, says: str) -> None:
    with begun(time_limit_s=0.3) as python:
        ran(python, "x = 7")
        assert ran(python, program) == says
        assert ran(python, "x") == "line 1: NameError: name 'x' is not defined"
        assert ran(python, "1 + 1") == "2"


def test_output_and_memory_are_bounded_and_nul_is_text() -> None:
    with begun(max_output_characters=20) as python:
        assert ran(python, "print('x' * 10_000_000)") == "x" * 20 + " [… cut]"
        assert ran(python, "while True: print('y' * 100_000)").startswith("y" * 20 + " [… cut]\nline 1: OSError")
        assert ran(python, "print('a\\0<|im_end|>')") == "a\0<|im_end|>"
        assert "MemoryError" in ran(python, "len(bytearray(2**30))")
        assert ran(python, "#" * 20_000) == "the program is longer than 10,000 bytes"


def test_what_it_draws_repeats() -> None:
    outputs = []
    for _ in range(2):
        with begun() as python:
            outputs.append(ran(python, "import random\nrandom.random(), hash('a')"))
    assert outputs[0] == outputs[1]


def test_it_reaches_nothing_of_the_machine() -> None:
    with begun() as python:
        said = ran(
            python,
            """
            import os, socket
            def attempt(what):
                try: return what()
                except OSError: return "refused"
            print(attempt(lambda: socket.socket().connect(("127.0.0.1", 80))), attempt(os.fork),
                  attempt(lambda: open("/etc/passwd").read()), attempt(lambda: os.listdir("/home")),
                  attempt(lambda: open("/proc/1/environ").read()), sorted(os.environ), os.getcwd())
            """,
        )
    assert said == "refused refused refused refused refused ['LANG', 'MALLOC_ARENA_MAX', 'PYTHONHASHSEED'] /tmp"


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        pytest.param(program, id=name) if name in HARSHEST else only_in_test_all(program, id=name)
        for name, program in CHEATS.items()
    ],
)
def test_attacks_on_the_code_reward_leave_the_tool_standing(program: str) -> None:
    """Whatever a program does to its interpreter, it gets a text in bounded time, and the next call works."""
    with begun(time_limit_s=0.5) as python:
        ran(python, program + "\nf(1)")
        python.step("<python>1</python>")  # it may have prepared an answer, to itself
        python.close()
        assert ran(python, "6 * 7") == "42"


def test_forged_answers_only_fool_their_program() -> None:
    with begun(time_limit_s=0.5) as python:
        forged = """
            import os, json
            for number in range(3, 64):
                for frame in (b'\\0\\0\\0\\2[]', b'\\xff\\xff\\xff\\xff'):
                    try: os.write(number, frame)
                    except OSError: pass
        """
        assert ran(python, forged) == "the interpreter ended; the variables are lost"
        assert ran(python, "6 * 7") == "42"
