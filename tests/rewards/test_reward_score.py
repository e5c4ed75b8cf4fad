from __future__ import annotations

import math

import pytest

from rewards.config import RewardsConfig
from rewards.score import RewardConfigError, failed, weigh

WEIGHTS = RewardsConfig().weights


@pytest.mark.parametrize(("correctness", "format_", "total"), [(1, 1, 1.0), (0, 1, 0.1), (0, 0, 0.0)])
def test_default_weights_pay_exactly_what_tinyzero_pays(correctness: float, format_: float, total: float) -> None:
    reward = weigh({"correctness": correctness, "format": format_}, WEIGHTS)
    assert reward.total == total
    assert [(part.name, part.value) for part in reward.parts] == [("correctness", correctness), ("format", format_)]
    assert reward.status == "ok"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_part_that_is_no_number_is_an_error_and_not_a_score(bad: float) -> None:
    reward = weigh({"correctness": bad, "format": 1.0}, WEIGHTS)
    assert reward.total == 0.1
    assert (reward.part("correctness").value, reward.part("correctness").status) == (0.0, "error")
    assert reward.part("format").status == "ok"
    assert reward.status == "error"


def test_a_weight_for_a_part_that_nothing_returns_names_the_fix() -> None:
    with pytest.raises(RewardConfigError, match=r"rewards\.weights\.formatting weighs nothing: rename it to format"):
        weigh({"correctness": 1.0, "format": 1.0}, {"correctness": 0.9, "formatting": 0.1})


def test_a_part_without_a_weight_names_the_fix() -> None:
    with pytest.raises(RewardConfigError, match=r"length has no weight: set rewards\.weights\.length"):
        weigh({"correctness": 1.0, "format": 1.0, "length": 3.0}, WEIGHTS)


@pytest.mark.parametrize("status", ["timeout", "error"])
def test_failed_says_so_in_every_part(status: str) -> None:
    reward = failed(WEIGHTS, status)  # type: ignore[arg-type]
    assert reward.total == 0.0
    assert [(part.name, part.value, part.status) for part in reward.parts] == [
        ("correctness", 0.0, status),
        ("format", 0.0, status),
    ]
