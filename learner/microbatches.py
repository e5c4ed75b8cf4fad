"""The input of a forward pass: sequences laid out in rows, as arrays. Pure numpy.

Shape legend: ``_R`` rows, ``_L`` positions of a row, ``_T`` the completion tokens of a microbatch, which the policy
wrote. An environment's observations are only in the rows, like the prompt, and not among the completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from learner.bundles import PromptBundle
from learner.sequences import TrainingSequence

PADDING = -1

Rows = list[list[PromptBundle]]
"""The bundles of each row of a microbatch."""


@dataclass(frozen=True, slots=True)
class Microbatch:
    """The input of one forward pass. Without completion tokens it is a dummy that only keeps the ranks in step."""

    token_ids: Int64[np.ndarray, "R L"]
    position_ids: Int64[np.ndarray, "R L"]
    parts: Int64[np.ndarray, "R L"] | None
    """0 for a prompt, and 1, 2, … for the completions of a row: a token attends to the prompt and to its own part, up
    to itself. PADDING follows them. None if every token attends to all tokens before it."""
    predictors: Int64[np.ndarray, " T"]
    """Index in the flattened ``[R * L]`` where the model predicts each completion token: the position before it in its
    sequence. For the first token of a completion this is the last position of the prompt."""
    targets: Int64[np.ndarray, " T"]
    """The completion tokens' ids."""
    rollout_logprobs: Float32[np.ndarray, " T"]
    advantages: Float32[np.ndarray, " T"]
    completion: Int64[np.ndarray, " T"]
    """Each token's completion, as an index into ``sequences``."""
    completion_lengths: Float32[np.ndarray, " T"]
    """Number of tokens in each token's completion."""
    loss_mask: Float32[np.ndarray, " T"]
    """0 if a token is left out of the loss, else 1."""
    on_policy: Float32[np.ndarray, " T"]
    """1 if the token's completion was sampled by the weights before this step, else 0."""
    sequences: tuple[TrainingSequence, ...]
    old_logprobs: Float32[np.ndarray, " T"] | None = None
    """This and the following as in ``TrainingSequence``."""
    ref_logprobs: Float32[np.ndarray, " T"] | None = None
    old_values: Float32[np.ndarray, " T"] | None = None
    returns: Float32[np.ndarray, " T"] | None = None

    @property
    def prompt_ids(self) -> tuple[str, ...]:
        """The prompt ids of its sequences, each once."""
        return tuple(dict.fromkeys(sequence.prompt_id for sequence in self.sequences))

    def thirds(self) -> Int64[np.ndarray, " T"]:
        """Return the third of its completion that each token is in: 0, 1 or 2."""
        lengths = self.completion_lengths.astype(np.int64)
        starts = np.searchsorted(self.completion, self.completion)
        return (np.arange(len(lengths)) - starts) * 3 // np.maximum(lengths, 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's microbatches of an optimizer step, and the totals of all ranks."""

    microbatches: tuple[Microbatch, ...]
    """This rank's microbatches; every rank has the same number."""
    total_tokens: int
    """Completion tokens of all ranks without masked ones, but with those that are not computed because their advantage
    is 0: the loss's denominator. At least 1."""
    total_completions: int
    """Completions of all ranks, counted in the same way."""
    computed_tokens: int
    """Completion tokens of all ranks that are in a microbatch."""
    knows_old_logprobs: bool
    """Whether ``old_logprobs`` were computed before the update. A dummy microbatch cannot know it, but must behave like
    the others, or ranks would reduce different statistics."""


def lay_out(rows: Rows) -> Microbatch:
    """Return the microbatch of these rows; without rows, a dummy."""
    lengths_R = [sum(bundle.num_tokens for bundle in row) for row in rows]
    shape = (max(1, len(rows)), max(lengths_R, default=1))
    # Padding needs no mask: it follows the row's last sequence, and no token attends to later ones.
    token_ids = np.zeros(shape, dtype=np.int64)
    position_ids = np.tile(np.arange(shape[1]), (shape[0], 1))
    parts = np.full(shape, PADDING)
    predictors: list[NDArray[np.int64]] = []
    for r, row in enumerate(rows):
        start = 0
        for bundle in row:
            prompt_end = end = start + bundle.num_prompt_tokens
            token_ids[r, start:end] = bundle.sequences[0].token_ids[: bundle.num_prompt_tokens]
            position_ids[r, start:] = np.arange(shape[1] - start)
            parts[r, start:end] = 0
            for part, sequence in enumerate(bundle.sequences, start=1):
                begin, end = end, end + sequence.num_tokens - bundle.num_prompt_tokens
                token_ids[r, begin:end] = sequence.token_ids[bundle.num_prompt_tokens :]
                position_ids[r, begin:end] = np.arange(bundle.num_prompt_tokens, sequence.num_tokens)
                parts[r, begin:end] = part
                before = np.concatenate([[prompt_end - 1], np.arange(begin, end - 1)])[: end - begin]
                predictors.append(r * shape[1] + before[sequence.policy_tokens])
            start = end
    bundles = [bundle for row in rows for bundle in row]
    sequences = [sequence for bundle in bundles for sequence in bundle.sequences]
    lengths = np.array([sequence.num_completion_tokens for sequence in sequences], dtype=np.int64)
    return Microbatch(
        token_ids=token_ids,
        position_ids=position_ids,
        parts=parts if any(len(bundle.sequences) > 1 for bundle in bundles) else None,
        predictors=_concatenate(predictors, np.int64),
        targets=_concatenate([s.token_ids[s.num_prompt_tokens :][s.policy_tokens] for s in sequences], np.int64),
        rollout_logprobs=_concatenate([sequence.rollout_logprobs for sequence in sequences], np.float32),
        advantages=_concatenate([sequence.advantages for sequence in sequences], np.float32),
        completion=np.repeat(np.arange(len(sequences)), lengths),
        completion_lengths=np.repeat(np.array(lengths, np.float32), lengths),
        loss_mask=np.repeat(np.array([not s.is_masked for s in sequences], np.float32), lengths),
        on_policy=np.repeat(np.array([s.is_on_policy for s in sequences], np.float32), lengths),
        sequences=tuple(sequences),
        old_logprobs=_if_known([sequence.old_logprobs for sequence in sequences]),
        ref_logprobs=_if_known([sequence.ref_logprobs for sequence in sequences]),
        old_values=_if_known([sequence.old_values for sequence in sequences]),
        returns=_if_known([sequence.returns for sequence in sequences]),
    )


def _if_known(parts: Sequence[NDArray | None]) -> NDArray | None:
    """Join the parts, or return None if they are unknown: either all sequences of an update have an array, or none."""
    known = [part for part in parts if part is not None]
    assert len(known) in (0, len(parts)), "some sequences lack an array that the pass before the update computes"
    return _concatenate(known, np.float32) if len(known) == len(parts) else None


def _concatenate(parts: Sequence[NDArray], dtype: type) -> NDArray:
    return np.concatenate([np.empty(0, dtype), *parts]).astype(dtype, copy=False)
