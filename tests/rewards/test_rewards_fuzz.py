"""Random and mutated completions: no exception, no wrong grade, no growth of memory; see benchmarks/grading."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from benchmarks.grading.fuzz_cases import CASES, Case, math_cases
from benchmarks.grading.fuzz_rewards import TASKS, Findings, fuzz, fuzz_math, run
from tests.support.marks import only_in_test_all
from tests.support.shared_data import needs_shared_data

pytestmark = needs_shared_data


def check(findings: Findings) -> None:
    assert findings.wrong == []
    assert findings.counts.keys() == {"ok"}
    assert findings.num_right > 0


@pytest.mark.parametrize("task", TASKS)
def test_a_few_thousand_texts(task: str) -> None:
    check(fuzz(task, 2_000, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("task", [TASKS[0], *map(only_in_test_all, TASKS[1:])])
def test_many_texts_in_the_same_memory(task: str) -> None:
    findings = fuzz(task, 4_000, seed=2)
    check(findings)
    assert findings.peak_mib_growth < 20


@pytest.mark.long
@pytest.mark.slow
def test_math_in_a_child() -> None:
    findings = fuzz_math(150, seed=3)
    assert [what for what, _, _ in findings.wrong if what != "hung"] == []
    assert findings.counts["hung"] <= 15  # the pool kills them; what can be foreseen is refused beforehand
    assert findings.num_right > 10


@pytest.mark.parametrize("cases", [*CASES.values(), math_cases])
@pytest.mark.parametrize("grade", [0.0, 1.0])
def test_the_oracles_see_a_reward_that_is_always_the_same(
    cases: Callable[[random.Random], Iterator[Case]], grade: float
) -> None:
    made = cases(random.Random(0))
    findings = run("broken", (next(made) for _ in range(500)), lambda case: {"correctness": grade})
    assert findings.counts[f"false {grade}"] > 20
