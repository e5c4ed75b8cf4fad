"""Statistics of an evaluation: against brute force, textbook values and simulated truth."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.evaluate.statistics import (
    Clusters,
    average,
    paired_difference,
    pass_at_k,
    rate,
    sign_flip_p_value,
    wilson,
)


def test_pass_at_k_is_the_share_of_draws_with_a_right_completion() -> None:
    for n, right, k in [(8, 3, 1), (8, 3, 4), (5, 0, 2), (6, 6, 3), (8, 7, 8)]:
        marks = [True] * right + [False] * (n - right)
        draws = list(combinations(marks, k))
        assert math.isclose(pass_at_k(n, right, k), sum(map(any, draws)) / len(draws))


def test_pass_at_k_is_unbiased_where_the_plug_in_is_not() -> None:
    """Over all outcomes of 6 completions with pass rate 0.3, weighted by their chance."""
    n, k, p = 6, 4, 0.3
    chances = [math.comb(n, right) * p**right * (1 - p) ** (n - right) for right in range(n + 1)]
    truth = 1 - (1 - p) ** k
    assert math.isclose(sum(c * pass_at_k(n, right, k) for right, c in enumerate(chances)), truth)
    plug_in = sum(c * (1 - (1 - right / n) ** k) for right, c in enumerate(chances))
    assert abs(plug_in - truth) > 0.02


def test_pass_at_more_than_was_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="pass@9 cannot be known from 8"):
        pass_at_k(8, 3, 9)


@pytest.mark.parametrize(("right", "n"), [(0, 20), (1, 20), (10, 20), (20, 20), (3, 7)])
def test_wilsons_interval_holds_exactly_the_shares_that_a_score_test_does_not_reject(right, n) -> None:
    """Its definition: |p - q| <= z sqrt(q (1 - q) / n), searched for on a grid of q."""
    estimate = wilson(right / n, n)
    grid = np.linspace(0, 1, 200_001)
    kept = grid[np.abs(right / n - grid) <= 1.959964 * np.sqrt(grid * (1 - grid) / n)]
    assert estimate.low == pytest.approx(kept.min(), abs=1e-5)
    assert estimate.high == pytest.approx(kept.max(), abs=1e-5)


def test_one_completion_a_prompt_makes_the_interval_wilsons_own() -> None:
    values = [1.0] * 13 + [0.0] * 27
    assert rate(values) == wilson(13 / 40, 40)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40))
def test_an_interval_holds_the_mean_stays_within_0_and_1_and_is_never_empty(counts) -> None:
    estimate = rate([count / 8 for count in counts], per_prompt=8)
    assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1
    assert estimate.half_width > 0
    # More completions of a prompt never make it wider than one completion each, nor narrower than independent ones.
    assert estimate.high - estimate.low <= width(wilson(estimate.mean, len(counts))) + 1e-12
    assert estimate.high - estimate.low >= width(wilson(estimate.mean, 8 * len(counts))) - 1e-12


def width(estimate) -> float:
    return estimate.high - estimate.low


@pytest.mark.parametrize("per_prompt", [1, 8])
@pytest.mark.parametrize(("a", "b"), [(2, 2), (0.3, 6), (20, 20), (6, 0.3)])
def test_intervals_of_rates_cover_the_truth_about_95_times_in_100(per_prompt, a, b) -> None:
    rng = np.random.default_rng(0)
    truth, num_runs = a / (a + b), 600
    covered = 0
    for _ in range(num_runs):
        drawn = rate(rng.binomial(per_prompt, rng.beta(a, b, 128)) / per_prompt, per_prompt)
        covered += drawn.low <= truth <= drawn.high
    assert 0.92 <= covered / num_runs <= 0.98


def test_the_interval_of_a_mean_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(600):
        drawn = average(rng.gamma(2.0, 3.0, 128))
        covered += drawn.low <= 6.0 <= drawn.high
    assert 0.92 <= covered / 600 <= 0.98
    assert average([1.0]).half_width == math.inf


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_the_p_value_counts_every_choice_of_signs(differences) -> None:
    observed = abs(sum(differences))
    sums = [
        abs(sum(map(math.prod, zip(signs, differences, strict=True))))
        for signs in product((1, -1), repeat=len(differences))
    ]
    assert math.isclose(sign_flip_p_value(differences), sum(value >= observed for value in sums) / len(sums))


def test_with_one_completion_a_prompt_it_is_mcnemars_exact_test() -> None:
    """10 prompts only ours got right, 2 only theirs: twice the binomial tail of 2 or fewer out of 12."""
    ours = [1] * 10 + [0] * 2 + [1] * 30 + [0] * 30
    theirs = [0] * 10 + [1] * 2 + [1] * 30 + [0] * 30
    tail = sum(math.comb(12, wins) for wins in range(3)) / 2**12
    found = paired_difference(ours, theirs, 1)
    assert found.p_value == pytest.approx(2 * tail)
    assert found.mean == pytest.approx(8 / 72)


def test_the_interval_of_a_difference_is_agresti_and_mins() -> None:
    """Their table with a half added to each cell: b = 10.5, c = 2.5, n = 74."""
    ours, theirs = [1] * 10 + [0] * 2 + [1] * 60, [0] * 10 + [1] * 2 + [1] * 60
    found = paired_difference(ours, theirs, 1)
    center = (10.5 - 2.5) / 74
    half = 1.959964 * math.sqrt((10.5 + 2.5) - (10.5 - 2.5) ** 2 / 74) / 74
    assert (found.low, found.high) == pytest.approx((center - half, center + half), abs=1e-6)


def test_equal_models_differ_significantly_5_times_in_100_at_most() -> None:
    rng = np.random.default_rng(2)
    p_values = []
    for _ in range(500):
        rates = rng.beta(1, 1, 40)
        ours, theirs = rng.binomial(4, rates), rng.binomial(4, rates)
        p_values.append(paired_difference(ours.tolist(), theirs.tolist(), 4).p_value)
    assert 0.02 < np.mean(np.array(p_values) <= 0.05) < 0.07
    assert 0.4 < np.mean(np.array(p_values) <= 0.5) < 0.6


@pytest.mark.parametrize("num_completions", [1, 4])
@pytest.mark.parametrize("gain", [0.0, 0.02, 0.2])
def test_the_interval_of_a_difference_covers_the_truth_about_95_times_in_100(num_completions, gain) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(500):
        rates = rng.beta(1, 3, 100) * (1 - gain)
        ours, theirs = rng.binomial(num_completions, rates + gain), rng.binomial(num_completions, rates)
        found = paired_difference(ours.tolist(), theirs.tolist(), num_completions)
        covered += found.low <= gain <= found.high
    assert 0.92 <= covered / 500 <= 0.985


def test_pairing_finds_what_unpaired_intervals_hide() -> None:
    """Every prompt gets one more right completion out of 8, while prompts differ widely."""
    theirs = [0, 0, 1, 1, 3, 4, 5, 6, 7, 7] * 2
    ours = [count + 1 for count in theirs]
    assert paired_difference(ours, theirs, 8).p_value < 1e-5
    assert paired_difference(ours, theirs, 8).low > 0
    assert rate([c / 8 for c in ours], 8).low < rate([c / 8 for c in theirs], 8).mean


def test_models_that_agree_on_every_prompt_are_not_proven_equal() -> None:
    found = paired_difference([1] * 20, [1] * 20, 1)
    assert (found.mean, found.p_value) == (0.0, 1.0)
    assert found.low < -0.05 and found.high > 0.05


def clusters_of(groups: list[list[float]]) -> Clusters:
    found = Clusters()
    for values in groups:
        found.add(values)
    return found


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4), min_size=2, max_size=30))
def test_sums_over_prompts_of_one_size_give_the_intervals_of_an_evaluation(groups) -> None:
    found, means = clusters_of(groups), [sum(values) / 4 for values in groups]
    assert as_numbers(found.rate()) == pytest.approx(as_numbers(rate(means, 4)), abs=1e-6)
    assert as_numbers(found.average()) == pytest.approx(as_numbers(average(means)), abs=1e-6)


def as_numbers(estimate) -> list[float]:
    return [estimate.mean, estimate.low, estimate.high]


def test_sums_of_two_steps_are_those_of_all_their_prompts() -> None:
    first, second = [[1.0, 0.0], [0.5]], [[0.0, 0.0, 1.0]]
    found = clusters_of(first)
    found.extend(clusters_of(second))
    assert found == clusters_of(first + second)
    assert Clusters().rate() is None and Clusters().average() is None
    assert clusters_of([[2.0, 4.0]]).average() == average([3.0])


def test_the_interval_over_prompts_of_several_sizes_holds_the_truth_as_often_as_it_says() -> None:
    """Prompts of 1 to 8 completions whose chance varies from prompt to prompt: independent ones it would miss."""
    rng, trials, held, naive = np.random.default_rng(0), 1_000, 0, 0
    for _ in range(trials):
        chances = rng.beta(0.6, 1.4, 48)
        found = clusters_of([(rng.random(rng.integers(1, 9)) < chance).astype(float).tolist() for chance in chances])
        estimate = found.rate()
        assert estimate is not None
        held += estimate.low <= 0.3 <= estimate.high
        alone = wilson(estimate.mean, found.completions)
        naive += alone.low <= 0.3 <= alone.high
    assert 0.93 <= held / trials <= 0.975 and naive / trials < 0.85
