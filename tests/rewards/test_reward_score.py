from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.config import RewardConfigError, RewardsConfig
from rewards.function import Outcome, RewardFunction
from rewards.score import compose
from rollout.types.completions import Reward, RewardPart

SCORE = RewardFunction("task", "m:score", ("correctness",), grades_task=True)
TAGS = RewardFunction("answer_tags", "m:answer_tags", ("answer_tags",))
PAIRS = RewardFunction("tag_pairs", "m:tag_pairs", ("tag_pairs",))
LATE, BROKEN = Outcome("timeout", {}, "late"), Outcome("error", {}, "broken")
TINYZERO = {"by": "max", "weights": {"correctness": 1.0, "answer_tags": 0.1}}
TAGS_OR_RIGHT = {"by": "max", "weights": {"correctness": 1.0, "tag_pairs": 0.1}}


def ok(**grades: float) -> Outcome:
    return Outcome("ok", grades)


def values(reward: Reward) -> dict[str, float]:
    return {part.name: part.value for part in reward.parts}


def statuses(reward: Reward) -> dict[str, str]:
    return {part.name: part.status for part in reward.parts}


def config(**settings: Any) -> RewardsConfig:
    return RewardsConfig(**settings)


@pytest.mark.parametrize(("correctness", "tags", "total"), [(1, 1, 1.0), (0, 1, 0.1), (0, 0, 0.0)])
def test_default_weights_pay_exactly_what_tinyzero_pays(correctness: float, tags: float, total: float) -> None:
    reward = compose([SCORE, TAGS], [ok(correctness=correctness), ok(answer_tags=tags)], config())
    assert reward.total == total
    assert [(part.name, part.value) for part in reward.parts] == [("correctness", correctness), ("answer_tags", tags)]
    assert reward.status == "ok"


@pytest.mark.parametrize(("correctness", "tags", "total"), [(1, 1, 1.0), (0, 1, 0.1), (0, 0, 0.0), (1, 0, 1.0)])
def test_tinyzero_as_an_ensemble(correctness: float, tags: float, total: float) -> None:
    settings = config(weights={"tinyzero": 1.0}, ensembles={"tinyzero": TINYZERO})
    reward = compose([SCORE, TAGS], [ok(correctness=correctness), ok(answer_tags=tags)], settings)
    assert reward.total == total
    assert values(reward) == {"tinyzero": total, "correctness": correctness, "answer_tags": tags}


@pytest.mark.parametrize(("correctness", "pairs", "total"), [(0, 0, 0.0), (0, 1, 0.1), (0, 2, 0.2), (1, 2, 1.0)])
def test_a_tenth_for_each_pair_replaced_by_one_for_a_correct_answer(
    correctness: float, pairs: float, total: float
) -> None:
    settings = config(weights={"tags_or_right": 1.0}, ensembles={"tags_or_right": TAGS_OR_RIGHT})
    assert compose([SCORE, PAIRS], [ok(correctness=correctness), ok(tag_pairs=pairs)], settings).total == total


@pytest.mark.parametrize(("by", "value"), [("max", 0.1), ("min", -0.5), ("sum", -0.4)])
def test_ensembles_combine_weighted_values(by: str, value: float) -> None:
    ensemble = {"by": by, "weights": {"correctness": -0.5, "answer_tags": 0.1}}
    settings = config(weights={"both": 2.0}, ensembles={"both": ensemble})
    reward = compose([SCORE, TAGS], [ok(correctness=1), ok(answer_tags=1)], settings)
    assert reward.value("both") == pytest.approx(value)
    assert reward.total == pytest.approx(2 * value)


def test_a_member_that_failed_counts_as_0_and_marks_the_ensemble() -> None:
    settings = config(weights={"tinyzero": 1.0}, ensembles={"tinyzero": TINYZERO})
    reward = compose([SCORE, TAGS], [LATE, ok(answer_tags=1)], settings)
    assert reward.total == 0.1
    assert statuses(reward) == {"tinyzero": "timeout", "correctness": "timeout", "answer_tags": "ok"}
    penalties = config(weights={"worst": 1.0}, ensembles={"worst": TINYZERO | {"by": "min"}})
    assert compose([SCORE, TAGS], [LATE, ok(answer_tags=1)], penalties).total == 0.0


def test_one_function_that_failed_costs_its_own_parts_only() -> None:
    reward = compose([SCORE, TAGS], [BROKEN, ok(answer_tags=1)], config())
    assert reward.total == 0.1
    assert statuses(reward) == {"correctness": "error", "answer_tags": "ok"}
    assert values(reward) == {"correctness": 0.0, "answer_tags": 1.0}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300, -2e12])
def test_a_part_that_is_no_number_is_an_error_and_not_a_score(bad: float) -> None:
    reward = compose([SCORE, TAGS], [ok(correctness=bad), ok(answer_tags=1)], config())
    assert reward.total == 0.1
    assert reward.parts == (RewardPart("correctness", 0.0, "error"), RewardPart("answer_tags", 1.0))
    assert reward.status == "error"


def test_parts_without_a_weight_are_logged_after_the_others() -> None:
    reward = compose([SCORE, TAGS], [ok(closeness=0.5, correctness=1), ok(answer_tags=1)], config())
    assert [part.name for part in reward.parts] == ["correctness", "answer_tags", "closeness"]
    assert reward.total == 1.0


@pytest.mark.parametrize("name", ["total", "timeouts", "errors"])
def test_a_part_with_the_name_of_a_metric_is_refused(name: str) -> None:
    """The mean of the part would be taken for that of the reward."""
    with pytest.raises(RewardConfigError, match=f"returns the part {name}, which a metric of the whole reward has too"):
        compose([SCORE, TAGS], [ok(correctness=1, **{name: 1}), ok(answer_tags=1)], config())


def test_a_weight_for_a_part_that_nothing_returned_names_the_fix() -> None:
    with pytest.raises(RewardConfigError, match=r"rewards\.weights\.correctness: no function.*'correct'"):
        compose([SCORE, TAGS], [ok(correct=1), ok(answer_tags=1)], config())
    settings = config(weights={"tinyzero": 1.0}, ensembles={"tinyzero": TINYZERO})
    with pytest.raises(RewardConfigError, match=r"rewards\.ensembles\.tinyzero\.weights\.correctness"):
        compose([SCORE, TAGS], [ok(correct=1), ok(answer_tags=1)], settings)


def test_a_part_that_two_functions_return_is_refused() -> None:
    with pytest.raises(RewardConfigError, match=r"m:answer_tags returns the part answer_tags, which another"):
        compose([SCORE, TAGS], [ok(correctness=1, answer_tags=1), ok(answer_tags=0)], config())


NAMES = ("a", "b", "c")
NUMBERS = st.floats(-100, 100)
OUTCOMES = st.one_of(NUMBERS, st.sampled_from([LATE, BROKEN, math.nan]))


@given(
    made=st.tuples(OUTCOMES, OUTCOMES, OUTCOMES),
    weights=st.fixed_dictionaries(dict.fromkeys((*NAMES, "e"), NUMBERS)).filter(lambda found: any(found.values())),
    members=st.dictionaries(st.sampled_from(NAMES), NUMBERS, min_size=1),
    by=st.sampled_from(["max", "min", "sum"]),
)
def test_a_reward_is_the_weighted_sum_of_what_succeeded(
    made: tuple[Any, ...], weights: dict[str, float], members: dict[str, float], by: Any
) -> None:
    settings = config(weights=weights, ensembles={"e": {"by": by, "weights": members}})
    functions = [RewardFunction(name, f"m:{name}", (name,)) for name in NAMES]
    outcomes = [one if isinstance(one, Outcome) else ok(**{name: one}) for name, one in zip(NAMES, made, strict=True)]
    reward = compose(functions, outcomes, settings)

    succeeded = [isinstance(one, float) and math.isfinite(one) for one in made]
    plain = {name: one if fine else 0.0 for name, one, fine in zip(NAMES, made, succeeded, strict=True)}
    weighted = [members[name] * plain[name] for name in members]
    plain["e"] = {"max": max, "min": min, "sum": sum}[by](weighted)
    assert values(reward) == pytest.approx(plain)
    assert reward.total == pytest.approx(sum(weights[name] * plain[name] for name in weights), abs=1e-9)
    failed = {name for name, fine in zip(NAMES, succeeded, strict=True) if not fine}
    assert {name for name, status in statuses(reward).items() if status != "ok"} == failed | (
        {"e"} if failed & members.keys() else set()
    )


def test_markers_come_with_the_last_function_and_are_unknown_where_it_did_not_end() -> None:
    shown = ok(answer_tags=1)._replace(markers=("exploration",))
    assert compose([SCORE, TAGS], [LATE, shown], config()).markers == ("exploration",)
    assert compose([TAGS, SCORE], [ok(answer_tags=1), LATE], config()).markers is None
