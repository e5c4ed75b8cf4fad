"""Notes the learner's log-probabilities of a step where they are computed anyway, and what the update makes of them.

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
    """The log-probabilities of one step, before its update and after it. Collective, but for ``watch``."""

    def __init__(self, sequences: Sequence[TrainingSequence]) -> None:
        self._lengths = [sequence.num_completion_tokens for sequence in sequences]
        self._advantages = [sequence.advantages for sequence in sequences]
        self._noted: list[tuple[Microbatch, Tensor]] = []
        self._before: list[tuple[Microbatch, Float32[np.ndarray, " T"]]] = []

    def watch(self, objective: ObjectiveFunction) -> ObjectiveFunction:
        """Return the objective, which also notes the log-probabilities before the update. It computes the same."""

        def watched(output: PolicyOutput, microbatch: Microbatch) -> tuple[Tensor, Stats]:
            if microbatch.old_logprobs is None:
                self._noted.append((microbatch, output.logprobs_T.detach()))
            else:
                self._before.append((microbatch, microbatch.old_logprobs))
            return objective(output, microbatch)

        return watched

    def gaps(self, backend: Backend) -> LogprobRecord:
        """Return how far the learner was from the sampler, the same on every rank."""
        self._before += [(microbatch, as_array(before_T)) for microbatch, before_T in self._noted]
        self._noted.clear()  # nothing of the step stays on the device
        gaps = [(microbatch, before_T - microbatch.rollout_logprobs) for microbatch, before_T in self._before]
        of_tokens = any(len(advantages) and np.ptp(advantages) > 0 for advantages in self._advantages)
        advantages = np.concatenate(self._advantages).astype(np.float16) if of_tokens else None
        return LogprobRecord(self._gathered(gaps, backend), advantages=advantages)

    def changes(self, backend: Backend) -> Float16[np.ndarray, " T"]:
        """Score the tokens again, and return how far the update has moved them, the same on every rank."""
        with without_drawing(backend.device):
            moved = [
                (microbatch, as_array(backend.score(microbatch).logprobs_T) - before_T)
                for microbatch, before_T in self._before
            ]
        return self._gathered(moved, backend)

    def _gathered(
        self, found: Iterable[tuple[Microbatch, Float32[np.ndarray, " T"]]], backend: Backend
    ) -> Float16[np.ndarray, " T"]:
        """Return the values of all ranks in the completions' order."""
        own: dict[int, Float16[np.ndarray, " T"]] = {}
        for microbatch, values_T in found:
            ends = np.cumsum([sequence.num_completion_tokens for sequence in microbatch.sequences])
            parts = np.split(values_T.astype(np.float16), ends[:-1])
            own |= {sequence.index: part for sequence, part in zip(microbatch.sequences, parts, strict=False)}
        known = {index: part for of_rank in backend.gather(own) for index, part in of_rank.items()}
        unknown = (np.full(length, np.nan, np.float16) for length in self._lengths)
        return np.concatenate([known.get(index, nothing) for index, nothing in enumerate(unknown)])


def without_drawing(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's random numbers after the context as they are before it: a policy may have dropout."""
    context: AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return context


def as_array(tensor: Float[Tensor, " T"]) -> Float32[np.ndarray, " T"]:
    array: Float32[np.ndarray, " T"] = tensor.float().cpu().numpy()
    return array
