"""Each estimate of advantages against the papers' formulas, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithm.advantages import (
    adapted_kl_beta,
    gae,
    group_advantages,
    returns_to_go,
    soft_overlong_punishment,
    standardized,
    token_rewards,
)
from tests.support import formulas

reward = st.floats(-10, 10, width=32)
groups = st.lists(st.lists(reward, min_size=1, max_size=6), min_size=1, max_size=5)
equal_rewards = st.tuples(reward, st.integers(1, 6)).map(lambda drawn: [drawn[0]] * drawn[1])
groups_some_without_spread = st.lists(
    st.one_of(st.lists(reward, min_size=1, max_size=6), equal_rewards), min_size=1, max_size=5
)
per_token = st.lists(reward, min_size=1, max_size=8)
pairs = st.lists(st.tuples(reward, reward), min_size=1, max_size=8)
"""Rewards and values of a completion's tokens."""
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def assert_equal(mine: list | np.ndarray, reference: list) -> None:
    """Ragged or flat."""
    for one, other in zip(mine, reference, strict=True):
        np.testing.assert_allclose(one, other, **EXACT)


def arrays(lists: list[list[float]]) -> list[np.ndarray]:
    return [np.array(values) for values in lists]


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@given(rewards=groups_some_without_spread)
@settings(max_examples=25, deadline=None)
def test_group_advantages(baseline, scale, rewards: list[list[float]]) -> None:
    mine = group_advantages(arrays(rewards), baseline=baseline, scale=scale)
    assert_equal(mine, formulas.group_advantages(rewards, baseline, scale))


@given(rewards=st.lists(reward, min_size=2, max_size=8, unique=True))
@settings(max_examples=40, deadline=None)
def test_rloo_is_the_centred_reward_times_g_over_g_less_one(rewards: list[float]) -> None:
    (mine,) = group_advantages(arrays([rewards]), baseline="leave_one_out", scale="none")
    factor = len(rewards) / (len(rewards) - 1)
    assert_equal(mine, [factor * (reward - formulas.mean(rewards)) for reward in rewards])


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, -7.0])
def test_a_group_without_spread_gives_exactly_zero(reward: float, baseline, scale) -> None:
    # The mean of seven times 0.1 is not 0.1 in floating point: without care that would be an advantage out of nothing.
    flat, single, spread = group_advantages(
        [np.full(7, reward), np.array([reward]), np.array([0.0, 1.0])], baseline=baseline, scale=scale
    )
    assert not flat.any() and not single.any()
    assert spread[0] < 0 < spread[1]


@given(reward=reward, kls=per_token, kl_beta=st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_token_rewards_pay_for_the_kl(reward: float, kls: list[float], kl_beta: float) -> None:
    before = np.array(kls)
    assert_equal(token_rewards(reward, before, kl_beta), formulas.token_rewards(reward, kls, kl_beta))
    assert before.tolist() == kls  # not written to


@given(rewards=per_token)
@settings(max_examples=40, deadline=None)
def test_returns_to_go(rewards: list[float]) -> None:
    assert_equal(returns_to_go(np.array(rewards)), formulas.returns_to_go(rewards))


@given(pairs=pairs, gamma=st.sampled_from([0.0, 0.9, 1.0]), lam=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
@settings(max_examples=60, deadline=None)
def test_gae_is_the_sum_of_decaying_deltas(pairs: list[tuple[float, float]], gamma: float, lam: float) -> None:
    rewards, values = (list(each) for each in zip(*pairs, strict=True))
    advantages, returns = gae(np.array(rewards), np.array(values), gamma=gamma, lam=lam)
    expected = formulas.gae(rewards, values, gamma, lam)
    assert_equal(advantages, expected)
    assert_equal(returns, [advantage + value for advantage, value in zip(expected, values, strict=True)])


@given(pairs=pairs)
@settings(max_examples=40, deadline=None)
def test_gae_at_its_ends(pairs: list[tuple[float, float]]) -> None:
    """Without a discount, lambda 1 is the return less the value, lambda 0 the error of one step."""
    rewards, values = (np.array(each) for each in zip(*pairs, strict=True))
    advantages, returns = gae(rewards, values, gamma=1.0, lam=1.0)
    assert_equal(advantages, returns_to_go(rewards) - values)
    assert_equal(returns, returns_to_go(rewards))
    one_step, _ = gae(rewards, values, gamma=1.0, lam=0.0)
    assert_equal(one_step, rewards + np.append(values[1:], 0.0) - values)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("centre", [True, False])
@given(advantages=groups)
@settings(max_examples=25, deadline=None)
def test_standardized_over_all_tokens_of_the_step(centre, scale, advantages: list[list[float]]) -> None:
    mine = standardized(arrays(advantages), centre=centre, scale=scale)
    assert_equal(mine, formulas.whitened(advantages, centre=centre, scale=scale))


@given(limit=st.integers(2, 40), cache=st.integers(1, 40), length=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_soft_overlong_punishment(limit: int, cache: int, length: int) -> None:
    cache = min(cache, limit)
    mine = soft_overlong_punishment(length, max_tokens=limit, buffer_tokens=cache)
    assert mine == pytest.approx(formulas.soft_overlong_punishment(length, limit, cache), abs=1e-12)


def test_soft_overlong_punishment_of_dapo_itself() -> None:
    """Its limit of 20,480 tokens with a cache of 4,096; equation 13."""
    lengths = (1, 16_384, 18_432, 20_480, 30_000)
    found = [soft_overlong_punishment(length, max_tokens=20_480, buffer_tokens=4_096) for length in lengths]
    assert found == [0.0, 0.0, -0.5, -1.0, -1.0]


@given(kl_beta=st.floats(1e-4, 1), kl=st.floats(-1, 10), target=st.floats(0.01, 5))
@settings(max_examples=40, deadline=None)
def test_adapted_kl_beta(kl_beta: float, kl: float, target: float) -> None:
    mine = adapted_kl_beta(kl_beta, kl, target)
    assert mine == pytest.approx(formulas.adapted_kl_beta(kl_beta, kl, target), rel=1e-12)
    assert 0.98 * kl_beta <= mine * (1 + 1e-12) and mine <= 1.02 * kl_beta * (1 + 1e-12)
