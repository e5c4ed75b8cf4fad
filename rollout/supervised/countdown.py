"""Synthetic search traces for Countdown, for a warm start before GRPO.

A trace is the text of one completion. Each line combines two of the numbers, then combines the result with
the third number in several ways, and says each time whether that gives the target. Here the target is 42::

    9+3=12: 12-7=5 no, 12+7=19 no
    9-3=6: 7+6=13 no, 7*6=42 yes
    </think><answer>7*(9-3)</answer>

The traces are imperfect on purpose. Many give up after a line or two, with an answer that is known to be
wrong; the others search for long. So the policy can search for longer than it usually does, and reinforcement
learning first teaches it to do so.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import MAX_DRAWS, Problem
from rollout.tasks.countdown import GeneratedProblems
from rollout.tasks.countdown_problems.settings import CountdownConfig


class SearchStep(NamedTuple):
    """An operation that combines two numbers into one."""

    left: int
    operator: str
    right: int
    value: int

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.value}"


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Yield endless problems that are not held out, each with a search trace as its completion."""
    rng = random.Random(f"traces/{seed}")
    countdown: CountdownConfig = prompts.settings
    held_out = {problem.key for problem in GeneratedProblems(countdown, prompts.num_held_out, prompts.seed).held_out}
    any_solutions = {"min_numbers_per_problem": None, "min_solutions": 1, "max_solutions": None}
    sources = {
        count: GeneratedProblems(
            countdown.model_copy(update={"numbers_per_problem": count, **any_solutions}), 0, prompts.seed
        )
        for count in (2, countdown.numbers_per_problem)
    }
    settings = config.model_dump(exclude={"two_number_rate"})
    while True:
        count = 2 if rng.random() < config.two_number_rate else countdown.numbers_per_problem
        problem = draw_besides(held_out, sources[count], rng)
        numbers, target = problem.answer["numbers"], problem.answer["target"]
        yield problem, search_trace(numbers, target, rng, max_value=countdown.max_intermediate, **settings)


def draw_besides(keys: set[str], source: GeneratedProblems, rng: random.Random) -> Problem:
    """Draw a problem whose key is not in `keys`. Raises ValueError if many draws find none."""
    for _ in range(MAX_DRAWS):
        problem = source.draw(rng)
        if problem.key not in keys:
            return problem
    raise ValueError(
        f"prompts.num_held_out = {len(keys)} leaves no problem for the warm start's traces: lower it, or widen "
        "prompts.countdown's ranges"
    )


def search_trace(
    numbers: Sequence[int],
    target: int,
    rng: random.Random,
    *,
    give_up_rate: float = 0.75,
    give_up_within: int = 2,
    oversight_rate: float = 0.15,
    max_lines: int = 9,
    max_value: int = 60,
) -> str:
    """Return a completion that searches for an expression of two or three ``numbers`` with the value ``target``.

    The search is random but in order: pairs of numbers in random order, and for each pair all operators in
    random order before the next pair. So the remaining attempts are easy to see, and the policy repeats few
    lines. The same state of ``rng`` gives the same text.

    Args:
        give_up_rate: share of the traces that give up early, after 1 to ``give_up_within`` lines; each
            number is equally likely. A higher share leaves more to learn for reinforcement learning.
        give_up_within: the largest number of lines in a trace that gives up early.
        oversight_rate: share of the other traces that overlook every line with a solution. They show how
            a search without success ends: with an answer, before the limit on tokens.
        max_lines: the largest number of lines in the other traces. Three numbers have at most nine lines, of
            at most 24 tokens each, so 9 always finds a solution if one exists.
        max_value: the largest value that a step may reach; the smallest is 0. The tokenizer needs a token
            for each value.

    Raises:
        ValueError: there are not two or three numbers, or no expression of them stays within ``max_value``.
    """
    lines = list(_search(numbers, rng, max_value))
    if not lines:
        raise ValueError(
            f"no expression of the numbers {list(numbers)} stays within 0..{max_value}: raise "
            "prompts.countdown.max_intermediate"
        )
    num_lines = max_lines
    if rng.random() < give_up_rate:
        num_lines = rng.randint(1, give_up_within)
    elif rng.random() < oversight_rate:
        misses = [line for line in lines if all(step.value != target for _, step in line[1])]
        lines = misses or lines

    text, answer = "", ""
    for first, attempts in lines[:num_lines]:
        verdicts = []
        for expression, step in attempts:
            answer = expression  # the answer is the last attempt, even if it is wrong
            verdicts.append(f"{step} {'yes' if step.value == target else 'no'}")
            if step.value == target:
                break
        text += f"{first}: {', '.join(verdicts)}\n" if len(numbers) == 3 else f"{verdicts[0]}\n"
        if step.value == target:
            break
    return f"{text}</think><answer>{answer}</answer>"


def _search(
    numbers: Sequence[int], rng: random.Random, max_value: int
) -> Iterator[tuple[SearchStep, list[tuple[str, SearchStep]]]]:
    """Yield first steps in the order of the search, each with attempts: pairs of an expression and its last step."""
    if len(numbers) not in (2, 3):
        raise ValueError(f"a trace needs two or three numbers, not {len(numbers)}")
    pairs = [(0, 1)] if len(numbers) == 2 else [(0, 1), (0, 2), (1, 2)]
    seen = set()
    for i, j in rng.sample(pairs, len(pairs)):
        steps = _steps(numbers[i], numbers[j], max_value)
        for first in rng.sample(steps, len(steps)):
            if first in seen:  # two of the numbers are equal
                continue
            seen.add(first)
            inner = f"{first.left}{first.operator}{first.right}"
            if len(numbers) == 2:
                yield first, [(inner, first)]
                continue
            attempts = []
            for last in _steps(first.value, numbers[3 - i - j], max_value):
                if last.left == first.value:
                    attempts.append((f"({inner}){last.operator}{last.right}", last))
                else:
                    attempts.append((f"{last.left}{last.operator}({inner})", last))
            if attempts:
                yield first, rng.sample(attempts, len(attempts))


def _steps(a: int, b: int, max_value: int) -> list[SearchStep]:
    """Return the steps that combine ``a`` and ``b`` within ``0..max_value``.

    The larger number is always on the left, which halves the arithmetic to learn.
    """
    a, b = max(a, b), min(a, b)
    steps = [SearchStep(a, "+", b, a + b), SearchStep(a, "-", b, a - b), SearchStep(a, "*", b, a * b)]
    return [step for step in steps if step.value <= max_value]
