from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from learner.model.logprobs import TokenScores, token_scores

Reference = tuple[Tensor, Tensor]


def plain_scores(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float, reference: Reference | None = None
) -> TokenScores:
    """Compute the scores by their definition, with all logits at once."""
    log_p = (hidden @ weight.T / temperature).log_softmax(-1)
    logprobs, entropy = log_p.gather(1, targets[:, None])[:, 0], torch.special.entr(log_p.exp()).sum(-1)
    if reference is None:
        return TokenScores(logprobs, entropy, None)
    log_q = (reference[0] @ reference[1].T / temperature).log_softmax(-1)
    kl = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
    return TokenScores(logprobs, entropy, kl)


def example(
    tokens: int, vocabulary: int, hidden_size: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Reference]:
    """Hidden states, head weight, targets, and a reference of another hidden size."""
    torch.manual_seed(seed)
    hidden, weight = torch.randn(tokens, hidden_size), torch.randn(vocabulary, hidden_size)
    reference = torch.randn(tokens, hidden_size + 2).to(dtype), torch.randn(vocabulary, hidden_size + 2).to(dtype)
    targets = torch.randint(vocabulary, (tokens,))
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets, reference


def present(scores: TokenScores) -> tuple[Tensor, ...]:
    return tuple(score for score in scores if score is not None)


def gradients(scores: TokenScores, upstream: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    given = torch.stack(present(scores))
    return torch.autograd.grad((given * upstream[: len(given)]).sum(), inputs)


def assert_equals_plain(dtype: torch.dtype, tolerance: float, with_reference: bool, **given: Any) -> None:
    """Scores and gradients equal those of the plain way in float64."""
    chunk, options = given.pop("logits_per_chunk"), {"temperature": given.pop("temperature")}
    hidden, weight, targets, reference = example(**given, dtype=dtype)
    exact = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    upstream = torch.randn(3, len(targets), dtype=torch.float64)
    if with_reference:
        options["reference"] = reference
    ours = token_scores(hidden, weight, targets, **options, logits_per_chunk=chunk)
    if with_reference:
        options["reference"] = tuple(tensor.double() for tensor in reference)
    plain = plain_scores(*exact, targets, **options)
    mine = *present(ours), *gradients(ours, upstream, (hidden, weight))
    theirs = *present(plain), *gradients(plain, upstream, exact)
    for one, other in zip(mine, theirs, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance * scale)


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.integers(1, 30),
    vocabulary=st.integers(1, 150),
    logits_per_chunk=st.integers(1, 6000),
    temperature=st.floats(0.3, 3),
    with_reference=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_the_plain_way_whatever_the_chunks(with_reference: bool, **given: Any) -> None:
    assert_equals_plain(torch.float64, 1e-11, with_reference, **given)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_narrow_inputs_give_float32_scores_close_to_exact_ones(
    dtype: torch.dtype, tolerance: float, temperature: float
) -> None:
    given = {"tokens": 23, "vocabulary": 131, "hidden_size": 4, "temperature": temperature, "logits_per_chunk": 700}
    assert_equals_plain(dtype, tolerance, with_reference=True, **given)
    hidden, weight, targets, reference = example(5, 7, dtype=dtype)
    scores = token_scores(hidden, weight, targets, temperature=temperature, reference=reference)
    assert [score.dtype for score in present(scores)] == [torch.float32] * 3


def test_gradcheck() -> None:
    hidden, weight, targets, reference = example(5, 7, hidden_size=3)

    def scores(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        given: Any = {"temperature": 0.7, "reference": reference, "logits_per_chunk": 15}
        return present(token_scores(hidden, weight, targets, **given))

    assert torch.autograd.gradcheck(scores, (hidden, weight))


def test_kl_to_itself_is_zero_and_the_reference_gets_no_gradient() -> None:
    hidden, weight, targets, _ = example(9, 31, dtype=torch.float32)
    reference = hidden.clone().detach().requires_grad_(), weight.clone().detach().requires_grad_()
    scores = token_scores(hidden, weight, targets, temperature=0.6, reference=reference, logits_per_chunk=64)
    assert scores.reference_kl_T is not None and not scores.reference_kl_T.any()
    torch.stack(present(scores)).sum().backward()
    assert weight.grad is not None and reference[0].grad is None and reference[1].grad is None


def test_far_apart_logits_stay_finite() -> None:
    hidden, weight = torch.tensor([[1e4]], requires_grad=True), torch.tensor([[1.0], [0.0]], requires_grad=True)
    scores = token_scores(hidden, weight, torch.tensor([1]), temperature=1.0, reference=(-hidden, weight))
    assert torch.stack(present(scores)).tolist() == [[-1e4], [0], [1e4]]
    assert all(gradient.isfinite().all() for gradient in gradients(scores, torch.ones(3, 1), (hidden, weight)))


def test_bfloat16_weight_gradient_adds_up_over_many_tokens() -> None:
    # A sum in bfloat16 would stop at 256, where adding one no longer changes it.
    hidden, weight = torch.ones(4096, 1, dtype=torch.bfloat16), torch.zeros(3000, 1, dtype=torch.bfloat16)
    weight.requires_grad_()
    scores = token_scores(hidden, weight, torch.zeros(4096, dtype=torch.long), temperature=1.0, logits_per_chunk=2**20)
    (gradient,) = torch.autograd.grad(scores.logprobs_T.sum(), weight)
    assert gradient.dtype == torch.bfloat16
    assert gradient[0].item() == pytest.approx(4096 * (1 - 1 / 3000), rel=1e-2)


def test_bfloat16_hidden_gradient_adds_up_over_many_slices() -> None:
    hidden, weight = torch.zeros(4, 1, dtype=torch.bfloat16), torch.ones(2000, 1, dtype=torch.bfloat16)
    hidden.requires_grad_()
    weight[0] = 0
    scores = token_scores(hidden, weight, torch.zeros(4, dtype=torch.long), temperature=1.0, logits_per_chunk=4)
    (gradient,) = torch.autograd.grad(scores.logprobs_T.sum(), hidden)
    assert gradient.flatten().tolist() == pytest.approx([-1999 / 2000] * 4, rel=1e-2)


def backward_products(loss_of: Callable[[TokenScores], Tensor], hidden_grad: bool, weight_grad: bool) -> float:
    """Count the products of the size of hidden @ head.T that the backward pass computes."""
    hidden, weight, targets, _ = example(8, 40, hidden_size=6)
    reference = hidden.detach() + 1, weight.detach()
    inputs = hidden.requires_grad_(hidden_grad), weight.requires_grad_(weight_grad)
    loss = loss_of(token_scores(*inputs, targets, temperature=0.7, reference=reference, logits_per_chunk=100))
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert [tensor.grad is not None for tensor in inputs] == [hidden_grad, weight_grad]
    return counter.get_total_flops() / (2 * 8 * 40 * 6)


def test_backward_computes_only_what_is_asked_for() -> None:
    def logprobs(scores: TokenScores) -> Tensor:
        return scores.logprobs_T.sum()

    def everything(scores: TokenScores) -> Tensor:
        return torch.stack(present(scores)).sum()

    # The policy's logits, the reference's where the loss has the KL, and each gradient.
    assert backward_products(everything, hidden_grad=True, weight_grad=True) == 4
    assert backward_products(logprobs, hidden_grad=True, weight_grad=True) == 3
    assert backward_products(logprobs, hidden_grad=True, weight_grad=False) == 2
    assert backward_products(logprobs, hidden_grad=False, weight_grad=True) == 2


@pytest.mark.parametrize("score", range(3))
def test_each_score_has_its_own_gradient(score: int) -> None:
    hidden, weight, targets, reference = example(11, 29)
    ours, plain = (
        torch.autograd.grad(present(scores)[score].sum(), (hidden, weight))
        for scores in (
            token_scores(hidden, weight, targets, temperature=0.7, reference=reference, logits_per_chunk=50),
            plain_scores(hidden, weight, targets, temperature=0.7, reference=reference),
        )
    )
    torch.testing.assert_close(ours, plain)


class LargestResult(TorchDispatchMode):
    """Records the largest number of elements that an operation returned."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, *(each.numel() for each in (result,) if isinstance(each, Tensor)), 0)
        return result


def test_never_holds_more_logits_than_a_chunk() -> None:
    hidden, weight, targets, reference = example(64, 512, hidden_size=1)
    with LargestResult() as largest:
        scores = token_scores(hidden, weight, targets, temperature=0.7, reference=reference, logits_per_chunk=2048)
        gradients(scores, torch.ones(3, 64), (hidden, weight))
    assert largest.numbers == 2048


@pytest.mark.parametrize("with_reference", [False, True])
def test_no_tokens_give_zero_gradients(with_reference: bool) -> None:
    hidden, weight, targets, reference = example(0, 5, dtype=torch.float32)
    scores = token_scores(hidden, weight, targets, temperature=1.0, reference=reference if with_reference else None)
    assert [score.shape for score in present(scores)] == [(0,)] * (2 + with_reference)
    torch.stack(present(scores)).sum().backward()
    assert hidden.grad is not None and hidden.grad.shape == hidden.shape
    assert weight.grad is not None and weight.grad.shape == weight.shape and not weight.grad.any()
