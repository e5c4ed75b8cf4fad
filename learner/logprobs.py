"""Log-probabilities and entropy of tokens without ever holding the logits of all of them.

Shape legend: ``_T`` tokens, ``_C`` tokens of a chunk, ``_H`` hidden size, ``_V`` vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOGITS_PER_CHUNK = 2**25
"""Logits held at a time; 128 MiB in float32, of which forward and backward hold two or three copies."""


def token_logprobs(
    hidden_TH: Float[Tensor, "T H"],
    head_weight_VH: Float[Tensor, "V H"],
    target_ids_T: Int[Tensor, " T"],
    *,
    temperature: float,
    logits_per_chunk: int = LOGITS_PER_CHUNK,
) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
    """Log-probability of each target, and the entropy it was drawn from, both in nats and float32.

    Both are of the sampling distribution ``softmax(hidden @ head.T / temperature)``, and both are differentiable.
    Logits are computed a chunk of tokens at a time, and again in the backward pass.
    """
    chunk_tokens = max(1, logits_per_chunk // head_weight_VH.shape[0])
    return _ChunkedLogprobs.apply(hidden_TH, head_weight_VH, target_ids_T, temperature, chunk_tokens)


def _log_softmax(hidden_CH: Tensor, weight_VH: Tensor, temperature: float) -> Tensor:
    logits_CV = (hidden_CH @ weight_VH.T).float()
    return torch.log_softmax(logits_CV if temperature == 1 else logits_CV / temperature, dim=-1)


class _ChunkedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, targets_T: Tensor, temperature: float, chunk_tokens: int
    ) -> tuple[Tensor, Tensor]:
        logprobs_T = hidden_TH.new_empty(len(targets_T), dtype=torch.float32)
        entropy_T = torch.empty_like(logprobs_T)
        for start in range(0, len(targets_T), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            log_softmax_CV = _log_softmax(hidden_TH[chunk], weight_VH, temperature)
            logprobs_T[chunk] = log_softmax_CV.gather(1, targets_T[chunk, None])[:, 0]
            entropy_T[chunk] = -(log_softmax_CV.exp() * log_softmax_CV).sum(-1)
        ctx.save_for_backward(hidden_TH, weight_VH, targets_T, entropy_T)
        ctx.temperature, ctx.chunk_tokens = temperature, chunk_tokens
        ctx.set_materialize_grads(False)
        return logprobs_T, entropy_T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_logprobs_T, grad_entropy_T = grads
        hidden_TH, weight_VH, targets_T, entropy_T = ctx.saved_tensors
        grad_hidden_TH = torch.zeros_like(hidden_TH)
        # Chunks add up in float32: in bfloat16 the sum of many chunks would lose the small ones.
        grad_weight_VH = torch.zeros_like(weight_VH, dtype=torch.float32)
        for start in range(0, len(targets_T), ctx.chunk_tokens):
            chunk = slice(start, start + ctx.chunk_tokens)
            log_softmax_CV = _log_softmax(hidden_TH[chunk], weight_VH, ctx.temperature)
            probs_CV = log_softmax_CV.exp()
            grad_logits_CV = torch.zeros_like(probs_CV)
            if grad_logprobs_T is not None:  # d logprob / d logits = onehot - p
                grad_C = grad_logprobs_T[chunk, None]
                grad_logits_CV.addcmul_(probs_CV, grad_C, value=-1).scatter_add_(1, targets_T[chunk, None], grad_C)
            if grad_entropy_T is not None:  # d entropy / d logits = -p (log p + entropy)
                surprise_CV = log_softmax_CV + entropy_T[chunk, None]
                grad_logits_CV.addcmul_(probs_CV * surprise_CV, grad_entropy_T[chunk, None], value=-1)
            grad_logits_CV = (grad_logits_CV / ctx.temperature).to(hidden_TH.dtype)
            grad_hidden_TH[chunk] = grad_logits_CV @ weight_VH
            grad_weight_VH += grad_logits_CV.T @ hidden_TH[chunk]
        return grad_hidden_TH, grad_weight_VH.to(weight_VH.dtype), None, None, None
