"""Record the learner's log-probabilities before the update, which it computes anyway, and their changes by the update.

Shape legend: ``_T`` the completion tokens of a microbatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32
from torch import Tensor

from learner.algorithm.losses import Stats
from learner.algorithm.objective import ObjectiveFunction
from learner.backend.forward_backward import Backend
from learner.logprob_record import LogprobRecord
from learner.microbatches import Microbatch
from learner.model.policy import PolicyOutput
from learner.sequences import TrainingSequence


class LogprobNotes:
    """The log-probabilities of one step before and after its update. All methods but ``watch`` are collective."""

    def __init__(self, sequences: Sequence[TrainingSequence]) -> None:
        self._lengths = [sequence.num_completion_tokens for sequence in sequences]
        self._advantages = [sequence.advantages for sequence in sequences]
        self._on_device: list[tuple[Microbatch, Tensor]] = []
        self._before: list[tuple[Microbatch, Float32[np.ndarray, " T"]]] = []

    def watch(self, objective: ObjectiveFunction) -> ObjectiveFunction:
        """Return an objective that computes the same, and also records the log-probabilities before the update."""

        def watched(output: PolicyOutput, microbatch: Microbatch) -> tuple[Tensor, Stats]:
            if microbatch.old_logprobs is None:
                self._on_device.append((microbatch, output.logprobs_T.detach()))
            else:
                self._before.append((microbatch, microbatch.old_logprobs))
            return objective(output, microbatch)

        return watched

    def gaps(self, backend: Backend) -> LogprobRecord:
        """Return the differences between learner and sampler, the same on every rank."""
        self._before += [(microbatch, as_array(before_T)) for microbatch, before_T in self._on_device]
        self._on_device.clear()  # free the device's memory
        gaps = [(microbatch, before_T - microbatch.rollout_logprobs) for microbatch, before_T in self._before]
        differ = any(len(advantages) and np.ptp(advantages) > 0 for advantages in self._advantages)
        advantages = np.concatenate(self._advantages).astype(np.float16) if differ else None
        return LogprobRecord(self._gathered(gaps, backend), advantages=advantages)

    def changes(self, backend: Backend) -> Float16[np.ndarray, " T"]:
        """Score the tokens again, and return the changes by the update, the same on every rank."""
        with without_drawing(backend.device):
            changes = [
                (microbatch, as_array(backend.score(microbatch).logprobs_T) - before_T)
                for microbatch, before_T in self._before
            ]
        return self._gathered(changes, backend)

    def _gathered(
        self, own_values: Iterable[tuple[Microbatch, Float32[np.ndarray, " T"]]], backend: Backend
    ) -> Float16[np.ndarray, " T"]:
        """Return the values of all ranks in the completions' order."""
        own: dict[int, Float16[np.ndarray, " T"]] = {}
        for microbatch, values_T in own_values:
            ends = np.cumsum([sequence.num_completion_tokens for sequence in microbatch.sequences])
            parts = np.split(values_T.astype(np.float16), ends[:-1])
            own |= {sequence.index: part for sequence, part in zip(microbatch.sequences, parts, strict=False)}
        known = {index: part for of_rank in backend.gather(own) for index, part in of_rank.items()}
        unknown = (np.full(length, np.nan, np.float16) for length in self._lengths)
        return np.concatenate([known.get(index, nans) for index, nans in enumerate(unknown)])


def without_drawing(device: torch.device) -> AbstractContextManager[None]:
    """Restore torch's random state after the context: a policy may have dropout, which draws random numbers."""
    context: AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return context


def as_array(tensor: Float[Tensor, " T"]) -> Float32[np.ndarray, " T"]:
    array: Float32[np.ndarray, " T"] = tensor.float().cpu().numpy()
    return array
