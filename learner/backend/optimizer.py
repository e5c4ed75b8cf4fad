"""Optimizer steps: apply gradients at the scheduled learning rate, or skip them if they are not finite."""

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
    """Global 2-norm before clipping; None if the step was skipped."""
    notice: str | None = None
    """Why it was skipped; None if it was applied."""


class Optimizer:
    """The optimizer steps of a run, and their count. Collective."""

    def __init__(self, config: LearnerConfig, backend: Backend, num_steps: int) -> None:
        self._config = config
        self._backend = backend
        self._num_steps = num_steps
        self.num_applied = 0
        self._skipped_in_a_row = 0
        self._may_end_at_zero = False
        """Whether the run started with version 0.1.0, where a decay to 0 ended in the last step."""

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last optimizer step; before the first step, that of the first."""
        step = max(1, self.num_applied)
        return learning_rate(self._config, step, self._num_steps, may_end_at_zero=self._may_end_at_zero)

    def apply(self, step: int) -> OptimizerStep:
        """Apply the backend's gradients, or drop them if any is not finite.

        Raises NonFiniteGradientError if they were dropped more than ``max_skipped_updates`` times in a row.
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
                f"{where}. This is number {self._skipped_in_a_row} in a row of such updates; "
                f"learner.max_skipped_updates is {self._config.max_skipped_updates}. The weights are those of the last "
                "finite update. Look at the rewards and completions of these prompts in rollouts/, and start another "
                "run (name=…) with a lower learner.learning_rate or learner.max_grad_norm; this run keeps both"
            )
        return OptimizerStep(None, f"{where}. The update was skipped, and the weights are unchanged")

    def state(self) -> dict[str, int]:
        """Return the state that ``restore`` needs to continue; the moments are saved by DeepSpeed."""
        return {
            "optimizer_step": self.num_applied,
            "skipped_in_a_row": self._skipped_in_a_row,
            "may_end_at_zero": int(self._may_end_at_zero),
        }

    def restore(self, state: Mapping[str, int]) -> None:
        self.num_applied = state["optimizer_step"]
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._may_end_at_zero = bool(state.get("may_end_at_zero", True))
