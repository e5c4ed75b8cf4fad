"""Losses against float64 references that are written one token at a time, gradients included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.losses import aggregate, clipped_surrogate, kl_estimate, mismatch_stats, policy_loss

Ragged = list[tuple[float, list[tuple[float, float, float]]]]
logprob = st.floats(-6, -0.01)
token = st.tuples(logprob, logprob, logprob)
ragged: st.SearchStrategy[Ragged] = st.lists(
    st.tuples(st.floats(-3, 3), st.lists(token, min_size=1, max_size=9)), min_size=1, max_size=6
)
EPS_LOW, EPS_HIGH, BETA, LIMIT = 0.2, 0.28, 0.05, 11


def reference(batch: Ragged, mode: str) -> tuple[float, list[float], int]:
    """Loss, its gradient by logprob, and the number of clipped tokens."""
    total_tokens = sum(len(tokens) for _, tokens in batch)
    loss, gradient, clipped = 0.0, [], 0
    for advantage, tokens in batch:
        weight = {
            "token_mean": 1 / total_tokens,
            "sequence_mean": 1 / (len(batch) * len(tokens)),
            "constant": 1 / (len(batch) * LIMIT),
        }[mode]
        for new, old, ref in tokens:
            ratio = math.exp(new - old)
            is_clipped = (ratio > 1 + EPS_HIGH and advantage > 0) or (ratio < 1 - EPS_LOW and advantage < 0)
            bound = 1 + EPS_HIGH if advantage > 0 else 1 - EPS_LOW
            kl = math.exp(ref - new) - 1 - (ref - new)
            loss += weight * (BETA * kl - advantage * (bound if is_clipped else ratio))
            gradient.append(weight * (BETA * (1 - math.exp(ref - new)) - (0 if is_clipped else advantage * ratio)))
            clipped += is_clipped
    return loss, gradient, clipped


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "constant"])
@given(batch=ragged)
@settings(max_examples=60, deadline=None)
def test_policy_loss_and_aggregation(mode, batch: Ragged) -> None:
    flat = torch.tensor([token for _, tokens in batch for token in tokens], dtype=torch.float64)
    lengths = torch.tensor([float(len(tokens)) for _, tokens in batch for _ in tokens], dtype=torch.float64)
    advantages = torch.tensor([advantage for advantage, tokens in batch for _ in tokens], dtype=torch.float64)
    new, old, ref = flat.unbind(1)
    new = new.clone().requires_grad_()
    per_token, stats = policy_loss(new, old, advantages, ref, eps_low=EPS_LOW, eps_high=EPS_HIGH, kl_beta=BETA)
    # Split in two microbatches: with global denominators the parts add up.
    half = len(flat) // 2
    loss = sum(
        aggregate(
            per_token[part],
            lengths[part],
            mode=mode,
            total_tokens=len(flat),
            total_completions=len(batch),
            max_completion_tokens=LIMIT,
        )
        for part in (slice(None, half), slice(half, None))
    )
    (gradient,) = torch.autograd.grad(loss, new)
    expected_loss, expected_gradient, expected_clipped = reference(batch, mode)
    assert loss.item() == pytest.approx(expected_loss, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(gradient.numpy(), expected_gradient, rtol=1e-9, atol=1e-9)
    assert int(stats["clipped"]) == expected_clipped


def test_on_policy_gradient_is_minus_the_advantage() -> None:
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, clipped = clipped_surrogate(logprobs, logprobs.detach(), torch.tensor([2.0, -3.0]), eps_low=0.2, eps_high=0.2)
    loss.sum().backward()
    assert logprobs.grad.tolist() == [-2.0, 3.0]
    assert not clipped.any()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator) -> None:
    p, q = (torch.randn(7, generator=torch.Generator().manual_seed(seed)).double().log_softmax(0) for seed in (0, 1))
    expectation = (p.exp() * kl_estimate(p, q, estimator)).sum()
    torch.testing.assert_close(expectation, (p.exp() * (p - q)).sum())


def test_k2_is_half_the_squared_difference() -> None:
    assert kl_estimate(torch.tensor([-1.0]), torch.tensor([-3.0]), "k2").item() == pytest.approx(2.0)


def test_mismatch_of_one_and_of_no_tokens() -> None:
    stats = mismatch_stats(torch.tensor([-1.0, -2.5]), torch.tensor([-1.5, -2.0]))
    assert float(stats["logprob_gap"]) == pytest.approx(1.0)
    assert float(stats["logprob_gap_max"]) == pytest.approx(0.5)
    assert float(stats["mismatch_kl"]) == pytest.approx(math.exp(0.5) - 1.5 + math.exp(-0.5) - 0.5, abs=1e-6)
    assert all(float(value) == 0 for value in mismatch_stats(torch.empty(0), torch.empty(0)).values())
