"""What policy, critic and reference say about a step's completions before the update changes any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import NDArray
from torch import Tensor

from learner.algorithm.credit import needs_scores
from learner.algorithm.objective import mismatch_totals
from learner.backend.backend import Backend
from learner.config import LearnerConfig
from learner.model.reference import Reference
from learner.packing import Batch, Microbatch, TrainingSequence
from learner.stats import StatsAccumulator


class LogprobPass:
    """Knows who must be asked, and asks. Collective."""

    def __init__(self, config: LearnerConfig, backend: Backend, reference: Reference | None) -> None:
        algorithm = config.algorithm
        self._backend = backend
        self._reference = reference if algorithm.kl_estimator != "exact" else None
        """None for an exact KL too, which takes whole distributions during the update."""
        self._uses_critic = algorithm.uses_critic
        self.asks_policy = config.updates_per_step > 1 or needs_scores(algorithm)
        """Whether ``old_logprobs`` are found by a pass of their own; else the update's own forward pass gives them."""

    @property
    def is_needed(self) -> bool:
        return self.asks_policy or self._reference is not None

    def scored(
        self, sequences: Sequence[TrainingSequence], batch: Batch, stats: StatsAccumulator
    ) -> list[TrainingSequence]:
        """``sequences``, those in ``batch`` with what was said of them, on every rank.

        Adds to ``stats`` how far the policy is from the sampler, if it was asked.
        """
        found: dict[int, dict[str, NDArray]] = {}
        for microbatch in batch.microbatches:
            said = self._ask(microbatch, stats)
            lengths = [sequence.num_completion_tokens for sequence in microbatch.sequences]
            parts = {name: tensor.cpu().split(lengths) for name, tensor in said.items() if lengths}
            for position, sequence in enumerate(microbatch.sequences):
                found[sequence.index] = {name: of_each[position].numpy() for name, of_each in parts.items()}
        known = {index: arrays for of_rank in self._backend.gather(found) for index, arrays in of_rank.items()}
        return [replace(sequence, **known.get(sequence.index, {})) for sequence in sequences]

    def _ask(self, microbatch: Microbatch, stats: StatsAccumulator) -> dict[str, Tensor]:
        """Fields of ``TrainingSequence``, for all the microbatch's tokens."""
        said: dict[str, Tensor] = {}
        if self.asks_policy:
            output = self._backend.score(microbatch)
            stats.add(mismatch_totals(output.logprobs_T, microbatch))
            said["old_logprobs"] = output.logprobs_T
            if self._uses_critic:
                said["old_values"] = output.values_T
        if self._reference is not None:
            said["ref_logprobs"] = self._reference.logprobs(microbatch)
        return said
