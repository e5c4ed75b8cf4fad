"""The forward pass over a step's completions before its first update, for policy, critic and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import NDArray
from torch import Tensor

from learner.algorithm.objective import mismatch_totals
from learner.backend.forward_backward import Backend, StatsAccumulator
from learner.config import LearnerConfig
from learner.microbatches import Batch, Microbatch
from learner.model.reference import Reference
from learner.sequences import TrainingSequence


class LogprobPass:
    """Compute the log-probabilities and values that advantages or the loss need. Collective."""

    def __init__(self, config: LearnerConfig, backend: Backend, reference: Reference | None) -> None:
        algorithm = config.algorithm
        self._backend = backend
        self._reference = reference if algorithm.kl_estimator != "exact" else None
        """Also None for an exact KL, which needs complete distributions during the update."""
        self._uses_critic = algorithm.uses_critic
        self._runs_policy = config.updates_per_step > 1 or algorithm.advantages_need_logprobs
        """Whether this pass computes ``old_logprobs``; otherwise the update's own forward pass computes them."""

    @property
    def is_needed(self) -> bool:
        return self._runs_policy or self._reference is not None

    def run(
        self, sequences: Sequence[TrainingSequence], batch: Batch, stats: StatsAccumulator
    ) -> list[TrainingSequence]:
        """Return ``sequences`` on every rank; those in ``batch`` get log-probabilities and values.

        If this pass runs the policy, add the differences between policy and sampler to ``stats``.
        """
        own: dict[int, dict[str, NDArray]] = {}
        for microbatch in batch.microbatches:
            lengths = [sequence.num_completion_tokens for sequence in microbatch.sequences]
            fields = self._fields(microbatch, stats)
            parts = {name: tensor.cpu().split(lengths) for name, tensor in fields.items() if lengths}
            for position, sequence in enumerate(microbatch.sequences):
                own[sequence.index] = {name: by_sequence[position].numpy() for name, by_sequence in parts.items()}
        known = {index: arrays for of_rank in self._backend.gather(own) for index, arrays in of_rank.items()}
        return [replace(sequence, **known.get(sequence.index, {})) for sequence in sequences]

    def _fields(self, microbatch: Microbatch, stats: StatsAccumulator) -> dict[str, Tensor]:
        """Return fields of ``TrainingSequence`` by name; each has shape [T], the microbatch's completion tokens."""
        fields: dict[str, Tensor] = {}
        if self._runs_policy:
            output = self._backend.score(microbatch)
            stats.add(mismatch_totals(output.logprobs_T, microbatch))
            fields["old_logprobs"] = output.logprobs_T
            if self._uses_critic:
                fields["old_values"] = output.values_T
        if self._reference is not None:
            fields["ref_logprobs"] = self._reference.logprobs(microbatch)
        return fields
