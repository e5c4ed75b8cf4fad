"""Sequences to microbatches: balanced over ranks by tokens, the same number on every rank. Pure numpy.

Two layouts. ``rows`` puts one sequence on a row, sequences of like length together: attention stays plainly causal, so
that SDPA needs no mask. ``flat`` puts all sequences on one row with position ids that restart: no padding at all, but
only variable-length kernels (flash attention) avoid a dense mask of ``tokens ** 2``. Measured on one core with
2,025 tokens of 75-token sequences: 9,600 tokens/s in rows, 3,000 flat under SDPA.

Shape legend: ``_R`` rows, ``_L`` positions of a row, ``_T`` the completion tokens of a microbatch.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as ListOf
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from rollout.types import Group, Logprobs, SupervisedExample, Tokens

Layout = Literal["rows", "flat"]


@dataclass(frozen=True, slots=True)
class Sequence:
    """A prompt and a completion of it on one string of tokens, with the completion's credit."""

    token_ids: Tokens
    num_prompt_tokens: int
    rollout_logprobs: Logprobs
    """Of the completion's tokens."""
    advantage: float

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_completion_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens


Rows = list[list[Sequence]]
"""The sequences of each row of a microbatch."""


@dataclass(frozen=True, slots=True)
class Microbatch:
    """What one forward pass computes. One without completion tokens is a dummy that only keeps ranks in step."""

    token_ids: Int64[np.ndarray, "R L"]
    position_ids: Int64[np.ndarray, "R L"]
    predictors: Int64[np.ndarray, " T"]
    """Where in the flattened ``[R * L]`` the model predicts each completion token: the position before it."""
    targets: Int64[np.ndarray, " T"]
    """The completion tokens' ids."""
    rollout_logprobs: Float32[np.ndarray, " T"]
    advantages: Float32[np.ndarray, " T"]
    completion_lengths: Float32[np.ndarray, " T"]
    """For each token, how many tokens its completion has."""
    old_logprobs: Float32[np.ndarray, " T"] | None = None
    """The learner's before this step's updates; None where the training forward itself gives them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of what is computed before an optimizer step, and the totals of all ranks."""

    microbatches: tuple[Microbatch, ...]
    """This rank's; every rank has the same number."""
    total_tokens: int
    """Completion tokens of all ranks, those left out for want of an advantage included: the loss's denominator."""
    total_completions: int
    """Completions of all ranks, likewise."""
    computed_tokens: int
    """Completion tokens of all ranks that are in a microbatch."""


def sequences_of(group: Group, advantages: Iterable[float]) -> list[Sequence]:
    """The group's completions as sequences, each with its advantage."""
    prompt_ids = group.prompt.token_ids
    return [
        Sequence(
            token_ids=np.concatenate([prompt_ids, completion.token_ids]),
            num_prompt_tokens=len(prompt_ids),
            rollout_logprobs=completion.rollout_logprobs,
            advantage=float(advantage),
        )
        for completion, advantage in zip(group.completions, advantages, strict=True)
    ]


def sequence_of(example: SupervisedExample) -> Sequence:
    """The example as a sequence of advantage 1: cross entropy is the policy gradient at full credit."""
    return Sequence(
        token_ids=np.concatenate([example.prompt_ids, example.completion_ids]),
        num_prompt_tokens=len(example.prompt_ids),
        rollout_logprobs=np.zeros(len(example.completion_ids), dtype=np.float32),
        advantage=1.0,
    )


def pack(
    sequences: ListOf[Sequence],
    *,
    rank: int,
    num_ranks: int,
    max_tokens: int,
    layout: Layout,
    skip_zero_advantage: bool,
) -> Batch:
    """The share of rank ``rank`` of ``sequences``, in microbatches of at most ``max_tokens`` tokens, padding included.

    With ``skip_zero_advantage`` sequences whose gradient is 0 are not computed, though the totals count them. If that
    leaves none, the first sequence stays: the parity of sampler and learner is proven in every step.

    Raises:
        ValueError: a sequence is longer than ``max_tokens``, or has no prompt token to predict its first token from.
    """
    for sequence in sequences:
        _check(sequence, max_tokens)
    computed = [sequence for sequence in sequences if sequence.advantage != 0 or not skip_zero_advantage]
    computed = computed or list(sequences[:1])
    shares = [_cut(share, max_tokens, layout) for share in _balance(computed, num_ranks)]
    # Every rank runs the same number of microbatches, or the collectives of the backward pass hang.
    num_microbatches = max(len(share) for share in shares)
    dummies: list[Rows] = [[]] * (num_microbatches - len(shares[rank]))
    return Batch(
        microbatches=tuple(_lay_out(rows) for rows in shares[rank] + dummies),
        total_tokens=sum(sequence.num_completion_tokens for sequence in sequences),
        total_completions=len(sequences),
        computed_tokens=sum(sequence.num_completion_tokens for sequence in computed),
    )


def _check(sequence: Sequence, max_tokens: int) -> None:
    if sequence.num_tokens > max_tokens:
        raise ValueError(
            f"a sequence has {sequence.num_tokens} tokens, but max_tokens_per_microbatch is {max_tokens}: raise it to "
            f"{sequence.num_tokens} at least, or sample shorter completions"
        )
    if sequence.num_prompt_tokens == 0:
        raise ValueError("a sequence has an empty prompt: nothing predicts its first token; give it a prompt token")


def _balance(sequences: ListOf[Sequence], num_ranks: int) -> list[list[Sequence]]:
    """Longest processing time first: each sequence, longest first, goes to the rank with the fewest tokens."""
    shares: list[list[Sequence]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for sequence in sorted(sequences, key=lambda sequence: -sequence.num_tokens):
        rank = loads.index(min(loads))
        shares[rank].append(sequence)
        loads[rank] += sequence.num_tokens
    return shares


def _cut(sequences: ListOf[Sequence], max_tokens: int, layout: Layout) -> list[Rows]:
    """Microbatches of sequences that come longest first, so that rows of one microbatch are of like length."""
    microbatches: list[list[Sequence]] = []
    for sequence in sequences:
        last = microbatches[-1] if microbatches else []
        if layout == "rows":
            tokens = (len(last) + 1) * last[0].num_tokens if last else 0
        else:
            tokens = sum(other.num_tokens for other in last) + sequence.num_tokens
        if last and tokens <= max_tokens:
            last.append(sequence)
        else:
            microbatches.append([sequence])
    return [[[sequence] for sequence in group] if layout == "rows" else [group] for group in microbatches]


def _lay_out(rows: Rows) -> Microbatch:
    lengths_R = [sum(sequence.num_tokens for sequence in row) for row in rows]
    shape = (max(1, len(rows)), max(lengths_R, default=1))
    # Padding needs no mask: it follows the row's last sequence, which attends to nothing behind it.
    token_ids = np.zeros(shape, dtype=np.int64)
    position_ids = np.tile(np.arange(shape[1]), (shape[0], 1))
    predictors: list[NDArray[np.int64]] = []
    for r, row in enumerate(rows):
        start = 0
        for sequence in row:
            end = start + sequence.num_tokens
            token_ids[r, start:end] = sequence.token_ids
            position_ids[r, start:] = np.arange(shape[1] - start)
            predictors.append(r * shape[1] + np.arange(start + sequence.num_prompt_tokens, end) - 1)
            start = end
    sequences = [sequence for row in rows for sequence in row]
    lengths = [sequence.num_completion_tokens for sequence in sequences]
    return Microbatch(
        token_ids=token_ids,
        position_ids=position_ids,
        predictors=_concatenate(predictors, np.int64),
        targets=_concatenate([sequence.token_ids[sequence.num_prompt_tokens :] for sequence in sequences], np.int64),
        rollout_logprobs=_concatenate([sequence.rollout_logprobs for sequence in sequences], np.float32),
        advantages=np.repeat(np.array([sequence.advantage for sequence in sequences], np.float32), lengths),
        completion_lengths=np.repeat(np.array(lengths, np.float32), lengths),
    )


def _concatenate(parts: ListOf[NDArray], dtype: type) -> NDArray:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype, copy=False)
