"""Rewards to advantages: group-relative credit of completions. Pure numpy.

Shape legend: ``_G`` completions of a group.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

ADVANTAGE_EPS = 1e-4
"""Added to the standard deviation, so that a group of nearly equal rewards is not blown up."""


def group_advantages(rewards_G: Float[np.ndarray, " G"], *, divide_by_std: bool) -> Float[np.ndarray, " G"]:
    """``(R - mean) / (std + 1e-4)`` with the sample standard deviation: GRPO, arXiv:2402.03300, section 4.1.2.

    Without ``divide_by_std`` it is ``R - mean``: Dr. GRPO, arXiv:2503.20783, section 3.2. A group without spread,
    and so also a group of one, gives exactly 0.
    """
    if np.ptp(rewards_G) == 0:
        return np.zeros_like(rewards_G)
    centred_G = rewards_G - rewards_G.mean()
    return centred_G / (rewards_G.std(ddof=1) + ADVANTAGE_EPS) if divide_by_std else centred_G
