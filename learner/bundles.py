"""Bundle sequences of one prompt, so that the prompt is computed once for several completions. Pure numpy."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from learner.sequences import TrainingSequence


@dataclass(frozen=True, slots=True)
class PromptBundle:
    """Sequences of one prompt: the prompt once, followed by their completions."""

    sequences: tuple[TrainingSequence, ...]

    @property
    def num_prompt_tokens(self) -> int:
        return self.sequences[0].num_prompt_tokens

    @property
    def num_tokens(self) -> int:
        after_prompt = sum(sequence.num_tokens - self.num_prompt_tokens for sequence in self.sequences)
        return self.num_prompt_tokens + after_prompt


def bundle_by_prompt(sequences: Sequence[TrainingSequence], largest: int, break_even: int) -> list[PromptBundle]:
    """Put sequences of a prompt together in bundles of at most `largest` tokens, if that makes them cheaper to compute.

    The cost of a row of L tokens is ``L * (break_even + L)``; a `break_even` of 0 makes no bundles of several. Bundles
    of one prompt differ by at most one in their number of sequences; the longest sequences are together.
    """
    if not break_even:
        return [PromptBundle((sequence,)) for sequence in sequences]
    groups: dict[bytes, list[TrainingSequence]] = defaultdict(list)
    for sequence in sequences:
        groups[sequence.token_ids[: sequence.num_prompt_tokens].tobytes()].append(sequence)
    return [bundle for group in groups.values() for bundle in _cheapest(group, largest, break_even)]


def _cheapest(group: list[TrainingSequence], largest: int, break_even: int) -> list[PromptBundle]:
    group = sorted(group, key=lambda sequence: -sequence.num_tokens)
    divisions = (_divide(group, count) for count in range(1, len(group) + 1))
    fitting = (bundles for bundles in divisions if max(bundle.num_tokens for bundle in bundles) <= largest)
    alone = [PromptBundle((sequence,)) for sequence in group]
    return min(
        fitting,
        key=lambda bundles: sum(bundle.num_tokens * (break_even + bundle.num_tokens) for bundle in bundles),
        default=alone,
    )


def _divide(group: list[TrainingSequence], count: int) -> list[PromptBundle]:
    """Divide the sequences into `count` bundles, in order."""
    bounds = [len(group) * position // count for position in range(count + 1)]
    return [PromptBundle(tuple(group[start:end])) for start, end in itertools.pairwise(bounds)]
