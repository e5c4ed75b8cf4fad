"""Graded groups for tests, with rewards and without any completions."""

from rollout.types.completions import Group, Reward, RewardPart
from rollout.types.prompts import Prompt


def scored(prompt: Prompt, pass_rate: float | None, size: int = 4) -> Group:
    """Return a group of which that share is right; None: its reward has no part `correctness`."""
    name = "closeness" if pass_rate is None else "correctness"
    num_right = round((pass_rate or 0.0) * size)
    values = [1.0] * num_right + [0.0] * (size - num_right)
    return Group(prompt, (), tuple(Reward(value, (RewardPart(name, value),)) for value in values))
