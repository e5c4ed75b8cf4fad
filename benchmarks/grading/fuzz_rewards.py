"""Feed random and mutated completions to the tasks' `score` and count what must not happen.

    python -m benchmarks.grading.fuzz_rewards [--count 100000] [--math-count 2000] [--seed 0]

Texts are real completions out of ../shared/data, cut, spliced, repeated and strewn with tags, boxes, signs and digits.
Counted are exceptions, parts outside 0..1, and wrong grades: a text that got 1.0 although an oracle, which shares no
code with the rewards, cannot find the reference in it, and a final answer whose number was changed and that was graded
as before. math runs in a child that is killed when it hangs. Peak memory is that of this process (`ru_maxrss`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from multiprocessing.connection import Connection
from typing import NamedTuple

from benchmarks.grading.fuzz_cases import CASES, Case, math_cases

TASKS = ("gsm8k", "multiple_choice", "exact_match")
HANG_S = 10.0
"""A text of math that takes longer counts as hung: the default deadline of a reward."""


class Findings(NamedTuple):
    """What a run found."""

    task: str
    counts: Counter[str]
    num_right: int
    """Texts that were graded 1.0."""
    wrong: list[tuple[str, Case, object]]
    """The first few cases that were graded wrongly or raised, each with its grade or exception."""
    seconds: float
    slowest_s: float
    peak_mib_growth: float

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.counts.items()))
        return (
            f"{self.task:16} {counts}; {self.num_right:,} graded 1.0; {self.seconds:.0f} s, "
            f"slowest {1000 * self.slowest_s:.0f} ms, peak memory +{self.peak_mib_growth:.1f} MiB"
        )


def complaint(case: Case, grade: Mapping[str, float]) -> str | None:
    """Return what is wrong with a grade, if anything."""
    if not all(0.0 <= value <= 1.0 for value in grade.values()):
        return "out of range"
    correctness = grade["correctness"]
    if case.must_be is not None:
        return None if correctness == case.must_be else ("false 1.0" if correctness else "false 0.0")
    return None if case.may_be_right or not correctness else "false 1.0"


def fuzz(task: str, count: int, seed: int) -> Findings:
    """Grade `count` cases in this process."""
    score = import_module(f"rewards.tasks.{task}").score
    cases = CASES[task](random.Random(f"{task}/{seed}"))
    return run(task, (next(cases) for _ in range(count)), lambda case: score(case.text, case.answer))


def run(task: str, cases: Iterator[Case], grade: Callable[[Case], Mapping[str, float]]) -> Findings:
    counts: Counter[str] = Counter()
    wrong: list[tuple[str, Case, object]] = []
    num_right = 0
    slowest, start, peak = 0.0, time.perf_counter(), 0
    for position, case in enumerate(cases):
        begun = time.perf_counter()
        outcome: object
        try:
            graded = outcome = grade(case)
            found = complaint(case, graded)
            num_right += graded["correctness"] == 1.0
        except TimeoutError as error:
            outcome, found = error, "hung"
        except Exception as error:  # noqa: BLE001  the finding that is looked for
            outcome, found = error, "raised"
        slowest = max(slowest, time.perf_counter() - begun)
        counts[found or "ok"] += 1
        if found and len(wrong) < 20:
            wrong.append((found, case, outcome))
        if position == 1000:  # by then every pattern and cache is in place
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak if peak else 0
    return Findings(task, counts, num_right, wrong, time.perf_counter() - start, slowest, growth / 1024)


class MathChild:
    """`rewards.tasks.math.score` in a process that is replaced when it hangs or dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=answer_forever, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(120):
            raise RuntimeError("the child of math did not start within 120 s")
        self._pipe.recv()

    def __call__(self, case: Case) -> Mapping[str, float]:
        """Grade a case. Raises TimeoutError when it hangs, and what `score` raised."""
        self._pipe.send((case.text, case.answer))
        if not self._pipe.poll(HANG_S):
            self.stop()
            self._start()
            raise TimeoutError(f"no grade after {HANG_S} s")
        grade: Mapping[str, float] | Exception = self._pipe.recv()
        if isinstance(grade, Exception):
            raise grade
        return grade

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def answer_forever(pipe: Connection) -> None:
    from rewards.tasks.math import score

    pipe.send(score("\\boxed{\\frac{1}{2}}", {"answer": "0.5"}))
    while True:
        text, answer = pipe.recv()
        try:
            pipe.send(score(text, answer))
        except Exception as error:  # noqa: BLE001  handed to the parent
            pipe.send(error)


def fuzz_math(count: int, seed: int) -> Findings:
    """Grade `count` cases of math in a child."""
    cases = math_cases(random.Random(f"math/{seed}"))
    child = MathChild()
    try:
        return run("math", (next(cases) for _ in range(count)), child)
    finally:
        child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="texts for each task but math")
    parser.add_argument("--math-count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = [fuzz(task, args.count, args.seed) for task in TASKS if args.count]
    found += [fuzz_math(args.math_count, args.seed)] if args.math_count else []
    for findings in found:
        print(findings)
        for what, case, outcome in findings.wrong:
            print(f"    {what}: {case.text[-160:]!r} {dict(case.answer)} -> {outcome!r}")


if __name__ == "__main__":
    main()
