"""Grade programs by running them in a sandbox against a problem's tests (rewards/sandbox).

The answer to a prompt is a mapping with these keys:

- ``kind``: ``function`` or ``stdio``.
- ``tests``: for functions, Python source with assertions (HumanEval's ``check`` with its call, MBPP's asserts); for
  programs, a list of pairs ``[input, output]``. Outputs are compared without white space (sandbox/judge.py).
- ``functions``: the names that the tests call; ``context``: source that comes before the program and before the tests,
  such as HumanEval's prompt. Both are only for functions.
- optionally ``time_limit_s`` for one call or run, ``total_time_limit_s`` for all tests, and ``memory_mib``.
- ``answer``: a reference solution, for people. It is not used, and no sandbox sees it.

The parameter ``require`` names the protections without which nothing runs: all of ``network``, ``files`` and
``processes``, unless ``rewards.parameters.code.require`` names fewer.

Two parts:

- ``correctness``: 1 if every test passes, else 0.
- ``tests_passed``: the share of tests that pass. If a call takes too long, or ends its process, it and all later tests
  have failed.

The program and the tests run in two separate sandboxes. Only plain data passes between them, so the program cannot
change the verdict by exiting early, by patching the tests, or with objects that claim to be equal. It can still treat
the cases in the prompt as special cases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.parsing.extraction import is_natural, tagged
from rewards.sandbox.box import REQUIRED, Limits, check_protections
from rewards.sandbox.trial import run_trial

PARTS = ("correctness", "tests_passed")

TIME_LIMIT_S = 2.0
"""Seconds of processor time for one call, or one run of a program. The wall-clock limit is three times as long."""
TOTAL_TIME_LIMIT_S = 8.0
"""Seconds of wall-clock time for all tests of a completion: below the default rewards.deadline_s of 10."""
MEMORY_MIB = 512
MAX_PROGRAM_CHARACTERS = 100_000
_FENCE = "```"
_LANGUAGES = ("", "python", "python3", "py")
_STATEMENT = re.compile(
    r"(?:return|if|for|while|with|try|raise|assert|yield|pass|from|import|def)\b|[\w.]{1,80}\("
    r"|[\w.,* \[\]'\"]{1,80}[-+*/%|&^@<>]{0,2}=(?!=)"
)
"""The beginning of a line that may be Python, so that no sandbox is started for prose."""


@dataclass(frozen=True, slots=True)
class ProgramVerdict:
    """The result of a program's tests."""

    passed: int
    total: int
    reason: str
    """For people: the first failure; empty if all tests pass."""

    @property
    def is_correct(self) -> bool:
        return self.passed == self.total > 0


def score(text: str, answer: Mapping[str, Any], *, require: Sequence[str] = REQUIRED) -> dict[str, float]:
    """Return the parts of a completion's reward. ``require`` names the protections without which nothing runs.

    Raises KeyError or ValueError if the answer cannot be used for any text, and SandboxError if this machine lacks a
    required protection.
    """
    may_be_bare = is_natural(answer) and answer["kind"] == "function"
    program = extract_program(text, may_be_bare, answer.get("functions", ()))
    if not program:
        return {"correctness": 0.0, "tests_passed": 0.0}
    verdict = judge(program, answer, require)
    return {"correctness": float(verdict.is_correct), "tests_passed": verdict.passed / verdict.total}


def check_reference(answer: Mapping[str, Any]) -> str | None:
    """Return what is wrong if no program could pass, because there are no tests. Run nothing."""
    return None if answer["tests"] else "tests is empty: there is nothing that a program could pass"


def prepare(*, require: Sequence[str] = REQUIRED) -> None:
    """Raise SandboxError, with the fix, if programs cannot run safely on this machine."""
    check_protections(tuple(require))


def extract_program(text: str, may_be_bare: bool = False, functions: Sequence[str] = ()) -> str | None:
    """Return the program in a completion; None if there is none.

    The first of these that exists is the program:

    1. the content of the last complete pair of answer tags, without a fence around it;
    2. the last closed block that defines one of ``functions``, else the last one fenced as Python, else the last one
       fenced without a language;
    3. with ``may_be_bare``, and without any fence, the text up to the first line that is not indented: the body of a
       function that the prompt began, also if the prompt ended with the first line's indent.
    """
    program = _answer(text, functions)
    if program is None:
        program = _chosen(_blocks(text), functions)
    if program is None and may_be_bare and _FENCE not in text:
        program = _body(text)
    return program if program and program.strip() and len(program) <= MAX_PROGRAM_CHARACTERS else None


def _answer(text: str, functions: Sequence[str]) -> str | None:
    answer = tagged(text)
    if answer is None or _FENCE not in answer:
        return answer
    # The closing tag also closes an open fence. A fence may end the last line of code instead of its own line.
    return _chosen(_blocks(answer.rstrip().removesuffix(_FENCE).rstrip() + f"\n{_FENCE}"), functions)


def _chosen(blocks: Sequence[tuple[str, str]], functions: Sequence[str]) -> str | None:
    """Return the block that is the program; other blocks may show examples of use or output."""
    # Not \s, which also matches line breaks: that takes quadratic time in a program of empty lines.
    defines = re.compile(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+(?:{'|'.join(map(re.escape, functions))})\b", re.MULTILINE)
    wanted = [block for _, block in blocks if functions and defines.search(block)]
    labelled = [block for language, block in blocks if language]
    candidates = wanted or labelled or [block for _, block in blocks]
    return candidates[-1] if candidates else None


def _blocks(text: str) -> list[tuple[str, str]]:
    """Return language and content of each closed fenced block in Python or no language. A fence begins its line."""
    block: list[str] | None = None
    blocks: list[tuple[str, str]] = []
    language = ""
    indent = 0
    for line in text.split("\n"):
        is_fence = line.lstrip().startswith(_FENCE)
        if not is_fence and block is not None:
            block.append(line[indent:] if not line[:indent].strip() else line)
        elif is_fence and block is None:
            block = []
            indent = len(line) - len(line.lstrip())
            language = line.strip().removeprefix(_FENCE).strip().lower()
        elif is_fence:
            if language in _LANGUAGES:
                blocks.append((language, "\n".join(block or [])))
            block = None
    return blocks


def _body(text: str) -> str:
    lines = text.split("\n")
    begin = next((n for n, line in enumerate(lines) if line.strip()), 0)
    rest = begin + 1 if _STATEMENT.match(lines[begin]) else begin
    end = next((n for n, line in enumerate(lines) if n >= rest and line[:1] not in {"", " ", "\t", "\r"}), len(lines))
    return "\n".join(lines[:end])


def judge(program: str, answer: Mapping[str, Any], require: Sequence[str] = REQUIRED) -> ProgramVerdict:
    """Run the tests and return the verdict. Raises the same errors as ``score``."""
    problem = {
        "kind": answer["kind"],
        "tests": answer["tests"],
        "functions": answer.get("functions", []),
        "context": answer.get("context", ""),
        "time_limit_s": answer.get("time_limit_s", TIME_LIMIT_S),
        "total_time_limit_s": answer.get("total_time_limit_s", TOTAL_TIME_LIMIT_S),
    }
    if problem["kind"] not in {"function", "stdio"}:
        raise ValueError(f"kind = {problem['kind']!r}: must be function or stdio")
    role = "functions" if problem["kind"] == "function" else "programs"
    job = {"program": program, **{name: problem[name] for name in ("context", "functions", "time_limit_s")}}
    limits = Limits(problem["total_time_limit_s"], answer.get("memory_mib", MEMORY_MIB))
    result = run_trial(role, job, problem, limits, require)
    if result is None:  # the program's values used up the judge's time or memory
        return ProgramVerdict(0, 1, "the tests did not come to an end")
    if "invalid" in result:
        raise ValueError(f"this problem cannot be judged: {result['invalid']}")
    return ProgramVerdict(**result)
