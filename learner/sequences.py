"""Training sequences: a prompt and a completion as one array of tokens. Pure numpy.

Shape legend: ``_T`` completion tokens, which are the tokens of a completion that the policy wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from rollout.types.completions import Group, Logprobs
from rollout.types.prompts import SupervisedExample, Tokens


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """A prompt and one of its completions as one array of tokens, with the update's arrays of completion tokens."""

    token_ids: Tokens
    num_prompt_tokens: int
    rollout_logprobs: Logprobs
    """The sampler's logprobs of the completion tokens."""
    advantages: Float32[np.ndarray, " T"]
    policy_tokens: slice | NDArray[np.int64] = field(default_factory=lambda: slice(None))
    """Index of the completion tokens among the tokens after the prompt; the others are context, like the prompt."""
    index: int = 0
    """Position among the sequences of its step."""
    prompt_id: str = ""
    is_masked: bool = False
    """Whether it is left out of the loss and of its denominators."""
    is_on_policy: bool = True
    """Whether only the weights just before this step sampled it: then sampler and learner must agree."""
    old_logprobs: Float32[np.ndarray, " T"] | None = None
    """The learner's logprobs before this step's updates; None if the training forward pass computes them."""
    ref_logprobs: Float32[np.ndarray, " T"] | None = None
    """The reference's logprobs; None if no KL estimate needs them."""
    old_values: Float32[np.ndarray, " T"] | None = None
    """The critic's values before this step's updates; None without a critic."""
    returns: Float32[np.ndarray, " T"] | None = None
    """The critic's targets; None without a critic."""

    @property
    def num_tokens(self) -> int:
        """Number of tokens in prompt and completion, with observations."""
        return len(self.token_ids)

    @property
    def num_completion_tokens(self) -> int:
        return len(self.rollout_logprobs)

    @property
    def has_advantage(self) -> bool:
        return bool(self.advantages.any())


def sequences_from_groups(groups: Iterable[Group], version: int = 0) -> list[TrainingSequence]:
    """Return the groups' completions as sequences, in order, with advantages of 0.

    A sequence is not on policy if weights older than policy ``version`` sampled any of its tokens.
    """
    pairs = [(group.prompt, completion) for group in groups for completion in group.completions]
    return [
        TrainingSequence(
            token_ids=np.concatenate([prompt.token_ids, completion.token_ids]),
            num_prompt_tokens=len(prompt.token_ids),
            rollout_logprobs=completion.rollout_logprobs,
            advantages=np.zeros(completion.num_tokens, dtype=np.float32),
            policy_tokens=completion.policy_tokens,
            index=index,
            prompt_id=prompt.id,
            is_on_policy=min(completion.policy_versions) >= version,
        )
        for index, (prompt, completion) in enumerate(pairs)
    ]


def sequence_from_example(example: SupervisedExample) -> TrainingSequence:
    """Return the example as a sequence of advantage 1, for which the policy gradient equals that of cross entropy."""
    taught = slice(None) if example.policy_tokens is None else example.policy_tokens
    num_tokens = len(example.completion_ids[taught])
    return TrainingSequence(
        token_ids=np.concatenate([example.prompt_ids, example.completion_ids]),
        num_prompt_tokens=len(example.prompt_ids),
        rollout_logprobs=np.zeros(num_tokens, dtype=np.float32),
        advantages=np.ones(num_tokens, dtype=np.float32),
        policy_tokens=taught,
    )


def select_computed(sequences: Sequence[TrainingSequence], *, skip_zero_advantage: bool) -> list[TrainingSequence]:
    """Return the sequences that need a forward pass: not masked, and for ``skip_zero_advantage`` an advantage not 0.

    If there are none, return only the first, because each step proves that sampler and learner agree.
    """
    kept = [sequence for sequence in sequences if not sequence.is_masked]
    computed = [sequence for sequence in kept if sequence.has_advantage or not skip_zero_advantage]
    return computed or list((kept or sequences)[:1])
