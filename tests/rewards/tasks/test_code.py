"""Programs are graded by what they compute: honest ones pass, and nothing that only looks like it does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.sandbox.box import SandboxError
from rewards.tasks import code
from rewards.tasks.code import extract_program, judge, score
from tests.support.cheating_programs import CHEATS
from tests.support.marks import only_in_test_all
from tests.support.shared_data import needs_shared_data, read_rows

INCREMENT = {
    "kind": "function",
    "functions": ["f"],
    "tests": "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(41) == 42\n"
    "    assert candidate([3, 1]) == [1, 3]\n    assert True\ncheck(f)\n",
    "time_limit_s": 1.0,
    "total_time_limit_s": 4.0,
}
SOLUTION = "def f(x):\n    return x + 1 if isinstance(x, int) else sorted(x)\n"
ADD = {"kind": "stdio", "tests": [["1 2\n", "3\n"], ["20 22\n", "42\n"], ["0 0\n", "0\n"]], "time_limit_s": 1.0}


def tagged(program: str) -> str:
    return f"Let me solve this step by step.\n<think>Easy.</think>\n<answer>\n```python\n{program}\n```\n</answer>"


def test_a_right_program_a_half_right_one_and_none() -> None:
    assert score(tagged(SOLUTION), INCREMENT) == {"correctness": 1.0, "tests_passed": 1.0}
    assert score(tagged("def f(x): return 42 if x == 41 else x"), INCREMENT) == {
        "correctness": 0.0,
        "tests_passed": 1 / 3,
    }
    assert score(tagged("def g(x): return x"), INCREMENT) == {"correctness": 0.0, "tests_passed": 0.0}
    assert score("I do not know.", INCREMENT) == {"correctness": 0.0, "tests_passed": 0.0}


def test_a_test_that_raises_fails_alone() -> None:
    assert judge("def f(x): return x + 1", INCREMENT).passed == 2


@pytest.mark.parametrize("program", CHEATS.values(), ids=CHEATS)
def test_cheating_does_not_pay(program: str) -> None:
    verdict = judge(program, INCREMENT)
    assert not verdict.is_correct and verdict.passed == 0, verdict


def test_a_test_that_counts_what_it_is_given_cannot_be_cut_short() -> None:
    answer = INCREMENT | {"tests": "assert all(map(f, [1, 2]))\nassert not list(zip(map(f, [1]), [1]))"}
    assert judge("def f(x): raise StopIteration", answer).passed == 0


def test_a_test_that_swallows_every_error_is_not_passed_by_a_process_that_ends() -> None:
    answer = INCREMENT | {"tests": "try:\n    assert f(1) == 2\nexcept BaseException:\n    pass"}
    assert not judge("import os\ndef f(x): os._exit(0)", answer).is_correct


def test_exceptions_cross_as_their_builtin_type() -> None:
    tests = "try:\n    f(0)\nexcept ValueError as error:\n    assert str(error) == 'below 1'\nelse:\n    assert False\n"
    answer = INCREMENT | {"tests": tests.replace("assert False", "assert f is None")}
    assert judge("def f(x): raise ValueError('below 1')", answer).is_correct
    assert judge("class Low(ValueError): pass\ndef f(x): raise Low('below 1')", answer).is_correct
    assert not judge("def f(x): raise TypeError('below 1')", answer).is_correct
    assert not judge("def f(x): return 0", answer).is_correct


def test_an_argument_is_a_copy() -> None:
    answer = INCREMENT | {"tests": "numbers = [3, 1]\nf(numbers)\nassert numbers == [3, 1]"}
    assert judge("def f(numbers): numbers.sort()", answer).is_correct


def test_the_prompts_own_functions_in_a_test_are_the_prompts() -> None:
    context = "def double(x):\n    return 2 * x\n\ndef halve(x):\n"
    answer = INCREMENT | {"functions": ["halve"], "context": context + '    """Undoes double."""\n'}
    answer |= {"tests": "assert halve(double(7)) == 7"}
    assert judge("def halve(x): return x // 2", answer).is_correct
    assert judge("def halve(x): return double(x) // 4", answer).is_correct
    assert not judge("def double(x): return x\ndef halve(x): return x", answer).is_correct


@pytest.mark.parametrize(
    "program",
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        "import sys\nsys.stdout.write(f'{sum(map(int, sys.stdin.buffer.read().split()))}  \\n\\n')",
        "def main():\n    print(sum(map(int, open(0).read().split())))\n    exit()\n"
        "if __name__ == '__main__':\n    main()",
    ],
)
def test_programs_that_read_and_print(program: str) -> None:
    assert score(tagged(program), ADD) == {"correctness": 1.0, "tests_passed": 1.0}


@pytest.mark.parametrize(
    ("program", "passed"),
    [
        ("print(3)", 1),
        ("print(sum(map(int, input().split())))\nraise ValueError", 0),
        ("print(sum(map(int, input().split())), flush=True)\nimport os\nos._exit(1)", 0),
        ("print('3 42 0')", 0),
        (
            "import os\nfor number in range(100):\n    try: print(os.pread(number, 1000, 0))\n    except OSError: pass",
            0,
        ),
        ("count = open('count', 'a+')\ncount.write('x')\ncount.seek(0)\nprint([3, 42, 1][len(count.read()) - 1])", 2),
        ("while True: print('x' * 1000)", 0),
        ("while True: pass", 0),
    ],
)
def test_programs_that_do_not_do_it(program: str, passed: int) -> None:
    verdict = judge(program, ADD)
    assert (verdict.passed, verdict.total) == (passed, 3)


@pytest.mark.parametrize(
    ("printed", "expected", "is_same"),
    [
        ("1  2\n3", "1 2\n3\n", True), ("1 2", "1 2 3", False), ("YES", "yes", False),
        ("0.3333333", "0.33333333", True),
        ("0.34", "0.33", False), ("7.0", "7", False), ("nan", "1.5", False), ("1e999", "1.5", False), ("", "", True),
    ],
)  # fmt: skip
def test_outputs_are_compared_by_their_words(printed: str, expected: str, is_same: bool) -> None:
    from rewards.sandbox.judge import prints_the_same

    assert prints_the_same(printed, expected) is is_same


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<answer>\nx = 1\n</answer>", "\nx = 1\n"),
        ("<answer>```python\nx = 1\n```</answer>", "x = 1"),
        ("<answer>\n```python\nx = 1\n```\n</answer>", "x = 1"),
        ("<answer>\nx = 1</answer> or <answer>\nx = 2</answer>", "\nx = 2"),
        ("<answer>\nx = 1</answer> or <answer>\nx = 2", "\nx = 1"),
        ("```python\nx = 1\n```\n<answer>\nx = 2</answer>", "\nx = 2"),
        ("```python\nx = 1\n```\nNo:\n```py\nx = 2\n```\nSo be it.", "x = 2"),
        ("```python\nx = 1\n```\n```bash\nls\n```", "x = 1"),
        ("```python\nx = 1\n```\n```python\nx = 2", "x = 1"),
        ("1. Do:\n   ```python\n   if x:\n       y = 1\n   ```\n", "if x:\n    y = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("<answer>    return x</answer>", "    return x"),
        ("x = 1", None),
        ("<answer></answer>", None),
        ("<answer>" + "x" * 100_001 + "</answer>", None),
    ],
)
def test_where_the_program_is(text: str, program: str | None) -> None:
    assert extract_program(text) == program


def test_a_bare_body_goes_on_where_the_prompt_ended() -> None:
    answer = INCREMENT | {"context": 'def f(x):\n    """Adds 1, or sorts."""\n', "extraction": "natural"}
    body = "    if isinstance(x, int):\n        return x + 1\n\n    return sorted(x)\n"
    body += "\n\ndef g(x):\n    return 1\n# and so on"
    assert score(body, answer)["correctness"] == 1.0
    assert score("    pass\n", answer)["correctness"] == 0.0
    assert score(body.lstrip(), answer)["correctness"] == 1.0
    assert score(f"So:\n```python\n{SOLUTION}```", answer)["correctness"] == 1.0
    del answer["extraction"]
    assert score(body, answer)["correctness"] == 0.0


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("    return x\n\n\ndef g(): pass", "    return x\n\n"),
        ("return x\nSo it is.", "return x"),
        ("y = x\n    return y\nprint(1)", "y = x\n    return y"),
        ("\nfor y in x:\n        pass\n    return y", "\nfor y in x:\n        pass\n    return y"),
        ("So it is\n    return x", None),
        ("I would return x.", None),
    ],
)
def test_a_bare_body_ends_before_the_first_line_outside(text: str, program: str | None) -> None:
    assert extract_program(text, may_be_bare=True) == program


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tests": "assert f("}, "not Python"),
        ({"tests": "f(1)"}, "no test"),
        ({"tests": "assert True"}, "no test"),
        ({"tests": "import no_such_module\nassert f(1) == 2"}, "its tests raise ModuleNotFoundError"),
        ({"context": "1 / 0"}, "its context raises ZeroDivisionError"),
        ({"tests": "assert f(int) == 2"}, "an argument that is not plain data"),
        ({"kind": "stdio", "tests": []}, "no tests"),
        ({"kind": "essay"}, "must be function or stdio"),
    ],
)
def test_a_problem_that_nobody_can_pass_is_an_error_and_not_a_zero(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        judge(SOLUTION, INCREMENT | change)


def test_a_recipe_can_ask_for_protection_and_does_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    from rewards.sandbox import box

    monkeypatch.setitem(box.GUARDS, "everything", (frozenset({"a miracle"}),))
    monkeypatch.setattr(box, "is_guarded", lambda what, active: what != "everything")
    with pytest.raises(SandboxError, match=r"nothing protects everything; .* rewards.parameters.code.require"):
        judge(SOLUTION, INCREMENT, require=["network", "everything"])
    code.prepare()
    with pytest.raises(ValueError, match=r"names \['netwrok'\]: known are network"):
        code.prepare(require=["netwrok"])


def humaneval() -> list[tuple[dict[str, object], str]]:
    """Return each problem's answer and canonical solution."""
    rows = read_rows("humaneval.jsonl")
    return [
        (
            {
                "kind": "function",
                "functions": [row["entry_point"]],
                "context": row["prompt"],
                "tests": f"{row['test']}\ncheck({row['entry_point']})\n",
                "total_time_limit_s": 60.0,
                "time_limit_s": 20.0,  # a machine that is busy with other tests
            },
            row["canonical_solution"],
        )
        for row in rows
    ]


def outcomes(cases: list[tuple[str, dict[str, object]]]) -> list[dict[str, float]]:
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(lambda case: score(*case), cases))


@pytest.mark.slow
@needs_shared_data
@pytest.mark.parametrize("every", [only_in_test_all(1), 8])
def test_all_of_humaneval_passes_and_empty_functions_never_do(every: int) -> None:
    problems = humaneval()
    assert len(problems) == 164
    problems = problems[::every]
    whole = outcomes([(tagged(f"{answer['context']}{body}"), answer) for answer, body in problems])
    empty = outcomes([(tagged(f"{answer['context']}    pass\n"), answer) for answer, _ in problems])
    assert [parts["correctness"] for parts in whole] == [1.0] * len(problems)
    assert [parts["correctness"] for parts in empty] == [0.0] * len(problems)
    assert all(parts["tests_passed"] == 1.0 for parts in whole)


PIECES = ["", "\n", "```", "    ", "return ", "os._exit(0)", "</answer>", "(", "\0", "é", "\ud800"]
MUTATIONS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(PIECES)), max_size=6)


@pytest.mark.long
@pytest.mark.slow
@given(st.text(max_size=200) | MUTATIONS.map(lambda edits: mutated(tagged("def f(x):\n    return 0\n"), edits)))
@settings(max_examples=60)
def test_any_text_is_graded_and_none_by_chance_right(text: str) -> None:
    assert score(text, INCREMENT | {"extraction": "natural"})["correctness"] == 0.0


def mutated(text: str, edits: list[tuple[int, str]]) -> str:
    for position, new in edits:
        text = text[:position] + new + text[position + len(new) :]
    return text
