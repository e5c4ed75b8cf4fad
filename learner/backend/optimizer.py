"""Optimizer steps: apply gradients at the scheduled learning rate, or skip those that are not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from learner.backend.forward_backward import Backend
from learner.backend.gradients import NonFiniteGradientError
from learner.backend.schedule import learning_rate
from learner.config import LearnerConfig


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """The outcome of one optimizer step."""

    grad_norm: float | None
    """Global 2-norm before clipping; None when the step was skipped."""
    notice: str | None = None
    """Why it was skipped."""


class Optimizer:
    """The optimizer steps of a run, counted. Collective."""

    def __init__(self, config: LearnerConfig, backend: Backend, num_steps: int) -> None:
        self._config = config
        self._backend = backend
        self._num_steps = num_steps
        self.num_applied = 0
        self._skipped_in_a_row = 0
        self._may_end_at_zero = False
        """Whether the run began under version 0.1.0, whose decay to 0 arrived there in the last step."""

    @property
    def learning_rate(self) -> float:
        """Of the last optimizer step, or of the first one to come."""
        step = max(1, self.num_applied)
        return learning_rate(self._config, step, self._num_steps, may_end_at_zero=self._may_end_at_zero)

    def apply(self, step: int) -> OptimizerStep:
        """Apply the gradients that the backend holds, or drop them if one of them is not finite.

        Raises NonFiniteGradientError when that happens more than ``max_skipped_updates`` times in a row.
        """
        bad = self._backend.non_finite_gradients()
        if not bad:
            self._skipped_in_a_row = 0
            self.num_applied += 1
            return OptimizerStep(self._backend.optim_step(self.learning_rate))
        self._backend.drop_gradients()
        self._skipped_in_a_row += 1
        where = f"step {step}: the gradient is not finite in {len(bad)} microbatches: {'; '.join(bad)}"
        if self._skipped_in_a_row > self._config.max_skipped_updates:
            raise NonFiniteGradientError(
                f"{where}. It is the update number {self._skipped_in_a_row} in a row, learner.max_skipped_updates is "
                f"{self._config.max_skipped_updates}. The weights are those of the last finite update. Look at "
                "the rewards and completions of those prompts in rollouts/, and start another run (name=…) with a "
                "lower learner.learning_rate or learner.max_grad_norm; this one keeps both"
            )
        return OptimizerStep(None, f"{where}. The update was skipped, the weights are as they were")

    def state(self) -> dict[str, int]:
        """Return what ``restore`` needs to go on from here; DeepSpeed keeps the moments."""
        return {
            "optimizer_step": self.num_applied,
            "skipped_in_a_row": self._skipped_in_a_row,
            "may_end_at_zero": int(self._may_end_at_zero),
        }

    def restore(self, state: Mapping[str, int]) -> None:
        self.num_applied = state["optimizer_step"]
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._may_end_at_zero = bool(state.get("may_end_at_zero", True))
