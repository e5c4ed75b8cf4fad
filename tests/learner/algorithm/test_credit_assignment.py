"""Scored groups to advantages against the papers' formulas, for each baseline, scale and place of the KL."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithm.credit_assignment import assign_advantages, kl_to_reference, overlong_punishment
from learner.algorithm.presets import PRESETS
from learner.algorithm.settings import AlgorithmConfig
from learner.sequences import TrainingSequence, sequences_from_groups
from rollout.types.completions import Completion, Group, Reward
from rollout.types.prompts import Prompt
from tests.support import formulas
from tests.support.groups import in_turns, scored_group

LIMIT = 10
"""Tokens that a completion may have."""
KL_BETA = 0.3
"""The KL's weight now; the recipe's first one is another."""
COMBINATIONS = [
    (baseline, scale, placement)
    for baseline in ("group_mean", "leave_one_out", "batch_mean", "value")
    for scale in ("group_std", "batch_std", "none")
    for placement in (None, "loss", "reward")
    if scale != "group_std" or baseline in ("group_mean", "leave_one_out")
]
"""Baseline, scale, and where the KL is; None: there is none."""
sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
"""Completions of each group."""
seeds = st.integers(0, 10**6)
AS_FLOAT32 = {"rtol": 1e-6, "atol": 1e-6}


def draw(sizes: list[int], seed: int) -> tuple[list[Group], list[TrainingSequence]]:
    """Draw scored groups, some without spread, and their sequences with log-probabilities and values filled in."""
    rng = np.random.default_rng(seed)
    groups = []
    for g, size in enumerate(sizes):
        completions = []
        for _ in range(size):
            n = int(rng.integers(1, LIMIT + 1))
            finish = "length" if n == LIMIT else "stop"
            completions.append(Completion(np.zeros(n, np.int32), np.zeros(n, np.float32), finish, (1,), text=""))
        rewards = rng.choice([0.0, 0.1, 1.0], size) if rng.random() < 0.5 else rng.normal(size=size)
        if rng.random() < 0.3:
            rewards[:] = 0.1
        prompt = Prompt(str(g), np.zeros(2, np.int32), text="", grader="countdown", answer={})
        groups.append(Group(prompt, tuple(completions), tuple(Reward(float(reward), ()) for reward in rewards)))
    return groups, [with_scores(sequence, rng) for sequence in sequences_from_groups(groups)]


def with_scores(sequence: TrainingSequence, rng: np.random.Generator) -> TrainingSequence:
    n = sequence.num_completion_tokens
    old, values = rng.uniform(-5, -0.1, n), rng.normal(size=n)
    return replace(
        sequence,
        old_logprobs=old.astype(np.float32),
        ref_logprobs=(old + rng.normal(0, 0.5, n)).astype(np.float32),
        old_values=values.astype(np.float32),
    )


def scored(groups: list[Group], sequences: list[TrainingSequence]) -> list[formulas.Scored]:
    places = [(g, reward.total) for g, group in enumerate(groups) for reward in group.rewards]
    return [
        formulas.Scored(g, reward, s.old_logprobs.tolist(), s.ref_logprobs.tolist(), s.old_values.tolist())
        for (g, reward), s in zip(places, sequences, strict=True)
    ]


def credit(sequences: list[TrainingSequence], groups: list[Group], config: AlgorithmConfig) -> list[TrainingSequence]:
    return assign_advantages(sequences, groups, config, kl_beta=KL_BETA, max_completion_tokens=LIMIT)


@pytest.mark.parametrize(("baseline", "scale", "placement"), COMBINATIONS)
@given(
    sizes=sizes,
    seed=seeds,
    estimator=st.sampled_from(["k1", "k2", "k3"]),
    overlong=st.sampled_from(["keep", "mask", "soft_punish"]),
    buffer_tokens=st.sampled_from([0, 1, 6]),
    gamma=st.sampled_from([0.9, 1.0]),
    lam=st.sampled_from([0.0, 0.7, 1.0]),
)
@settings(max_examples=8, deadline=None)
def test_credit(
    baseline, scale, placement, sizes, seed: int, estimator, overlong, buffer_tokens: int, gamma: float, lam: float
) -> None:
    config = AlgorithmConfig(
        baseline=baseline,
        advantage_scale=scale,
        kl_beta=0.0 if placement is None else 0.1,
        kl_placement=placement or "loss",
        kl_estimator=estimator,
        overlong=overlong,
        overlong_buffer_tokens=buffer_tokens,
        gae_gamma=gamma,
        gae_lambda=lam,
    )
    groups, sequences = draw(sizes, seed)
    found = credit(sequences, groups, config)
    expected = formulas.credit(scored(groups, sequences), config, KL_BETA, LIMIT)
    completions = [completion for group in groups for completion in group.completions]
    for before, after, completion, (advantages, returns) in zip(sequences, found, completions, expected, strict=True):
        assert after.advantages.dtype == np.float32
        np.testing.assert_allclose(after.advantages, advantages, **AS_FLOAT32)
        assert (after.returns is None) == (returns is None)
        if returns is not None:
            assert after.returns.dtype == np.float32
            np.testing.assert_allclose(after.returns, returns, **AS_FLOAT32)
        assert after.is_masked == (overlong == "mask" and completion.num_tokens == LIMIT)
        for name in ("index", "prompt_id", "token_ids", "old_logprobs", "ref_logprobs", "old_values"):
            assert getattr(after, name) is getattr(before, name)


@pytest.mark.parametrize("scale", ["group_std", "batch_std", "none"])
@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@given(sizes=sizes, seed=seeds, reward=st.floats(-5, 5))
@settings(max_examples=8, deadline=None)
def test_groups_without_spread_have_exactly_no_credit(baseline, scale, sizes, seed: int, reward: float) -> None:
    """Sequences without advantage are skipped, so it must be exactly 0."""
    groups, _ = draw(sizes, seed)
    flat = [group.scored(tuple(Reward(reward, ()) for _ in group.rewards)) for group in groups]
    found = credit(sequences_from_groups(flat), flat, AlgorithmConfig(baseline=baseline, advantage_scale=scale))
    assert not any(sequence.has_advantage for sequence in found)


@given(sizes=sizes, seed=seeds)
@settings(max_examples=10, deadline=None)
def test_a_masked_completion_still_counts_in_its_groups_baseline(sizes, seed: int) -> None:
    groups, sequences = draw(sizes, seed)
    masked = credit(sequences, groups, AlgorithmConfig(overlong="mask"))
    kept = credit(sequences, groups, AlgorithmConfig(overlong="keep"))
    for one, other in zip(masked, kept, strict=True):
        np.testing.assert_array_equal(one.advantages, other.advantages)
        assert not other.is_masked


@pytest.mark.parametrize(
    ("settings", "length", "punishment"),
    [
        ({"overlong": "soft_punish", "overlong_buffer_tokens": 4}, 16, 0.0),
        ({"overlong": "soft_punish", "overlong_buffer_tokens": 4}, 18, -0.5),
        ({"overlong": "soft_punish", "overlong_buffer_tokens": 4}, 20, -1.0),
        ({"overlong": "soft_punish"}, 18, -0.5),  # a fifth of the limit, as DAPO's 4,096 of 20,480
        ({"overlong": "soft_punish"}, 1, 0.0),
        ({"overlong": "mask"}, 20, 0.0),
        ({"overlong": "keep"}, 20, 0.0),
    ],
)
def test_soft_punishment_begins_where_the_buffer_does(settings: dict, length: int, punishment: float) -> None:
    completion = Completion(np.zeros(length, np.int32), np.zeros(length, np.float32), "length", (1,), text="")
    assert overlong_punishment(completion, AlgorithmConfig(**settings), 20) == punishment


def test_the_words_of_an_environment_are_not_punished_for_their_length() -> None:
    turns = in_turns(scored_group("a", [True]), "p" * 4, "e" * 30, "p" * 4).completions[0]
    config = AlgorithmConfig(overlong="soft_punish", overlong_buffer_tokens=4)
    assert overlong_punishment(turns, config, 12) == 0.0
    assert overlong_punishment(turns, config, 8) == -1.0


def test_a_punishment_is_taken_off_before_advantages_are_computed() -> None:
    """Two completions of equal reward, one of them at the limit: the other is the better one by the full point."""
    prompt = Prompt("a", np.zeros(2, np.int32), text="", grader="countdown", answer={})
    completions = tuple(
        Completion(np.zeros(n, np.int32), np.zeros(n, np.float32), "stop", (1,), text="") for n in (3, LIMIT)
    )
    group = Group(prompt, completions, (Reward(1.0, ()), Reward(1.0, ())))
    config = AlgorithmConfig(preset="dapo", advantage_scale="none")
    short, long = credit(sequences_from_groups([group]), [group], config)
    assert short.advantages.tolist() == [0.5] * 3
    assert long.advantages.tolist() == [-0.5] * LIMIT


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_kl_of_the_reward(estimator) -> None:
    _, (sequence,) = draw([1], 0)
    config = AlgorithmConfig(kl_beta=0.1, kl_placement="reward", kl_estimator=estimator)
    expected = [
        formulas.kl(old, ref, estimator)
        for old, ref in zip(sequence.old_logprobs.tolist(), sequence.ref_logprobs.tolist(), strict=True)
    ]
    np.testing.assert_allclose(kl_to_reference(sequence, config), expected, rtol=1e-9)
    for without in ({"kl_beta": 0.0}, {"kl_placement": "loss"}):
        assert not kl_to_reference(sequence, config.model_copy(update=without)).any()


@pytest.mark.parametrize("status", ["timeout", "error"])
@pytest.mark.parametrize("overlong", ["keep", "mask"])
def test_a_completion_whose_environment_failed_is_masked_and_counts_in_its_groups_baseline(status, overlong) -> None:
    group = scored_group("a", [True, False])
    failed = replace(group, completions=(group.completions[0], replace(group.completions[1], finish_reason=status)))
    config = AlgorithmConfig(overlong=overlong, advantage_scale="none")
    before, after = (credit(sequences_from_groups([each]), [each], config) for each in (group, failed))
    assert [each.is_masked for each in after] == [False, True]
    assert [each.advantages.tolist() for each in after] == [each.advantages.tolist() for each in before]


def test_which_advantages_need_logprobs_first() -> None:
    needing = {name for name in PRESETS if AlgorithmConfig(preset=name).advantages_need_logprobs}
    assert needing == {"reinforce_pp", "ppo"}
    assert AlgorithmConfig(preset="rloo", kl_beta=0.1).advantages_need_logprobs
    assert not AlgorithmConfig(kl_beta=0.1).advantages_need_logprobs


def test_a_step_of_equal_rewards_teaches_reinforce_pp_nothing() -> None:
    groups, sequences = draw([3, 4], 0)
    flat = [group.scored(tuple(Reward(0.1, ()) for _ in group.rewards)) for group in groups]
    found = credit(sequences, flat, AlgorithmConfig(preset="reinforce_pp", kl_beta=0.0))
    assert not any(sequence.has_advantage for sequence in found)
