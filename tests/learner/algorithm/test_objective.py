"""The whole loss against the papers' formulas, however it is split into microbatches and ranks, gradients included."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from learner.algorithm.objective import Objective, cross_entropy
from learner.algorithm.presets import PRESETS
from learner.algorithm.settings import AlgorithmConfig
from learner.microbatches import Batch, Microbatch
from learner.packing import pack
from learner.sequences import TrainingSequence, select_computed, sequence_from_example
from rollout.types.prompts import SupervisedExample
from tests.support import formulas
from tests.support.formulas import SAID, Row

LIMIT = 7
"""Tokens that a completion may have."""
LONGEST = LIMIT + 4
"""Prompt and completion."""
SAME = {"rtol": 1e-6, "atol": 1e-9}

shapes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, LIMIT)), min_size=1, max_size=7)
"""Prompt and completion tokens of each sequence."""
seeds = st.integers(0, 10**6)
knobs = {
    "preset": st.sampled_from(["grpo", "ppo"]),
    "baseline": st.sampled_from(["group_mean", "value"]),
    "advantage_scale": st.just("none"),
    "surrogate": st.sampled_from(["ppo_clip", "ppo_clip", "cispo", "policy_gradient"]),
    "ratio_level": st.sampled_from(["token", "sequence"]),
    "clip_eps_low": st.sampled_from([0.01, 0.1, 0.2, 1.0]),
    "clip_eps_high": st.sampled_from([0.05, 0.28, 4.0]),
    "dual_clip": st.sampled_from([None, 1.5, 3.0]),
    "loss_aggregation": st.sampled_from(["token_mean", "sequence_mean", "constant"]),
    "kl_beta": st.sampled_from([0.0, 0.1]),
    "kl_placement": st.sampled_from(["loss", "reward"]),
    "kl_estimator": st.sampled_from(["k1", "k2", "k3", "exact"]),
    "mismatch_correction": st.sampled_from(["off", "truncated", "masked", "sequence"]),
    "mismatch_low": st.sampled_from([0.0, 0.5, 0.9]),
    "mismatch_high": st.sampled_from([1.1, 2.0, 5.0]),
    "entropy_beta": st.sampled_from([0.0, 0.03]),
    "value_loss_weight": st.sampled_from([0.0, 0.5]),
    "value_clip_eps": st.sampled_from([None, 0.1, 0.2]),
}


class Said(NamedTuple):
    """The fields of ``PolicyOutput``, whose module takes seconds to import."""

    logprobs_T: torch.Tensor
    entropy_T: torch.Tensor
    values_T: torch.Tensor
    reference_kl_T: torch.Tensor


class Split(NamedTuple):
    """How the sequences are shared out."""

    num_ranks: int
    layout: str
    max_tokens: int


WHOLE = Split(1, "flat", 10**6)
splits = st.tuples(
    *[
        st.builds(Split, st.just(num_ranks), st.sampled_from(["rows", "flat"]), st.sampled_from([LONGEST, 25, 60]))
        for num_ranks in (1, 2, 4)
    ]
)


class Found(NamedTuple):
    loss: float
    slopes: dict[str, list[list[float]]]
    stats: dict[str, float]
    num_microbatches: int


def rounded(values: np.ndarray) -> list[float]:
    """Numbers that float32, in which microbatches hold them, knows exactly."""
    return values.astype(np.float32).astype(np.float64).tolist()


def draw_rows(shapes: list[tuple[int, int]], seed: int, *, knows_old: bool, some_masked: bool) -> list[Row]:
    """On policy, near it and far from it; a few of them without advantage."""
    rng = np.random.default_rng(seed)
    rows = []
    for _, n in shapes:
        logprobs = np.array(rounded(rng.uniform(-5, -0.1, n)))
        old_values = np.array(rounded(rng.normal(size=n)))
        drift = rng.choice([0.0, 2e-4, 0.3, 1.0])
        advantages = rng.normal(size=n) if rng.random() < 0.3 else np.full(n, rng.normal())
        rows.append(
            Row(
                logprobs=logprobs.tolist(),
                entropy=rng.uniform(0.1, 3, n).tolist(),
                values=(old_values + rng.normal(0, 0.2, n)).tolist(),
                reference_kl=rng.uniform(0, 1, n).tolist(),
                rollout=rounded(logprobs + rng.normal(0, 0.4, n)),
                advantages=rounded(advantages * (rng.random() < 0.8)),
                old=rounded(logprobs + drift * rng.normal(size=n)) if knows_old else None,
                ref=rounded(logprobs + rng.normal(0, 0.5, n)),
                old_values=old_values.tolist(),
                returns=rounded(rng.normal(size=n)),
                is_masked=bool(some_masked and rng.random() < 0.3),
            )
        )
    return rows


def sequences_from_groups(rows: list[Row], shapes: list[tuple[int, int]]) -> list[TrainingSequence]:
    def array(values: list[float] | None) -> np.ndarray | None:
        return None if values is None else np.array(values, np.float32)

    return [
        TrainingSequence(
            token_ids=np.zeros(prompt + n, np.int32),
            num_prompt_tokens=prompt,
            rollout_logprobs=array(row.rollout),
            advantages=array(row.advantages),
            index=index,
            is_masked=row.is_masked,
            old_logprobs=array(row.old),
            ref_logprobs=array(row.ref),
            old_values=array(row.old_values),
            returns=array(row.returns),
        )
        for index, (row, (prompt, n)) in enumerate(zip(rows, shapes, strict=True))
    ]


def skips_zero_advantage(config: AlgorithmConfig) -> bool:
    """Return whether a completion of advantage 0 has no gradient at all."""
    has_kl_loss = config.kl_beta > 0 and config.kl_placement == "loss"
    return not (has_kl_loss or config.uses_critic or config.entropy_beta > 0)


def packed(sequences: list[TrainingSequence], split: Split, skip: bool) -> list[Batch]:
    return [
        pack(
            sequences,
            rank=rank,
            num_ranks=split.num_ranks,
            max_tokens=split.max_tokens,
            layout=split.layout,
            computed=select_computed(sequences, skip_zero_advantage=skip),
        )
        for rank in range(split.num_ranks)
    ]


def said_about(microbatch: Microbatch, leaves: dict[str, list[torch.Tensor]]) -> Said:
    empty = torch.zeros(0, dtype=torch.float64)
    return Said(*[torch.cat([empty, *[leaves[name][s.index] for s in microbatch.sequences]]) for name in SAID])


def leaves_of(rows: list[Row]) -> dict[str, list[torch.Tensor]]:
    return {
        name: [torch.tensor(getattr(row, name), dtype=torch.float64, requires_grad=True) for row in rows]
        for name in SAID
    }


def computed(rows: list[Row], sequences: list[TrainingSequence], config: AlgorithmConfig, split: Split) -> Found:
    """Compute the learner's loss and gradients, summed over the ranks and microbatches of ``split``."""
    leaves = leaves_of(rows)
    loss, stats, num_microbatches = torch.zeros((), dtype=torch.float64), {}, 0
    for batch in packed(sequences, split, skips_zero_advantage(config)):
        objective = Objective(config, batch, kl_beta=0.7 * config.kl_beta, max_completion_tokens=LIMIT)
        for microbatch in batch.microbatches:
            part, found = objective(said_about(microbatch, leaves), microbatch)
            loss = loss + part
            num_microbatches += 1
            for name, value in found.items():
                assert not value.requires_grad
                combine = max if name.endswith("_max") else float.__add__
                stats[name] = combine(stats.get(name, 0.0), float(value))
    flat = [leaf for of_name in leaves.values() for leaf in of_name]
    gradients = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    slopes = {
        name: [[0.0] * len(leaf) if (g := next(gradients)) is None else g.tolist() for leaf in of_name]
        for name, of_name in leaves.items()
    }
    return Found(loss.item(), slopes, stats, num_microbatches)


def assert_same(mine: Found, loss: float, slopes: dict[str, list[list[float]]]) -> None:
    np.testing.assert_allclose(mine.loss, loss, **SAME)
    for name in SAID:
        for of_mine, of_other in zip(mine.slopes[name], slopes[name], strict=True):
            np.testing.assert_allclose(of_mine, of_other, **SAME, err_msg=name)


def check(config: AlgorithmConfig, shapes, seed: int, splits, *, knows_old: bool) -> None:
    """Every split against the formulas, and so against each other."""
    rows = draw_rows(shapes, seed, knows_old=knows_old, some_masked=seed % 2 == 0)
    # Without old log-probabilities the ratio is exactly 1, whatever the bounds.
    assume(not any(formulas.has_kink_nearby(row, config) for row in rows))
    sequences = sequences_from_groups(rows, shapes)
    expected = formulas.objective(rows, config, 0.7 * config.kl_beta, LIMIT)
    for split in (WHOLE, *splits):
        found = computed(rows, sequences, config, split)
        assert_same(found, *expected)
        assert found.stats["loss"] == pytest.approx(found.loss, abs=1e-12)
        assert found.num_microbatches >= split.num_ranks


@pytest.mark.parametrize("preset", PRESETS)
@given(shapes=shapes, seed=seeds, splits=splits, knows_old=st.sampled_from([True, True, False]))
@settings(max_examples=10, deadline=None)
def test_every_preset_however_it_is_split(preset: str, shapes, seed: int, splits, knows_old: bool) -> None:
    config = AlgorithmConfig(preset=preset)
    check(config, shapes, seed, splits, knows_old=knows_old or config.uses_critic)


@given(given_knobs=st.fixed_dictionaries(knobs), shapes=shapes, seed=seeds, splits=splits, knows_old=st.booleans())
@settings(max_examples=60, deadline=None)
def test_knobs_in_any_combination_however_it_is_split(given_knobs, shapes, seed: int, splits, knows_old: bool) -> None:
    try:
        config = AlgorithmConfig(**given_knobs)
    except ValidationError:
        reject()
    check(config, shapes, seed, splits, knows_old=knows_old or config.uses_critic)


@given(shapes=shapes, seed=seeds, splits=splits)
@settings(max_examples=15, deadline=None)
def test_stats_are_sums_over_the_tokens(shapes, seed: int, splits) -> None:
    """With entropy in the loss everything is computed, so the sums are over all tokens that are not masked."""
    config = AlgorithmConfig(
        preset="ppo", kl_beta=0.1, kl_placement="loss", dual_clip=1.5, entropy_beta=0.01, mismatch_correction="masked"
    )
    rows = draw_rows(shapes, seed, knows_old=True, some_masked=True)
    assume(not any(formulas.has_kink_nearby(row, config) for row in rows))
    kept = [row for row in rows if not row.is_masked] or rows[:1]
    bounds = config.clip_eps_low, config.clip_eps_high, config.dual_clip
    weights = [
        formulas.mismatch_weights(row.old, row.rollout, "masked", config.mismatch_low, config.mismatch_high)
        for row in kept
    ]
    tokens = [(row, t) for row in kept for t in range(len(row.logprobs))]
    expected = {
        "entropy": sum(row.entropy[t] for row, t in tokens),
        "clipped": sum(
            formulas.is_clipped(formulas.token_ratio(row.logprobs[t], row.old[t]), row.advantages[t], *bounds)
            for row, t in tokens
        ),
        "update_kl": sum(formulas.kl(row.old[t], row.logprobs[t], "k3") for row, t in tokens),
        "reference_kl": sum(formulas.kl(row.logprobs[t], row.ref[t], config.kl_estimator) for row, t in tokens),
        "mismatch_weight": sum(sum(of_row) for of_row, _ in weights),
        "mismatch_bounded": sum(count for _, count in weights),
        "value_loss": sum(
            formulas.value_loss(row.values[t], row.old_values[t], row.returns[t], config.value_clip_eps)
            for row, t in tokens
        ),
        "value_clipped": sum(
            formulas.value_is_clipped(row.values[t], row.old_values[t], row.returns[t], config.value_clip_eps)
            for row, t in tokens
        ),
    }
    for split in splits:
        stats = computed(rows, sequences_from_groups(rows, shapes), config, split).stats
        del stats["loss"]
        assert stats == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(shapes=shapes, seed=seeds, splits=splits)
@settings(max_examples=10, deadline=None)
def test_the_first_forward_pass_compares_itself_with_the_sampler(shapes, seed: int, splits) -> None:
    rows = draw_rows(shapes, seed, knows_old=False, some_masked=False)
    config = AlgorithmConfig(entropy_beta=0.01)
    gaps = [abs(new - at) for row in rows for new, at in zip(row.logprobs, row.rollout, strict=True)]
    kls = [formulas.kl(at, new, "k3") for row in rows for new, at in zip(row.logprobs, row.rollout, strict=True)]
    thirds = [3 * t // len(row.logprobs) for row in rows for t in range(len(row.logprobs))]
    for split in splits:
        stats = computed(rows, sequences_from_groups(rows, shapes), config, split).stats
        assert stats["compared_tokens"] == len(gaps)
        for name, third in (("first_third", 0), ("last_third", 2)):
            within = [gap for gap, found in zip(gaps, thirds, strict=True) if found == third]
            assert (stats[name], stats[f"{name}_gap"]) == (len(within), pytest.approx(sum(within)))
        assert stats["logprob_gap"] == pytest.approx(sum(gaps))
        assert stats["logprob_gap_max"] == pytest.approx(max(gaps))
        assert stats["mismatch_kl"] == pytest.approx(sum(kls))
        assert stats["clipped"] == stats["update_kl"] == 0


@given(shapes=shapes, seed=seeds)
@settings(max_examples=10, deadline=None)
def test_every_surrogate_and_level_has_the_same_gradient_on_policy(shapes, seed: int) -> None:
    """Minus the advantage, where all tokens of a completion share one."""
    rows = draw_rows(shapes, seed, knows_old=False, some_masked=False)
    rows = [replace(row, advantages=row.advantages[:1] * len(row.advantages)) for row in rows]
    total = sum(len(row.logprobs) for row in rows)
    expected = [[-advantage / total for advantage in row.advantages] for row in rows]
    for surrogate in ("ppo_clip", "cispo", "policy_gradient"):
        for level in ("token", "sequence"):
            config = AlgorithmConfig(surrogate=surrogate, ratio_level=level, loss_aggregation="token_mean")
            found = computed(rows, sequences_from_groups(rows, shapes), config, WHOLE)
            for mine, other in zip(found.slopes["logprobs"], expected, strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)


@given(lengths=st.lists(st.integers(1, LIMIT), min_size=2, max_size=5), others=st.data(), seed=seeds)
@settings(max_examples=15, deadline=None)
def test_dr_grpo_does_not_see_how_long_other_completions_are(lengths: list[int], others, seed: int) -> None:
    """Nor how long a completion itself is: a token's gradient is its advantage over completions times the limit."""
    other_lengths = [lengths[0], *[others.draw(st.integers(1, LIMIT)) for _ in lengths[1:]]]
    config = AlgorithmConfig(preset="dr_grpo")
    found = []
    for drawn in (lengths, other_lengths):
        shapes = [(1, n) for n in drawn]
        rows = draw_rows(shapes, seed, knows_old=True, some_masked=False)
        found.append(computed(rows, sequences_from_groups(rows, shapes), config, WHOLE).slopes["logprobs"][0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)

    shapes = [(1, n) for n in lengths]
    rows = [
        replace(row, advantages=[1.0] * len(row.advantages))
        for row in draw_rows(shapes, seed, knows_old=False, some_masked=False)
    ]
    for of_row in computed(rows, sequences_from_groups(rows, shapes), config, WHOLE).slopes["logprobs"]:
        np.testing.assert_allclose(of_row, -1 / (len(lengths) * LIMIT), rtol=1e-12)


@given(count=st.integers(1, 6), seed=seeds)
@settings(max_examples=10, deadline=None)
def test_gspo_with_one_token_a_completion_is_grpo(count: int, seed: int) -> None:
    shapes = [(2, 1)] * count
    rows = draw_rows(shapes, seed, knows_old=True, some_masked=False)
    found = [
        computed(rows, sequences_from_groups(rows, shapes), AlgorithmConfig(ratio_level=level), WHOLE)
        for level in ("token", "sequence")
    ]
    assert_same(found[0], found[1].loss, found[1].slopes)


@pytest.mark.parametrize("preset", ["grpo", "ppo"])
def test_nothing_but_masked_completions_is_a_loss_of_zero(preset: str) -> None:
    shapes = [(2, 3), (1, 4)]
    rows = draw_rows(shapes, 0, knows_old=True, some_masked=False)
    rows = [replace(row, is_masked=True) for row in rows]
    config = AlgorithmConfig(preset=preset, entropy_beta=0.1)
    for split in (WHOLE, Split(4, "rows", LONGEST)):
        found = computed(rows, sequences_from_groups(rows, shapes), config, split)
        assert found.loss == 0
        assert not any(slope for name in SAID for of_row in found.slopes[name] for slope in of_row)


@given(shapes=shapes, seed=seeds, splits=splits)
@settings(max_examples=10, deadline=None)
def test_cross_entropy_of_a_supervised_update(shapes, seed: int, splits) -> None:
    """Minus the mean log-probability of all completion tokens."""
    rows = draw_rows(shapes, seed, knows_old=False, some_masked=False)
    examples = [SupervisedExample(np.zeros(prompt, np.int32), np.zeros(n, np.int32)) for prompt, n in shapes]
    sequences = [replace(sequence_from_example(example), index=i) for i, example in enumerate(examples)]
    expected = -formulas.mean([logprob for row in rows for logprob in row.logprobs])
    total = sum(n for _, n in shapes)
    for split in splits:
        leaves = leaves_of(rows)
        loss = sum(
            cross_entropy(batch)(said_about(microbatch, leaves), microbatch)[0]
            for batch in packed(sequences, split, skip=False)
            for microbatch in batch.microbatches
        )
        assert loss.item() == pytest.approx(expected)
        for gradient in torch.autograd.grad(loss, leaves["logprobs"]):
            np.testing.assert_allclose(gradient, -1 / total, rtol=1e-9)
