from __future__ import annotations

import pytest
import torch

from learner.logprobs import token_logprobs


@pytest.mark.parametrize("tokens_per_chunk", [1, 7, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_equals_log_softmax_with_gradients(tokens_per_chunk: int, temperature: float) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(23, 16, requires_grad=True)
    weight = torch.randn(31, 16, requires_grad=True)
    targets = torch.randint(31, (23,))
    upstream = torch.randn(2, 23)

    ours = token_logprobs(hidden, weight, targets, temperature=temperature, logits_per_chunk=31 * tokens_per_chunk)
    log_softmax = (hidden @ weight.T / temperature).log_softmax(-1)
    plain = log_softmax.gather(1, targets[:, None])[:, 0], -(log_softmax.exp() * log_softmax).sum(-1)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    gradients = [
        torch.autograd.grad((logprobs * upstream[0] + entropy * upstream[1]).sum(), (hidden, weight))
        for logprobs, entropy in (ours, plain)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_no_tokens_give_zero_gradients() -> None:
    hidden, weight = torch.randn(0, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    logprobs, _ = token_logprobs(hidden, weight, torch.empty(0, dtype=torch.long), temperature=1.0)
    logprobs.sum().backward()
    assert weight.grad is not None and not weight.grad.any()
