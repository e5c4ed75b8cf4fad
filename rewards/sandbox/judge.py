"""The box that gives the verdict. It runs the tests, in which the candidate's functions are proxies.

It sends the verdict through the status pipe: ``{"passed": n, "total": n, "reason": text}``, or ``{"invalid": reason}``
if no program could pass, because the problem itself is broken.
"""

from __future__ import annotations

import ast
import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator

from rewards.sandbox import plain
from rewards.sandbox.processor import STRETCH, Calls
from rewards.sandbox.proxy import Candidate, Unanswered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLOAT_TOLERANCE = 1e-6
"""Absolute or relative tolerance (the larger one counts) for printed numbers, if the expected one has a decimal point.
"""


class Invalid(Exception):
    """The problem cannot be judged, for any program."""


class Wrong(Exception):
    """A test of a program failed."""


def judge(job: dict[str, Any], lock: Callable[[], None]) -> None:
    """Judge one program by a problem's tests, ``job["problem"]`` (rewards/tasks/code.py)."""
    problem = job["problem"]
    lock()
    candidate = Candidate(job["requests"], job["replies"], Calls(job["calls"]))
    try:
        prepare = _functions if problem["kind"] == "function" else _programs
        total, run = prepare(problem, candidate)
        tests = Tests(total, candidate, STRETCH * problem["time_limit_s"])
        try:
            candidate.wait()
            tests.allow(problem["total_time_limit_s"])
            run(tests)
        except Unanswered as error:
            tests.fail(describe(error))
        signal.setitimer(signal.ITIMER_REAL, 0)
        verdict = tests.verdict()
    except Invalid as error:
        verdict = {"invalid": str(error)}
    plain.write(job["status"], verdict)


class Tests:
    """Records which tests started, and which failed. A signal ends a test that takes too long."""

    def __init__(self, total: int, candidate: Candidate, limit_s: float) -> None:
        self.total = total
        self.reason = ""
        """The first failure."""
        self._candidate = candidate
        self._limit_s = limit_s
        self._deadline = math.inf
        self._entered: set[int] = set()
        self._failed: set[int] = set()
        signal.signal(signal.SIGALRM, candidate.late)

    def allow(self, seconds: float) -> None:
        """Start the time limit of all tests."""
        self._deadline = time.monotonic() + seconds
        self._set_alarm(math.inf)

    @contextlib.contextmanager
    def test(self, index: int) -> Iterator[None]:
        """Wrap a test, so that it fails alone, and within its time."""
        self._entered.add(index)
        try:
            with self.in_time():
                yield
        except BaseException as error:  # noqa: BLE001  a test may do anything with a candidate's result
            self._failed.add(index)
            self.fail(f"test {index + 1}: {describe(error)}")
        if self._candidate.failure:  # also if the test caught the exception: it got no answer
            self._failed.add(index)

    @contextlib.contextmanager
    def in_time(self) -> Iterator[None]:
        """Raise Unanswered after the time of one test."""
        self._set_alarm(self._limit_s)
        yield
        self._set_alarm(math.inf)

    def fail(self, reason: str) -> None:
        self.reason = self.reason or reason[:300]

    def verdict(self) -> dict[str, Any]:
        return {"passed": len(self._entered - self._failed), "total": self.total, "reason": self.reason}

    def _set_alarm(self, seconds: float) -> None:
        remaining_s = max(0.001, self._deadline - time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, min(seconds, remaining_s))


def _functions(problem: dict[str, Any], candidate: Candidate) -> tuple[int, Callable[[Tests], None]]:
    code, total = _separate(problem["tests"])
    scope: dict[str, Any] = {"__name__": "tests"}
    if "random" in problem["tests"]:
        import random

        random.seed(0)  # every completion gets the same cases
    try:
        exec(problem["context"], scope)  # noqa: S102  the question's own code, in a box without anything of value
    except Exception as error:
        raise Invalid(f"its context raises {describe(error)}") from error
    scope.update({name: candidate.function(name) for name in problem["functions"]})

    def run(tests: Tests) -> None:
        scope["__test__"] = tests.test
        try:
            with tests.in_time():
                candidate.load()
            exec(code, scope)  # noqa: S102
        except Exception as error:
            if not candidate.was_asked:
                raise Invalid(f"its tests raise {describe(error)}") from error
            tests.fail(describe(error))
        if candidate.unaskable:
            raise Invalid(candidate.unaskable)

    return total, run


def _programs(problem: dict[str, Any], candidate: Candidate) -> tuple[int, Callable[[Tests], None]]:
    if not problem["tests"]:
        raise Invalid("it has no tests")

    def run(tests: Tests) -> None:
        for index, (given, expected) in enumerate(problem["tests"]):
            with tests.test(index):
                printed, ended_well = candidate.run(given)
                if not ended_well:
                    raise Wrong("it failed, or printed too much")
                if not prints_the_same(printed, expected):
                    raise Wrong("another output")

    return len(problem["tests"]), run


def _separate(source: str) -> tuple[Any, int]:
    """Return the tests, with each statement wrapped so that it fails alone, and the number of tests.

    A statement is a test if it asserts something, at the top level or directly in a top-level function such as
    HumanEval's ``check``. ``assert True`` is not a test. Raises Invalid if there is no test.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise Invalid(f"its tests are not Python: {error}") from error
    total = 0
    blocks = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.FunctionDef))]
    for block in blocks:
        for position, statement in enumerate(block):
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef) and _asserts(statement):
                block[position] = _wrapped(statement, total)
                total += 1
    if not total:
        raise Invalid("it has no test that asserts anything")
    return compile(ast.fix_missing_locations(tree), "tests.py", "exec"), total


def _asserts(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in ast.walk(statement))


def _wrapped(statement: ast.stmt, index: int) -> ast.stmt:
    call = ast.Call(ast.Name("__test__", ast.Load()), [ast.Constant(index)], [])
    return ast.With([ast.withitem(call)], [statement])


def prints_the_same(printed: str, expected: str) -> bool:
    """Return whether two outputs are equal up to white space and the last digits of numbers with a decimal point."""
    tokens, wanted = printed.split(), expected.split()
    return len(tokens) == len(wanted) and all(map(_is_same_token, tokens, wanted))


def _is_same_token(token: str, wanted: str) -> bool:
    if token == wanted:
        return True
    try:
        value, target = float(token), float(wanted)
    except ValueError:
        return False
    return "." in wanted and abs(value - target) <= FLOAT_TOLERANCE * max(1.0, abs(target))


def describe(error: BaseException) -> str:
    """Return the exception in a line, without its message's tail."""
    text = str(error)[:200] if isinstance(error, AssertionError | Wrong | Unanswered | SyntaxError | NameError) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
