from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.advantages import group_advantages

rewards = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=32).map(np.array)


@given(rewards, st.booleans())
def test_equals_the_formula_written_out(rewards: np.ndarray, divide_by_std: bool) -> None:
    mean = sum(rewards) / len(rewards)
    if all(reward == rewards[0] for reward in rewards):
        expected = [0.0] * len(rewards)
    else:
        std = (sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)) ** 0.5
        expected = [(reward - mean) / (std + 1e-4 if divide_by_std else 1) for reward in rewards]
    np.testing.assert_allclose(group_advantages(rewards, divide_by_std=divide_by_std), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, -7.0])
def test_a_group_without_spread_gives_exactly_zero(reward: float) -> None:
    # The mean of seven times 0.1 is not 0.1 in floating point: without care that would be credit out of nothing.
    assert not group_advantages(np.full(7, reward), divide_by_std=True).any()
