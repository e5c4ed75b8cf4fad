"""Whether a model can be trained: what the words say for known distributions of pass rates."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from orchestrator.config.recipe import load
from orchestrator.evaluate.evaluation import summarize
from orchestrator.evaluate.trainability import chance_of_spread, judge_trainability
from tests.orchestrator.evaluate.test_evaluation import with_parts
from tests.support.groups import scored_group


def judged(rights, n=16, *overrides, **parts):
    """The verdict on groups of n completions with so many right ones each."""
    groups = [scored_group(str(index), [True] * right + [False] * (n - right)) for index, right in enumerate(rights)]
    if parts:
        groups = [with_parts(group, **parts) for group in groups]
    return judge_trainability(summarize(groups), load("countdown-tiny", overrides))


@pytest.mark.parametrize(("n", "right", "size"), [(8, 3, 4), (8, 0, 4), (6, 6, 2), (7, 1, 7), (8, 4, 2)])
def test_the_chance_of_spread_is_the_share_of_draws_that_are_mixed(n, right, size) -> None:
    marks = [True] * right + [False] * (n - right)
    draws = list(combinations(marks, size))
    mixed = sum(len({*draw}) == 2 for draw in draws) / len(draws)
    assert math.isclose(chance_of_spread(scored_group("a", marks), size), mixed)


def test_the_expected_share_of_groups_with_spread_comes_true() -> None:
    """Estimated from 16 completions of each prompt, against the pass rates that they were drawn from."""
    rng = np.random.default_rng(0)
    rates = rng.beta(0.4, 1.2, 600)
    truth = np.mean(1 - rates**8 - (1 - rates) ** 8)
    found = judged(rng.binomial(16, rates))
    assert found.spread.low < truth < found.spread.high
    assert found.spread.mean == pytest.approx(truth, abs=0.04)
    assert not found.is_lower_bound


def test_fewer_completions_than_a_group_has_give_a_lower_bound() -> None:
    rng = np.random.default_rng(0)
    rates = rng.beta(0.4, 1.2, 600)
    found = judged(rng.binomial(4, rates), 4)
    assert found.is_lower_bound
    assert found.spread.mean < np.mean(1 - rates**8 - (1 - rates) ** 8)


def test_the_same_accuracy_may_teach_or_not() -> None:
    """Half right: every prompt half the time, or half the prompts always."""
    assert judged([8] * 20).verdict == "trainable"
    split = judged([0] * 10 + [16] * 10)
    assert split.verdict in ("too hard", "too easy")
    assert (split.never, split.sometimes, split.always) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize(
    ("rights", "verdict", "words"),
    [
        ([0] * 19 + [1], "too hard", "Make the task easier or begin with easier problems"),
        ([16] * 19 + [15], "too easy", "Take a harder task"),
        ([0] * 16 + [8] * 4, "slow", "resample_rounds"),
        ([8] * 10 + [0] * 10, "trainable", "This can be trained"),
    ],
)
def test_the_verdict_says_what_to_do(rights, verdict, words) -> None:
    found = judged(rights)
    assert found.verdict == verdict
    assert words in " ".join(found.advice)


def test_a_group_size_that_would_do_is_named() -> None:
    """One right of 64 in half the prompts: a group of 8 sees it one time in 8, a group of 32 every second time."""
    found = judged([1] * 14 + [0] * 6, 64)
    assert found.verdict == "too hard"
    assert "With group_size = 32 instead of 8, 35% of the groups" in " ".join(found.advice)


def test_formats_and_limits_that_hide_answers_are_named() -> None:
    assert "Only 0% of the completions are in the required format" in " ".join(judged([8] * 20, answer_tags=0.0).advice)
    assert "in the required format" not in " ".join(judged([8] * 20, answer_tags=1.0).advice)
    group = scored_group("a", [True, False])
    for reason, limit in (("length", "sampling.max_completion_tokens = 448"), ("turns", "environment.max_turns = 8")):
        cut = replace(group, completions=tuple(replace(done, finish_reason=reason) for done in group.completions))
        said = " ".join(judge_trainability(summarize([cut]), load("countdown-tiny")).advice)
        assert f"100% of the completions are truncated at {limit}: raise it" in said


def test_a_group_of_one_is_judged_as_one_of_two() -> None:
    ppo = ["group_size=1", "learner.algorithm.preset=ppo"]
    found = judged([8] * 20, 16, *ppo)
    assert (found.verdict, found.group_size) == ("trainable", 2)
