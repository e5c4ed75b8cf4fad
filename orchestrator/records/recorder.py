"""Rollouts, curve and report are written beside the loop, by an actor of their own on the driver's node."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.calls import RemoteCallError, ready_of, wait_for
from orchestrator.records.run_directory import RunDirectory
from orchestrator.records.trackers.base import RemoteAdvantages
from orchestrator.report.beside import ReportProcess
from orchestrator.report.plots import draw_curve
from rollout.types.completions import Group
from rollout.types.packed import PackedGroup

logger = logging.getLogger(__name__)

MAX_BEHIND = 2
"""Steps that may wait to be written, the one that is being written included, before the loop waits for the oldest."""
WRITE_TIMEOUT_S = 600.0
"""Deadline of one step, seconds: many times what thousands of long completions take."""


class RecorderLostError(RemoteCallError):
    """The recorder died, or does not answer; rollouts of a step are not written."""


class RolloutWriter:
    """The recorder's own process. Ray runs its calls in the order in which they were made."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._report = ReportProcess(directory.path)

    def __repr__(self) -> str:
        """Return the actor's name. Ray shows it with the actor, and its calls as `countdown/recorder.write`."""
        return ray.get_runtime_context().get_actor_name() or super().__repr__()

    def write(self, step: int, advantages: Sequence[Sequence[float]], pickled: bytes, *packed: PackedGroup) -> None:
        """Write a step's rollouts, and those of held-out prompts. Raises RunDirectoryError where the disk refuses.

        Args:
            step: whose they are.
            advantages: of each group's completions.
            pickled: the rewards and the learner's logprobs of each group, and the groups of held-out prompts.
            packed: the groups, as arguments so that Ray fetches them.
        """
        learned, held_out = pickle.loads(pickled)
        groups = [each.unpack().scored(rewards) for each, (rewards, _) in zip(packed, learned, strict=True)]
        if groups:
            logprobs = [recorded for _, recorded in learned]
            self._directory.write_rollouts(step, list(zip(groups, advantages, strict=True)), logprobs)
        if held_out:
            self._directory.write_held_out(step, held_out)

    def draw(self, with_report: bool) -> str | None:
        """Draw the curve of the steps so far, and start to write their report where it is asked for.

        Return why the curve, or the report before, could not be made; a run goes on without.
        """
        failures = [self._report.start() if with_report else None]
        try:
            draw_curve(self._directory.metrics(), self._directory.curve, self._directory.path.name)
        except Exception as error:  # noqa: BLE001  a picture must not end a run
            failures.append(f"{self._directory.curve} cannot be drawn: {error}")
        return "; ".join(filter(None, failures)) or None


class Recorder:
    """The driver's side: hands over each step, and knows what is written. It never gets more than MAX_BEHIND ahead."""

    def __init__(self, directory: RunDirectory, name: str) -> None:
        """Start the actor under that name, without waiting for it."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.actor: Any = RecorderActor.options(name=name, scheduling_strategy=here).remote(directory)
        self._pending: dict[int, Any] = {}
        """Calls by step, oldest first."""
        self._drawing: Any = None
        """The last call that draws."""

    def write(self, step: int, groups: RemoteAdvantages, held_out: Sequence[Group] = ()) -> None:
        """Have a step's rollouts written. Waits only where MAX_BEHIND steps are not yet.

        Raises what an earlier step has failed with: RecorderLostError, or RunDirectoryError where the disk refused.
        """
        while len(self._pending) >= MAX_BEHIND or self._is_oldest_done():
            self._await_oldest()
        references, advantages = [each.group.reference for each in groups], [each.advantages for each in groups]
        # Ray's own pickling calls Python for each object that is no plain tuple, list or number: 10 µs instead of 1.
        pickled = pickle.dumps(([(each.group.rewards, each.logprobs) for each in groups], held_out))
        self._pending[step] = self.actor.write.remote(step, advantages, pickled, *references)

    def draw(self, with_report: bool = False) -> None:
        """Have the curve drawn, and the report written, from what is logged by now. Never waits, and raises nothing."""
        self._tell_of_drawing()
        self._drawing = self.actor.draw.remote(with_report)

    def flush(self) -> None:
        """Return once every step is written. Raises as `write` does."""
        while self._pending:
            self._await_oldest()
        self._tell_of_drawing()

    def close(self) -> None:
        """Write what is left, and end the actor. A failure is logged: the run has ended, or has its own error."""
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001  for any reason
            logger.warning("%s", error)
        ray.kill(self.actor)

    def _tell_of_drawing(self) -> None:
        """Log why the last drawing failed, where it has ended."""
        if self._drawing is None or not ready_of([self._drawing], 0.0):
            return
        call, self._drawing = self._drawing, None
        try:
            failure = ray.get(call)
        except ray.exceptions.RayError:  # the actor died, which `write` and `flush` say
            return
        if failure is not None:
            logger.warning("%s", failure)

    def _is_oldest_done(self) -> bool:
        return bool(self._pending) and bool(ready_of([next(iter(self._pending.values()))], 0.0))

    def _await_oldest(self) -> None:
        step = next(iter(self._pending))
        call = {"the recorder": self._pending.pop(step)}
        try:
            wait_for(call, "write", WRITE_TIMEOUT_S, "is the disk of runs_dir slow, or its file system hanging?")
        except RemoteCallError as error:
            raise RecorderLostError(
                f"the rollouts of step {step} are not written: {error}. No checkpoint is sealed without them: start "
                "the same command again to resume from the last one"
            ) from error


RecorderActor: Any = ray.remote(num_cpus=0)(RolloutWriter)
