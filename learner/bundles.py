"""Sequences of one prompt in a bundle, so that the prompt is computed once for several completions. Pure numpy."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from learner.sequences import TrainingSequence


@dataclass(frozen=True, slots=True)
class PromptBundle:
    """Sequences of one prompt, which stands before their completions once."""

    sequences: tuple[TrainingSequence, ...]

    @property
    def num_prompt_tokens(self) -> int:
        return self.sequences[0].num_prompt_tokens

    @property
    def num_tokens(self) -> int:
        behind = sum(sequence.num_tokens - self.num_prompt_tokens for sequence in self.sequences)
        return self.num_prompt_tokens + behind


def bundle_by_prompt(sequences: Sequence[TrainingSequence], largest: int, break_even: int) -> list[PromptBundle]:
    """Put sequences of a prompt together, in bundles of at most `largest` tokens, where computing them is cheaper so.

    A row of L tokens takes as long as ``L * (break_even + L)``. Bundles of a prompt are of equally many sequences, give
    or take one, the longest together.
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
    fitting = (each for each in divisions if max(bundle.num_tokens for bundle in each) <= largest)
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
