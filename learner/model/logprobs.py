"""Compute log-probabilities, entropy and exact KL of tokens without the logits of all tokens in memory at once.

The forward pass iterates over chunks of tokens. The backward pass computes the logits again, over slices of the
vocabulary: a slice's part of the head's gradient is then one product, which is written into its place.

Shape legend: ``_T`` tokens, ``_C`` tokens of a chunk, ``_H`` hidden size, ``_V`` vocabulary, ``_S`` a slice of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from learner.memory import LOGITS_PER_CHUNK


class TokenScores(NamedTuple):
    """Scores of tokens under the policy's distributions. In nats, float32 (float64 for float64 inputs)."""

    logprobs_T: Float[Tensor, " T"]
    entropy_T: Float[Tensor, " T"]
    reference_kl_T: Float[Tensor, " T"] | None
    """KL(policy || reference) over the vocabulary; None without a reference."""


def token_scores(
    hidden_TH: Float[Tensor, "T H"],
    head_weight_VH: Float[Tensor, "V H"],
    target_ids_T: Int[Tensor, " T"],
    *,
    temperature: float,
    reference: tuple[Tensor, Tensor] | None = None,
    logits_per_chunk: int = LOGITS_PER_CHUNK,
) -> TokenScores:
    """Return the targets' scores under ``softmax(hidden @ head.T / temperature)``. All scores are differentiable.

    Args:
        hidden_TH: the hidden state that predicts each token.
        head_weight_VH: the LM head.
        target_ids_T: the ids of the tokens to score.
        temperature: temperature of both distributions.
        reference: hidden states [T, H'] and LM head [V, H'] of a reference model, which gets no gradient.
        logits_per_chunk: number of logits in memory at a time.
    """
    scores = _ChunkedScores.apply(
        hidden_TH, head_weight_VH, target_ids_T, temperature, *(reference or (None, None)), logits_per_chunk
    )
    return TokenScores(*scores)


class _Softmax(NamedTuple):
    """``softmax(hidden @ weight.T / temperature)`` of every token, computed in parts."""

    temperature: float
    hidden_TH: Tensor
    weight_VH: Tensor
    log_normalizer_T: Tensor
    """Computed by ``of_tokens``, needed by ``of_vocabulary``."""

    @classmethod
    def new(cls, temperature: float, hidden_TH: Tensor, weight_VH: Tensor) -> _Softmax:
        return cls(temperature, hidden_TH, weight_VH, hidden_TH.new_empty(len(hidden_TH), dtype=_wide(hidden_TH)))

    def of_tokens(self, chunk: slice) -> tuple[Float[Tensor, "C V"], Float[Tensor, "C V"], Float[Tensor, " C"]]:
        """Return log-probabilities over the vocabulary, probabilities relative to the largest one, and their sums.

        All are new tensors. Relative probabilities serve for the normalizer and the expectations, with one exponential.
        """
        logits_CV = self._logits(self.hidden_TH[chunk], self.weight_VH)
        largest_C = logits_CV.amax(-1)
        relative_CV = logits_CV.sub_(largest_C[:, None]).exp()
        total_C = relative_CV.sum(-1)
        self.log_normalizer_T[chunk] = largest_C + total_C.log()
        return logits_CV.sub_(total_C.log()[:, None]), relative_CV, total_C

    def of_vocabulary(self, part: slice) -> Float[Tensor, "T S"]:
        """Return the log-probabilities of a slice of the vocabulary, in a new tensor."""
        return self._logits(self.hidden_TH, self.weight_VH[part]).sub_(self.log_normalizer_T[:, None])

    def _logits(self, hidden_CH: Tensor, weight_SH: Tensor) -> Float[Tensor, "C S"]:
        logits_CS = (hidden_CH @ weight_SH.T).to(_wide(hidden_CH))
        return logits_CS if self.temperature == 1 else logits_CS.div_(self.temperature)


class _ChunkedScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TH: Tensor,
        weight_VH: Tensor,
        targets_T: Tensor,
        temperature: float,
        reference_hidden: Tensor | None,
        reference_weight: Tensor | None,
        logits_per_chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        softmaxes = [_Softmax.new(temperature, hidden_TH, weight_VH)]
        if reference_hidden is not None and reference_weight is not None:
            softmaxes.append(_Softmax.new(temperature, reference_hidden, reference_weight))
        chunks = _slices(len(targets_T), logits_per_chunk // len(weight_VH))
        scores = zip(*(_chunk_scores(targets_T, chunk, *softmaxes) for chunk in chunks), strict=True)
        logprobs_T, entropy_T, *kl = map(torch.cat, scores)
        kl_T = kl[0] if kl else None
        ctx.save_for_backward(targets_T, entropy_T, kl_T, *(tensor for softmax in softmaxes for tensor in softmax[1:]))
        ctx.temperature, ctx.logits_per_chunk = temperature, logits_per_chunk
        ctx.set_materialize_grads(False)
        return logprobs_T, entropy_T, kl_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        targets_T, entropy_T, kl_T, *tensors = ctx.saved_tensors
        hidden_TH, weight_VH = tensors[:2]
        policy = _Softmax(ctx.temperature, *tensors[:3])
        reference = None if grads[2] is None else _Softmax(ctx.temperature, *tensors[3:])
        upstream = _Upstream(*(None if grad_T is None else grad_T / -ctx.temperature for grad_T in grads))
        constant_T = upstream.constant(entropy_T, kl_T)
        # Sum the slices in float32: a sum of many in bfloat16 would lose small ones.
        grad_hidden_TH = torch.zeros_like(hidden_TH, dtype=_wide(hidden_TH)) if ctx.needs_input_grad[0] else None
        grad_weight_VH = torch.empty_like(weight_VH) if ctx.needs_input_grad[1] else None
        for part in _slices(len(weight_VH), _aligned(ctx.logits_per_chunk // max(1, len(hidden_TH)))):
            grad_logits_TS = _grad_logits(policy, reference, targets_T, upstream, constant_T, part).to(hidden_TH.dtype)
            if grad_hidden_TH is not None:
                grad_hidden_TH += grad_logits_TS @ weight_VH[part]
            if grad_weight_VH is not None:
                torch.mm(grad_logits_TS.T, hidden_TH, out=grad_weight_VH[part])
            del grad_logits_TS  # free it before the next slice's is computed
        return None if grad_hidden_TH is None else grad_hidden_TH.to(hidden_TH.dtype), grad_weight_VH, *[None] * 5


class _Upstream(NamedTuple):
    """Gradients of the loss by the scores, divided by minus the temperature; None if the loss does not use a score."""

    logprobs_T: Tensor | None
    entropy_T: Tensor | None
    reference_kl_T: Tensor | None

    def constant(self, entropy_T: Tensor, kl_T: Tensor | None) -> Float[Tensor, " T"]:
        """Return the part of a token's gradient that is the same for all its logits; see ``_grad_logits``."""
        pairs: Any = zip(self, (torch.ones_like(entropy_T), entropy_T, kl_T), strict=True)
        return sum((grad_T * mean_T for grad_T, mean_T in pairs if grad_T is not None), torch.zeros_like(entropy_T))


def _chunk_scores(
    targets_T: Tensor, chunk: slice, policy: _Softmax, reference: _Softmax | None = None
) -> tuple[Tensor, ...]:
    """Return log-probability and entropy of a chunk of tokens, and the KL if there is a reference."""
    log_q_CV = None if reference is None else reference.of_tokens(chunk)[0]
    log_p_CV, relative_CV, total_C = policy.of_tokens(chunk)
    logprobs_C = log_p_CV.gather(1, targets_T[chunk, None])[:, 0]
    # Subtract before the sum, so that the KL is exactly zero if both models agree.
    kl_C = () if log_q_CV is None else (-log_q_CV.sub_(log_p_CV).mul_(relative_CV).sum(-1) / total_C,)
    entropy_C = -log_p_CV.mul_(relative_CV).sum(-1) / total_C
    return logprobs_C, entropy_C, *kl_C


def _grad_logits(
    policy: _Softmax,
    reference: _Softmax | None,
    targets_T: Tensor,
    upstream: _Upstream,
    constant_T: Tensor,
    part: slice,
) -> Float[Tensor, "T S"]:
    """Return the gradient of the loss by a slice of the logits.

    The derivatives of a token's scores by its logits, times the temperature, with H the entropy and onehot the target:
    d logprob = onehot - p,  d entropy = -p (log p + H),  d KL = -p (log q - log p + KL).
    ``constant_T`` is the part of the factors of -p that is the same for the whole vocabulary.
    """
    log_p_TS = policy.of_vocabulary(part)
    log_ratio_TS = None if reference is None else reference.of_vocabulary(part).sub_(log_p_TS)
    probs_TS = log_p_TS.exp()
    factor = constant_T[:, None]
    if log_ratio_TS is not None and upstream.reference_kl_T is not None:
        factor = log_ratio_TS.mul_(upstream.reference_kl_T[:, None]).add_(factor)
    if upstream.entropy_T is not None:
        factor = log_p_TS.mul_(upstream.entropy_T[:, None]).add_(factor)
    grad_TS = probs_TS.mul_(factor)
    if upstream.logprobs_T is not None:
        column_T = targets_T - part.start
        # Mask instead of select: with selection the host would wait for the number of targets in the slice.
        is_inside_T = (column_T >= 0) & (column_T < grad_TS.shape[1])
        onehot_T = -upstream.logprobs_T.where(is_inside_T, 0)
        grad_TS.scatter_add_(1, column_T.clamp(0, grad_TS.shape[1] - 1)[:, None], onehot_T[:, None])
    return grad_TS


def _slices(length: int, size: int) -> list[slice]:
    """Cut ``length`` into slices of at most ``size``, and at least 1; a length of 0 gives one empty slice."""
    size = max(1, size)
    return [slice(start, min(start + size, length)) for start in range(0, max(1, length), size)]


def _aligned(size: int) -> int:
    """Round ``size`` down to a multiple of 64, which makes GPUs multiply matrices fast, unless it is smaller."""
    return size if size < 64 else size - size % 64


def _wide(tensor: Tensor) -> torch.dtype:
    """Return the dtype for sums and logarithms of ``tensor``: at least float32."""
    return torch.promote_types(tensor.dtype, torch.float32)
