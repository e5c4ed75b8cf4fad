"""Each loss against the papers' formulas, one token at a time in float64, gradients included."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from learner.algorithm.losses import (
    aggregate,
    cispo,
    clipped_surrogate,
    kl_estimate,
    mean_by_completion,
    mismatch_stats,
    mismatch_weights,
    policy_gradient,
    value_loss,
)
from learner.model.logprobs import token_scores
from tests.support import formulas

Ragged = list[list[tuple[float, float, float]]]
"""Completions of tokens; here a token is what it is now, what it was, and an advantage or a target."""
logprob = st.floats(-6, -0.01)
third = st.floats(-3, 3, width=16)
"""No number so small that its products with ratios are rounded away."""
ragged: st.SearchStrategy[Ragged] = st.lists(
    st.lists(st.tuples(logprob, logprob, third), min_size=1, max_size=7), min_size=1, max_size=5
)
one_logprob_repeated: st.SearchStrategy[Ragged] = logprob.flatmap(
    lambda x: st.lists(
        st.lists(st.tuples(st.just(x), st.just(x), third), min_size=1, max_size=5), min_size=1, max_size=3
    )
)
bounds = st.fixed_dictionaries(
    {
        "eps_low": st.sampled_from([0.0, 3e-4, 0.2, 1.0]),
        "eps_high": st.sampled_from([0.0, 4e-4, 0.28, 4.0]),
        "dual_clip": st.sampled_from([None, 1.5, 3.0]),
    }
)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def flat(batch: Ragged) -> tuple[torch.Tensor, ...]:
    """Return the three numbers of all tokens as float64 tensors; the first requires a gradient."""
    now, was, third = torch.tensor([token for tokens in batch for token in tokens], dtype=torch.float64).unbind(1)
    return now.clone().requires_grad_(), was, third


def completion_of(batch: Ragged) -> torch.Tensor:
    return torch.repeat_interleave(torch.tensor([len(tokens) for tokens in batch]))


def tokens_of(batch: Ragged) -> list[tuple[float, float, float]]:
    return [token for tokens in batch for token in tokens]


def gradient(loss_T: torch.Tensor, now: torch.Tensor, weights_T: torch.Tensor | None = None) -> np.ndarray:
    """Return the gradient of the weighted sum of ``loss_T``."""
    weighted = loss_T if weights_T is None else loss_T * weights_T
    return torch.autograd.grad(weighted.sum(), now)[0].numpy()


def without_dual_clip(bounds: dict) -> dict:
    return {name: value for name, value in bounds.items() if name != "dual_clip"}


def assume_away_from_corners(ratio: float, bounds: dict, *, is_exact: bool) -> None:
    """Return whether no ratio is so near a bound that rounding decides its side; on policy nothing is rounded."""
    corners = 1 - bounds["eps_low"], 1 + bounds["eps_high"]
    assume(is_exact or all(abs(ratio - corner) > 1e-9 for corner in corners))


def assert_equal(mine: torch.Tensor | np.ndarray, reference: list) -> None:
    np.testing.assert_allclose(mine.detach() if isinstance(mine, torch.Tensor) else mine, reference, **EXACT)


@given(batch=st.one_of(ragged, one_logprob_repeated), bounds=bounds)
@settings(max_examples=50, deadline=None)
def test_ppo_clip(batch: Ragged, bounds: dict) -> None:
    new, old, advantages = flat(batch)
    loss, clipped = clipped_surrogate(new - old, advantages, **bounds)
    arguments = [(formulas.token_ratio(now, was), advantage) for now, was, advantage in tokens_of(batch)]
    for (ratio, _), (now, was, _) in zip(arguments, tokens_of(batch), strict=True):
        assume_away_from_corners(ratio, bounds, is_exact=now == was)
    assert_equal(loss, [formulas.ppo_clip(*each, **bounds) for each in arguments])
    assert_equal(gradient(loss, new), [formulas.ppo_clip_slope(*each, **bounds) for each in arguments])
    assert clipped.tolist() == [formulas.is_clipped(*each, **bounds) for each in arguments]


@given(batch=ragged, bounds=bounds)
@settings(max_examples=50, deadline=None)
def test_gspo(batch: Ragged, bounds: dict) -> None:
    """All tokens of a completion share one ratio, so each log-probability moves the losses of all of them."""
    new, old, advantages = flat(batch)
    log_ratio = mean_by_completion(new - old, completion_of(batch), len(batch))
    loss, clipped = clipped_surrogate(log_ratio, advantages, **bounds)
    expected, slopes, held = [], [], []
    for tokens in batch:
        ratio = formulas.sequence_ratio([now for now, _, _ in tokens], [was for _, was, _ in tokens])
        assume_away_from_corners(ratio, bounds, is_exact=all(now == was for now, was, _ in tokens))
        expected += [formulas.ppo_clip(ratio, advantage, **bounds) for _, _, advantage in tokens]
        held += [formulas.is_clipped(ratio, advantage, **bounds) for _, _, advantage in tokens]
        moved = [formulas.ppo_clip_slope(ratio, advantage, **bounds) for _, _, advantage in tokens]
        slopes += [sum(moved) / len(tokens)] * len(tokens)
    assert_equal(loss, expected)
    assert_equal(gradient(loss, new), slopes)
    assert clipped.tolist() == held


@given(batch=ragged, bounds=bounds)
@settings(max_examples=50, deadline=None)
def test_cispo(batch: Ragged, bounds: dict) -> None:
    bounds = without_dual_clip(bounds)
    new, old, advantages = flat(batch)
    loss, clipped = cispo(new, new - old, advantages, **bounds)
    ratios = [formulas.token_ratio(now, was) for now, was, _ in tokens_of(batch)]
    for ratio, (now, was, _) in zip(ratios, tokens_of(batch), strict=True):
        assume_away_from_corners(ratio, bounds, is_exact=now == was)
    weights = [formulas.cispo_weight(ratio, **bounds) for ratio in ratios]
    slopes = [-weight * advantage for weight, (_, _, advantage) in zip(weights, tokens_of(batch), strict=True)]
    assert_equal(loss, [slope * now for slope, (now, _, _) in zip(slopes, tokens_of(batch), strict=True)])
    assert_equal(gradient(loss, new), slopes)
    assert clipped.tolist() == [weight != ratio for weight, ratio in zip(weights, ratios, strict=True)]


@given(batch=ragged)
@settings(max_examples=30, deadline=None)
def test_policy_gradient(batch: Ragged) -> None:
    new, _, advantages = flat(batch)
    loss = policy_gradient(new, advantages)
    assert_equal(loss, [-advantage * now for now, _, advantage in tokens_of(batch)])
    assert_equal(gradient(loss, new), [-advantage for _, _, advantage in tokens_of(batch)])


@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
@given(shape=st.lists(st.tuples(st.integers(1, 7), third), min_size=1, max_size=5), bounds=bounds)
@settings(max_examples=20, deadline=None)
def test_every_surrogate_has_the_same_gradient_on_policy(ratio_level, shape, bounds: dict) -> None:
    """At the policy that sampled, with one advantage for each completion: minus the advantage."""
    batch = [[(-0.1 * (t + 1), 0.0, advantage) for t in range(length)] for length, advantage in shape]
    new, _, advantages = flat(batch)
    log_ratio = new - new.detach()
    if ratio_level == "sequence":
        log_ratio = mean_by_completion(log_ratio, completion_of(batch), len(batch))
    for loss in (
        clipped_surrogate(log_ratio, advantages, **bounds)[0],
        cispo(new, log_ratio, advantages, **without_dual_clip(bounds))[0],
        policy_gradient(new, advantages),
    ):
        assert_equal(gradient(loss, new), (-advantages).tolist())


@given(st.lists(st.tuples(logprob, logprob, third), min_size=1, max_size=7), bounds)
@settings(max_examples=30, deadline=None)
def test_gspo_with_one_token_a_completion_is_ppo(tokens: list, bounds: dict) -> None:
    new, old, advantages = flat([[token] for token in tokens])
    log_ratio = mean_by_completion(new - old, torch.arange(len(tokens)), len(tokens))
    for mine, theirs in zip(
        clipped_surrogate(log_ratio, advantages, **bounds),
        clipped_surrogate(new - old, advantages, **bounds),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@given(batch=ragged)
@settings(max_examples=30, deadline=None)
def test_kl_estimators(estimator, batch: Ragged) -> None:
    p, q, _ = flat(batch)
    estimate = kl_estimate(p, q, estimator)
    assert_equal(estimate, [formulas.kl(now, other, estimator) for now, other, _ in tokens_of(batch)])
    assert_equal(
        gradient(estimate, p), [formulas.kl_slope(now, other, estimator) for now, other, _ in tokens_of(batch)]
    )
    assert estimator == "k1" or (estimate >= 0).all()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_k1_and_k3_are_unbiased(estimator, seed: int) -> None:
    p, q = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (2, 7))).log_softmax(1)
    expectation = (p.exp() * kl_estimate(p, q, estimator)).sum()
    assert expectation.item() == pytest.approx(formulas.exact_kl(p.tolist(), q.tolist()), rel=1e-9)


@given(seed=st.integers(0, 10**6), temperature=st.sampled_from([1.0, 0.6]))
@settings(max_examples=15, deadline=None)
def test_exact_kl_of_the_policy_to_the_reference(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    hidden, other_hidden = (torch.from_numpy(rng.normal(size=(3, 4))) for _ in range(2))
    head, other_head = (torch.from_numpy(rng.normal(size=(5, 4))) for _ in range(2))
    hidden.requires_grad_()
    targets = torch.tensor([0, 4, 2])
    scores = token_scores(
        hidden, head, targets, temperature=temperature, reference=(other_hidden, other_head), logits_per_chunk=10
    )

    def log_softmax(hidden: list[list[float]], head: list[list[float]], t: int) -> list[float]:
        logits = [sum(x * w for x, w in zip(hidden[t], row, strict=True)) / temperature for row in head]
        normalizer = math.log(math.fsum(math.exp(logit) for logit in logits))
        return [logit - normalizer for logit in logits]

    def kl_at(t: int, x: list[list[float]]) -> float:
        other = log_softmax(other_hidden.tolist(), other_head.tolist(), t)
        return formulas.exact_kl(log_softmax(x, head.tolist(), t), other)

    def slope(t: int, h: int) -> float:
        def moved(x: float) -> float:
            now = hidden.tolist()
            now[t][h] = x
            return kl_at(t, now)

        return formulas.derivative(moved, hidden[t, h].item(), step=1e-3)

    assert_equal(scores.reference_kl_T, [kl_at(t, hidden.tolist()) for t in range(3)])
    slopes = gradient(scores.reference_kl_T, hidden)
    np.testing.assert_allclose(slopes, [[slope(t, h) for h in range(4)] for t in range(3)], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("correction", ["truncated", "masked", "sequence"])
@given(batch=ragged, low=st.sampled_from([0.0, 0.5, 0.9]), high=st.sampled_from([1.1, 2.0, 5.0]))
@settings(max_examples=40, deadline=None)
def test_mismatch_weights(correction, batch: Ragged, low: float, high: float) -> None:
    old, rollout, _ = flat(batch)
    weights, bounded = mismatch_weights(
        old - rollout, completion_of(batch), len(batch), correction=correction, low=low, high=high
    )
    expected = [
        formulas.mismatch_weights([a for a, _, _ in tokens], [b for _, b, _ in tokens], correction, low, high)
        for tokens in batch
    ]
    assert_equal(weights, [weight for of_completion, _ in expected for weight in of_completion])
    assert int(bounded.sum()) == sum(count for _, count in expected)
    assert not weights.requires_grad


@given(batch=ragged, old_value=st.floats(-6, 0), clip_eps=st.sampled_from([None, 0.05, 0.2, 1.0]))
@settings(max_examples=50, deadline=None)
def test_value_loss(batch: Ragged, old_value: float, clip_eps: float | None) -> None:
    values, old_values, returns = flat(batch)
    old_values = old_values + old_value / 6
    loss, clipped = value_loss(values, old_values, returns, clip_eps=clip_eps)
    arguments = list(zip(values.tolist(), old_values.tolist(), returns.tolist(), strict=True))
    if clip_eps is not None:
        for value, old, target in arguments:
            bound = formulas.clip(value, old - clip_eps, old + clip_eps)
            assume(abs(abs(value - old) - clip_eps) > 1e-9)
            assume(bound == value or abs(abs(value - target) - abs(bound - target)) > 1e-9)
    assert_equal(loss, [formulas.value_loss(*each, clip_eps) for each in arguments])
    assert_equal(gradient(loss, values), [formulas.value_loss_slope(*each, clip_eps) for each in arguments])
    # Within the bounds both branches are the same error, and rounding may call either the larger.
    outside = [clip_eps is None or abs(value - old) > clip_eps for value, old, _ in arguments]
    expected = [formulas.value_is_clipped(*each, clip_eps) for each in arguments]
    assert [x for x, is_told in zip(clipped.tolist(), outside, strict=True) if is_told] == [
        x for x, is_told in zip(expected, outside, strict=True) if is_told
    ]


def test_a_value_within_its_bounds_is_not_called_clipped() -> None:
    generator = torch.Generator().manual_seed(0)
    old_values, drift, returns = torch.randn(3, 1000, generator=generator, dtype=torch.float64)
    values = old_values + 0.19 * drift.clamp(-1, 1)
    assert not value_loss(values.float(), old_values.float(), returns.float(), clip_eps=0.2)[1].any()


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "constant"])
@given(batch=ragged, cuts=st.lists(st.integers(0, 35), max_size=3), limit=st.integers(7, 20))
@settings(max_examples=40, deadline=None)
def test_aggregation_whatever_the_split(mode, batch: Ragged, cuts: list[int], limit: int) -> None:
    """The losses' slopes are the weights of the tokens."""
    losses, _, _ = flat(batch)
    lengths = torch.tensor([float(len(tokens)) for tokens in batch for _ in tokens], dtype=torch.float64)
    totals = {"total_tokens": len(losses), "total_completions": len(batch), "max_completion_tokens": limit}
    edges = [0, *sorted(cuts), len(losses)]
    parts = [slice(*pair) for pair in pairwise(edges)]
    loss = sum(aggregate(losses[part], lengths[part], mode=mode, **totals) for part in parts)
    by_completion = [[now for now, _, _ in tokens] for tokens in batch]
    assert_equal(loss, formulas.aggregated(by_completion, mode, limit))

    def slope(i: int, t: int) -> float:
        moved = [list(of_completion) for of_completion in by_completion]
        moved[i][t] += 1  # linear: the difference is the slope
        return formulas.aggregated(moved, mode, limit) - formulas.aggregated(by_completion, mode, limit)

    assert_equal(gradient(loss, losses), [slope(i, t) for i, tokens in enumerate(batch) for t in range(len(tokens))])


def test_mismatch_of_one_and_of_no_tokens() -> None:
    stats = mismatch_stats(torch.tensor([-1.0, -2.5]), torch.tensor([-1.5, -2.0]))
    assert float(stats["logprob_gap"]) == pytest.approx(1.0)
    assert float(stats["logprob_gap_max"]) == pytest.approx(0.5)
    assert float(stats["mismatch_kl"]) == pytest.approx(math.exp(0.5) - 1.5 + math.exp(-0.5) - 0.5, abs=1e-6)
    assert all(float(value) == 0 for value in mismatch_stats(torch.empty(0), torch.empty(0)).values())


@given(token=st.tuples(logprob, logprob, third), bounds=bounds)
@settings(max_examples=50, deadline=None)
def test_the_references_slopes_are_derivatives_of_its_losses(token, bounds: dict) -> None:
    """Where no bound is near."""
    now, was, third = token

    def check(loss, slope, is_bounded=lambda _: False) -> None:
        if len({is_bounded(now + step) for step in (-1e-4, 0, 1e-4)}) == 1:
            assert formulas.derivative(loss, now) == pytest.approx(slope(now), rel=1e-6, abs=1e-6)

    def ratio(x: float) -> float:
        return formulas.token_ratio(x, was)

    check(
        lambda x: formulas.ppo_clip(ratio(x), third, **bounds),
        lambda x: formulas.ppo_clip_slope(ratio(x), third, **bounds),
        lambda x: formulas.is_clipped(ratio(x), third, **bounds),
    )
    check(
        lambda x: formulas.value_loss(x, was, third, 0.2),
        lambda x: formulas.value_loss_slope(x, was, third, 0.2),
        lambda x: formulas.value_is_clipped(x, was, third, 0.2),
    )
    for name in ("k1", "k2", "k3"):
        check(lambda x, name=name: formulas.kl(x, was, name), lambda x, name=name: formulas.kl_slope(x, was, name))
